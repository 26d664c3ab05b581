"""What `keras_bit.export` hands to a format, what it expects of one, and what comes out."""

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

OUTPUT = "output"  # what the output of a model with one is called


@dataclasses.dataclass(frozen=True)
class Job:
    """One export, its arguments checked.

    Args:
        model: the model as the caller gave it, on TensorFlow; a format that computes fuses it.
        processor: how images become its input; `None` leaves that open.
        labels: a name per output of the head, where they are known.
        quantize: as in `export`, one of the format's `quantizations`.
        representative_data: batches `(batch, height, width, channels)` of `dtype`.
        batch_size: the fixed batch size; `None` is the format's default.
        image_size: the fixed height and width; `None` is the format's default, a `None` in it is any.
        progress: is called with a line at the beginning of each step that takes long.
        runtime: a local npm package to copy the runtime of a web page from; `None` is a pinned address.
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

    @property
    def dtype(self) -> np.dtype:
        """What the images are in the file: the model's own whole numbers, such as uint8, or float32."""
        return input_dtype(self.model)


def input_dtype(model: keras.Model) -> np.dtype:
    """The kind of whole numbers that a model takes, else float32, whatever its precision."""
    dtype = model.inputs[0].dtype
    return np.dtype(dtype if re.fullmatch(r"u?int\d+", dtype) else "float32")


@dataclasses.dataclass(frozen=True)
class Checks:
    """Batches of images as the export takes them, and what the model gives for each, by the outputs' names."""

    batches: Sequence[np.ndarray]
    expected: Sequence[Outputs]


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export` wrote, and how it compares with the model.

    Args:
        path: the file, or the directory; of a SavedModel that of the version.
        format: "saved_model", "tflite", "onnx", "openvino", "web" or "huggingface".
        quantize: as it was asked for.
        bytes: of everything that was written.
        pictures: how many images were compared.
        max_abs_diff: the largest difference between an output of the model and the same one of what was written.
        limit: what `max_abs_diff` could have been.
        seconds: what it all took.
        advice: one sentence that says whether this file is the one to use on this processor; empty for a format that no
            engine on this machine runs.
    """

    path: Path
    format: str
    quantize: str | None
    bytes: int
    pictures: int
    max_abs_diff: float
    limit: float
    seconds: float = 0.0
    advice: str = ""
