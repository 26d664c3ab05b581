"""The common form of every source of images: elements, and functions that open one.

`Dataset.shuffle` and `Dataset.random` mix their seed with the process's seed, that of `tf.random.set_seed` and
`keras.utils.set_random_seed`. The operations here do the same, but depend only on their own seed.

Imports TensorFlow, so only functions import this module.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_bit.data.balanced import balanced_order
from keras_bit.data.items import Arrays, Files, Item, Items
from keras_bit.data.targets import Labels

PROCESS_SEED = 87654321  # TensorFlow's default


class Example(NamedTuple):
    """One image before it is read, in the graph."""

    name: Any  # scalar string: its name in errors
    label: Any  # scalar or row, of the source's `label_spec`
    load: Callable[[], Any]  # the encoded bytes, or uint8 (height, width, channels)
    problem: Any = ""  # scalar string: why the source could not return it


@dataclasses.dataclass(frozen=True)
class Source:
    """Images with labels.

    Args:
        elements: the data set in the source's order; numbers, if images can be read in any order.
        item: a function from an element in numpy to its `Item`.
        open: a function from an element to its `Example`, in the graph; `None` if Python must read.
        shuffled: a function from a seed to the elements in an order that is new in every epoch.
        shuffled_once: a function from a seed, int64 `(2,)`, to the elements in an order that depends only on it.
        label_spec: type and shape of a label.
        class_names: the names of the labels, or `None` if unknown.
        count: the number of elements, below 0 if unknown.
        encoded: whether the images are files or their bytes, not pixels.
        size: (height, width) of every image, if known.
        numbers: whether the labels are floats to predict, as for regression.
        labels: the labels of all images, if known.
    """

    elements: tf.data.Dataset
    item: Callable[[Any], Item]
    open: Callable[[Any], Example] | None
    shuffled: Callable[[int], tf.data.Dataset]
    shuffled_once: Callable[[Any], tf.data.Dataset]
    label_spec: tf.TensorSpec
    class_names: tuple[str, ...] | None
    count: int
    encoded: bool = True
    size: tuple[int, int] | None = None
    numbers: bool = False
    labels: Labels | None = None


def indexed(items: Items) -> Source:
    """Returns images that are read by number, so that only numbers are shuffled."""
    values = items.labels.values
    count = len(values)
    elements = tf.data.Dataset.range(count)

    def shuffled(seed: int) -> tf.data.Dataset:
        return shuffle(elements, count, seed)

    def shuffled_once(seed: Any) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), tf.cast(seed, tf.int32))
        return tf.data.Dataset.from_tensor_slices(order)

    return Source(
        elements=elements,
        item=lambda index: items[int(index)],
        open=_in_graph(items),
        shuffled=shuffled,
        shuffled_once=shuffled_once,
        label_spec=tf.TensorSpec(values.shape[1:], values.dtype),
        class_names=items.labels.class_names,
        count=count,
        encoded=items.encoded,
        size=items.size,
        numbers=items.labels.class_names is None,
        labels=items.labels,
    )


def balanced(source: Source) -> Source:
    """Returns the same images in an order in which every class occurs equally often.

    Raises:
        ValueError: the source must be read from its beginning, or an image does not have exactly one class.
    """
    labels = source.labels
    if labels is None or labels.class_counts is None:
        raise ValueError(
            "`sampling` must be None for a `source` that is read from its beginning (records, streams) or whose "
            "images do not have one class each; got 'balanced'."
        )
    values = labels.values

    def order(seed: np.ndarray) -> np.ndarray:
        return balanced_order(values, np.random.default_rng([int(number) % 2**64 for number in seed]))

    def shuffled_once(seed: Any) -> tf.data.Dataset:
        found = tf.numpy_function(order, [tf.cast(seed, tf.int64)], tf.int64, stateful=False)
        return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(found, [len(values)]))

    def shuffled(seed: int) -> tf.data.Dataset:
        # A number that is new in each epoch.
        return random_numbers(seed).take(1).flat_map(lambda number: shuffled_once(tf.stack([seed, number])))

    return dataclasses.replace(source, shuffled=shuffled, shuffled_once=shuffled_once)


def _in_graph(items: Items) -> Callable[[Any], Example] | None:
    """Returns a function that opens an item by number in the graph, if TensorFlow can."""
    if isinstance(items, Files):
        return functools.partial(_file, items)
    return functools.partial(_array, items) if isinstance(items, Arrays) else None


def _file(files: Files, index: Any) -> Example:
    path, name = tf.constant(files.paths)[index], tf.constant(files.names)[index]
    return Example(name, tf.constant(files.labels.values)[index], lambda: tf.io.read_file(path))


def _array(arrays: Arrays, index: Any) -> Example:
    pixels, starts, shapes = _joined(arrays.arrays)
    channels = shapes[0, 2] if (shapes[:, 2] == shapes[0, 2]).all() else None

    def load() -> Any:
        start, shape = tf.constant(starts)[index], tf.constant(shapes)[index]
        image = tf.reshape(tf.constant(pixels)[start : start + tf.reduce_prod(shape)], shape)
        return tf.ensure_shape(image, [None, None, channels])

    return Example(tf.strings.format("source[0][{}]", index), tf.constant(arrays.labels.values)[index], load)


def _joined(arrays: Sequence[np.ndarray] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joins the pixels of images of any sizes into one array; returns it with the starts and shapes."""
    shapes = np.array([array.shape for array in arrays], np.int64)
    starts = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])[:-1]
    return np.concatenate([np.reshape(array, -1) for array in arrays]), starts, shapes


def shuffle(data: tf.data.Dataset, size: int, seed: int) -> tf.data.Dataset:
    """Does `data.shuffle(size, seed)`: a buffer holds `size` elements, and the next one is drawn from it."""
    spec = data.element_spec
    variant = tf.raw_ops.ShuffleDatasetV3(
        input_dataset=tf.data.experimental.to_variant(data),
        buffer_size=tf.constant(size, tf.int64),
        reshuffle_each_iteration=True,
        output_types=[part.dtype for part in tf.nest.flatten(spec)],
        output_shapes=[part.shape for part in tf.nest.flatten(spec)],
        **_seeds(seed),
    )
    result = tf.data.experimental.from_variant(variant, spec)
    result.shuffled_from = data  # its functions live as long as the Python object
    return result


def random_numbers(seed: int) -> tf.data.Dataset:
    """Returns `Dataset.random(seed, rerandomize_each_iteration=True)`: endless int64 numbers."""
    variant = tf.raw_ops.RandomDatasetV2(
        rerandomize_each_iteration=True, output_types=[tf.int64], output_shapes=[[]], **_seeds(seed)
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.int64))


def _seeds(seed: int) -> dict[str, Any]:
    return {
        "seed": tf.constant(PROCESS_SEED, tf.int64),
        "seed2": tf.constant(seed, tf.int64),
        "seed_generator": tf.raw_ops.DummySeedGenerator(),
    }
