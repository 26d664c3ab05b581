"""Tensors whose numbers are read on demand: the form in which every reader gives the contents of a file."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

LONGEST_NAME = 1000  # characters; the longest of a BiT has 64


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor whose shape is known and whose numbers are still in the file.

    Args:
        shape: the shape in the file's header; `read` may return another one if the file has changed.
        read: returns its numbers.
        in_parts: yields its numbers in parts along the first axis, each valid until the next; `None` if this kind of
            file can only be read whole.
        path: the file.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    in_parts: Callable[[], Iterator[np.ndarray]] | None = None
    path: Path | None = None

    def parts(self) -> Iterator[np.ndarray]:
        """Yields its numbers, in parts if possible."""
        return iter((self.read(),)) if self.in_parts is None else self.in_parts()


def check_name(name: str) -> None:
    """Refuses a name that is far too long, so that messages and searches stay short.

    Raises:
        ValueError: it is longer than `LONGEST_NAME`.
    """
    if len(name) > LONGEST_NAME:
        raise ValueError(f"the name {name[:40]!r} ... has {len(name):,} characters, expected at most {LONGEST_NAME:,}")
