"""From the directory in which an export is written to its place: what is refused, replaced, numbered and cleaned up."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from keras_bit import files
from keras_bit.exporters.job import Format

PREFIX = ".keras-bit-export-"  # of the directories in which exports are written


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


@contextlib.contextmanager
def aside(target: Path) -> Iterator[Path]:
    """An empty directory beside `target`; after an error the directories above it are as they were."""
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    directory = lock = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(target.parent)
        directory, lock = _locked_directory(target.parent)
        yield directory
    except BaseException:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else has put something there, or it was never made
                folder.rmdir()
        raise
    finally:
        if lock is not None:
            os.close(lock)
    shutil.rmtree(directory, ignore_errors=True)


def _locked_directory(parent: Path) -> tuple[Path, int | None]:
    """A new directory in `parent`, locked until the file descriptor is closed, by the system if the process dies."""
    while True:
        aside = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        if not files.HAS_LOCKS:
            return aside, None
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(aside, os.O_RDONLY)
            _lock(lock, wait=True)
            if aside.exists():  # another export may have taken it for a dead one's before it was locked
                return aside, lock
            os.close(lock)


def _remove_unfinished(parent: Path) -> None:
    """Removes the directories of exports that were killed; those of running ones are locked."""
    for left in parent.glob(f"{PREFIX}*") if files.HAS_LOCKS else ():
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
        files.take_lock(descriptor, wait)
    except OSError:
        return False
    return True


def move_version(version: Path, next_target: Callable[[], Path]) -> Path:
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


def move(aside: Path, target: Path, overwrite: bool) -> None:
    """Everything in `aside` to beside `target`, and `target` itself last; after an error all is as it was."""
    made = sorted(aside.iterdir(), key=lambda file: file.name == target.name)
    for file in made:
        _check_place(file, target.parent / file.name, overwrite)
        os.chmod(file, (0o777 if file.is_dir() else 0o666) & ~_umask())
    kept = Path(tempfile.mkdtemp(prefix="kept-", dir=aside))
    try:
        for file in made:
            place = target.parent / file.name
            # The last file takes its place in one step; a directory cannot be renamed onto one that is not empty.
            if os.path.lexists(place) and (file.is_dir() or file != made[-1]):
                os.rename(place, kept / file.name)
            os.replace(file, place)
    except BaseException:
        for file in made:
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
