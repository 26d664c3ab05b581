"""The format "web": a folder for any server of static files, whose page classifies in the browser.

The model is an ONNX file, which onnxruntime-web runs; `graph` describes its outputs.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit.exporters.formats import Format, share
from keras_bit.exporters.job import OUTPUT, Job, Run, Shape
from keras_bit.exporters.onnx import ONNX
from keras_bit.exporters.output_names import has_head, output_names
from keras_bit.exporters.web import graph, runtime, weights
from keras_bit.images import pass_order
from keras_bit.images.processor import BitImageProcessor
from keras_bit.network.positions import of_last_map

MODEL, SETTINGS, LABELS = "model.onnx", "settings.json", "labels.json"
PAGES = Path(__file__).with_name("page")  # files that are copied unchanged, except index.html
SOURCES = " {runtime-sources}"  # placeholder in index.html for further addresses that the page may connect to
CHANNELS = 3
IR_VERSION = 10  # an older version of ONNX files, for engines in browsers
ACTIVATIONS = {keras.activations.softmax: "Softmax", keras.activations.sigmoid: "Sigmoid"}
# As shares of the largest output; see `tflite.LIMITS`.
LIMITS = {None: 1e-4, "float16": 2e-2, "int8": 0.3}
SUM_LIMIT = 1e-3  # for scores in [0, 1], from float32 sums in two orders


class Web(Format):
    """A directory with `index.html` and its files, `model.onnx`, `labels.json` and `settings.json`."""

    name = "web"
    packages = ("onnx", "onnxruntime")
    quantizations = tuple(LIMITS)
    kind = "directory"

    def needs_tensorflow(self, model: keras.Model) -> bool:
        return ONNX().needs_tensorflow(model)

    def refusal(self, model: keras.Model, quantize: str | None) -> str:
        return ONNX().refusal(model, None)

    def entries(self, place: Path, processor: bool) -> frozenset[str]:
        ours = {file.name for file in PAGES.iterdir()} | {MODEL, SETTINGS, LABELS}
        return frozenset({*ours, runtime.COPIED} if runtime.is_copy(place / runtime.COPIED) else ours)

    def check(self, job: Job) -> None:
        _check_model(job.model)
        size = _check_processor(job.processor)
        fixed = job.model.input_shape[1:3]
        if any(own not in (None, made) for own, made in zip(fixed, size, strict=True)):
            raise ValueError(f"`processor` makes {_px(size)} px, but `model` takes {_px(fixed)}. Make them equal.")
        if job.batch_size not in (None, 1):
            raise ValueError(f"`batch_size` must be None or 1 for the format 'web', got {job.batch_size}.")
        if job.image_size not in (None, (None, None), size):
            raise ValueError(
                f"`image_size` must be None or the {_px(size)} px that `processor` makes for the format 'web', got "
                f"{_px(job.image_size)}."
            )
        if job.runtime is not None:
            runtime.check_package(job.runtime)
        ONNX().check(dataclasses.replace(job, quantize=None))  # whose int8 is calibrated

    def shape(self, job: Job) -> Shape:
        return 1, *_check_processor(job.processor)

    def write(self, job: Job, path: Path) -> None:
        path.mkdir()
        _write_model(job, path / MODEL, _check_processor(job.processor))
        job.progress("writing the page")
        if job.runtime is not None:
            runtime.copy(job.runtime, path / runtime.COPIED)
        _write_page(job, path)

    def load(self, job: Job, path: Path) -> Run:
        import onnxruntime

        session = onnxruntime.InferenceSession(path / MODEL, providers=["CPUExecutionProvider"])
        (scores,) = output_names(job.model)

        def run(batch: np.ndarray) -> dict[str, np.ndarray]:
            found, classes, maps = session.run([scores, graph.CLASSES, graph.MAPS], {"pixel_values": batch})
            head = _head(job.model)
            _check_sums(head, found, classes, maps)
            if job.quantize is None:  # rounded weights change a map more than a score, which is not an error
                _check_maps(job.model, head, batch, classes, maps, share(self.limit(job), job.model))
            return {OUTPUT: found}

        return run

    def limit(self, job: Job) -> float:
        return LIMITS[job.quantize]


def _check_sums(head: graph.Head, scores: np.ndarray, classes: np.ndarray, maps: np.ndarray) -> None:
    """Checks that the mean of each map plus the bias is the logit of its class."""
    logits = maps.mean(axis=(2, 3), dtype=np.float64) + head.bias[classes]
    best = np.take_along_axis(scores, classes, axis=1)
    if head.activation == "Softmax":
        found, expected = best / best[:, :1], np.exp(logits - logits[:, :1])
    else:
        found, expected = best, 1 / (1 + np.exp(-logits))
    difference = np.abs(found - expected).max()
    if not difference <= SUM_LIMIT:
        raise ArithmeticError(
            f"The class activation maps of the export do not add up to its scores, by {difference:.2e}, more than the "
            f"allowed {SUM_LIMIT:.0e}. Nothing was kept."
        )


def _check_maps(
    model: keras.Model, head: graph.Head, batch: np.ndarray, classes: np.ndarray, maps: np.ndarray, limit: float
) -> None:
    features = keras.Model(model.input, model.get_layer("avg_pool").input)(batch, training=False)
    places = keras.ops.convert_to_numpy(features).astype(np.float64)
    expected = np.einsum("byxk,bck->bcyx", places, head.kernel[classes], optimize=True)
    difference, allowed = np.abs(maps - expected).max(), limit * np.abs(expected).max()
    if not difference <= allowed:
        raise ArithmeticError(
            f"The export (web) differs from the model by {difference:.2e} in the class activation maps, more than the "
            f"allowed {allowed:.2e}. Nothing was kept."
        )


def _check_model(model: keras.Model) -> None:
    """Refuses models without class activation maps."""
    layers = {layer.name: layer for layer in getattr(model, "layers", ())}
    pool, head = layers.get("avg_pool"), layers.get("predictions")
    linear = isinstance(pool, keras.layers.GlobalAveragePooling2D) and isinstance(head, keras.layers.Dense)
    if head is None or not linear or not has_head(model) or model.output is not head.output:
        raise ValueError(
            "`model` must be a BiT that keras_bit built, with its head, the layer 'predictions' over 'avg_pool', for "
            f"the format 'web', got {type(model).__name__} {model.name!r} with the outputs "
            f"{list(output_names(model))}. Load it with `include_top=True`."
        )
    if head.activation not in ACTIVATIONS:
        raise ValueError(
            "`model` must give probabilities for the format 'web', got the activation "
            f"{getattr(head.activation, '__name__', head.activation)!r}. Load it with "
            "`classifier_activation='softmax'` or 'sigmoid'."
        )
    if model.input_shape[-1] != CHANNELS:
        raise ValueError(
            f"`model` must take 3 channels for the format 'web', whose page reads images as RGB, got "
            f"{model.input_shape[-1]}."
        )


def _check_processor(processor: BitImageProcessor | None) -> tuple[int, int]:
    """Returns the (height, width) of every processed image."""
    if processor is None:
        raise ValueError("`processor` must be given for the format 'web', because the page prepares images like it.")
    if not processor.do_convert_rgb:
        raise ValueError("`processor` must have `do_convert_rgb=True` for the format 'web': the page reads RGB only.")
    size = processor.fixed_size
    if size is None:
        raise ValueError(
            "`processor` must make every image the same size for the format 'web': by `do_center_crop=True`, or by "
            f"`do_resize=True` to a `size` with height and width. Got do_center_crop={processor.do_center_crop}, "
            f"do_resize={processor.do_resize}, size={dict(processor.size)}."
        )
    return size


def _px(size: tuple[int | None, int | None] | None) -> str:
    return "x".join("any" if side is None else str(side) for side in size or ())


def _head(model: keras.Model) -> graph.Head:
    layer = model.get_layer("predictions")
    kernel, bias = (keras.ops.convert_to_numpy(keras.ops.cast(one, "float32")) for one in (layer.kernel, layer.bias))
    (scores,) = output_names(model)
    return graph.Head(kernel.T, bias, ACTIVATIONS[layer.activation], scores)


def _write_model(job: Job, file: Path, size: tuple[int, int]) -> None:
    import onnx

    last = job.model.get_layer("avg_pool").input
    without_head = type(job.model)(job.model.input, last, name=job.model.name)
    ONNX().write(
        dataclasses.replace(job, model=without_head, labels=None, quantize=None, batch_size=1, image_size=size), file
    )
    model = onnx.load(file)
    _, height, width, _ = without_head.compute_output_shape((1, *size, CHANNELS))
    graph.add_head(model, _head(job.model), (height, width))
    weights.make_smaller(model, job.quantize)
    model.ir_version = min(model.ir_version, IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def _write_page(job: Job, path: Path) -> None:
    address = runtime.ADDRESS if job.runtime is None else f"{runtime.COPIED}/"
    for file in PAGES.iterdir():
        shutil.copyfile(file, path / file.name)
    index = path / "index.html"
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace(SOURCES, f" {address}" if job.runtime is None else ""), encoding="utf-8")
    classes = job.model.output_shape[-1]
    labels = job.labels or tuple(f"class {index}" for index in range(classes))
    _write_json(path / LABELS, labels)
    stride, first = of_last_map(job.model.config)
    _write_json(
        path / SETTINGS,
        {
            "model": {
                "file": MODEL,
                "bytes": (path / MODEL).stat().st_size,
                "name": job.model.name,
                "scores": output_names(job.model)[0],
                "weights": job.quantize or "float32",
                "map": {"stride": stride, "first": first},
            },
            "labels": LABELS,
            "processor": described(job.processor),
            "runtime": runtime.settings(address),
        },
    )


def described(processor: BitImageProcessor | None) -> dict[str, Any]:
    """Returns the processor's options, and the resizing order of the installed Pillow."""
    assert processor is not None  # `check` refuses it
    return processor.to_dict() | {"vertical_first": pass_order.vertical_first()}


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
