"""Files and directories that are there whole or not at all."""

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

STAGING_PREFIX = ".keras-bit-"  # of the directories in which files are written before they take their places
KEPT_PREFIX = ".kept-"  # in a staging directory: of the directory with what is being replaced
PATIENCE = 60.0  # seconds to wait for another process that moves its files into the same directory
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the quota, the largest file


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a place for a new file; what was written there becomes `path` at the end.

    The place has the name of `path`, in a directory of its own beside `path`, which is removed at the end with all that
    is in it: the half file after an error, and what libraries write beside their files. After an error `path` is what
    it was. The contents are on the disk before the name is: after a power cut, too, a reader finds the old file or the
    new one. A file replaces no directory; a symbolic link is replaced, and not what it points to.

    What a process that was killed has left is removed when anything is written to the same directory next.

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
    """Gives an empty directory inside `directory`, on the same disk, and removes it at the end with all that is in it.

    `directory` and its parents are made where they do not exist. After an error those that were made are removed
    again. What killed processes left in `directory` is removed first; the directories of running ones are locked.

    Args:
        directory: where things are to be written.
        path: what a message names, if it is not `directory`.

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
    """Makes one sentence of an error in writing `path`: libraries have their own words, or name what is beside it.

    Args:
        path: what is to be written, as the user knows it.
        directory: in which it is staged; that of `path` by default.

    Raises:
        OSError: there is no room, or a file in a staging directory cannot be written. Other errors stay as they are.
    """
    try:
        yield
    except Exception as error:
        number = _why_not_written(error, directory or path.parent)
        if number is None:
            raise
        raise _sentence(path, number, type(error)) from error


def take_places(staging: Path, directory: Path, last: str) -> None:
    """Moves everything in `staging` into `directory`, all of it or nothing, and `last` as the last one.

    What has the same name there is replaced. After an error `directory` holds what it held before. `staging` is one
    that `staged` gave, for this directory. Two processes that do so at once do it one after the other. If one is killed
    in between, the next that writes to the directory puts back what has lost its place.
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
            # The last file needs no copy of what it replaces: nothing can go wrong after it.
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
    """Moves a directory to the first place that `next_place` gives and that is still free, and returns the place.

    It gets its name in one step, and replaces nothing: another process may take the same place meanwhile.
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
    """What was written to a directory that `staged` gave."""
    return [entry for entry in staging.iterdir() if entry.name not in locks.NAMES]


def allow_what_the_umask_allows(path: Path) -> None:
    """Gives a file, or a directory with all that is in it, the permissions that new ones have.

    Some libraries, and `tempfile`, let nobody but the owner read what they write.
    """
    allowed = _permissions_of_a_new_directory(path.parent)
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if not one.is_symlink():
            one.chmod(allowed if one.is_dir() else allowed & 0o666)


def check_writable(path: str | Path, is_directory: bool = False) -> None:
    """Writes where `replacing` or `staged` will, so that an error comes before anything is computed. Nothing stays.

    Where the directory of `path` does not exist, the first one above it that does is written to.

    Args:
        path: what is to be written.
        is_directory: whether that is a directory, and may replace one.

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
    """Compares what is to be written with the free space, before anything is computed.

    Args:
        path: a file or directory that is to be written.
        needed: bytes that are certain to be needed.

    Raises:
        OSError: there is less.
    """
    parent = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        room = f"it needs {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free"
        raise _sentence(path, errno.ENOSPC, reason=room)


@contextlib.contextmanager
def hidden(parent: Path) -> Iterator[Path]:
    """Gives an empty directory in `parent`, which has to exist, and removes it at the end with all that is in it.

    If this process is killed, the next that writes to `parent` removes it.
    """
    remove_abandoned(parent)
    while True:
        staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=parent))
        # Another process may take it for an abandoned one, before it is locked, and remove it.
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
    """Removes the staging directories of processes that have ended.

    What such a process had begun to replace gets its name back.
    """
    for left in directory.glob(f"{STAGING_PREFIX}*"):
        # An error: a running process has it, another removes it too, or it is another user's.
        with contextlib.suppress(OSError):
            lock = locks.acquire(left)
            _put_back(left, directory)
            _remove_staging(left, lock)


