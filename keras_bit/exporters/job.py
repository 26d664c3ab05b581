"""The data that `keras_bit.export` passes to a format, and its report."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_bit.images.processor import BitImageProcessor

Outputs = Mapping[str, np.ndarray]
Run = Callable[[np.ndarray], Outputs]
Shape = tuple[int | None, int | None, int | None]  # batch, height, width; None is any

OUTPUT = "output"  # the name of a single output


@dataclasses.dataclass(frozen=True)
class Job:
    """One export, with checked arguments.

    Args:
        model: the caller's model, on TensorFlow; a format fuses it itself.
        processor: how images become its input; `None` if unknown.
        labels: a name per output of the head, if known.
        quantize: the `quantize` of `export`, one of the format's `quantizations`.
        representative_data: batches `(batch, height, width, channels)` of `dtype`.
        batch_size: the fixed batch size; `None` is the format's default.
        image_size: the fixed height and width; `None` is the format's default, and a `None` inside means any.
        progress: a function that is called with a line at the beginning of each long step.
        runtime: a local npm package to copy the runtime of a web page from; `None` is a pinned address.
        include_preprocessing: whether the file takes uint8 images and goes through the steps of `processor` itself;
            `image_size` is then that of these images.
    """

    model: keras.Model
    processor: BitImageProcessor | None = None
    labels: tuple[str, ...] | None = None
    quantize: str | None = None
    representative_data: Sequence[np.ndarray] | None = None
    batch_size: int | None = None
    image_size: tuple[int | None, int | None] | None = None
    progress: Callable[[str], None] = lambda line: None
    runtime: Path | None = None
    include_preprocessing: bool = False

    @property
    def dtype(self) -> np.dtype:
        """The type of the file's input: the model's own whole numbers, such as uint8, or float32."""
        return input_dtype(self.model)


def input_dtype(model: keras.Model) -> np.dtype:
    """Returns the type of whole numbers that a model takes, else float32, whatever its precision."""
    dtype = model.inputs[0].dtype
    return np.dtype(dtype if re.fullmatch(r"u?int\d+", dtype) else "float32")


@dataclasses.dataclass(frozen=True)
class Checks:
    """Batches of images for the export, and the model's outputs for each, by name."""

    batches: Sequence[np.ndarray]
    expected: Sequence[Outputs]


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """The result of `export`, and its difference from the model.

    Args:
        path: the file, or the directory; for a SavedModel that of the version.
        format: "saved_model", "tflite", "onnx", "openvino", "web" or "huggingface".
        quantize: the argument of `export`.
        bytes: the size of all files that were written.
        images: the number of compared images.
        max_abs_diff: the largest difference between an output of the model and of the export.
        limit: the largest `max_abs_diff` allowed.
        seconds: the total time.
        advice: one sentence that says whether this file is the one to use on this processor; empty for a format without
            an engine on this machine.
    """

    path: Path
    format: str
    quantize: str | None
    bytes: int
    images: int
    max_abs_diff: float
    limit: float
    seconds: float = 0.0
    advice: str = ""
