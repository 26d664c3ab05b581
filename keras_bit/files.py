"""Files and directories that are there whole or not at all, directories that one process claims, words for messages."""

import contextlib
import glob
import importlib.util
import os
import secrets
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import filelock

LOCK_NAME = ".lock"  # in a directory that somebody has claimed; what lists a directory passes over such names
STAGING_PREFIX = ".keras-bit-"  # of the directories in which several files are written before they take their places


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a name beside `path`, with its suffix, to write a file or a directory to; it becomes `path` at the end.

    After an error it is removed, and `path` is what it was. The contents are on the disk before the name is: after a
    power cut, too, a reader finds the old file or the new one. A directory that exists already is moved out of the way
    first, because no system replaces one in a single step.
    """
    path = Path(path)
    beside = _beside(path)
    try:
        yield beside
        sync(beside)
        _take_place(beside, path)
    finally:
        _remove(beside)


@contextlib.contextmanager
def staged(directory: str | Path) -> Iterator[Path]:
    """Gives an empty directory inside `directory`, on the same disk, and removes it at the end with all that is in it.

    `directory` and its parents are made where they do not exist. After an error those that were made are removed
    again. What killed processes left in `directory` is removed first; the directories of running ones are locked.
    """
    directory = Path(directory)
    made = _missing_directories(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(directory)
        with _locked_staging(directory) as staging:
            yield staging
    except BaseException:
        _remove_if_empty(made)
        raise


def take_places(staging: Path, directory: Path, last: str) -> None:
    """Moves everything in `staging` into `directory`, all of it or nothing, and `last` as the last one.

    What has the same name there is replaced. After an error `directory` holds what it held before. `staging` is one
    that `staged` gave, for this directory.
    """
    ordered = sorted(entries(staging), key=lambda entry: (entry.name == last, entry.name))
    for entry in ordered:
        sync(entry)
        allow_what_the_umask_allows(entry)
    kept = Path(tempfile.mkdtemp(prefix=".kept-", dir=staging))
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


def entries(staging: Path) -> list[Path]:
    """What was written to a directory that `staged` gave."""
    return [entry for entry in staging.iterdir() if entry.name != LOCK_NAME]


def allow_what_the_umask_allows(path: Path) -> None:
    """Some libraries, and `tempfile`, let nobody but the owner read what they write."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, (0o777 if path.is_dir() else 0o666) & ~mask)


@contextlib.contextmanager
def claimed(directory: str | Path, *, argument: str, exclusive: bool = True) -> Iterator[None]:
    """Makes `directory` and keeps other processes out of it until the end.

    Writes to it at once, so that what cannot be written is an error before anything is computed. The directories that
    it made are removed at the end where nothing was written to them. The system lets go of the claim when the process
    ends, by `kill -9` too. Where the file system has no locks there is a warning, and nobody is kept out.

    Args:
        directory: of the results.
        argument: the name of the caller's argument, for messages.
        exclusive: whether this process keeps others out; one of several that work together does it for all.

    Raises:
        BlockingIOError: another process has claimed it.
        OSError: nothing can be written there.
    """
    directory = Path(directory)
    made = _missing_directories(directory)
    with contextlib.ExitStack() as held:
        held.callback(_remove_if_empty, made)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            check_writable(directory / "file")
            if exclusive:
                held.enter_context(_locked(directory / LOCK_NAME))
        except BlockingIOError as error:
            raise BlockingIOError(
                f"`{argument}`: another process ({error}) is writing to {str(directory)!r}. Wait until it has ended, "
                "or choose another directory."
            ) from None
        except OSError as error:
            raise OSError(
                f"`{argument}`: nothing can be written to {str(directory)!r}: {error}. Choose another directory."
            ) from error
        yield


def check_writable(path: str | Path) -> None:
    """Writes to the name beside `path` that `replacing` takes, and removes it again.

    Raises:
        OSError: it cannot be written: no permission, a full disk, a name that is too long.
    """
    beside = _beside(Path(path))
    try:
        beside.write_bytes(b"0" * 4096)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def remove_unfinished(path: str | Path) -> None:
    """Removes what a process that was killed within `replacing(path)` left. Its directory must be claimed."""
    path = Path(path)
    for left in path.parent.glob(f".????????.{glob.escape(path.name)}"):
        _remove(left)


