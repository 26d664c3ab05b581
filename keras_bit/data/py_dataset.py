"""Batches without TensorFlow: a `keras.utils.PyDataset`, which Keras takes on every backend."""

import functools
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np

from keras_bit.data import geometry
from keras_bit.data.items import Items
from keras_bit.data.named_batches import NoImageError, UnreadableImageError
from keras_bit.data.options import Options
from keras_bit.data.reading import Reader
from keras_bit.data.skipped import Skipped

ORDER, CROP, MIX = range(3)  # what random numbers are for: each use has a sequence of its own
WORD = 2**64


class Batches(keras.utils.PyDataset):
    """Batches of (images, labels) that are read by their number, the next one while the last one is used.

    What is in a batch is decided by its number, the epoch and the seed alone, so that a run that goes on from a step
    sees what the whole run sees. The order and the crops are numpy's, and others than those of `tf.data` with the same
    seed.

    Args:
        items: the images.
        options: of `image_dataset`.

    Attributes:
        class_names: of the labels; `None` for numbers to be predicted.
        skipped: a line for each image that was left out. A batch has fewer images then.
    """

    def __init__(self, items: Items, options: Options) -> None:
        super().__init__()
        names = items.labels.class_names
        self._items, self._options, self._count = items, options, len(items.labels.values)
        self._reader = Reader(
            options.processor,
            options.rule,
            random_resized_crop=options.random_resized_crop,
            max_pixels=options.max_pixels,
            class_names=names,
            size=options.size(items.size),
            threads=options.num_parallel_calls,
        )
        self._seed = int(np.random.default_rng().integers(2**63)) if options.seed is None else options.seed % WORD
        self._order = functools.lru_cache(2)(self._order_of)
        self._epoch = 0
        self._skipped = Skipped()
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="batch-reader")
        self._next: tuple[tuple[int, int], Future[tuple[np.ndarray, np.ndarray]]] | None = None
        self._lock = threading.Lock()
        self._left_out = self._seen = 0
        self.class_names = None if names is None else list(names)
        self.skipped = self._skipped.files

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch has; `None` for no end."""
        if self._options.repeat:
            return None
        size = self._options.batch_size
        return self._count // size if self._options.drop_remainder else -(-self._count // size)

    def __len__(self) -> int:
        if self.num_batches is None:
            raise TypeError("These batches have no end: they were made with repeat=True.")
        return self.num_batches

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        number = 0
        while self.num_batches is None or number < self.num_batches:
            yield self[number]
            number += 1
        self.on_epoch_end()

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch with this number, from 0 on.

        Raises:
            UnreadableImageError: an image cannot be read, with `on_error="raise"`.
            NoImageError: none of the batch can be read, with `on_error="skip"`.
            OSError: reading failed for a reason that is not in the images.
        """
        if self.num_batches is not None and not 0 <= number < self.num_batches:
            raise IndexError(f"There are {self.num_batches} batches, from 0 on; got the number {number}.")
        key = (self._epoch, number)
        with self._lock:
            waiting, self._next = self._next, None
            future = waiting[1] if waiting and waiting[0] == key else self._ahead.submit(self._read, *key)
            if self.num_batches is None or number + 1 < self.num_batches:
                following = (key[0], number + 1)
                self._next = following, self._ahead.submit(self._read, *following)
        return future.result()

    def on_epoch_end(self) -> None:
        """Begins the next epoch, in another order, and warns about images that were left out of this one."""
        if self._left_out < self._seen:
            self._skipped.report(self._left_out, self._seen)
        self._left_out = self._seen = 0
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
        if found.problems and not options.skip:
            raise UnreadableImageError(found.problems[0])
        self._skipped.note(found.problems)
        self._left_out += len(found.problems)
        self._seen += len(items)
        if not len(found.places):
            raise NoImageError(f"No image of a batch can be read. The first: {found.problems[0]}")
        labels = self._rows(np.stack([items[place].label for place in found.places]))
        if not options.mixes:
            return found.images, labels
        return self._mixed(found.images, labels, self._generator(MIX, positions[0]))

    def _positions(self, epoch: int, number: int) -> range:
        """Where the images of a batch are in all epochs, one behind the other."""
        options = self._options
        index, parts = options.shard
        size = options.batch_size
        if options.repeat:
            start = (options.initial_step + number) * size + index * (size // parts)
            return range(start, start + size // parts)
        start = epoch * self._count + number * size
        return range(start, min(start + size, (epoch + 1) * self._count))

    def _places(self, positions: range) -> list[int]:
        """The numbers of the items at these positions."""
        if self._options.rule is None:
            return [position % self._count for position in positions]
        return [int(self._order(position // self._count)[position % self._count]) for position in positions]

    def _order_of(self, epoch: int) -> np.ndarray:
        return self._generator(ORDER, epoch).permutation(self._count)

    def _generator(self, use: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, use, number])

    def _rows(self, labels: np.ndarray) -> np.ndarray:
        if not self._options.one_hot or labels.dtype.kind == "f":
            return labels
        return np.eye(len(self.class_names or ()), dtype=np.float32)[labels]

    def _mixed(
        self, images: np.ndarray, labels: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """MixUp: one weight and one other order for the batch, as in `mixing.mix_up`."""
        alpha = self._options.mixup_alpha
        weight = np.float32(generator.beta(alpha, alpha))
        order = generator.permutation(len(images))
        return tuple(weight * values + (1 - weight) * values[order] for values in (images, labels))  # type: ignore[return-value]
