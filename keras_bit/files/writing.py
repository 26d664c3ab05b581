"""Atomic writes of files and directories."""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from keras_bit.files import locks

STAGING_PREFIX = ".keras-bit-"  # of the directories in which files are written before they are renamed
KEPT_PREFIX = ".kept-"  # in a staging directory: the directory with the files that are being replaced
PATIENCE = 60.0  # seconds to wait for another process that moves its files into the same directory
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a full quota, a file that is too large


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a path for a new file, which becomes `path` at the end.

    The new file has the name of `path`, in a temporary directory next to it, which is removed at the end with
    everything in it. After an error `path` does not change. The contents are flushed to the disk before the rename, so
    even after a power cut a reader finds the old file or the new one. A file never replaces a directory; a symbolic
    link itself is replaced, not its target.

    The next write to the same directory removes the remains of a killed process.

    Raises:
        OSError: it cannot be written; the message names `path`, the reason and what to do.
    """
    path = Path(path)
    with naming(path), hidden(path.parent) as staging, _full_disk_told(staging):
        beside = staging / path.name
        yield beside
        sync(beside)
        os.replace(beside, path)


@contextlib.contextmanager
def staged(directory: str | Path, path: Path | None = None) -> Iterator[Path]:
    """Gives an empty directory inside `directory`, on the same disk, and removes it at the end with everything in it.

    `directory` and its parents are created if needed, and after an error they are removed again. Remains of killed
    processes in `directory` are removed first; the directories of running ones are locked.

    Args:
        directory: where to write.
        path: the path in messages, if it is not `directory`.

    Raises:
        OSError: something cannot be written; the message names `path`, the reason and what to do.
    """
    directory = Path(directory)
    made = missing_directories(directory)
    try:
        with naming(path or directory, directory):
            directory.mkdir(parents=True, exist_ok=True)
            with hidden(directory) as staging, _full_disk_told(staging):
                yield staging
    except BaseException:
        remove_if_empty(made)
        raise


@contextlib.contextmanager
def naming(path: Path, directory: Path | None = None) -> Iterator[None]:
    """Turns an error in writing `path` into one sentence, because libraries may name the temporary file.

    Args:
        path: the file to write, as the user knows it.
        directory: the directory of the staging directory; by default that of `path`.

    Raises:
        OSError: the disk is full, or a file in a staging directory cannot be written. Other errors do not change.
    """
    try:
        yield
    except Exception as error:
        number = _why_not_written(error, directory or path.parent)
        if number is None:
            raise
        raise _sentence(path, number, type(error)) from error


def take_places(staging: Path, directory: Path, last: str) -> None:
    """Moves everything in `staging` into `directory`, all or nothing, with `last` as the last one.

    Files of the same names are replaced. An error leaves `directory` unchanged. `staging` must come from `staged` for
    this directory. If two processes do this at once, they do it one after the other. If one is killed in between, the
    next write to the directory restores the old files.
    """
    ordered = sorted(entries(staging), key=lambda entry: (entry.name == last, entry.name))
    for entry in ordered:
        sync(entry)
        allow_what_the_umask_allows(entry)
    with _alone_in(directory) if len(ordered) > 1 else contextlib.nullcontext():
        _move(ordered, staging, directory)


def _move(ordered: Sequence[Path], staging: Path, directory: Path) -> None:
    kept = Path(tempfile.mkdtemp(prefix=KEPT_PREFIX, dir=staging))
    try:
        for entry in ordered:
            place = directory / entry.name
            # The last file needs no backup of the one that it replaces, because nothing can fail after it.
            if os.path.lexists(place) and not (entry == ordered[-1] and entry.is_file() and not place.is_dir()):
                _keep(place, kept / entry.name)
            os.replace(entry, place)
    except BaseException:
        for entry in ordered:
            place = directory / entry.name
            if not os.path.lexists(entry):
                os.rename(place, entry)
            if os.path.lexists(kept / entry.name):
                os.replace(kept / entry.name, place)
        raise


def take_free_place(entry: Path, next_place: Callable[[], Path]) -> Path:
    """Moves a directory to the first free place that `next_place` yields, and returns the place.

    The rename is one step and never replaces anything, because another process may take the same place meanwhile.
    """
    sync(entry)
    allow_what_the_umask_allows(entry)
    while True:
        place = next_place()
        try:
            os.rename(entry, place)
        except OSError:
            if not os.path.lexists(place):
                raise
        else:
            return place


def entries(staging: Path) -> list[Path]:
    """Returns what was written to a directory of `staged`."""
    return [entry for entry in staging.iterdir() if entry.name not in locks.NAMES]


def allow_what_the_umask_allows(path: Path) -> None:
    """Gives a file, or a directory with everything in it, the permissions of new files.

    Some libraries and `tempfile` make files that only the owner can read.
    """
    allowed = _permissions_of_a_new_directory(path.parent)
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if not one.is_symlink():
            one.chmod(allowed if one.is_dir() else allowed & 0o666)


def check_writable(path: str | Path, is_directory: bool = False) -> None:
    """Tests whether `replacing` or `staged` can write, before anything is computed. It leaves nothing behind.

    If the directory of `path` does not exist, its first existing parent is tested.

    Args:
        path: the file to write.
        is_directory: whether it is a directory, and may replace one.

    Raises:
        OSError: it cannot be written: no permission, a full disk, a name that is too long, a directory of that name.
    """
    path = Path(path)
    parent = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    with naming(path, parent):
        if os.path.isdir(path) and not is_directory:
            raise _sentence(path, errno.EISDIR, IsADirectoryError)
        with hidden(parent) as staging:
            (staging / path.name).write_bytes(b"0" * 4096)


def check_room(path: Path, needed: int) -> None:
    """Compares the size of a file with the free space, before anything is computed.

    Args:
        path: the file or directory to write.
        needed: bytes that are certainly needed.

    Raises:
        OSError: there is less.
    """
    parent = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        room = f"it needs {needed / 1e9:.3g} GB, but {free / 1e9:.3g} GB are free"
        raise _sentence(path, errno.ENOSPC, reason=room)


@contextlib.contextmanager
def hidden(parent: Path) -> Iterator[Path]:
    """Gives an empty directory in `parent`, which must exist, and removes it at the end with everything in it.

    If this process is killed, the next write to `parent` removes it.
    """
    remove_abandoned(parent)
    while True:
        staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=parent))
        # Before it is locked, another process may think that it is abandoned, and remove it.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            try:
                lock = locks.acquire(staging)
            except OSError:
                shutil.rmtree(staging, ignore_errors=True)
                raise
            break
    try:
        yield staging
    finally:
        _remove_staging(staging, lock)


def remove_abandoned(directory: Path) -> None:
    """Removes the staging directories of ended processes.

    Files that such a process had begun to replace are restored.
    """
    for left in directory.glob(f"{STAGING_PREFIX}*"):
        # An error means that the directory belongs to a running process or to another user, or that another process
        # removes it too.
        with contextlib.suppress(OSError):
            lock = locks.acquire(left)
            _put_back(left, directory)
            _remove_staging(left, lock)


def sync(path: Path) -> None:
    """Flushes a file, or a directory with everything in it, to the disk."""
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if one.is_file():
            with open(one, "rb+" if os.name == "nt" else "rb") as written:  # Windows flushes only writable files
                os.fsync(written.fileno())
        elif one.is_dir() and os.name != "nt":  # Windows cannot open a directory
            descriptor = os.open(one, os.O_RDONLY)
            try:
                with contextlib.suppress(OSError):  # some network file systems cannot flush directories
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _why_not_written(error: BaseException, directory: Path) -> int | None:
    """Returns the number of the system's error if a file in a staging directory of `directory` could not be written."""
    staging = os.path.join(os.path.abspath(directory), STAGING_PREFIX)
    found: BaseException | None = error
    while found is not None and not isinstance(found, locks.InUseError):
        if isinstance(found, OSError):
            named = [name for name in (found.filename, found.filename2) if isinstance(name, str | bytes | os.PathLike)]
            if found.errno in NO_ROOM or any(os.path.abspath(os.fsdecode(name)).startswith(staging) for name in named):
                return found.errno
        # Libraries that do not write in Python quote the system's message in their own errors.
        for number in NO_ROOM:
            if os.strerror(number) in str(found):
                return number
        found = found.__cause__
    return None


