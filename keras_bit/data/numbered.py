"""Images to be evaluated: batches that know the names of their images, and errors that name one."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit.data.dataset import image_dataset


def folder_names(directory: str | Path) -> list[str]:
    """The folders in a directory, sorted; hidden ones are left out.

    Raises:
        ValueError: there are none.
    """
    names = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(f"{str(directory)!r} must hold a folder per class, and has none. Put the images in some.")
    return names


def batches_of(data: Any, on_error: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches of an `image_dataset(..., on_error="skip")`, which for `on_error="raise"` end at what it leaves out.

    The data set's own errors are TensorFlow's, among the names of its operations, and fail on names that are no UTF-8.

    Raises:
        ValueError: an image cannot be read, or for `on_error="skip"` none can; names the first and says why.
    """
    import tensorflow as tf

    try:
        for batch in data.as_numpy_iterator():
            if on_error == "raise" and data.skipped:
                break
            yield batch
    except tf.errors.OpError as error:
        if not data.skipped or (on_error == "skip" and "images were left out" not in str(error)):
            raise
        if on_error == "skip":
            raise ValueError(f"No image can be read. The first: {data.skipped[0]}") from None
    if on_error == "raise" and data.skipped:
        raise ValueError(f"{data.skipped[0]} To leave such images out, pass on_error='skip'.")


class NumberedPictures:
    """Batches of `(images, numbers)`: where images are left out, the numbers tell which the others are.

    Args:
        source: a source of `image_dataset` whose labels are the images' own numbers.
        processor, batch_size: as in `image_dataset`.
        on_error: `"raise"` ends at the first image that cannot be read, `"skip"` leaves them out.

    Attributes:
        skipped: why images were left out, a line each.
    """

    def __init__(self, source: Any, *, processor: Any, batch_size: int, on_error: str) -> None:
        self._data = image_dataset(source, processor=processor, batch_size=batch_size, on_error="skip")
        self._on_error = on_error
        self.skipped: list[str] = self._data.skipped

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return batches_of(self._data, self._on_error)


class FolderPictures:
    """Batches of `(images, labels)` from some folders of a directory, as `image_dataset` reads them for evaluation.

    Args:
        directory: the folders are in it.
        folders: the classes, in their order; labels count them from 0 on.
        processor, batch_size: of `image_dataset`.
        on_error: `"raise"` or `"skip"`, as in `batches_of`.

    Attributes:
        class_names: the folders.
        names: of the images read so far, relative to `directory`; one for each that was not left out.
        num_pictures: in all folders.
        empty: folders without an image.
        skipped: why images were left out, a line each.

    Raises:
        ValueError: no folder holds an image.
    """

    def __init__(
        self, directory: str | Path, folders: Sequence[str], *, processor: Any, batch_size: int, on_error: str = "raise"
    ) -> None:
        from keras_bit.data import sources  # here: TensorFlow

        paths, labels = sources.scan(Path(directory), folders)
        if not paths:
            kinds = ", ".join(sources.SUFFIXES)
            raise ValueError(f"No folder of {str(directory)!r} that is evaluated holds an image ({kinds}).")
        self.class_names = tuple(folders)
        self.names: list[str] = []
        self.num_pictures = len(paths)
        counts = np.bincount(labels, minlength=len(folders))
        self.empty = [name for name, count in zip(folders, counts, strict=True) if not count]
        self._labels = np.array(labels, np.int64)
        self._all_names = [os.path.relpath(os.fsdecode(path), directory) for path in paths]
        source = ([os.fsdecode(path) for path in paths], np.arange(len(paths)))
        self._pictures = NumberedPictures(source, processor=processor, batch_size=batch_size, on_error=on_error)
        self.skipped = self._pictures.skipped

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.names.clear()
        for images, numbers in self._pictures:
            self.names += [self._all_names[number] for number in numbers]
            yield images, self._labels[numbers]
