"""Which process has a directory: by the file system's locks or, where it has none, by a file that says who."""

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

LOCK_NAME = ".lock"  # in a directory that somebody has; what lists a directory passes over such names
# Who has it. A file of its own: Windows lets nobody read a locked one.
OWNER_NAME = ".lock-owner"
BROKEN_NAME = ".lock-owner-broken"  # that of a process that has ended, while another takes its place
NAMES = (LOCK_NAME, OWNER_NAME, BROKEN_NAME)
# How a file system without locks answers. Every other error is one.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# Newer versions of filelock would take a file in the lock's place, by rules that differ between them.
NO_FILE_INSTEAD: dict[str, Any] = (
    {"fallback_to_soft": False} if "fallback_to_soft" in inspect.signature(filelock.FileLock).parameters else {}
)


class InUseError(BlockingIOError):
    """Another process has the directory.

    Attributes:
        owner: that process, in words: `1234 on node7`.
        remedy: what to do if it has ended; empty if the system finds out by itself.
    """

    def __init__(self, directory: Path, owner: str, remedy: str = "") -> None:
        super().__init__(f"Another process ({owner}) is writing to {str(directory)!r}.{remedy}")
        self.owner, self.remedy = owner, remedy


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process that has a directory.

    Args:
        host: the name of its computer.
        process: its number there.
        started: when it did, as `_started` gives it; empty if that is not known.
        machine: where its number means this process: the computer and, in a container, that.
        locked: whether the file system holds a lock for it, and so knows whether it has ended.
    """

    host: str
    process: int
    started: str
    machine: str
    locked: bool

    def __str__(self) -> str:
        return f"{self.process} on {self.host}"


class Lock:
    """A directory that this process has, until `release`."""

    def __init__(self, directory: Path, held: filelock.BaseFileLock | None) -> None:
        self._directory, self._held = directory, held

    def release(self) -> None:
        # While it is held: afterwards the files may be another process'. Windows removes no locked file, and filelock
        # then does so itself.
        for name in (OWNER_NAME, LOCK_NAME) if self._held else (OWNER_NAME,):
            with contextlib.suppress(OSError):
                (self._directory / name).unlink()
        if self._held:
            self._held.release()


def acquire(directory: Path) -> Lock:
    """Takes a directory, and notes in it who has it. The system lets go of it when the process ends, by `kill -9` too.

    A file system may have no locks. The note alone then keeps others out. It is broken only if its process has
    provably ended: that ran on this computer, and its number is not in use or is that of a process that started at
    another time.

    Raises:
        InUseError: another process has it.
        FileNotFoundError: the directory is gone.
        OSError: nothing can be written there.
    """
    lock = filelock.FileLock(directory / LOCK_NAME, **NO_FILE_INSTEAD)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InUseError(directory, str(_read(directory / OWNER_NAME) or "it has not said which")) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        with contextlib.suppress(OSError):
            (directory / LOCK_NAME).unlink()
        _take_without_locks(directory)
        return Lock(directory, None)
    if not (directory / LOCK_NAME).exists():  # who had it before has removed it since this process opened it
        lock.release()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(directory))
    noted = _read(directory / OWNER_NAME)
    if noted is not None and not noted.locked and not _has_ended(noted):  # another computer sees no locks here
        lock.release()
        raise _in_use(directory, noted)
    with contextlib.suppress(OSError):  # it is a courtesy
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
    """Removes the note of a process that has ended, unless another process was faster."""
    broken = file.with_name(BROKEN_NAME)
    with contextlib.suppress(FileNotFoundError):
        os.rename(file, broken)
        if _read(broken) == noted:
            broken.unlink()
        elif not file.exists():  # it was the note of the faster one
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
    return InUseError(directory, str(noted or "it has not said which"), remedy)


def _note(locked: bool) -> str:
    process = os.getpid()
    owner = Owner(socket.gethostname(), process, _started(process) or "", _machine(), locked)
    return json.dumps(dataclasses.asdict(owner))


def _read(file: Path) -> Owner | None:
    """What a note says; `None` if there is none, or if it cannot be understood."""
    try:
        values = json_text.parse(file.read_text(encoding="utf-8"))
        owner = Owner(**values)
    except (OSError, ValueError, TypeError):
        return None
    kinds = (str, int, str, str, bool)
    return owner if tuple(map(type, dataclasses.astuple(owner))) == kinds and owner.process > 0 else None


def _has_ended(owner: Owner) -> bool:
    """Whether it is certain."""
    if (owner.host, owner.machine) != (socket.gethostname(), _machine()) or os.name == "nt":  # where `kill` ends it
        return False
    try:
        os.kill(owner.process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # another user's
        pass
    started = _started(owner.process)
    return bool(started is not None and owner.started and started != owner.started)


def _started(process: int) -> str | None:
    """When a process started, on Linux: the boot, and the clock ticks since. A new process never has an older one's.

    `None` if it is not known; `"ended"` if the process has ended and its parent has not asked how.
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
