"""The export of a model of another backend: in a process of its own, with TensorFlow, from a `.keras` file."""

from pathlib import Path

from keras_bit.formats.job import Checks, ExportReport, Job


def write_and_check(name: str, job: Job, target: Path, checks: Checks) -> ExportReport:
    """`checked.write_and_check` on TensorFlow, against the outputs that the model has on its own backend."""
    raise NotImplementedError
