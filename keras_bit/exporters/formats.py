"""The base class of the formats, and the difference from the model that is allowed."""

import abc
from pathlib import Path
from typing import ClassVar, Literal

import keras

from keras_bit.exporters.job import Job, Run, Shape

HALF_PRECISION_LIMIT = 0.05  # of the largest output, if the model computed in float16 or bfloat16


class Format(abc.ABC):
    """How a model is written for one engine, and run in it. A format overrides what it does otherwise than most."""

    name: ClassVar[str]
    quantizations: ClassVar[tuple[str | None, ...]] = (None,)
    # What is imported to write and run it, beside what every installation has; the extra of its name installs it.
    packages: ClassVar[tuple[str, ...]] = ()
    # A file or a directory can replace an older one; a version is one more directory each time.
    kind: ClassVar[Literal["file", "directory", "version"]] = "file"

    def needs_tensorflow(self, model: keras.Model) -> bool:
        """Whether it can write `model` only if that is of the TensorFlow backend."""
        return True

    def beside(self, target: Path) -> tuple[Path, ...]:
        """The files that it may write beside `target`, and that are replaced with it."""
        return ()

    def check(self, job: Job) -> None:  # noqa: B027 - most accept everything that `export` accepts
        """Raises what can be found before anything is computed: options that do not fit."""

    def target(self, path: Path) -> Path:
        """The file or directory to be, for the path that the caller named; of a version the next that is free now."""
        return path

    def shape(self, job: Job) -> Shape:
        """What the result takes: what the caller asked for, else what the model takes."""
        batch, height, width, _ = job.model.input_shape
        return job.batch_size or batch, *(job.image_size or (height, width))

    @abc.abstractmethod
    def write(self, job: Job, path: Path) -> None:
        """Writes to `path`, which does not exist, in a directory of its own, where other files may stand beside it."""

    @abc.abstractmethod
    def load(self, job: Job, path: Path) -> Run:
        """Loads what was written in its own runtime: a batch of `job.dtype` to the outputs by the model's own names.

        What can be asked in other ways, too, is asked here, and raises an ArithmeticError if it gives other numbers.
        """

    def limit(self, job: Job) -> float:
        """The largest difference from the model that is let pass, as a share of the model's largest output."""
        return 1e-4  # float32, whose sums every engine adds up in its own order

    def finish(self, job: Job, path: Path) -> None:  # noqa: B027 - most write nothing more
        """Writes what else belongs beside `path`, which is in its place, unless somebody has put it there."""


def share(limit: float, model: keras.Model) -> float:
    """The largest difference that is let pass, of the largest output: `limit`, but for models of half precision."""
    return max(limit, HALF_PRECISION_LIMIT) if _computes_in_half_precision(model) else limit


def _computes_in_half_precision(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.Model):
        return any(_computes_in_half_precision(inner) for inner in layer.layers)
    return layer.compute_dtype in ("float16", "bfloat16")
