"""Write, run, compare, and only then give the name."""

import contextlib
import importlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np

try:
    import fcntl
except ImportError:  # Windows; what a killed export left stays there
    fcntl = None

from keras_bit.formats.job import Checks, ExportReport, Format, Job, Run

Written = Callable[[str, Job, Path, Checks], tuple[float, float]]

PREFIX = ".keras-bit-export-"  # of the directories in which exports are written
HALF_PRECISION_LIMIT = 0.05  # of the largest output, where the model computed in float16 or bfloat16


def write_and_check(
    written: Written, writer: Format, name: str, job: Job, path: Path, checks: Checks, overwrite: bool
) -> ExportReport:
    """Exports `job` to `writer.target(path)` by `written`, here or in another process.

    What exists is replaced at the very end; a version takes the next number that is free then.

    Raises:
        ArithmeticError: what was written gives other numbers than the model. All is as it was before.
        FileExistsError: a file that belongs to the export exists, and `overwrite` is False; or a directory would be
            replaced that holds more than an export.
    """
    target = writer.target(path)
    with _aside(target) as aside:
        difference, limit = written(name, job, aside / target.name, checks)
        written_files = [file for file in aside.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in written_files)
        for file in written_files:  # as `files.replacing` does: the contents are on the disk before the name is
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
        if writer.KIND == "version":
            target = _move_version(aside / target.name, lambda: writer.target(path))
        else:
            _move(aside, target, overwrite)
    try:
        writer.finish(job, target)
    except OSError as error:
        warnings.warn(f"{target} is written and whole, but not all that belongs beside it: {error}", stacklevel=3)
    pictures = sum(len(batch) for batch in checks.batches)
    return ExportReport(target, name, job.quantize, size, pictures, difference, limit)


def check_places(writer: Format, target: Path, overwrite: bool) -> None:
    """Refuses, before anything is computed, what could not get its name at the end.

    Raises:
        FileExistsError: `target`, or a file that belongs to it, exists and is not to be replaced, or cannot be.
        NotADirectoryError: it would be in a file.
    """
    parent = next(folder for folder in (target.parent, *target.parent.parents) if os.path.lexists(folder))
    if not parent.is_dir():
        raise NotADirectoryError(f"`path` must be in a directory, and {str(parent)!r} is a file.")
    for place in (target, *(target.with_suffix(suffix) for suffix in writer.BESIDE)):
        _check_kind(place, writer.KIND != "file", overwrite)


def written(name: str, job: Job, path: Path, checks: Checks) -> tuple[float, float]:
    """Writes `job` to `path`, runs what was written, and returns the largest difference and the limit for it.

    Raises:
        ArithmeticError: the difference is beyond the limit. What was written stays, for the caller to remove.
    """
    writer: Format = importlib.import_module(f"keras_bit.formats.{name}")
    writer.write(job, path)
    job.tell("running what was written")
    run = writer.load(job, path)
    return compare(run, checks, share(writer.limit(job), job.model), f"{name} {job.quantize or 'float32'}")


def share(limit: float, model: keras.Model) -> float:
    """The largest difference that is let pass, of the largest output: `limit`, but for models of half precision."""
    return max(limit, HALF_PRECISION_LIMIT) if _computes_in_half_precision(model) else limit


def _computes_in_half_precision(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.Model):
        return any(_computes_in_half_precision(inner) for inner in layer.layers)
    return layer.compute_dtype in ("float16", "bfloat16")


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


def _described(values: np.ndarray) -> str:
    infinite = int(values.size - np.isfinite(values).sum())
    return f"{values.shape}" + (f" with {infinite} NaN or infinite values" if infinite else "")


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """An empty directory beside `target`; after an error the directories above it are as they were."""
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    aside = lock = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(target.parent)
        aside, lock = _locked_directory(target.parent)
        yield aside
    except BaseException:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else has put something there, or it was never made
                folder.rmdir()
        raise
    finally:
        if lock is not None:
            os.close(lock)
    shutil.rmtree(aside, ignore_errors=True)


def _locked_directory(parent: Path) -> tuple[Path, int | None]:
    """A new directory in `parent`, locked until the file descriptor is closed, by the system if the process dies."""
    while True:
        aside = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        if fcntl is None:
            return aside, None
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(aside, os.O_RDONLY)
            _lock(lock, wait=True)
            if aside.exists():  # another export may have taken it for a dead one's before it was locked
                return aside, lock
            os.close(lock)


def _remove_unfinished(parent: Path) -> None:
    """Removes the directories of exports that were killed; those of running ones are locked."""
    for left in parent.glob(f"{PREFIX}*") if fcntl is not None else ():
        with contextlib.suppress(OSError):
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if _lock(lock, wait=False):
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _lock(descriptor: int, wait: bool) -> bool:
    """Whether it was to be had; some network file systems have no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _move_version(version: Path, next_target: Callable[[], Path]) -> Path:
    """`version` to the next free number, which another export may take meanwhile; returns where it is."""
    os.chmod(version, 0o777 & ~_umask())
    while True:
        target = next_target()
        try:
            os.rename(version, target)  # in one step: servers look for new versions all the time
        except OSError:
            if not os.path.lexists(target):
                raise
        else:
            return target


def _move(aside: Path, target: Path, overwrite: bool) -> None:
    """Everything in `aside` to beside `target`, and `target` itself last; after an error all is as it was."""
    files = sorted(aside.iterdir(), key=lambda file: file.name == target.name)
    for file in files:
        _check_place(file, target.parent / file.name, overwrite)
        os.chmod(file, (0o777 if file.is_dir() else 0o666) & ~_umask())
    kept = Path(tempfile.mkdtemp(prefix="kept-", dir=aside))
    try:
        for file in files:
            place = target.parent / file.name
            # The last file takes its place in one step; a directory cannot be renamed onto one that is not empty.
            if os.path.lexists(place) and (file.is_dir() or file != files[-1]):
                os.rename(place, kept / file.name)
            os.replace(file, place)
    except BaseException:
        for file in files:
            place = target.parent / file.name
            if not os.path.lexists(file):
                os.rename(place, file)
            if os.path.lexists(kept / file.name):
                os.rename(kept / file.name, place)
        raise


def _check_place(file: Path, place: Path, overwrite: bool) -> None:
    """Refuses to replace what is not an earlier export."""
    _check_kind(place, file.is_dir(), overwrite)
    if place.is_dir():
        others = sorted({inside.name for inside in place.iterdir()} - {inside.name for inside in file.iterdir()})
        if others:
            some = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
            raise FileExistsError(
                f"{str(place)!r} holds what the export does not write, and what would be lost: {some}. Move it away, "
                "or choose another `path`."
            )


def _check_kind(place: Path, directory: bool, overwrite: bool) -> None:
    if not os.path.lexists(place):
        return
    if not overwrite:
        raise FileExistsError(f"{str(place)!r} exists. Choose another `path`, or replace it with `overwrite=True`.")
    if directory != place.is_dir():
        kind = "directory" if place.is_dir() else "file"
        raise FileExistsError(f"{str(place)!r} is a {kind}, which this format cannot replace. Choose another `path`.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
