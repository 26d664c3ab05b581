"""Batches for evaluation with the names of their images, and one error for unreadable images."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit.data import sources
from keras_bit.data.folders import refuse_classes_first, scan
from keras_bit.data.items import Item
from keras_bit.data.options import Options
from keras_bit.data.reading import Batch, Reader
from keras_bit.data.skipped import Skipped
from keras_bit.data.walk import KINDS, LeftOut
from keras_bit.images.processor import BitImageProcessor

Read = tuple[np.ndarray, np.ndarray, np.ndarray]  # images, labels, places


class NoImageError(ValueError):
    """None of a data set's images can be read."""


class UnreadableImageError(ValueError):
    """An image cannot be read, and `on_error` is `"raise"`.

    Args:
        problem: names the image and the reason.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem} To leave such images out, pass on_error='skip'.")
        self.problem = problem


def read_batches(
    items: Iterable[Item], reader: Reader, batch_size: int, on_error: str, skipped: Skipped
) -> Iterator[Read]:
    """Reads items in their order, each batch while the one before is used.

    Args:
        items: all with labels of one shape and type.
        reader: reads them.
        batch_size: images per batch, even if others are left out; the last one may have fewer.
        on_error: `"raise"` or `"skip"`.
        skipped: gets a line for each image that is left out.

    Yields:
        Images, labels and int64 `(batch,)`, the place of each among the items.

    Raises:
        UnreadableImageError: for `on_error="raise"`, an image cannot be read.
        NoImageError: for `on_error="skip"`, none can be read; the message names the first and the reason.
        OSError: reading failed, but not because of an image.
    """
    held: list[Read] = []  # of batches that are not full
    found = False
    for start, chunk, batch in _ahead(items, reader, batch_size):
        if batch.failure:
            raise OSError(batch.failure)
        skipped.note(batch.problems)
        if batch.problems and on_error == "raise":
            raise UnreadableImageError(skipped.files[0])
        if not len(batch.places):
            continue
        found = True
        labels = np.stack([chunk[place].label for place in batch.places])
        held.append((batch.images, labels, start + batch.places))
        if sum(len(images) for images, *_ in held) >= batch_size:
            images, labels, places = _joined(held)
            rest = (images[batch_size:], labels[batch_size:], places[batch_size:])
            held = [rest] if len(rest[0]) else []
            yield images[:batch_size], labels[:batch_size], places[:batch_size]
    if held:
        yield _joined(held)
    if skipped.files and not found:
        raise NoImageError(f"No image can be read. The first: {skipped.files[0]}")


def _ahead(items: Iterable[Item], reader: Reader, batch_size: int) -> Iterator[tuple[int, list[Item], Batch]]:
    """Yields the place of each batch's first item, the items and their images; the next batch is read meanwhile."""
    remaining = iter(items)
    start = 0
    with ThreadPoolExecutor(1) as pool:
        waiting: list[tuple[list[Item], Future[Batch]]] = []
        while True:
            chunk = list(itertools.islice(remaining, batch_size))
            if chunk:
                waiting.append((chunk, pool.submit(reader.read, chunk)))
            if not waiting:
                return
            if len(waiting) == 2 or not chunk:
                done, future = waiting.pop(0)
                yield start, done, future.result()
                start += len(done)


def _joined(parts: list[Read]) -> Read:
    if len(parts) == 1:
        return parts[0]
    images, labels, places = (np.concatenate(part) for part in zip(*parts, strict=True))
    return images, labels, places


class NamedBatches:
    """Batches of `(images, labels)` with the names of their images.

    Args:
        source, processor, batch_size, class_names: the arguments of `image_dataset`.
        names: the names of the images, in the order of `source`; `None` takes the names that the source has.
        on_error: as in `read_batches`.

    Attributes:
        class_names: the names of the labels; `None` for numbers to predict.
        names: the names of the images that were read in this epoch, without those that were left out.
        num_images: the number of images in `source`; `None` if unknown.
        skipped: why images were left out, a line each.
    """

    def __init__(
        self,
        source: Any,
        names: Sequence[str] | None = None,
        *,
        processor: BitImageProcessor,
        batch_size: int,
        class_names: Sequence[str] | None,
        on_error: str = "raise",
    ) -> None:
        self._items, self.num_images, size = sources.open_in_order(source, class_names)
        options = Options(processor, batch_size)
        self._reader = Reader(processor, class_names=class_names, size=options.size(size))
        self._all_names, self._batch_size, self._on_error = names, batch_size, on_error
        self._skipped = Skipped()
        self.class_names = None if class_names is None else tuple(class_names)
        self.names: list[str] = []
        self.skipped: list[str] = self._skipped.files

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.names.clear()
        batches = read_batches(self._items(), self._reader, self._batch_size, self._on_error, self._skipped)
        for images, labels, places in batches:
            names = self._all_names
            self.names += [str(place) if names is None else names[place] for place in places]
            yield images, labels


def folder_batches(
    directory: str | Path,
    folders: Sequence[str],
    *,
    processor: BitImageProcessor,
    batch_size: int,
    on_error: str = "raise",
    are_classes: bool = False,
    left_out: LeftOut | None = None,
) -> tuple[NamedBatches, LeftOut]:
    """Reads the images in some folders of a directory, with names relative to it; also returns what was left out.

    Args:
        folders: the classes, in their order; labels count them from 0 on.
        are_classes: whether the caller named them as classes, so that folders inside them are not checked.
        left_out: the counts of what was left out already, besides the folders.
        processor, batch_size, on_error: the arguments of `NamedBatches`.

    Raises:
        ValueError: no folder holds an image.
        NotClassesError: the folders may contain the classes; see `refuse_classes_first`.
    """
    left_out = LeftOut() if left_out is None else left_out
    paths, labels = scan(directory, folders, left_out)
    if not are_classes:
        refuse_classes_first(Path(directory), folders, paths, labels)
    if not paths:
        there = f"; there are {left_out}" if left_out else ""
        raise ValueError(
            f"None of the evaluated folders of {str(directory)!r} holds an image ({KINDS}){there}. "
            "Put images into them, or name other folders."
        )
    batches = NamedBatches(
        ([os.fsdecode(path) for path in paths], labels),
        [os.path.relpath(os.fsdecode(path), directory) for path in paths],
        processor=processor,
        batch_size=batch_size,
        class_names=folders,
        on_error=on_error,
    )
    counts = np.bincount(labels, minlength=len(folders))
    left_out.empty += [name for name, count in zip(folders, counts, strict=True) if not count]
    return batches, left_out