def sync(path: Path) -> None:
    """Returns when the contents of a file, or of a directory with all that is in it, are on the disk."""
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if one.is_file():
            with open(one, "rb+" if os.name == "nt" else "rb") as written:  # Windows syncs what it may write to
                os.fsync(written.fileno())
        elif one.is_dir() and os.name != "nt":  # Windows opens no directory
            descriptor = os.open(one, os.O_RDONLY)
            try:
                with contextlib.suppress(OSError):  # some network file systems cannot
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _why_not_written(error: BaseException, directory: Path) -> int | None:
    """The number of the system's error if a file in a staging directory of `directory` could not be written."""
    staging = os.path.join(os.path.abspath(directory), STAGING_PREFIX)
    found: BaseException | None = error
    while found is not None and not isinstance(found, locks.InUseError):
        if isinstance(found, OSError):
            named = [name for name in (found.filename, found.filename2) if isinstance(name, str | bytes | os.PathLike)]
            if found.errno in NO_ROOM or any(os.path.abspath(os.fsdecode(name)).startswith(staging) for name in named):
                return found.errno
        # Libraries that do not write in Python quote the system, in errors of their own.
        for number in NO_ROOM:
            if os.strerror(number) in str(found):
                return number
        found = found.__cause__
    return None


def _sentence(path: Path, number: int, kind: type[BaseException] = OSError, reason: str = "") -> OSError:
    """An error of the system's kind, if `kind` is one, whose text is a sentence."""
    remedy = "Make room there, or choose another place." if number in NO_ROOM else "Choose another place."
    told = kind if issubclass(kind, OSError) and kind.__module__ == "builtins" else OSError
    error = told(f"{str(path)!r} cannot be written: {reason or os.strerror(number)}. {remedy}")
    error.errno = number
    return error


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Has the directory, after the other processes that want to."""
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
    """Raises the system's error if a library failed because what is in a staging directory cannot grow."""
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) is None and (number := _no_room_in(staging)):
            raise OSError(number, os.strerror(number)) from error
        raise


def _no_room_in(staging: Path) -> int | None:
    """The number of the system's error if what is in a staging directory cannot grow."""
    for file in [path for path in staging.rglob("*") if path.is_file() and not path.is_symlink()]:
        try:
            with open(file, "ab") as stream:
                stream.write(b"0" * 65_536)
        except OSError as error:
            if error.errno in NO_ROOM:
                return error.errno
    return None


def _put_back(left: Path, parent: Path) -> None:
    """Gives back their names to what a process was replacing when it was killed."""
    unfinished = any(not entry.name.startswith(KEPT_PREFIX) for entry in entries(left))
    for kept in left.glob(f"{KEPT_PREFIX}*/*"):
        place = parent / kept.name
        # Where not all have taken their places, those that have would stand beside older ones.
        if not os.path.lexists(place) or (unfinished and kept.is_file() and not place.is_dir()):
            os.replace(kept, place)


def _remove_staging(staging: Path, lock: locks.Lock) -> None:
    """Removes it while it is locked, so that nobody else takes it for abandoned and puts back what is in it."""
    shutil.rmtree(staging, ignore_errors=True)
    lock.release()
    if os.name == "nt":  # which removes no file that is locked, nor a directory with one
        shutil.rmtree(staging, ignore_errors=True)


def _permissions_of_a_new_directory(parent: Path) -> int:
    """Asks the file system: to read the umask a process must change it, for all of its threads."""
    with tempfile.TemporaryDirectory(dir=parent) as private:
        made = Path(private) / "new"
        made.mkdir()
        return stat.S_IMODE(made.stat().st_mode) & 0o777


def _keep(place: Path, aside: Path) -> None:
    """Gives what is at `place` the name `aside`; a file keeps the other name, too, so that a reader finds one."""
    if place.is_file() and not place.is_symlink():
        with contextlib.suppress(OSError):  # the file system has no hard links
            os.link(place, aside)
            return
    os.rename(place, aside)


def missing_directories(directory: Path) -> list[Path]:
    """Those that `mkdir(parents=True)` will make, the innermost first."""
    return [folder for folder in (directory, *directory.parents) if not os.path.exists(folder)]


def remove_if_empty(directories: list[Path]) -> None:
    for directory in directories:
        with contextlib.suppress(OSError):  # something was written to it, or it was never made
            directory.rmdir()
