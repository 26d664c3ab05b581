"""Files that are there whole or not at all, and directories that one process writes to."""

import contextlib
import glob
import os
import secrets
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HAS_LOCKS = fcntl is not None


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A name beside `path`, with its suffix, to write to; renamed to `path` at the end, removed after an error.

    The contents are on the disk before the name is: after a power cut, too, a reader finds the old file or the new one.
    """
    path = Path(path)
    beside = _beside(path)
    try:
        yield beside
        sync(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Returns when the contents of a file are on the disk."""
    with open(path, "rb") as written:
        os.fsync(written.fileno())


def remove_unfinished(path: str | Path) -> None:
    """Removes what a process that was killed within `replacing(path)` left."""
    path = Path(path)
    for left in path.parent.glob(f".????????.{glob.escape(path.name)}"):
        left.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Writes to the name beside `path` that `replacing` takes and removes it again.

    Raises:
        OSError: it cannot be written: no permission, a full disk, a name that is too long.
    """
    beside = _beside(Path(path))
    try:
        beside.write_bytes(b"0" * 4096)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Holds the lock of the file `path`, which is there for nothing else and is removed at the end.

    The system lets go of it when the process ends, by `kill -9` too. Where the file system has no locks, there is a
    warning and nobody is kept out.

    Raises:
        BlockingIOError: another process holds it; its text is that process, `"1234 on node7"`.
    """
    path = Path(path)
    while True:
        file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed below
        try:
            if _lock(file) and not _is_there(file, path):
                continue  # who held it has removed it since it was opened
            try:
                file.truncate(0)
                file.write(f"{os.getpid()} on {socket.gethostname()}".encode())
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            file.close()


def take_lock(descriptor: int, wait: bool) -> None:
    """Locks an open file or directory until it is closed, by the system when the process ends.

    Raises:
        BlockingIOError: another process has it, and `wait` is False.
        OSError: the system or the file system has no locks.
    """
    if not HAS_LOCKS:
        raise OSError("this system has none")
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _lock(file: BinaryIO) -> bool:
    try:
        take_lock(file.fileno(), wait=False)
    except BlockingIOError:
        file.seek(0)
        raise BlockingIOError(file.read().decode(errors="replace") or "it has not said which") from None
    except OSError as error:
        warnings.warn(
            f"{file.name} cannot be locked ({error}): see to it that no other process writes there.", stacklevel=4
        )
        return False
    return True


def _is_there(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(4)}.{path.name}")
