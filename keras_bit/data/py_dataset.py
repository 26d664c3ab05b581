"""Batches without TensorFlow: a `keras.utils.PyDataset`, which Keras takes on every backend."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from keras_bit.data import geometry
from keras_bit.data.balanced import balanced_order
from keras_bit.data.items import Items
from keras_bit.data.named_batches import UnreadableImageError, read_batches
from keras_bit.data.options import UNLABELED, Options
from keras_bit.data.reading import Reader
from keras_bit.data.skipped import Skipped

ORDER, CROP, MIX, AUGMENT = range(4)  # uses of random numbers, each with its own sequence
WORD = 2**64
AT_ONCE = 64  # images per step, if all are read beforehand
Key = tuple[int, int]  # epoch, and number of a batch


class Batches(keras.utils.PyDataset):
    """Batches of (images, labels) that are read by number, each while the one before is used.

    A batch depends only on its number, the epoch and the seed, so a resumed run sees the same images. The order and the
    crops come from numpy, and differ from those of `tf.data` with the same seed.

    Args:
        items: the images.
        options: the options of `image_dataset`. With `skip` every image is read once at first, and unreadable ones are
            left out, because a batch must not depend on what was read before.

    Attributes:
        class_names: the names of the labels; `None` for numbers to predict.
        class_counts: images of each class, if each image has one.
        number_units: mean and standard deviation of each number to predict; `None` for classes.
        skipped: a line for each image that was left out.

    Raises:
        NoImageError: no image can be read.
    """

    def __init__(self, items: Items, options: Options) -> None:
        super().__init__()
        names = items.labels.class_names
        self._items, self._options = items, options
        self._size = options.size(items.size)
        self._reader = Reader(
            options.reading_processor,
            options.rule,
            random_resized_crop=options.random_resized_crop,
            max_pixels=options.max_pixels,
            class_names=names,
            size=self._size,
            threads=options.num_parallel_calls,
        )
        self._seed = int(np.random.default_rng().integers(2**63)) if options.seed is None else options.seed % WORD
        self._epoch = 0
        skipped = Skipped()
        self._numbers = np.arange(len(items.labels.values))
        if options.skip:
            self._numbers = self._readable(skipped)
        self._order: tuple[int, np.ndarray] = (-1, self._numbers)  # of the latest epoch
        self._ahead = _Ahead()
        nameless = names is None or options.label_mode == UNLABELED
        self.class_names = None if nameless else list(names or ())
        self.class_counts = None if nameless else items.labels.class_counts
        self.number_units = items.labels.number_units
        self.skipped = skipped.files

    def _readable(self, skipped: Skipped) -> np.ndarray:
        """Returns the numbers of the readable items."""
        options, count = self._options, len(self._numbers)
        reader = Reader(
            options.processor,
            max_pixels=options.max_pixels,
            class_names=self._items.labels.class_names,
            size=None if self._size is None else options.processor.fixed_size,
            threads=options.num_parallel_calls,
        )
        items = map(self._items.__getitem__, range(count))
        together = AT_ONCE if options.processor.fixed_size else 1
        found = [places for *_, places in read_batches(items, reader, together, "skip", skipped)]
        numbers = np.concatenate(found) if found else self._numbers[:0]
        skipped.report(count - len(numbers), count)
        return numbers

    @property
    def num_batches(self) -> int | None:
        """The number of batches in an epoch; `None` if endless."""
        if self._options.repeat:
            return None
        count, size = len(self._numbers), self._options.batch_size
        return count // size if self._options.drop_remainder else -(-count // size)

    def __len__(self) -> int:
        if self.num_batches is None:
            raise TypeError(
                "These batches have no length, because they were made with repeat=True. Pass `steps_per_epoch` to "
                "`model.fit`."
            )
        return self.num_batches

    def __iter__(self) -> Iterator[Any]:
        number = 0
        while self.num_batches is None or number < self.num_batches:
            yield self[number]
            number += 1
        self.on_epoch_end()

    def __getitem__(self, number: int) -> Any:
        """Returns the batch with this number, from 0: images and labels, or only images.

        Raises:
            UnreadableImageError: an image cannot be read.
            OSError: reading failed, but not because of an image.
        """
        if self.num_batches is not None and not 0 <= number < self.num_batches:
            raise IndexError(f"There are {self.num_batches} batches, numbered from 0; got the number {number}.")
        follows = self.num_batches is None or number + 1 < self.num_batches
        found = self._ahead.get(self._read, (self._epoch, number), (self._epoch, number + 1) if follows else None)
        return found[0] if self._options.label_mode == UNLABELED else found

    def on_epoch_end(self) -> None:
        """Starts the next epoch, in another order. Keras calls it."""
        if not self._options.repeat:
            self._epoch += 1

    def _read(self, epoch: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        options = self._options
        positions = self._positions(epoch, number)
        items = [self._items[place] for place in self._places(positions)]
        uniform = None
        if options.rule is not None:
            count = geometry.numbers_needed(options.random_resized_crop)
            uniform = [self._generator(CROP, position).random(count) for position in positions]
        found = self._reader.read(items, uniform)
        if found.failure:
            raise OSError(found.failure)
        if found.problems:
            raise UnreadableImageError(found.problems[0])
        images, labels = found.images, self._rows(np.stack([item.label for item in items]))
        if options.augment:
            from keras_bit.data.keras_augmentation import augmented

            seed = int(self._generator(AUGMENT, positions[0]).integers(2**31))
            images, labels = augmented(options.augment, options.processor, images, labels, seed)
        if not options.mixes:
            return images, labels
        return self._mixed(images, labels, self._generator(MIX, positions[0]))

    def _positions(self, epoch: int, number: int) -> range:
        """Returns the places of a batch's images in the sequence of all epochs."""
        options = self._options
        index, parts = options.shard
        size, count = options.batch_size, len(self._numbers)
        if options.repeat:
            start = (options.initial_step + number) * size + index * (size // parts)
            return range(start, start + size // parts)
        start = epoch * count + number * size
        return range(start, min(start + size, (epoch + 1) * count))

    def _places(self, positions: range) -> list[int]:
        """Returns the numbers of the items at these positions."""
        count = len(self._numbers)
        if self._options.rule is None:
            return [int(self._numbers[position % count]) for position in positions]
        return [int(self._order_of(position // count)[position % count]) for position in positions]

    def _order_of(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            generator = self._generator(ORDER, epoch)
            if self._options.sampling is None:
                order = generator.permutation(self._numbers)
            else:
                order = self._numbers[balanced_order(self._items.labels.values[self._numbers], generator)]
            self._order = epoch, order
        return self._order[1]

    def _generator(self, use: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, use, number])

    def _rows(self, labels: np.ndarray) -> np.ndarray:
        if not self._options.one_hot or labels.dtype.kind == "f":
            return labels
        return np.eye(len(self._items.labels.class_names or ()), dtype=np.float32)[labels]

    def _mixed(
        self, images: np.ndarray, labels: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Applies MixUp, with one weight and one order for the batch, as in `mixing.mix_up`."""
        alpha = self._options.mixup_alpha
        weight = np.float32(generator.beta(alpha, alpha))
        order = generator.permutation(len(images))
        return tuple(weight * values + (1 - weight) * values[order] for values in (images, labels))  # type: ignore[return-value]


class _Ahead:
    """Reads one batch ahead, in a thread."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batch-reader")
        self._next: tuple[Key, Future[Any]] | None = None

    # Threads and locks belong to one process; a forked or unpickled copy makes its own.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin()

    def get(self, read: Callable[[int, int], Any], key: Key, following: Key | None) -> Any:
        """Returns `read(key)`, and starts to read the next one, if there is one."""
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            waiting, self._next = self._next, None
            future = waiting[1] if waiting and waiting[0] == key else self._pool.submit(read, *key)
            if following is not None:
                self._next = following, self._pool.submit(read, *following)
        return future.result()
