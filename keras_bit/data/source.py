"""What every source of images becomes: elements, and how one of them is opened.

`Dataset.shuffle` and `Dataset.random` mix the seed that they are given with the process's, that of `tf.random.set_seed`
and `keras.utils.set_random_seed`. Here are the same operations without it: a seed decides alone.

Imports TensorFlow, and is imported by functions only.
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

PROCESS_SEED = 87654321  # what TensorFlow takes where none was set


class Example(NamedTuple):
    """One image before it is read, in the graph."""

    name: Any  # scalar string: what an error calls it
    label: Any  # scalar or row, of the source's `label_spec`
    load: Callable[[], Any]  # the encoded bytes, or uint8 (height, width, channels)
    problem: Any = ""  # scalar string: why the source could not give it


@dataclasses.dataclass(frozen=True)
class Source:
    """Images with labels.

    Args:
        elements: the data set in the source's order; of numbers, where images can be read in any order.
        item: from an element, as numpy has it, to its `Item`.
        open: from an element to its `Example`, in the graph; `None` where Python has to read.
        shuffled: from a seed to the elements in an order that is new in every epoch.
        shuffled_once: from a seed, int64 `(2,)`, to the elements in the order that this seed has, always the same.
        label_spec: type and shape of a label.
        class_names: what the labels are called, or `None` where the source does not tell.
        count: how many elements there are, below 0 where that is not known.
        encoded: whether the images are files or their bytes, not pixels.
        size: (height, width) of every image, where the source knows.
        numbers: whether the labels are floats to be predicted, as for regression, and not classes.
        labels: of all images, where they are known.
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
    """Images that are read by their number, so that only numbers are shuffled."""
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
    """The same images in an order in which every class comes equally often.

    Raises:
        ValueError: the source is read from its beginning, or an image has not one class.
    """
    labels = source.labels
    if labels is None or labels.class_counts is None:
        raise ValueError(
            "`sampling` must be None for a `source` that is read from its beginning, as records and streams, or whose "
            "images have not one class each; got 'balanced'."
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
    """What opens an item by its number in the graph, where TensorFlow can."""
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
    """The pixels one after the other, so that images of many sizes are stored as those of one; starts and shapes."""
    shapes = np.array([array.shape for array in arrays], np.int64)
    starts = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])[:-1]
    return np.concatenate([np.reshape(array, -1) for array in arrays]), starts, shapes


def shuffle(data: tf.data.Dataset, size: int, seed: int) -> tf.data.Dataset:
    """`data.shuffle(size, seed)`: `size` elements are held, and which one comes next is random."""
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
    result.shuffled_from = data  # the functions in it live as long as the Python object does
    return result


def random_numbers(seed: int) -> tf.data.Dataset:
    """`Dataset.random(seed, rerandomize_each_iteration=True)`: int64 without end."""
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
