"""Computes the pooled features of a data set's images, with their labels and names."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_bit.data.items import Item, named
from keras_bit.data.named_batches import read_batches
from keras_bit.data.options import Options
from keras_bit.data.parts import Part
from keras_bit.data.reading import Reader
from keras_bit.data.skipped import Skipped
from keras_bit.images.processor import BitImageProcessor

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Features:
    """Pooled features of images.

    Args:
        values: float32 `(images, width)`.
        labels: int32 `(images,)`.
        names: the names of the images.
        skipped: why images were left out, a line each.
    """

    values: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()


class Network:
    """A network without its head and the processor that prepares its images.

    Args:
        model: gives `(batch, width)` for float32 images `(batch, height, width, channels)`.
        processor: makes the images.
        batch_size: images at a time.
    """

    def __init__(self, model: "keras.Model", processor: BitImageProcessor, batch_size: int) -> None:
        self.model, self.processor, self._batch_size = model, processor, batch_size
        self._reader = Reader(processor, size=Options(processor, batch_size).size(None))

    def features(
        self, items: Iterable[Item], on_error: str, skipped: Skipped
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields a batch's features, float32 `(batch, width)`, and the images' places among the items.

        Args:
            items: the images, in files.
            on_error: `"raise"`, or `"skip"` to leave out images that cannot be read.
            skipped: receives a line for each image that is left out.

        Raises:
            ValueError: an image cannot be read, or with `"skip"` none can.
        """
        for images, _, places in read_batches(items, self._reader, self._batch_size, on_error, skipped):
            yield self._of_whole_batch(images), places

    def _of_whole_batch(self, images: np.ndarray) -> np.ndarray:
        # Every batch has the same size, because TensorFlow and JAX compile for each size, and the order of sums may
        # depend on it.
        rest = np.zeros((self._batch_size - len(images), *images.shape[1:]), np.float32)
        return np.asarray(self.model.predict_on_batch(np.concatenate([images, rest])))[: len(images)]


def check_in_files(part: Part) -> None:
    """Checks that a part's images are files.

    Raises:
        ValueError: they are in TFRecord files.
    """
    if not part.in_files:
        raise ValueError(
            "The images must be files in a folder per class, got TFRecord files. Write them to folders first."
        )


def check_finite(values: np.ndarray, names: Sequence[str]) -> None:
    """Checks features.

    Raises:
        ArithmeticError: a feature is NaN or infinite.
    """
    for name, row in zip(names, np.isfinite(values).all(axis=1), strict=True):
        if not row:
            raise ArithmeticError(f"{name} has features that are NaN or infinite. Check the weights.")


def features_of(
    model: "keras.Model",
    part: Part,
    *,
    processor: BitImageProcessor,
    batch_size: int,
    on_error: str = "raise",
    shown: str = "features",
) -> Features:
    """Reads the images of a part and computes their features, with a progress bar.

    Args:
        model: gives `(batch, width)` for float32 images `(batch, height, width, channels)`.
        part: images in files.
        processor: makes the images.
        batch_size: images at a time.
        on_error: `"raise"`, or `"skip"` to leave out images that cannot be read.
        shown: the name of the progress bar.

    Raises:
        ValueError: the images are not in files, one cannot be read, or with `"skip"` none can.
        ArithmeticError: a feature is NaN or infinite.
    """
    from tqdm import tqdm

    check_in_files(part)
    network, skipped = Network(model, processor, batch_size), Skipped()
    items = (Item(named(name), label, name) for name, label in zip(part.names, part.labels, strict=True))
    values, places = [], []
    with tqdm(total=len(part), desc=shown, unit=" images", delay=2, leave=False) as progress:
        for rows, found in network.features(items, on_error, skipped):
            values.append(rows)
            places.append(found)
            progress.update(len(found))
    chosen = np.concatenate(places)
    features = Features(
        np.concatenate(values), part.labels[chosen], tuple(part.names[place] for place in chosen), (*skipped.files,)
    )
    check_finite(features.values, features.names)
    return features
