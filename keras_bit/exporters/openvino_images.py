"""The steps of a `BitImageProcessor` inside an OpenVINO file, which then takes uint8 images.

OpenVINO resizes as Pillow does, with weights in float32 instead of whole numbers, so that a value may be rounded to a
neighboring gray level, in each direction of the resize. The first direction is that of the Pillow that is installed
when the file is made. All sizes are computed in the graph: where the images have one
size, OpenVINO knows them all before it runs.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from keras_bit.exporters import comparing, comparison_images
from keras_bit.exporters.job import Job, Run, Shape
from keras_bit.exporters.onnx_file import INPUT
from keras_bit.exporters.openvino_package import import_openvino
from keras_bit.exporters.output_names import clash
from keras_bit.images import pass_order
from keras_bit.images.processor import BitImageProcessor

IMAGES = "images"  # the input; `INPUT` is what the network gets
CHANNELS = 3
MODES = {Image.Resampling.BILINEAR: "bilinear_pillow", Image.Resampling.BICUBIC: "bicubic_pillow"}
CUBIC = -0.5  # the coefficient of Pillow's filter
SIDES = (1, 2)  # the axes of height and width
MOST_LEVELS = 2  # gray levels that a value may differ by
ROUNDING = 0.25  # gray levels, of constants that were rounded to float16
COMPARED_SIZES = ((300, 400), (230, 150))  # px
WHAT = "openvino, images"


def check(job: Job) -> None:
    """Refuses a job whose preprocessing cannot be in the file."""
    processor = job.processor
    if processor is None:
        raise ValueError("`processor` must be given for `include_preprocessing=True`, got None: its steps go inside.")
    if reason := clash(job.model, IMAGES, "openvino"):
        raise ValueError(reason)
    channels = job.model.input_shape[-1]
    if channels != CHANNELS:
        raise ValueError(
            f"`include_preprocessing` must be False for a model of {channels} channels, got True: the images are RGB."
        )
    if processor.do_resize and processor.resample not in MODES:
        raise ValueError(
            "`processor` must resize with `resample` 2 (bilinear) or 3 (bicubic) for `include_preprocessing=True`, got "
            f"{int(processor.resample)}: OpenVINO has only these of Pillow's filters."
        )
    wanted, found = job.model.input_shape[1:3], processor.fixed_size or (None, None)
    if any(own is not None and own != side for own, side in zip(wanted, found, strict=True)):
        raise ValueError(
            f"`processor` must give every image the {wanted[0]}x{wanted[1]} px of the model's input for "
            f"`include_preprocessing=True`, got {'any size' if found[0] is None else f'{found[0]}x{found[1]} px'}."
        )


def network_shape(job: Job) -> Shape:
    """Returns the shape of the pixels that the preprocessing gives to the network."""
    assert job.processor is not None  # as `check` has found
    return job.batch_size or job.model.input_shape[0], *(job.processor.fixed_size or (None, None))


def put_in_front(model: Any, job: Job) -> None:
    """Replaces the input of an `openvino.Model` by images and the processor's steps."""
    openvino, ops = import_openvino(), _operations()
    assert job.processor is not None
    batch = job.batch_size or job.model.input_shape[0]
    shape = [-1 if side is None else side for side in (batch, *(job.image_size or (None, None)))]
    images = ops.parameter([*shape, CHANNELS], openvino.Type.u8, name=IMAGES)
    images.output(0).get_tensor().set_names({IMAGES})
    network = model.get_parameters()[0]
    network.output(0).get_tensor().set_names(set())  # else the images get them, too
    pixels = _cropped(_resized(images, job.processor), job.processor)
    pixels = _normalized(ops.convert(pixels, network.get_element_type()), job.processor)
    pixels.set_friendly_name(INPUT)
    pixels.output(0).get_tensor().set_names({INPUT})
    for target in network.output(0).get_target_inputs():
        target.replace_source_output(pixels.output(0))
    model.replace_parameter(0, images)
    model.validate_nodes_and_infer_types()


def network_of(model: Any) -> Any:
    """Returns the network without the preprocessing before it; changes `model`."""
    pixels = _pixels(model)
    network = _operations().parameter(pixels.get_partial_shape(), pixels.get_element_type(), name=INPUT)
    network.output(0).get_tensor().set_names({INPUT})
    for target in pixels.get_target_inputs():
        target.replace_source_output(network.output(0))
    return import_openvino().Model(model.get_results(), [network])


def compare(job: Job, run: Run, share: float) -> None:
    """Compares what the steps give with the processor's values, and the outputs with the model's for these.

    Args:
        run: the whole file, whose outputs are the model's and `INPUT`, the pixels that the network got.
        share: the share of the largest output by which the outputs may differ.

    Raises:
        ArithmeticError: they differ by more.
    """
    assert job.processor is not None
    for images in _images(job):
        found = dict(run(images))
        pixels = found.pop(INPUT)
        _compare_pixels(job.processor, images, pixels)
        comparing.compare_outputs(found, comparing.outputs(job.model, pixels), share, WHAT)


def _resized(images: Any, processor: BitImageProcessor) -> Any:
    if not processor.do_resize:
        return images
    ops = _operations()
    sides = _sides(images)
    if "shortest_edge" in processor.size:
        short = ops.reduce_min(sides, _whole([0]), keep_dims=True)
        # Both in whole numbers: the shorter side becomes exactly what is asked for, the longer one is rounded down.
        sizes = ops.divide(ops.multiply(sides, _whole([processor.size["shortest_edge"]])), short)
    else:
        sizes = _whole([processor.size["height"], processor.size["width"]])
    # In two steps, as it is rounded to gray levels in between: a direction whose size stays is not changed.
    for each in (_after_one_direction(sides, sizes), sizes):
        images = ops.interpolate(
            images, each, MODES[processor.resample], "sizes", [0] * 4, [0] * 4, cube_coeff=CUBIC, axes=_whole(SIDES)
        )
    return images


