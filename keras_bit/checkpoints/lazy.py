"""What every kind of file gives: tensors by name, whose numbers are read when they are asked for."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

LONGEST_NAME = 1000  # characters; the longest of a BiT has 64


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


def check_name(name: str) -> None:
    """Refuses the name of a tensor that is far too long; so that no message and no search grows with it.

    Raises:
        ValueError: it is longer than `LONGEST_NAME`.
    """
    if len(name) > LONGEST_NAME:
        raise ValueError(f"the name {name[:40]!r} ... has {len(name):,} characters, expected at most {LONGEST_NAME:,}")
