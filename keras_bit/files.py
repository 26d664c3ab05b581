"""Files and directories that are there whole or not at all, directories that one process claims, words for messages."""

import contextlib
import errno
import glob
import os
import secrets
import shutil
import socket
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import filelock

LOCK_NAME = ".lock"  # in a directory that somebody has claimed; what lists a directory passes over such names
# Who has the lock. A file of its own: Windows lets nobody read a locked one.
OWNER_NAME = ".lock-owner"
STAGING_PREFIX = ".keras-bit-"  # of the directories in which several files are written before they take their places
KEPT_PREFIX = ".kept-"  # in a staging directory: of the directory with what is being replaced
# How a file system without locks answers. Every other error is one.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_HEX = "[0-9a-f]" * 8  # a glob pattern for `secrets.token_hex(4)`


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a name beside `path`, with its suffix, to write a file or a directory to; it becomes `path` at the end.

    After an error it is removed, and `path` is what it was. The contents are on the disk before the name is: after a
    power cut, too, a reader finds the old file or the new one. A directory that exists already is moved out of the way
    first, because no system replaces one in a single step. A file replaces no directory, and a directory no file; a
    symbolic link is replaced, and not what it points to.

    A process that is killed leaves a hidden name beside `path`, which `remove_unfinished` removes.
    """
    path = Path(path)
    beside = _beside(path)
    try:
        yield beside
        sync(beside)
        _take_place(beside, path)
    finally:
        with contextlib.suppress(OSError):  # the error on its way says more
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
    that `staged` gave, for this directory. If the process is killed in between, the next `staged` of this directory
    puts back what has lost its place.
    """
    ordered = sorted(entries(staging), key=lambda entry: (entry.name == last, entry.name))
    for entry in ordered:
        sync(entry)
        allow_what_the_umask_allows(entry)
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
    return [entry for entry in staging.iterdir() if entry.name not in (LOCK_NAME, OWNER_NAME)]


def allow_what_the_umask_allows(path: Path) -> None:
    """Gives a file, or a directory with all that is in it, the permissions that new ones have.

    Some libraries, and `tempfile`, let nobody but the owner read what they write.
    """
    allowed = _permissions_of_a_new_directory(path.parent)
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if not one.is_symlink():
            one.chmod(allowed if one.is_dir() else allowed & 0o666)


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
                held.enter_context(_locked(directory))
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
    """Removes what a process that was killed within `replacing(path)` left. Its directory must be claimed.

    A directory that such a process had moved out of the way gets its name back if no other has taken it.
    """
    path = Path(path)
    name = glob.escape(path.name)
    for old in path.parent.glob(f".{_HEX}-old.{name}"):
        if os.path.lexists(path):
            _remove(old)
        else:
            old.rename(path)
    for unfinished in path.parent.glob(f".{_HEX}.{name}"):
        _remove(unfinished)


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


def first_of(lines: Sequence[str], most: int) -> list[str]:
    """The first few of many lines, and one more that counts the others: `and 3 more`."""
    return [*lines[:most], *([f"and {len(lines) - most:,} more"] if len(lines) > most else [])]


def some(names: Iterable[object], most: int = 4, separator: str = ", ") -> str:
    """The first few of many names, for a message: `a, b, c, d and 3 more`."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return separator.join(map(str, listed[:most])) + more


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Holds the lock of `directory`; its files are removed at the end."""
    lock = _acquire(directory)
    try:
        yield
    finally:
        if lock is not None:
            # While it is held: afterwards the files may be another process'. Windows removes no locked file, and
            # filelock then does so itself.
            for name in (OWNER_NAME, LOCK_NAME):
                with contextlib.suppress(OSError):
                    (directory / name).unlink()
            lock.release()


def _acquire(directory: Path) -> filelock.BaseFileLock | None:
    """Locks `directory`, and notes in it who has it; `None`, with a warning, where there are no locks.

    Raises:
        BlockingIOError: another process holds it; its text is that process, `"1234 on node7"`.
        FileNotFoundError: the directory is gone.
        OSError: the lock's file cannot be written.
    """
    lock = filelock.FileLock(directory / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise BlockingIOError(_owner(directory)) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"{directory} cannot be locked ({error}). Make sure that no other process writes there.", stacklevel=6
        )
        return None
    with contextlib.suppress(OSError):  # it is a courtesy
        (directory / OWNER_NAME).write_text(f"{os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    return lock


def _owner(directory: Path) -> str:
    unknown = "it has not said which"
    try:
        return (directory / OWNER_NAME).read_text(encoding="utf-8", errors="replace") or unknown
    except OSError:
        return unknown


@contextlib.contextmanager
def _locked_staging(parent: Path) -> Iterator[Path]:
    while True:
        staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=parent))
        # Another process may take it for an abandoned one, before it is locked, and remove it.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            lock = _acquire(staging)
            break
    try:
        yield staging
    finally:
        _remove_staging(staging, lock)


def _remove_abandoned(parent: Path) -> None:
    """Removes the staging directories of processes that have ended; without locks nobody knows whether they have."""
    for left in parent.glob(f"{STAGING_PREFIX}*"):
        # An error: a running process has it, another removes it too, or it is another user's.
        with contextlib.suppress(OSError), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            if (lock := _acquire(left)) is not None:
                _put_back(left, parent)
                _remove_staging(left, lock)


def _put_back(left: Path, parent: Path) -> None:
    """Gives back their names to files that a process was replacing when it was killed."""
    for kept in left.glob(f"{KEPT_PREFIX}*/*"):
        if not os.path.lexists(parent / kept.name):
            kept.rename(parent / kept.name)


def _remove_staging(staging: Path, lock: filelock.BaseFileLock | None) -> None:
    """Removes it while it is locked, so that nobody else takes it for abandoned and puts back what is in it."""
    shutil.rmtree(staging, ignore_errors=True)
    if lock is not None:
        lock.release()
        if os.name == "nt":  # which removes no file that is locked, nor a directory with one
            shutil.rmtree(staging, ignore_errors=True)


def _take_place(beside: Path, path: Path) -> None:
    if not (beside.is_dir() and path.is_dir()):
        os.replace(beside, path)
        return
    old = path.with_name(f".{secrets.token_hex(4)}-old.{path.name}")
    os.rename(path, old)
    try:
        os.rename(beside, path)
    except BaseException:
        os.rename(old, path)
        raise
    with contextlib.suppress(OSError):  # what replaces it is in its place
        _remove(old)


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