def sync(path: Path) -> None:
    """Returns when the contents of a file, or of every file in a directory, are on the disk."""
    for file in [path] if path.is_file() else [inside for inside in path.rglob("*") if inside.is_file()]:
        with open(file, "rb") as written:
            os.fsync(written.fileno())


def require(package: str, extra: str, purpose: str) -> None:
    """Checks that an optional package can be imported.

    Args:
        package: its name in an `import` statement.
        extra: the extra of keras_bit that installs it.
        purpose: what needs it, as the beginning of a sentence.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"{purpose} needs the package {package}, which is not installed. Install it with "
            f"`pip install 'keras_bit[{extra}]'`, or with `pip install -e '.[{extra}]'` in a checkout."
        )


def some(names: Iterable[object], most: int = 4, separator: str = ", ") -> str:
    """The first few of many names, for a message: `a, b, c, d and 3 more`."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return separator.join(listed[:most]) + more


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock of the file `path`, which is removed at the end."""
    lock = _acquire(path)
    try:
        yield
    finally:
        if lock is not None:
            path.unlink(missing_ok=True)
            lock.release()


def _acquire(path: Path) -> filelock.BaseFileLock | None:
    """Locks the file `path`, and writes to it who has it; `None`, with a warning, where there are no locks.

    Raises:
        BlockingIOError: another process holds it; its text is that process, `"1234 on node7"`.
    """
    lock = filelock.FileLock(path)
    while True:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise BlockingIOError(_owner(path)) from None
        except (OSError, NotImplementedError) as error:
            warnings.warn(
                f"{path} cannot be locked ({error}). Make sure that no other process writes there.", stacklevel=6
            )
            return None
        if path.exists():
            path.write_text(f"{os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            return lock
        lock.release()  # the process that held it has removed it since it was opened


def _owner(lock: Path) -> str:
    try:
        return lock.read_text(encoding="utf-8", errors="replace") or "it has not said which"
    except OSError:
        return "it has not said which"


@contextlib.contextmanager
def _locked_staging(parent: Path) -> Iterator[Path]:
    while True:
        staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=parent))
        with contextlib.suppress(BlockingIOError):  # another process takes it for an abandoned one, and removes it
            lock = _acquire(staging / LOCK_NAME)
            break
    try:
        yield staging
    finally:
        if lock is not None:
            lock.release()  # first: Windows removes no file that is locked
        shutil.rmtree(staging, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Removes the staging directories of processes that have ended; without locks nobody knows whether they have."""
    for left in parent.glob(f"{STAGING_PREFIX}*"):
        with contextlib.suppress(BlockingIOError), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            if (lock := _acquire(left / LOCK_NAME)) is not None:
                lock.release()
                shutil.rmtree(left, ignore_errors=True)


def _take_place(beside: Path, path: Path) -> None:
    if not (beside.is_dir() and path.is_dir()):
        os.replace(beside, path)
        return
    old = _beside(path)
    os.rename(path, old)
    try:
        os.rename(beside, path)
    except BaseException:
        os.rename(old, path)
        raise
    _remove(old)


def _keep(place: Path, aside: Path) -> None:
    """Gives what is at `place` the name `aside`; a file keeps the other name, too, so that a reader finds one."""
    if place.is_file() and not place.is_symlink():
        with contextlib.suppress(OSError):  # the file system has no hard links
            os.link(place, aside)
            return
    os.rename(place, aside)


def _missing_directories(directory: Path) -> list[Path]:
    """Those that `mkdir(parents=True)` will make, the innermost first."""
    return [folder for folder in (directory, *directory.parents) if not folder.exists()]


def _remove_if_empty(directories: list[Path]) -> None:
    for directory in directories:
        with contextlib.suppress(OSError):  # something was written to it, or it was never made
            directory.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(4)}.{path.name}")
