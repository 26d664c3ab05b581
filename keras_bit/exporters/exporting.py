"""Exports a model for servers, phones and other engines; each file is run before it gets its name."""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import keras

from keras_bit import packages
from keras_bit.exporters import (
    arguments,
    checked,
    comparing,
    comparison_images,
    machine,
    placing,
    process,
    processor_advice,
)
from keras_bit.exporters.formats import Format
from keras_bit.exporters.job import Checks, ExportReport, Job
from keras_bit.exporters.registry import FORMATS, format_named
from keras_bit.files import writing
from keras_bit.images.processor import BitImageProcessor
from keras_bit.labels import Labels

# Bytes per weight by quantization, the least that is needed.
SMALLEST = {None: 4, "float16": 2}


def export(
    model: keras.Model,
    path: str | Path,
    format: str = "saved_model",
    *,
    processor: BitImageProcessor | None = None,
    labels: Labels | None = None,
    quantize: str | None = None,
    representative_data: Iterable[Any] | None = None,
    batch_size: int | None = None,
    image_size: int | tuple[int | None, int | None] | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
    runtime: str | Path | None = None,
    include_preprocessing: bool = False,
) -> ExportReport:
    """Exports a model for another engine, and checks that the outputs match.

    The model is fused first (`fuse`), and layers of half precision are written in float32, the type of their weights.
    Each export is loaded in its own runtime and compared with the Keras model, on the first images of
    `representative_data` or on patterns like photographs. Only if the outputs match within the format's limit is it
    moved to its final name. For the JAX and PyTorch backends the export runs in another process with TensorFlow, and is
    compared with the model on its own backend.

    If the model's input has whole numbers, such as uint8, the file takes them too; every other file takes float32.

    A model around a BiT, such as one with your own head, is supported in every format but `"huggingface"`, if Keras can
    build its layers again from their configs. Its SavedModel has a signature for pixels only. Outputs have the same
    names in every format: those of a dict, else "probabilities" after a softmax or sigmoid, "logits" after a dense
    layer without one, "features" or "last_hidden_state" for a BiT without a head, or "output". The SavedModel of a BiT
    with a head gives both "logits" and "probabilities".

    Args:
        model: a functional or sequential model, of keras_bit or around one; or a `BiTClassifier`, with its own
            processor.
        path: the file to write. For these formats it is something else:

            * `"saved_model"`: the model's base directory, in which every call writes the next version;
            * `"huggingface"` and `"web"`: the directory;
            * `"openvino"`: the `.xml` file, next to which the `.bin` file is written.
        format: the form of the export:

            * `"saved_model"`, the default: for TF Serving. Keras calls it `"tf_saved_model"`, which works too;
            * `"tflite"`: for phones. Keras calls it `"litert"`, which works too;
            * `"onnx"` and `"openvino"`: for the engines of these names;
            * `"web"`: a page that classifies in the browser;
            * `"huggingface"`: transformers' layout.
        processor: a `BitImageProcessor`: how images become the model's input. With it a SavedModel also takes encoded
            images; `"web"` needs it. Default `None`.
        labels: a name per class, as a sequence or a dict from index to name. `None`, the default, takes those of
            `model.config`.
        quantize: the precision of the file. `None`, the default, is float32. Each format has its own choices:

            * `"tflite"`: `"float16"` (weights), `"dynamic"` (weights in 8 bits), `"int8"` (convolutions in 8 bits,
              normalization in float) or `"int8_full"` (everything, including inputs and outputs);
            * `"web"`: `"float16"` or `"int8"`, of the weights only;
            * `"onnx"`: `"int8"` (convolutions and dense layers in 8 bits, everything else in float);
            * `"openvino"`: `"float16"`, of the weights only, or, for a BiT without layers around it, `"int8"` as for
              `"onnx"`.
        representative_data: some hundred typical images, as batches `(batch, height, width, channels)` for the model:
            float32, or the model's whole numbers. `"int8"` and `"int8_full"` need them, except for `"web"`. All are
            held in memory. Default `None`.
        batch_size: the only batch size that the file takes, at least 1. `None`, the default, is any, and 1 for TFLite.
        image_size: the only size of images that the file takes, in pixels, at least 32: an int, or `(height, width)`.
            `None`, the default, is the model's own: any size, except for TFLite, which takes the processor's, or 224.
            `(None, None)` is any size for TFLite too.
        overwrite: whether to replace an existing `path`. A SavedModel gets the next version instead. Default `False`.
        progress: a function that is called with a line of text at the beginning of each step. Default `None`.
        runtime: for `"web"` only: the directory of a local npm package `onnxruntime-web`, from which the page's runtime
            is copied. `None`, the default, lets the page load it from jsDelivr. Both are checked against the hashes of
            one version.
        include_preprocessing: for `"openvino"` only: whether the file takes uint8 images `(batch, height, width, 3)` of
            any size, or of `image_size`, and resizes, crops and normalizes them as `processor` does. Its resize is
            OpenVINO's form of Pillow's, whose values differ from Pillow's by at most two of the 256 gray levels.
            Default `False`.

    Returns:
        An `ExportReport`: `path`, `bytes`, `max_abs_diff` and more, and `advice`, a sentence on which file to use on
        this processor.

    Raises:
        ValueError: an argument is out of its range, or options do not fit each other or the format. Nothing is written.
        FileExistsError: `path` exists, and `overwrite` is False; or it holds more than an export.
        NotADirectoryError: `path` is in a file, or, for a SavedModel, is one.
        OSError: `path` cannot be written, or the disk is full.
        RuntimeError: the process with TensorFlow, for a model of another backend, crashed.
        ImportError: the format needs a package that is not installed; the message names the command.
        ArithmeticError: the export gives other numbers than the model. Nothing stays at `path`.

    Checked against the runtimes themselves: TensorFlow, LiteRT, onnxruntime, OpenVINO.
    """
    started = time.perf_counter()
    writer = _format(format, quantize)
    if processor is not None and not isinstance(processor, BitImageProcessor):
        raise ValueError(f"`processor` must be a keras_bit.BitImageProcessor, got {type(processor).__name__}.")
    if not isinstance(overwrite, bool):
        raise ValueError(f"`overwrite` must be True or False, got {overwrite!r}.")
    if not isinstance(include_preprocessing, bool):
        raise ValueError(f"`include_preprocessing` must be True or False, got {include_preprocessing!r}.")
    if include_preprocessing and writer.name != "openvino":
        raise ValueError(
            f"`include_preprocessing` must be False for the format {writer.name!r}, got True: only an 'openvino' file "
            "has its own. A SavedModel takes encoded images if `processor` is given. Leave it out."
        )
    if runtime is not None and writer.name != "web":
        raise ValueError(f"`runtime` must be None for the format {writer.name!r}: only a 'web' page has one.")
    model, processor = arguments.taken_apart(model, processor)
    model = arguments.checked_model(model)
    arguments.check_processor(model, processor)
    job = Job(
        model=model,
        processor=processor,
        labels=arguments.checked_labels(model, labels),
        quantize=quantize,
        representative_data=arguments.checked_data(model, representative_data),
        batch_size=arguments.checked_batch_size(model, batch_size),
        image_size=arguments.checked_image_size(model, image_size, include_preprocessing),
        progress=progress or (lambda line: None),
        runtime=None if runtime is None else arguments.expanded(runtime, "runtime"),
        include_preprocessing=include_preprocessing,
    )
    path = _checked_path(path, writer, overwrite, processor is not None)
    needs_tensorflow = writer.needs_tensorflow(model)
    if needs_tensorflow:
        packages.require_tensorflow(f"`format` {writer.name!r}")
    for package in writer.packages:
        packages.require(package, writer.name, f"`format` {writer.name!r}")
    if reason := writer.refusal(model, quantize):
        raise ValueError(reason)
    writer.check(job)
    writing.check_room(path, model.count_params() * SMALLEST.get(quantize, 1))

    comparison_images.warn_of_data(job)
    arguments.warn_of_one_class(model)
    job.progress("running the model on the images to compare")
    batches = comparison_images.batches(job, writer.shape(job))
    here = keras.backend.backend() == "tensorflow" or not needs_tensorflow
    written = checked.written if here else process.written
    with _without_repetitions():
        checks = Checks(batches, [comparing.outputs(model, batch) for batch in batches])
        report = checked.write_and_check(written, writer, job, path, checks, overwrite)
    advice = processor_advice.sentence(report.format, quantize, machine.machine(), _quantizable(model))
    return dataclasses.replace(report, seconds=time.perf_counter() - started, advice=advice)


