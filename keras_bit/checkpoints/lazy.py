"""What every kind of file gives: tensors by name, whose numbers are read when they are asked for."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

LONGEST_NAME = 1000  # characters; the longest of a BiT has 64
LONGEST_REASON = 5000  # characters of another library's error, some of which show a damaged part of the file

# What is not about a file's contents.
_PASSED_ON = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError)


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor whose shape is known and whose numbers are still in the file.

    Args:
        shape: as the file says it; what `read` gives may differ where the file has changed.
        read: its numbers.
        in_parts: its numbers in parts along the first axis, from first to last, each gone when the next is asked for;
            `None` where a kind of file gives only the whole.
        path: the file.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    in_parts: Callable[[], Iterator[np.ndarray]] | None = None
    path: Path | None = None

    def parts(self) -> Iterator[np.ndarray]:
        """Its numbers, in parts where they can be had so."""
        return iter((self.read(),)) if self.in_parts is None else self.in_parts()


@contextlib.contextmanager
def refusing_damage(path: Path, kind: str, remedy: str) -> Iterator[None]:
    """A context that reads what a file holds: all errors that a damaged one causes become one that names it.

    Any library may raise almost anything for a damaged file: a `KeyError`, a `NotImplementedError` for a compression
    that it lacks, a `MemoryError` for a length that is nonsense.

    Args:
        path: the file.
        kind: what it should be, as the end of `"is damaged or "`.
        remedy: what to do, as a sentence.

    Raises:
        ValueError: the file is damaged.
        OSError: it is not there, or the system cannot read it; names it.
    """
    try:
        yield
    except _PASSED_ON:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise ValueError(f"{path} is damaged or {kind}: {described(error)}. {remedy}") from error


def described(error: BaseException) -> str:
    """The words of an error, or its type where it has none, as those about memory."""
    text = str(error).rstrip(".") or type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]} ..."


def check_name(name: str) -> None:
    """Refuses the name of a tensor that is far too long; so that no message and no search grows with it.

    Raises:
        ValueError: it is longer than `LONGEST_NAME`.
    """
    if len(name) > LONGEST_NAME:
        raise ValueError(f"the name {name[:40]!r} ... has {len(name):,} characters, expected at most {LONGEST_NAME:,}")
