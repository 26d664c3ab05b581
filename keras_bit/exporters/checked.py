"""Write, run, compare, and only then give the name."""

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
    """Exports `job` to `format.target(path)` by `written`, here or in another process.

    What exists is replaced at the very end; a version takes the next number that is free then.

    Raises:
        ArithmeticError: what was written gives other numbers than the model. All is as it was before.
        FileExistsError: a file that belongs to the export exists, and `overwrite` is False; or a directory would be
            replaced that holds more than an export.
    """
    target = format.target(path)
    with writing.staged(target.parent, path) as staging:
        difference, limit = written(format.name, job, staging / target.name, checks)
        size = sum(file.stat().st_size for entry in writing.entries(staging) for file in _files(entry))
        target = placing.take_place(format, staging / target.name, path, overwrite)
    try:
        format.finish(job, target)
    except OSError as error:
        warnings.warn(f"{target} is written and whole, but not all that belongs beside it: {error}", stacklevel=3)
    images = sum(len(batch) for batch in checks.batches)
    return ExportReport(target, format.name, job.quantize, size, images, difference, limit)


def written(name: str, job: Job, path: Path, checks: Checks) -> tuple[float, float]:
    """Writes `job` to `path`, runs what was written, and returns the largest difference and the limit for it.

    Raises:
        ArithmeticError: the difference is beyond the limit. What was written stays, for the caller to remove.
        ImportError: a package lacks another one, or does not fit it; the message says what to install.
    """
    format = format_named(name)
    with packages.needing(name, f"`format` {name!r}") if format.packages else contextlib.nullcontext():
        format.write(job, path)
        job.progress("running what was written")
        run = format.load(job, path)
        return compare(run, checks, share(format.limit(job), job.model), f"{name} {job.quantize or 'float32'}")


def _files(entry: Path) -> list[Path]:
    return [file for file in (entry, *entry.rglob("*")) if file.is_file()]
