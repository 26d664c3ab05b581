"""Finished things that many tests look at and none changes: made once in a run, by the first worker that asks.

    def test_a_served_model(finished):
        report = finished("served with its processor", lambda folder: keras_bit.export(model(), folder / "bit"))

What costs in these tests is tracing and exporting, so one finished checkpoint, SavedModel or TFLite file serves all
assertions about it, in every file and every worker of pytest-xdist. A test that changes a file copies it first.
"""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import filelock
import pytest

Made = TypeVar("Made")


class Store:
    """The finished things of one run, each in a folder of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._directory.mkdir(exist_ok=True)

    def __call__(self, name: str, make: Callable[[Path], Made]) -> Made:
        """What `make(folder)` returned when it was called for `name` first; other workers wait for it meanwhile.

        Args:
            name: says what is finished, with everything that it depends on: who asks for it again gets the same.
            make: writes to the empty folder that it gets, and returns what can be pickled: a path in it, a report.
        """
        folder, answer = self._directory / name, self._directory / f"{name}.pickle"
        with filelock.FileLock(self._directory / f"{name}.lock"):
            if not answer.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed or was killed
                folder.mkdir()
                made = make(folder)
                answer.write_bytes(pickle.dumps(made))
            return pickle.loads(answer.read_bytes())


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The run's store. Fixtures of a session are a worker's own; this directory is that of all workers."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    return Store(directory / "finished")
