"""A part of a data set: the names of its images, and how to read them."""

import dataclasses
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

LOOKED_AT = 50  # images whose size is read for the rule


@dataclasses.dataclass(frozen=True)
class Part:
    """Some images of a data set.

    Args:
        labels: int32 `(count,)`.
        names: the name of each image.
        source: a function from some images' numbers, in increasing order, and a label for each, to a source of
            `image_dataset`.
        files: a function from the same to what Pillow opens: a path, or a file in memory.
        in_files: whether each image is a file, whose path is its name.
    """

    labels: np.ndarray
    names: Sequence[str]
    source: Callable[[np.ndarray, np.ndarray], Any]
    files: Callable[[np.ndarray], Iterable[str | io.BytesIO]]
    in_files: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def some(self, numbers: np.ndarray) -> "Part":
        numbers = np.sort(numbers)
        return Part(
            self.labels[numbers],
            [self.names[number] for number in numbers],
            lambda chosen, labels: self.source(numbers[chosen], labels),
            lambda chosen: self.files(numbers[chosen]),
            self.in_files,
        )

    @property
    def everything(self) -> Any:
        """All images, as a source of `image_dataset`."""
        return self.source(np.arange(len(self)), self.labels)

    @property
    def digest(self) -> str:
        """Changes with the images' names, their order and their labels."""
        found = hashlib.sha256(self.labels.tobytes())
        for name in self.names:
            found.update(os.fsencode(name) + b"\0")
        return found.hexdigest()[:16]

    def typical_size(self) -> tuple[int, int]:
        """Returns height and width in pixels: the medians of some of the images."""
        sizes = []
        for file in self.files(np.unique(np.linspace(0, len(self) - 1, LOOKED_AT).astype(int))):
            try:
                with Image.open(file) as image:
                    sizes.append((image.height, image.width))
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                continue  # training reports what is wrong with it
        if not sizes:
            raise ValueError(f"None of the first images can be read, such as {self.names[0]}. Check the files.")
        height, width = np.median(np.array(sizes), axis=0)
        return int(height), int(width)


def of_files(paths: Sequence[bytes], labels: np.ndarray) -> Part:
    names = [os.fsdecode(path) for path in paths]
    return Part(
        labels,
        names,
        lambda chosen, given: ([names[number] for number in chosen], given),
        lambda chosen: (names[number] for number in chosen),
    )
