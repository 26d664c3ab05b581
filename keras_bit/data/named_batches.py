"""Batches for evaluation that know the names of their images, and one error for what cannot be read."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit.data.dataset import indexed_dataset
from keras_bit.data.folders import scan
from keras_bit.data.walk import KINDS, LeftOut
from keras_bit.images.processor import BitImageProcessor


class NoImageError(ValueError):
    """None of a data set's images can be read."""


class UnreadableImageError(ValueError):
    """An image cannot be read, and is not to be left out.

    Args:
        problem: names it and says why.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem} To leave such images out, pass on_error='skip'.")
        self.problem = problem


def batches_of(data: Any, on_error: str) -> Iterator[Any]:
    """The batches of a data set that leaves out what cannot be read; for `on_error="raise"` they end there.

    The data set's own errors are TensorFlow's, among the names of its operations, and fail on names that are not UTF-8.

    Args:
        data: of `image_dataset(..., on_error="skip")` or `indexed_dataset`.
        on_error: `"raise"` or `"skip"`.

    Yields:
        Tuples of arrays, as many as `data` has in a batch.

    Raises:
        UnreadableImageError: for `on_error="raise"`, an image cannot be read.
        NoImageError: for `on_error="skip"`, none can be read; names the first and says why.
    """
    import tensorflow as tf

    data.faults.none_left = False
    try:
        for batch in data.as_numpy_iterator():
            if on_error == "raise" and data.skipped:
                break
            yield batch
    except tf.errors.OpError:
        if not data.skipped or (on_error == "skip" and not data.faults.none_left):
            raise
        if on_error == "skip":
            raise NoImageError(f"No image can be read. The first: {data.skipped[0]}") from None
    if on_error == "raise" and data.skipped:
        raise UnreadableImageError(data.skipped[0])


class NamedBatches:
    """Batches of `(images, labels)` that know the names of their images.

    Args:
        source, processor, batch_size, class_names: of `image_dataset`.
        names: of the images, in the order of `source`.
        on_error: as in `batches_of`.

    Attributes:
        class_names: of the labels.
        names: of the images read so far in this epoch; one for each that was not left out.
        num_images: in `source`.
        skipped: why images were left out, a line each.
    """

    def __init__(
        self,
        source: Any,
        names: Sequence[str],
        *,
        processor: BitImageProcessor,
        batch_size: int,
        class_names: Sequence[str],
        on_error: str = "raise",
    ) -> None:
        self._data = indexed_dataset(source, processor=processor, batch_size=batch_size, class_names=class_names)
        self._all_names = names
        self._on_error = on_error
        self.class_names = tuple(class_names)
        self.names: list[str] = []
        self.num_images = len(names)
        self.skipped: list[str] = self._data.skipped

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.names.clear()
        for images, labels, index in batches_of(self._data, self._on_error):
            self.names += [self._all_names[place] for place in index]
            yield images, labels


def folder_batches(
    directory: str | Path,
    folders: Sequence[str],
    *,
    processor: BitImageProcessor,
    batch_size: int,
    on_error: str = "raise",
) -> tuple[NamedBatches, LeftOut]:
    """The images in some folders of a directory, with names relative to it, and what is not among them.

    Args:
        folders: the classes, in their order; labels count them from 0 on.
        processor, batch_size, on_error: of `NamedBatches`.

    Raises:
        ValueError: no folder holds an image.
    """
    left_out = LeftOut()
    paths, labels = scan(directory, folders, left_out)
    if not paths:
        there = f"; there are {left_out}" if left_out else ""
        raise ValueError(f"No folder of {str(directory)!r} that is evaluated holds an image ({KINDS}){there}.")
    batches = NamedBatches(
        ([os.fsdecode(path) for path in paths], labels),
        [os.path.relpath(os.fsdecode(path), directory) for path in paths],
        processor=processor,
        batch_size=batch_size,
        class_names=folders,
        on_error=on_error,
    )
    counts = np.bincount(labels, minlength=len(folders))
    left_out.empty = [name for name, count in zip(folders, counts, strict=True) if not count]
    return batches, left_out
