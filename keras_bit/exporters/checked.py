"""Writes an export, runs it, compares it, and only then moves it to its name."""

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path

from keras_bit import packages
from keras_bit.exporters import placing
from keras_bit.exporters.comparing import compare
from keras_bit.exporters.formats import Format, share
from keras_bit.exporters.job import Checks, ExportReport, Job
from keras_bit.exporters.registry import format_named
from keras_bit.files import writing

Written = Callable[[str, Job, Path, Checks], tuple[float, float]]


def write_and_check(
    written: Written, format: Format, job: Job, path: Path, checks: Checks, overwrite: bool
) -> ExportReport:
    """Exports `job` to `format.target(path)` with `written`, here or in another process.

    An existing file is replaced at the very end; a version then takes the next free number.

    Raises:
        ArithmeticError: the export gives other numbers than the model. Nothing has changed.
        FileExistsError: a file of the export exists and `overwrite` is False; or the directory to replace holds more
            than an export.
    """
    target = format.target(path)
    with writing.staged(target.parent, path) as staging:
        difference, limit = written(format.name, job, staging / target.name, checks)
        size = sum(file.stat().st_size for entry in writing.entries(staging) for file in _files(entry))
        target = placing.take_place(format, staging / target.name, path, overwrite)
    try:
        format.finish(job, target)
    except OSError as error:
        warnings.warn(f"{target} is complete, but the files next to it could not be written: {error}", stacklevel=3)
    images = sum(len(batch) for batch in checks.batches)
    return ExportReport(target, format.name, job.quantize, size, images, difference, limit)


def written(name: str, job: Job, path: Path, checks: Checks) -> tuple[float, float]:
    """Writes `job` to `path`, runs the result, and returns the largest difference and its limit.

    Raises:
        ArithmeticError: the difference is above the limit. The caller must remove the file.
        ImportError: a package is missing or does not fit; the message says what to install.
    """
    format = format_named(name)
    with packages.needing(name, f"`format` {name!r}") if format.packages else contextlib.nullcontext():
        format.write(job, path)
        job.progress("running the export")
        run = format.load(job, path)
        return compare(run, checks, share(format.limit(job), job.model), f"{name} {job.quantize or 'float32'}")


def _files(entry: Path) -> list[Path]:
    return [file for file in (entry, *entry.rglob("*")) if file.is_file()]
