"""Locks a directory for a process: with the file system's locks or, without them, with a file that names the owner."""

import contextlib
import dataclasses
import errno
import inspect
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import filelock

from keras_bit.files import json_text

LOCK_NAME = ".lock"  # in a locked directory; listings of directories skip such names
# The file that names the owner. It is not the locked file, because Windows does not let others read that one.
OWNER_NAME = ".lock-owner"
BROKEN_NAME = ".lock-owner-broken"  # the note of an ended process, while another one replaces it
NAMES = (LOCK_NAME, OWNER_NAME, BROKEN_NAME)
# Errors of file systems without locks. All other errors are raised.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# Newer versions of filelock would fall back to a file, by rules that differ between versions.
NO_FILE_INSTEAD: dict[str, Any] = (
    {"fallback_to_soft": False} if "fallback_to_soft" in inspect.signature(filelock.FileLock).parameters else {}
)


class InUseError(BlockingIOError):
    """Another process has locked the directory.

    Attributes:
        owner: that process, in words: `1234 on node7`.
        remedy: what to do if that process has ended; empty if the system releases the lock by itself.
    """

    def __init__(self, directory: Path, owner: str, remedy: str = "") -> None:
        super().__init__(f"Another process ({owner}) is writing to {str(directory)!r}.{remedy}")
        self.owner, self.remedy = owner, remedy


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process that has locked a directory.

    Args:
        host: the name of its computer.
        process: its number there.
        started: its start, as `_started` returns it; empty if unknown.
        machine: the scope of its number: the computer or the container.
        locked: whether the file system holds the lock, and so releases it when the process ends.
    """

    host: str
    process: int
    started: str
    machine: str
    locked: bool

    def __str__(self) -> str:
        return f"{self.process} on {self.host}"


class Lock:
    """A directory that this process has locked, until `release`."""

    def __init__(self, directory: Path, held: filelock.BaseFileLock | None) -> None:
        self._directory, self._held = directory, held

    def release(self) -> None:
        # The files are removed while the lock is held, because later they may belong to another process. Windows does
        # not remove locked files; there filelock removes them.
        for name in (OWNER_NAME, LOCK_NAME) if self._held else (OWNER_NAME,):
            with contextlib.suppress(OSError):
                (self._directory / name).unlink()
        if self._held:
            self._held.release()


def acquire(directory: Path) -> Lock:
    """Locks a directory, and notes the owner in it. The lock ends with the process, even by `kill -9`.

    Without file system locks, only the note keeps others out. It is ignored only if its process has certainly ended:
    it ran on this computer, and its number is unused or belongs to a process that started at another time.

    Raises:
        InUseError: another process has locked it.
        FileNotFoundError: the directory is gone.
        OSError: nothing can be written there.
    """
    lock = filelock.FileLock(directory / LOCK_NAME, **NO_FILE_INSTEAD)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InUseError(directory, str(_read(directory / OWNER_NAME) or "its number is unknown")) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        with contextlib.suppress(OSError):
            (directory / LOCK_NAME).unlink()
        _take_without_locks(directory)
        return Lock(directory, None)
    if not (directory / LOCK_NAME).exists():  # the previous owner removed it after this process opened it
        lock.release()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(directory))
    noted = _read(directory / OWNER_NAME)
    if noted is not None and not noted.locked and not _has_ended(noted):  # another computer sees no locks here
        lock.release()
        raise _in_use(directory, noted)
    with contextlib.suppress(OSError):  # the note is optional here
        (directory / OWNER_NAME).write_text(_note(locked=True), encoding="utf-8")
    return Lock(directory, lock)


def _take_without_locks(directory: Path) -> None:
    file = directory / OWNER_NAME
    for _ in range(2):
        try:
            _write_new(file, _note(locked=False))
        except FileExistsError:
            noted = _read(file)
            if noted is None or not _has_ended(noted):
                raise _in_use(directory, noted) from None
            _break(file, noted)
        else:
            return
    raise _in_use(directory, _read(file))


def _break(file: Path, noted: Owner) -> None:
    """Removes the note of an ended process, unless another process was faster."""
    broken = file.with_name(BROKEN_NAME)
    with contextlib.suppress(FileNotFoundError):
        os.rename(file, broken)
        if _read(broken) == noted:
            broken.unlink()
        elif not file.exists():  # this was the new note of a faster process
            os.rename(broken, file)


def _write_new(file: Path, text: str) -> None:
    with open(file, "x", encoding="utf-8") as stream:
        try:
            stream.write(text)
            stream.flush()
        except BaseException:
            file.unlink(missing_ok=True)
            raise


def _in_use(directory: Path, noted: Owner | None) -> InUseError:
    remedy = f" This file system has no locks: if that process has ended, delete {str(directory / OWNER_NAME)!r}."
    return InUseError(directory, str(noted or "its number is unknown"), remedy)


def _note(locked: bool) -> str:
    process = os.getpid()
    owner = Owner(socket.gethostname(), process, _started(process) or "", _machine(), locked)
    return json.dumps(dataclasses.asdict(owner))


def _read(file: Path) -> Owner | None:
    """Reads a note; returns `None` if it is missing or not valid."""
    try:
        values = json_text.parse(file.read_text(encoding="utf-8"))
        owner = Owner(**values)
    except (OSError, ValueError, TypeError):
        return None
    kinds = (str, int, str, str, bool)
    return owner if tuple(map(type, dataclasses.astuple(owner))) == kinds and owner.process > 0 else None


def _has_ended(owner: Owner) -> bool:
    """Returns whether a process has certainly ended."""
    # On Windows `os.kill` would end the process.
    if (owner.host, owner.machine) != (socket.gethostname(), _machine()) or os.name == "nt":
        return False
    try:
        os.kill(owner.process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # the process is another user's, so it runs
        pass
    started = _started(owner.process)
    return bool(started is not None and owner.started and started != owner.started)


def _started(process: int) -> str | None:
    """Returns a process' start on Linux: the boot, and the clock ticks since. It is unique per process number.

    `None` if unknown; `"ended"` if the process has ended but its parent has not collected its status.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return "ended" if fields[0] in (b"Z", b"X") else f"{boot} {int(fields[19])}"
    except (OSError, ValueError, IndexError):
        return None


def _machine() -> str:
    parts = [sys.platform]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        parts.append(Path("/etc/machine-id").read_text(encoding="utf-8").strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
