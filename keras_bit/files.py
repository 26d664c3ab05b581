"""Files that are there whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A name beside `path`, with its suffix, to write to; renamed to `path` at the end, removed after an error.

    The contents are on the disk before the name is: after a power cut, too, a reader finds the old file or the new one.
    """
    path = Path(path)
    beside = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        yield beside
        with open(beside, "rb") as written:
            os.fsync(written.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def remove_unfinished(path: str | Path) -> None:
    """Removes what a process that was killed within `replacing(path)` left."""
    path = Path(path)
    for left in path.parent.glob(f".????????.{path.name}"):
        left.unlink(missing_ok=True)
