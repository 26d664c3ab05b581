"""What `keras_bit.export` hands to a format, what it expects of one, and what comes out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

Outputs = Mapping[str, np.ndarray]
Run = Callable[[np.ndarray], Outputs]
Shape = tuple[int | None, int | None, int | None]  # batch, height, width; None is any

OUTPUT = "output"  # what the output of a model with one is called


@dataclasses.dataclass(frozen=True)
class Job:
    """One export, its arguments checked.

    Args:
        model: the model as the caller gave it, on TensorFlow; a format that computes fuses it.
        processor: how images become its input, where the caller told.
        labels: a name per output of the head, where they are known.
        quantize: as in `export`, one of the format's `QUANTIZATIONS`.
        representative_data: float32 batches `(batch, height, width, channels)`.
        batch_size: the fixed batch size; `None` is the format's default.
        image_size: the fixed height and width; `None` is the format's default, a `None` in it is any.
        tell: is called with a line at the beginning of each step that takes long.
    """

    model: keras.Model
    processor: Any = None
    labels: tuple[str, ...] | None = None
    quantize: str | None = None
    representative_data: Sequence[np.ndarray] | None = None
    batch_size: int | None = None
    image_size: tuple[int | None, int | None] | None = None
    tell: Callable[[str], None] = lambda line: None


@dataclasses.dataclass(frozen=True)
class Checks:
    """Batches of images, and what the model gives for each, by the outputs' names."""

    batches: Sequence[np.ndarray]
    expected: Sequence[Outputs]


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export` wrote, and how it compares with the model.

    Args:
        path: the file, or the directory; of a SavedModel that of the version.
        format: "saved_model", "tflite", "onnx", "openvino" or "huggingface".
        quantize: as it was asked for.
        bytes: of everything that was written.
        images: how many were compared.
        max_abs_diff: the largest difference between an output of the model and the same one of what was written.
        limit: what `max_abs_diff` could have been.
        seconds: what it all took.
    """

    path: Path
    format: str
    quantize: str | None
    bytes: int
    pictures: int
    max_abs_diff: float
    limit: float
    seconds: float = 0.0


class Format(Protocol):
    """What a module of this package has."""

    QUANTIZATIONS: tuple[str | None, ...]
    NEEDS_TENSORFLOW: bool  # whether it writes models of the TensorFlow backend alone
    KIND: str  # "file" or "directory", which can replace an older one, or "version": one more directory each time
    BESIDE: tuple[str, ...]  # suffixes of the files that it writes beside the one

    def check(self, job: Job) -> None:
        """Raises what can be told before anything is computed: options that do not fit, packages that are missing."""

    def target(self, path: Path) -> Path:
        """The file or directory to be, for the path that the caller named; of a version the next that is free now."""

    def shape(self, job: Job) -> Shape:
        """What the result will take."""

    def write(self, job: Job, path: Path) -> None:
        """Writes to `path`, which does not exist, in a directory of its own, where other files may stand beside it."""

    def load(self, job: Job, path: Path) -> Run:
        """Loads what was written in its own runtime: from a float32 batch to the outputs by the model's own names.

        What can be asked in other ways, too, is asked here, and raises an ArithmeticError where it gives other numbers.
        """

    def limit(self, job: Job) -> float:
        """The largest difference from the model that is let pass, as a share of the model's largest output."""

    def finish(self, job: Job, path: Path) -> None:
        """After everything: what else belongs beside `path`, unless somebody has put it there."""
