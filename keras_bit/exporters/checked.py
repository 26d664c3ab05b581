"""Write, run, compare, and only then give the name."""

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from keras_bit import files
from keras_bit.exporters import placing
from keras_bit.exporters.formats import Format, format_named
from keras_bit.exporters.job import Checks, ExportReport, Job, Run

Written = Callable[[str, Job, Path, Checks], tuple[float, float]]

HALF_PRECISION_LIMIT = 0.05  # of the largest output, if the model computed in float16 or bfloat16


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
    with files.staged(target.parent) as staging:
        difference, limit = written(format.name, job, staging / target.name, checks)
        size = sum(file.stat().st_size for entry in files.entries(staging) for file in _files(entry))
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
    with files.needing(name, f"`format` {name!r}") if format.packages else contextlib.nullcontext():
        format.write(job, path)
        job.progress("running what was written")
        run = format.load(job, path)
        return compare(run, checks, share(format.limit(job), job.model), f"{name} {job.quantize or 'float32'}")


def share(limit: float, model: keras.Model) -> float:
    """The largest difference that is let pass, of the largest output: `limit`, but for models of half precision."""
    return max(limit, HALF_PRECISION_LIMIT) if _computes_in_half_precision(model) else limit


def compare(run: Run, checks: Checks, share: float, what: str) -> tuple[float, float]:
    """The largest difference, and the limit for it.

    Raises:
        ArithmeticError: a difference is beyond `share` of the largest output; it begins with `what`.
    """
    largest, limit = 0.0, 0.0
    for batch, expected in zip(checks.batches, checks.expected, strict=True):
        outputs = run(batch)
        if outputs.keys() != expected.keys():
            raise ArithmeticError(f"The export ({what}) has the outputs {sorted(outputs)}, not {sorted(expected)}.")
        for name, values in expected.items():
            found = np.asarray(outputs[name], np.float64)
            if found.shape != values.shape or not np.isfinite(found).all():
                raise ArithmeticError(
                    f"The export ({what}) gives {_described(found)} for `{name}`, where the model gives "
                    f"{_described(values)}. Nothing was kept."
                )
            allowed = share * float(np.abs(values).max(initial=0.0))
            difference = float(np.abs(found - values).max(initial=0.0))
            if difference > allowed:
                raise ArithmeticError(
                    f"The export ({what}) differs from the model by {difference:.2e} in `{name}`, more than the "
                    f"{allowed:.2e} ({share:.0e} of the largest output) that is let pass. Nothing was kept."
                )
            if difference >= largest:
                largest, limit = difference, allowed
    return largest, limit


def _files(entry: Path) -> list[Path]:
    return [file for file in (entry, *entry.rglob("*")) if file.is_file()]


def _computes_in_half_precision(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.Model):
        return any(_computes_in_half_precision(inner) for inner in layer.layers)
    return layer.compute_dtype in ("float16", "bfloat16")


def _described(values: np.ndarray) -> str:
    infinite = int(values.size - np.isfinite(values).sum())
    return f"{values.shape}" + (f" with {infinite} NaN or infinite values" if infinite else "")