def _quantizable(model: keras.Model) -> list[str]:
    """Returns the formats that take the model with `quantize="int8"`, for engines on this machine."""
    int8 = processor_advice.INT8
    return [name for name in processor_advice.QUANTIZABLE if not format_named(name).refusal(model, int8)]


def check_path(path: str | Path, format: str, overwrite: bool) -> None:
    """Raises what `export` would raise about `path`, before there is a model."""
    _checked_path(path, _format(format, None), overwrite)


def quantizations(format: str) -> tuple[str | None, ...]:
    """Returns the values of `quantize` that a format has."""
    return _format(format, None).quantizations


def is_calibrated(format: str, quantize: str | None) -> bool:
    """Returns whether `export` needs `representative_data` for a file."""
    return quantize in _format(format, quantize).calibrated


def _checked_path(path: str | Path, writer: Format, overwrite: bool, processor: bool = True) -> Path:
    path = arguments.expanded(path)
    target = writer.target(path)
    if target.name in ("", ".."):
        raise ValueError(f"`path` must end in a name for the export, got {str(path)!r}.")
    placing.check_places(writer, target, overwrite, processor)
    return path


def _format(name: str, quantize: str | None) -> Format:
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(map(repr, FORMATS))}, got {name!r}.")
    format = format_named(name)
    if quantize not in format.quantizations:
        known = ", ".join(map(repr, format.quantizations))
        one_of = "one of " if len(format.quantizations) > 1 else ""
        raise ValueError(f"`quantize` must be {one_of}{known} for the format {format.name!r}, got {quantize!r}.")
    return format


@contextlib.contextmanager
def _without_repetitions() -> Iterator[None]:
    """Silences Keras' warning about a softmax over one class in every call; `warn_of_one_class` warns once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using a softmax over axis -1", UserWarning)
        yield