def _sentence(path: Path, number: int, kind: type[BaseException] = OSError, reason: str = "") -> OSError:
    """Returns an error whose text is a sentence; it is of the type `kind` if that is an error of the system."""
    remedy = "Make room there, or choose another place." if number in NO_ROOM else "Choose another place."
    told = kind if issubclass(kind, OSError) and kind.__module__ == "builtins" else OSError
    error = told(f"{str(path)!r} cannot be written: {reason or os.strerror(number)}. {remedy}")
    error.errno = number
    return error


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Holds the directory for this process only; waits for other processes."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            lock = locks.acquire(directory)
        except (locks.InUseError, FileNotFoundError):
            if time.monotonic() > until or not directory.is_dir():
                raise
            time.sleep(0.01)
        else:
            break
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _full_disk_told(staging: Path) -> Iterator[None]:
    """Raises the system's error if a library failed because a file in a staging directory cannot grow."""
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) is None and (number := _no_room_in(staging)):
            raise OSError(number, os.strerror(number)) from error
        raise


def _no_room_in(staging: Path) -> int | None:
    """Returns the number of the system's error if a file in a staging directory cannot grow."""
    for file in [path for path in staging.rglob("*") if path.is_file() and not path.is_symlink()]:
        try:
            with open(file, "ab") as stream:
                stream.write(b"0" * 65_536)
        except OSError as error:
            if error.errno in NO_ROOM:
                return error.errno
    return None


