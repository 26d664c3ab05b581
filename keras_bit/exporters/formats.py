"""The base class of the formats, and the allowed difference from the model."""

import abc
from pathlib import Path
from typing import ClassVar, Literal

import keras

from keras_bit.exporters.job import Job, Run, Shape

HALF_PRECISION_LIMIT = 0.05  # of the largest output, if the model computed in float16 or bfloat16


class Format(abc.ABC):
    """Writes a model for one engine, and runs it there. A format overrides what differs from the default."""

    name: ClassVar[str]
    quantizations: ClassVar[tuple[str | None, ...]] = (None,)
    # Those of them whose ranges are measured on representative data.
    calibrated: ClassVar[tuple[str, ...]] = ()
    # Packages that it needs besides the required ones; the extra of its name installs them.
    packages: ClassVar[tuple[str, ...]] = ()
    # A file or a directory can replace an older one; a version is always a new directory.
    kind: ClassVar[Literal["file", "directory", "version"]] = "file"

    def needs_tensorflow(self, model: keras.Model) -> bool:
        """Returns whether it needs the TensorFlow backend to write `model`."""
        return True

    def beside(self, target: Path) -> tuple[Path, ...]:
        """Returns the files that it may write next to `target`, which are replaced with it."""
        return ()

    def refusal(self, model: keras.Model, quantize: str | None) -> str:
        """Returns why it cannot write this model with this `quantize`, in sentences; empty if it can."""
        return ""

    def entries(self, place: Path, processor: bool) -> frozenset[str]:
        """Returns the names in the directory `place` that it writes again, or that an earlier export wrote for itself.

        Args:
            place: an existing directory, to be replaced.
            processor: whether the job has a processor, or may have one.
        """
        return frozenset()

    def check(self, job: Job) -> None:  # noqa: B027 - most accept everything that `export` accepts
        """Refuses options that do not fit, before anything is computed."""

    def target(self, path: Path) -> Path:
        """Returns the file or directory to write for the caller's path; for a version, the next free one."""
        return path

    def shape(self, job: Job) -> Shape:
        """Returns the shape that the export takes: the caller's, else the model's."""
        batch, height, width, _ = job.model.input_shape
        return job.batch_size or batch, *(job.image_size or (height, width))

    @abc.abstractmethod
    def write(self, job: Job, path: Path) -> None:
        """Writes to `path`, which does not exist yet, in an empty directory that may hold further files."""

    @abc.abstractmethod
    def load(self, job: Job, path: Path) -> Run:
        """Loads the export in its runtime, as a function from a batch of `job.dtype` to outputs by the model's names.

        Other ways to call the export are checked here too; they raise an ArithmeticError if their numbers differ.
        """

    def limit(self, job: Job) -> float:
        """Returns the largest allowed difference, as a share of the model's largest output."""
        return 1e-4  # float32, whose sums every engine adds up in its own order

    def finish(self, job: Job, path: Path) -> None:  # noqa: B027 - most write nothing more
        """Writes further files next to the final `path`, unless they exist."""


def share(limit: float, model: keras.Model) -> float:
    """Returns the largest allowed share of the largest output: `limit`, except for models of half precision."""
    return max(limit, HALF_PRECISION_LIMIT) if _computes_in_half_precision(model) else limit


def _computes_in_half_precision(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.Model):
        return any(_computes_in_half_precision(inner) for inner in layer.layers)
    return layer.compute_dtype in ("float16", "bfloat16")
