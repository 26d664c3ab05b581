"""Write, run, compare, and only then give the name."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_bit.formats.job import Checks, ExportReport, Format, Job, Run

HALF_PRECISION_LIMIT = 0.05  # of the largest output, where the model computed in float16 or bfloat16


def write_and_check(writer: Format, name: str, job: Job, target: Path, checks: Checks) -> ExportReport:
    """Exports `job` to `target`; an existing `target` is replaced at the very end.

    Raises:
        ArithmeticError: what was written gives other numbers than the model. `target` is as it was before.
    """
    with _aside(target) as aside:
        writer.write(job, aside / target.name)
        job.tell("running what was written")
        run = writer.load(job, aside / target.name)
        share = max(writer.limit(job), HALF_PRECISION_LIMIT if checks.half_precision else 0.0)
        difference, limit = _compare(run, checks, share, f"{name} {job.quantize or 'float32'}")
        del run  # it may hold the files
        size = sum(file.stat().st_size for file in aside.rglob("*") if file.is_file())
        _move(aside, target)
    writer.finish(job, target)
    pictures = sum(len(batch) for batch in checks.batches)
    return ExportReport(target, name, job.quantize, size, pictures, difference, limit)


def _compare(run: Run, checks: Checks, share: float, what: str) -> tuple[float, float]:
    """The largest difference, and the limit for it."""
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


def _described(values: np.ndarray) -> str:
    infinite = int(values.size - np.isfinite(values).sum())
    return f"{values.shape}" + (f" with {infinite} NaN or infinite values" if infinite else "")


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """An empty directory beside `target`; after an error the directories above it are as they were."""
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _move(aside: Path, target: Path) -> None:
    """Everything in `aside` to beside `target`, and `target` itself last."""
    os.chmod(aside / target.name, 0o777 & ~_umask() if (aside / target.name).is_dir() else 0o666 & ~_umask())
    for file in sorted(aside.iterdir(), key=lambda file: file.name == target.name):
        place = target.parent / file.name
        if file.is_dir() and place.is_dir():
            # A directory cannot be renamed onto one that is not empty: the old one goes aside first.
            os.rename(place, aside / f".old-{file.name}")
        os.replace(file, place)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