def _put_back(left: Path, parent: Path) -> None:
    """Restores the files that a process was replacing when it was killed."""
    unfinished = any(not entry.name.startswith(KEPT_PREFIX) for entry in entries(left))
    for kept in left.glob(f"{KEPT_PREFIX}*/*"):
        place = parent / kept.name
        # If only some files were moved, new ones would be mixed with older ones.
        if not os.path.lexists(place) or (unfinished and kept.is_file() and not place.is_dir()):
            os.replace(kept, place)


def _remove_staging(staging: Path, lock: locks.Lock) -> None:
    """Removes a staging directory while it is locked.

    Otherwise another process might think that it is abandoned, and restore its files.
    """
    shutil.rmtree(staging, ignore_errors=True)
    lock.release()
    if os.name == "nt":  # Windows does not remove a locked file, or a directory with one
        shutil.rmtree(staging, ignore_errors=True)


def _permissions_of_a_new_directory(parent: Path) -> int:
    """Makes a directory and returns its permissions, because reading the umask means changing it for all threads."""
    with tempfile.TemporaryDirectory(dir=parent) as private:
        made = Path(private) / "new"
        made.mkdir()
        return stat.S_IMODE(made.stat().st_mode) & 0o777


def _keep(place: Path, aside: Path) -> None:
    """Gives a file the name `aside`; it keeps its name `place` too, so that a reader always finds it."""
    if place.is_file() and not place.is_symlink():
        with contextlib.suppress(OSError):  # the file system has no hard links
            os.link(place, aside)
            return
    os.rename(place, aside)


def missing_directories(directory: Path) -> list[Path]:
    """Returns the directories that `mkdir(parents=True)` will create, innermost first."""
    return [folder for folder in (directory, *directory.parents) if not os.path.exists(folder)]


def remove_if_empty(directories: list[Path]) -> None:
    for directory in directories:
        with contextlib.suppress(OSError):  # it is not empty, or was never created
            directory.rmdir()
