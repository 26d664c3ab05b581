"""Keeps finished things that many tests read and none changes. The first worker that asks for one makes it.

    def test_a_served_model(finished):
        report = finished("served with its processor", lambda folder: keras_bit.export(model(), folder / "bit"))

Tracing and exporting take most of the time of these tests. So one finished checkpoint, SavedModel or TFLite file serves
all assertions about it, in every file and every worker of pytest-xdist. A test that changes a file copies it first.
"""

import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import filelock
import pytest

Made = TypeVar("Made")


class Store:
    """The finished things of one run, each in a folder of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._directory.mkdir(exist_ok=True)

    def __call__(self, name: str, make: Callable[[Path], Made]) -> Made:
        """Returns what the first call of `make(folder)` for `name` returned; meanwhile other workers wait for it.

        Args:
            name: describes the thing with everything that it depends on; the same name gives the same thing again.
            make: writes to the empty folder that it gets; returns something that can be pickled, as a path or a report.
        """
        # A name may be too long for a file, or have characters that a file name cannot have.
        safe = f"{re.sub('[^A-Za-z0-9.=-]+', '_', name)[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        folder, answer = self._directory / safe, self._directory / f"{safe}.pickle"
        with filelock.FileLock(self._directory / f"{safe}.lock"):
            if not answer.exists():
                shutil.rmtree(folder, ignore_errors=True)  # left by a worker that failed or was killed
                folder.mkdir()
                made = make(folder)
                answer.write_bytes(pickle.dumps(made))
            return pickle.loads(answer.read_bytes())


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Returns the store of this run. Its directory is shared by all workers, unlike fixtures of a session."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    return Store(directory / "finished")


TRAINED = (
    Path(__file__).with_name("checkpoints") / "bit-tiny-cifar10"
)  # in transformers' layout; trained, so its scores are meaningful

# The network that is traced fastest but has every path: two stages, so that one has a stride; a block whose shortcut
# has a convolution, and one without.
SMALLEST = {"embedding_size": 8, "hidden_sizes": (16, 32), "depths": (2, 1), "num_groups": 4, "num_labels": 5}


def smallest(**options: Any) -> Any:
    """Returns an untrained model with the config `SMALLEST` and `options`, and with the same weights each time."""
    import keras

    from keras_bit import BiT, BitConfig

    keras.utils.set_random_seed(0)
    return BiT(BitConfig(**SMALLEST | options))


def served(finished: Store) -> Any:
    """Exports `TRAINED` as a SavedModel with its processor, so with every signature; returns the report."""
    import keras_bit

    def export(folder: Path) -> Any:
        processor = keras_bit.BitImageProcessor.from_pretrained(TRAINED)
        return keras_bit.export(keras_bit.from_pretrained(TRAINED), folder / "bit", processor=processor)

    return finished("SavedModel of the trained checkpoint with its processor", export)


def exported(finished: Store, format: str, suffix: str = "", **options: Any) -> Any:
    """Exports `smallest()` in another format with `options` of `keras_bit.export`; returns the report.

    The options become part of a name, so they have to be short.
    """
    import keras_bit

    name = " ".join([format, *(f"{key}={value}" for key, value in options.items())])
    return finished(name, lambda folder: keras_bit.export(smallest(), folder / f"bit{suffix}", format, **options))
