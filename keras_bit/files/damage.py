"""Turns everything that readers raise for a damaged file into one error."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

LONGEST_REASON = 5000  # characters of another library's message; some messages show a damaged part of the file

# Errors that are not about a file's contents.
_PASSED_ON = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError)


@contextlib.contextmanager
def refusing_damage(path: Path, kind: str, remedy: str) -> Iterator[None]:
    """A context for reading a file: every error of a damaged file becomes a ValueError that names it.

    Libraries raise almost anything for a damaged file: a `KeyError`, a `NotImplementedError` for an unknown
    compression, a `MemoryError` for an absurd length.

    Args:
        path: the file.
        kind: what the file may be instead of damaged, such as `"not a model file of Keras"`.
        remedy: what to do, as a sentence.

    Raises:
        ValueError: the file is damaged.
        OSError: it does not exist, or the system cannot read it.
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
    """Returns an error's message, or its type if it has none, such as a MemoryError."""
    text = str(error).rstrip(".") or type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]} ..."
