"""Examines and changes the data for `fit`: a `tf.data.Dataset` or, without TensorFlow, a `keras.utils.PyDataset`.

The functions work for both. They find the kind of labels and the number of batches, and change batches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bit.packages import has_tensorflow

Batch = tuple[Any, ...]  # images, labels, and weights if there are any


class Labels(NamedTuple):
    """The labels of a batch.

    Args:
        dtype: their type, by numpy's name.
        shape: the shape of a batch; `None` for a side that varies.
    """

    dtype: str
    shape: tuple[int | None, ...]

    @property
    def is_float(self) -> bool:
        return "float" in self.dtype

    @property
    def is_integer(self) -> bool:
        return "int" in self.dtype


def is_indexed(data: Any) -> bool:
    """Returns whether data is a `keras.utils.PyDataset`, not a `tf.data.Dataset`."""
    return isinstance(data, keras.utils.PyDataset)


def labels_of(data: Any, name: str) -> Labels:
    """Returns the kind of labels of a data set.

    Args:
        data: a `tf.data.Dataset` or a `keras.utils.PyDataset`, whose first batch is read.
        name: the argument's name.

    Raises:
        ValueError: it has another type, does not give batches of images and labels, or is empty.
    """
    if is_indexed(data):
        if data.num_batches == 0:
            raise no_batch(name)
        found = data[0]
        found = found if isinstance(found, tuple | list) else (found,)
        parts = [(str(part.dtype), (None, *part.shape[1:])) for part in map(np.asarray, found)]
        got: Any = ", ".join(f"{dtype} {shape}" for dtype, shape in parts)
        fits = True
    else:
        spec = getattr(data, "element_spec", None)
        fits = isinstance(spec, tuple) and hasattr(data, "cardinality")
        got = type(data).__name__ if spec is None else spec
        parts = [(part.dtype.name, _shape(part)) for part in spec or ()] if fits else []
    if not fits or len(parts) not in (2, 3):
        kinds = "a keras.utils.PyDataset"
        from_arrays = "`image_dataset((images, labels), ...)`, which takes uint8 images"
        if has_tensorflow():
            kinds = "a tf.data.Dataset or keras.utils.PyDataset"
            from_arrays = "`tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)`"
        alone = " Images without labels need a `teacher`." if name == "train" and (len(parts) == 1 or not fits) else ""
        raise ValueError(
            f"`{name}` must be {kinds} of (images, labels), as from `image_dataset`, got {got}. Convert arrays with "
            f"{from_arrays}.{alone}"
        )
    if len(parts[0][1]) != 4:
        advice = "" if is_indexed(data) else " Batch it: `batch(batch_size)`."
        raise ValueError(
            f"`{name}` must give batches of images (batch, height, width, channels), got {parts[0][1]}.{advice}"
        )
    if known_length(data) == 0:
        raise no_batch(name)
    return Labels(*parts[1])


def first_labels(data: Any, count: int) -> np.ndarray:
    """Returns the labels of the first batches, at least `count` of them if the data set has so many."""
    batches = (data[number] for number in range(known_length(data) or count)) if is_indexed(data) else iter(data)
    found: list[np.ndarray] = []
    for batch in batches:
        found.append(np.asarray(keras.ops.convert_to_numpy(batch[1])))
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)


def without_labels(data: Any) -> Any:
    """Replaces the labels of a data set by zeros, for a training that does not use labels.

    Args:
        data: a data set whose elements are batches of images, or tuples that begin with them. Anything else is returned
            unchanged, and `labels_of` refuses it.
    """
    spec = getattr(data, "element_spec", None)
    first = spec[0] if isinstance(spec, tuple) and spec else spec
    if not is_indexed(data) and not hasattr(first, "shape"):
        return data

    def in_graph(images: Any, *beside: Any) -> Batch:
        import tensorflow as tf

        return images, tf.zeros(tf.shape(images)[:1], tf.int32)

    return mapped(data, in_graph, lambda images, *beside: (images, np.zeros(len(images), np.int32)))


def _shape(spec: Any) -> tuple[int | None, ...]:
    return () if spec.shape.rank is None else tuple(spec.shape)


def no_batch(name: str) -> ValueError:
    return ValueError(
        f"`{name}` must have at least one batch, got an "
        "empty data set. With drop_remainder, the batch "
        "may be larger than the data." + " Pass None for no validation." * (name == "validation")
    )


def is_endless(data: Any) -> bool:
    return data.num_batches is None if is_indexed(data) else int(data.cardinality()) == -1


def known_length(data: Any) -> int | None:
    """Returns the number of batches; `None` if it is endless or unknown."""
    if is_indexed(data):
        return data.num_batches
    length = int(data.cardinality())
    return length if length >= 0 else None


def repeated(data: Any) -> Any:
    """Returns a data set that repeats `data` without end."""
    if is_endless(data):
        return data
    return _Repeated(data) if is_indexed(data) else data.repeat()


def mapped(data: Any, in_graph: Callable[..., Batch], in_numpy: Callable[..., Batch]) -> Any:
    """Applies a function to the batches of a data set, and keeps their number."""
    if is_indexed(data):
        return _Mapped(data, in_numpy)
    import tensorflow as tf

    changed = data.map(in_graph, tf.data.AUTOTUNE)
    count = int(data.cardinality())
    # If the number of batches is unknown, Keras warns that its input ran out.
    return changed.apply(tf.data.experimental.assert_cardinality(count)) if count >= 0 else changed


class _Mapped(keras.utils.PyDataset):
    def __init__(self, data: keras.utils.PyDataset, function: Callable[..., Batch]) -> None:
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._data, self._function = data, function

    @property
    def num_batches(self) -> int | None:
        return self._data.num_batches

    def __getitem__(self, number: int) -> Batch:
        found = self._data[number]
        return self._function(*found) if isinstance(found, tuple | list) else self._function(found)

    def on_epoch_end(self) -> None:
        self._data.on_epoch_end()


class _Repeated(keras.utils.PyDataset):
    def __init__(self, data: keras.utils.PyDataset) -> None:
        super().__init__()  # in one thread, because its epochs depend on earlier ones
        self._data, self._length = data, int(data.num_batches or 0)

    @property
    def num_batches(self) -> int | None:
        return None

    def __getitem__(self, number: int) -> Batch:
        if number and number % self._length == 0:
            self._data.on_epoch_end()
        return self._data[number % self._length]
