"""From a model to what servers, phones and other engines run; each file is run before it gets its name."""

import dataclasses
import importlib
import numbers
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit.exporters import checked, comparison_images, placing, process
from keras_bit.exporters.job import OUTPUT, Checks, ExportReport, Format, Job
from keras_bit.images.processor import BitImageProcessor
from keras_bit.labels import imagenet_labels, labels_of_checkpoint, names_of
from keras_bit.network import transforms
from keras_bit.network.model import MIN_SIZE, BiTModel

# Name to the module of `keras_bit.exporters`; Keras' own names mean the same.
FORMATS = {
    "saved_model": "saved_model",
    "tflite": "tflite",
    "onnx": "onnx",
    "openvino": "openvino",
    "huggingface": "huggingface",
    "tf_saved_model": "saved_model",
    "litert": "tflite",
}


def export(
    model: keras.Model,
    path: str | Path,
    format: str = "saved_model",
    *,
    processor: BitImageProcessor | None = None,
    labels: Sequence[str] | Mapping[int | str, str] | None = None,
    quantize: str | None = None,
    representative_data: Iterable[Any] | None = None,
    batch_size: int | None = None,
    image_size: int | tuple[int | None, int | None] | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Writes a model for another engine, runs what it wrote, and gives it its name if the outputs are the model's.

    Kernels are standardized once, before (`fuse`), and layers of half precision are written in float32, which their
    weights are. Everything is written aside, loaded in its own runtime and run on the first images of
    `representative_data`, or on patterns with the spectrum of photographs where there is none; what differs by more
    than the format's limit is removed. An export of a model on the JAX or PyTorch backend runs in a process of its own
    with TensorFlow, by the same call, and is compared with the model as its own backend runs it.

    A model that is not a BiT, such as a head of your own behind one, is written as it is, in every format but
    `"huggingface"`, if Keras can build its layers again from their configurations. As a SavedModel it has a signature
    for pixels alone. The outputs have the same names everywhere: those of a dict, else "probabilities" behind a softmax
    or sigmoid, "logits" behind a dense layer without, "features" or "last_hidden_state" of a BiT without a head, or
    "output". Of a BiT with a head a SavedModel gives both "logits" and "probabilities".

    Args:
        model: a functional or sequential model, of keras_bit or around one.
        path: the file to write; for `"saved_model"` the model's base directory, in which every call writes the next
            version; for `"huggingface"` the directory; for `"openvino"` the `.xml`, beside which its `.bin` will be.
        format: `"saved_model"` (TF Serving), `"tflite"`, `"onnx"`, `"openvino"` or `"huggingface"` (transformers'
            layout); Keras' own names `"tf_saved_model"` and `"litert"` mean the first two.
        processor: how images become the model's input. With it a SavedModel takes encoded images, too.
        labels: a name per class, as a sequence or a dict from index to name; `None` takes those of `model.config`.
        quantize: `None` (float32); for TFLite also `"float16"` (weights), `"dynamic"` (weights in 8 bits), `"int8"`
            (convolutions in 8 bits, normalization in float) or `"int8_full"` (everything, inputs and outputs too).
        representative_data: float32 batches `(batch, height, width, channels)` as the model takes them, some hundred
            images of the kind that will come; `"int8"` and `"int8_full"` need them. All are held in memory.
        batch_size: a fixed batch size; `None` is any, and 1 for TFLite.
        image_size: a fixed size in pixels, an int or (height, width); `None` is the model's own: any, but for TFLite,
            which takes the processor's, or 224. `(None, None)` is any for TFLite, too.
        overwrite: whether an existing `path` is replaced (a SavedModel never is: it gets the next version).
        progress: is called with a line at the beginning of each step.

    Returns:
        An `ExportReport`: `path`, `bytes`, `max_abs_diff`, and what they are to be read with.

    Raises:
        ValueError: an argument is out of its range, or options do not fit each other or the format. Nothing is written.
        FileExistsError: `path` exists, and `overwrite` is False; or it holds more than an export.
        NotADirectoryError: `path` is in a file, or, for a SavedModel, is one.
        RuntimeError: the process with TensorFlow, for a model of another backend, crashed.
        ImportError: the format needs a package that is not installed; the message names the command.
        ArithmeticError: what was written gives other numbers than the model. Nothing stays at `path`.

    Checked against the runtimes themselves: TensorFlow, LiteRT, onnxruntime, OpenVINO.
    """
    started = time.perf_counter()
    if not isinstance(format, str) or format not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(map(repr, FORMATS))}, got {format!r}.")
    name = FORMATS[format]
    writer: Format = importlib.import_module(f"keras_bit.exporters.{name}")
    if quantize not in writer.QUANTIZATIONS:
        known = ", ".join(map(repr, writer.QUANTIZATIONS))
        one_of = "one of " if len(writer.QUANTIZATIONS) > 1 else ""
        raise ValueError(f"`quantize` must be {one_of}{known} for the format {name!r}, got {quantize!r}.")
    if processor is not None and not isinstance(processor, BitImageProcessor):
        raise ValueError(f"`processor` must be a keras_bit.BitImageProcessor, got {type(processor).__name__}.")
    if batch_size is not None and (not _is_whole(batch_size) or batch_size < 1):
        raise ValueError(f"`batch_size` must be a positive whole number or None, got {batch_size!r}.")
    if not isinstance(overwrite, bool):
        raise ValueError(f"`overwrite` must be True or False, got {overwrite!r}.")
    transforms.check_graph(model)
    if isinstance(model, keras.Sequential) and len(model.inputs) == len(model.outputs) == 1:
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    _check_ends(model)
    if model.input_shape[0] is not None and batch_size not in (None, model.input_shape[0]):
        raise ValueError(f"`batch_size` must be the {model.input_shape[0]} of the model's input, got {batch_size!r}.")
    job = Job(
        model=model,
        processor=processor,
        labels=_labels(model, labels),
        quantize=quantize,
        representative_data=_checked_data(model, representative_data),
        batch_size=None if batch_size is None else int(batch_size),
        image_size=_image_size(model, image_size),
        tell=progress or (lambda line: None),
    )
    try:
        path = Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"`path` must be in a directory that is known, got {str(path)!r}: {error}") from None
    writer.check(job)
    target = writer.target(path)
    if target.name in ("", ".."):
        raise ValueError(f"`path` must end in the name of what is to be written, got {str(path)!r}.")
    placing.check_places(writer, target, overwrite)

    comparison_images.warn_of_data(job)
    job.tell("running the model on the images to compare")
    batches = comparison_images.batches(job, writer.shape(job))
    checks = Checks(batches, [_outputs(model, batch) for batch in batches])
    here = keras.backend.backend() == "tensorflow" or not writer.NEEDS_TENSORFLOW
    written = checked.written if here else process.written
    report = checked.write_and_check(written, writer, name, job, path, checks, overwrite)
    return dataclasses.replace(report, seconds=time.perf_counter() - started)


def _check_ends(model: keras.Model) -> None:
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ValueError(
            f"`model` must take one batch of images, (batch, height, width, channels), got inputs of {shapes}."
        )
    outputs = model.output.values() if isinstance(model.output, Mapping) else [model.output]
    if not all(isinstance(output, keras.KerasTensor) for output in outputs):
        raise ValueError(
            f"`model` must give one tensor or a dict of them, got a {type(model.output).__name__}. Name them: "
            "`keras.Model(model.input, {'first': ..., 'second': ...})`."
        )


def _labels(model: keras.Model, labels: Any) -> tuple[str, ...] | None:
    """A name for each output of the head; `None` where there is no head, or nothing is known about it."""
    classes = None if isinstance(model.output, Mapping | Sequence) else model.output_shape[-1]
    has_head = classes is not None and len(model.output_shape) == 2
    if labels is not None:
        if not has_head:
            raise ValueError("`labels` name the classes of a head, which `model` does not have.")
        if isinstance(labels, Sequence) and not isinstance(labels, str | bytes) and len(labels) != classes:
            raise ValueError(
                f"`labels` must have a name for each of the {classes} classes of `model`, in the order of its outputs, "
                f"got {len(labels)}."
            )
        names = names_of(labels, classes)
        for index, one in enumerate(names):
            if not one.isprintable() and any("\ud800" <= character <= "\udfff" for character in one):
                raise ValueError(f"`labels` must be text that UTF-8 can hold, got {one!r} for class {index}.")
        return names
    if not has_head or not isinstance(model, BiTModel) or model.config.num_labels != classes:
        return None
    known = labels_of_checkpoint(model.config.id2label)
    if known is not None:
        return names_of(known, classes)
    return tuple(names for _, names in imagenet_labels(classes))


def _image_size(model: keras.Model, image_size: Any) -> tuple[int | None, int | None] | None:
    if image_size is None:
        return None
    size = (image_size, image_size) if _is_whole(image_size) else image_size
    sides = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else ()
    whole = all(side is None or _is_whole(side) for side in sides)
    if len(sides) != 2 or not whole or any(side is not None and side < MIN_SIZE for side in sides):
        raise ValueError(
            f"`image_size` must be a whole number of pixels, at least {MIN_SIZE}, or (height, width), got "
            f"{image_size!r}."
        )
    fixed = model.input_shape[1:3]
    if any(own is not None and own != side for own, side in zip(fixed, sides, strict=True)):
        raise ValueError(
            f"`image_size` must be the {fixed[0]}x{fixed[1]} px of the model's input, got {image_size!r}. Build the "
            "model with `input_shape=(None, None, 3)` for other sizes."
        )
    return tuple(None if side is None else int(side) for side in sides)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)  # numpy's too


def _checked_data(model: keras.Model, data: Any) -> list[np.ndarray] | None:
    """The batches as float32 arrays, held: a generator can be gone through only once."""
    if data is None:
        return None
    if not isinstance(data, Iterable):
        raise ValueError(f"`representative_data` must be an iterable of batches, got {type(data).__name__}.")
    batches = []
    for batch in data:
        array = np.asarray(batch[0] if isinstance(batch, tuple) else batch)
        if array.ndim != 4 or array.dtype != np.float32 or array.shape[-1] != model.input_shape[-1] or not array.size:
            raise ValueError(
                "`representative_data` must give float32 batches (batch, height, width, "
                f"{model.input_shape[-1]}) as the model takes them, got {array.dtype} {array.shape}. "
                "`image_dataset(..., batch_size=8)` gives them, and `processor(images)` one."
            )
        if not np.isfinite(array).all():
            raise ValueError("`representative_data` must be finite, got NaN or infinity.")
        batches.append(array)
    if not batches:
        raise ValueError("`representative_data` must give at least one batch, got none.")
    return batches


def _outputs(model: keras.Model, batch: np.ndarray) -> dict[str, np.ndarray]:
    outputs = model(batch, training=False)
    named = outputs if isinstance(outputs, Mapping) else {OUTPUT: outputs}
    arrays = {name: keras.ops.convert_to_numpy(keras.ops.cast(values, "float32")) for name, values in named.items()}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"`model` gives NaN or infinity for `{name}`: there is nothing to compare an export with.")
    return arrays