def _after_one_direction(sides: Any, sizes: Any) -> Any:
    """Returns the sizes after the direction that Pillow resizes first."""
    ops = _operations()
    height, width, rows, columns = (
        ops.gather(pair, _whole([one]), _whole(0)) for pair in (sides, sizes) for one in (0, 1)
    )
    horizontal_first = ops.concat([height, columns], 0)
    rule, zero = pass_order.vertical_first(), _whole([0])
    if rule == pass_order.NEVER:
        return horizontal_first
    saved = ops.subtract(height, rows)
    if rule == pass_order.VERY_HIGH:
        is_high = ops.greater(height, ops.multiply(width, _whole([100])))
        saves = ops.logical_and(ops.greater(saved, zero), is_high)
    else:
        twice = ops.multiply(ops.subtract(width, columns), _whole([2]))
        saves = ops.greater(saved, ops.maximum(twice, zero))
    return ops.select(saves, ops.concat([rows, width], 0), horizontal_first)


def _cropped(images: Any, processor: BitImageProcessor) -> Any:
    """Crops the middle, with zeros around an image that is smaller."""
    if not processor.do_center_crop:
        return images
    ops = _operations()
    size = (processor.crop_size["height"], processor.crop_size["width"])
    crop, sides, zero, two = _whole(size), _sides(images), _whole([0]), _whole([2])
    # A division of numbers below 0 would round the other way.
    start = ops.divide(ops.maximum(ops.subtract(sides, crop), zero), two)
    if _may_lack(processor, size):
        lacking = ops.maximum(ops.subtract(crop, sides), zero)
        before = ops.divide(ops.add(lacking, _whole([1])), two)
        around = [ops.concat([zero, pads, zero], 0) for pads in (before, ops.subtract(lacking, before))]
        images = ops.pad(images, *around, "constant", ops.constant(0, images.output(0).get_element_type()))
    images = ops.slice(images, start, ops.add(start, crop), _whole([1, 1]), _whole(SIDES))
    return ops.reshape(images, _whole([0, *size, CHANNELS]), special_zero=True)  # which tells the network its size


def _may_lack(processor: BitImageProcessor, crop: tuple[int, int]) -> bool:
    """Returns whether a resized image may be smaller than what is cropped."""
    if not processor.do_resize:
        return True
    least = [processor.size.get(side, processor.size.get("shortest_edge", 0)) for side in ("height", "width")]
    return any(side < wanted for side, wanted in zip(least, crop, strict=True))


def _normalized(pixels: Any, processor: BitImageProcessor) -> Any:
    ops = _operations()
    if processor.do_rescale:
        pixels = ops.multiply(pixels, _fraction(processor.rescale_factor))
    if processor.do_normalize:
        pixels = ops.subtract(pixels, _fraction(processor.image_mean))
        pixels = ops.divide(pixels, _fraction(processor.image_std))
    return pixels


def _sides(images: Any) -> Any:
    """Returns height and width, as whole numbers of the graph."""
    ops = _operations()
    return ops.gather(ops.shape_of(images, "i64"), _whole(SIDES), _whole(0))


def _whole(values: Any) -> Any:
    return _operations().constant(np.array(values, np.int64))


def _fraction(values: Any) -> Any:
    return _operations().constant(np.array(values, np.float32))


def _operations() -> Any:
    import_openvino()
    from openvino import opset13

    return opset13


def _pixels(model: Any) -> Any:
    """Returns the output of an operation that the network reads."""
    return next(
        output for operation in model.get_ops() for output in operation.outputs() if INPUT in output.get_names()
    )


def _images(job: Job) -> Iterator[np.ndarray]:
    """Returns batches of uint8 images, of two sizes or the file's: patterns, and noise, which shows another filter."""
    count = job.batch_size or job.model.input_shape[0] or 2
    height, width = job.image_size or (None, None)
    for seed, default in enumerate(COMPARED_SIZES):
        size = (height or default[0], width or default[1])
        images = comparison_images.patterns(count, size, CHANNELS, None, seed, np.uint8)
        noise = np.random.default_rng(seed).integers(0, 128, images.shape, np.uint8)
        yield images // 2 + noise


def _compare_pixels(processor: BitImageProcessor, images: np.ndarray, pixels: np.ndarray) -> None:
    expected = processor(list(images), input_data_format="channels_last")
    level = (abs(processor.rescale_factor) if processor.do_rescale else 1) * np.ones(CHANNELS)
    if processor.do_normalize:
        level = level / np.array(processor.image_std)
    if pixels.shape != expected.shape:
        raise ArithmeticError(
            f"The export ({WHAT}) makes pixels of shape {pixels.shape} from the images, but the processor makes "
            f"{expected.shape}."
        )
    difference = np.abs(pixels.astype(np.float64) - expected)
    if not (difference <= (MOST_LEVELS + ROUNDING) * level).all():
        raise ArithmeticError(
            f"The export ({WHAT}) gives other pixels than `processor`, by up to {np.max(difference / level):.3g} gray "
            f"levels, more than the {MOST_LEVELS} allowed. Nothing was kept."
        )
