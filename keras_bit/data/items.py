"""Images that can be read in any order, by number: files, arrays, and rows that Python reads.

Without TensorFlow.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from keras_bit.data import targets
from keras_bit.images import base64_text
from keras_bit.wording import shortened


class Item(NamedTuple):
    """One image before it is read."""

    name: str  # its name in errors
    label: Any  # int32 scalar, float32 scalar or float32 row
    contents: str | bytes | np.ndarray  # a path, the bytes of a file, or uint8 (height, width, channels)
    problem: str = ""  # why the source could not return it; continues a sentence after the name


class Items(Protocol):
    """Labeled images by number, from 0.

    Attributes:
        labels: the labels of all of them.
        encoded: whether the images are files or their bytes, not pixels.
        size: (height, width) of every image, if known.
    """

    labels: targets.Labels
    encoded: bool
    size: tuple[int, int] | None

    def __getitem__(self, number: int) -> Item: ...


class Files:
    """Images in files. `names` are for errors; by default they are the paths."""

    encoded = True
    size: tuple[int, int] | None = None

    def __init__(self, paths: Sequence[bytes], labels: targets.Labels, names: Sequence[bytes] | None = None) -> None:
        self.paths, self.labels, self.names = paths, labels, paths if names is None else names

    def __getitem__(self, number: int) -> Item:
        name, path = os.fsdecode(self.names[number]), os.fsdecode(self.paths[number])
        return Item(named(name), self.labels.values[number], path)


class Arrays:
    """uint8 arrays `(height, width, channels)` of 1, 3 or 4 channels, or one array of several images."""

    encoded = False

    def __init__(self, arrays: Sequence[np.ndarray] | np.ndarray, labels: targets.Labels) -> None:
        self.arrays, self.labels = arrays, labels
        sizes = {array.shape[:2] for array in arrays}
        self.size: tuple[int, int] | None = sizes.pop() if len(sizes) == 1 else None

    def __getitem__(self, number: int) -> Item:
        return Item(f"source[0][{number}]", self.labels.values[number], self.arrays[number])


class Rows:
    """Rows of another library's table.

    Args:
        value: a function from a row's number to `bytes` and `path`, one of which may be `None`; `None` if the row has
            no image.
        labels: the labels of the rows.
    """

    encoded = True
    size: tuple[int, int] | None = None

    def __init__(self, value: Callable[[int], dict[str, Any] | None], labels: targets.Labels) -> None:
        self._value, self.labels = value, labels

    def __getitem__(self, number: int) -> Item:
        found = self._value(int(number)) or {"bytes": None, "path": None}
        name = f"row {number} of `source`"
        label = self.labels.values[number]
        if found["path"]:
            name += f", {named(found['path'])},"
        if found["bytes"] is None and found["path"]:
            return Item(name, label, found["path"])  # read together with others, in a thread
        return Item(name, label, found["bytes"] or b"")


class Unlabeled:
    """Wraps items, some of which have no label."""

    def __init__(self, items: Items, unlabeled: np.ndarray) -> None:
        self._items, self._unlabeled = items, unlabeled
        self.labels, self.encoded, self.size = items.labels, items.encoded, items.size

    def __getitem__(self, number: int) -> Item:
        item = self._items[number]
        return item._replace(problem="has no label.") if self._unlabeled[number] else item


def named(path: str) -> str:
    """Returns a path for a message: whole, unless it is an image as text."""
    return shortened(path) if base64_text.described(path) else path


def is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)


def described(source: Any) -> str:
    """Describes what was passed as a source, for a message."""
    if is_path(source):
        return repr(shortened(os.fspath(source)))
    return f"{type(source).__module__}.{type(source).__name__}"
