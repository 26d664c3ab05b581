"""One error for all that a damaged file makes its readers raise."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

LONGEST_REASON = 5000  # characters of another library's error, some of which show a damaged part of the file

# What is not about a file's contents.
_PASSED_ON = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError)


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
    """The message of an error; its type if it has no message, as a MemoryError."""
    text = str(error).rstrip(".") or type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]} ..."
