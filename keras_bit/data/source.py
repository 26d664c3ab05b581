"""What every source of images becomes: elements, and how one of them is opened.

`Dataset.shuffle` and `Dataset.random` mix the seed that they are given with the process's, that of `tf.random.set_seed`
and `keras.utils.set_random_seed`. Here are the same operations without it: a seed decides alone.

Imports TensorFlow, and is imported by functions only.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_bit.data import targets

PROCESS_SEED = 87654321  # what TensorFlow takes where none was set


class Example(NamedTuple):
    """One image before it is read."""

    name: Any  # scalar string: what an error calls it
    label: Any  # int32 scalar or float32 row
    load: Callable[[], Any]  # the encoded bytes, or uint8 (height, width, channels)
    problem: Any = ""  # scalar string: why the source could not give it


@dataclasses.dataclass(frozen=True)
class Source:
    """Images with labels.

    Args:
        elements: the data set in the source's order; of numbers, where images can be read in any order.
        open: from an element to its `Example`, in the graph; fails where there is none in it.
        shuffled: from a seed to the elements in an order that is new in every epoch.
        shuffled_once: from a seed, int64 `(2,)`, to the elements in the order that this seed has, always the same.
        class_names: what the labels are called, or `None` where the source does not tell.
        count: how many elements there are, below 0 where that is not known.
        encoded: whether the images are bytes of files, not pixels.
        size: (height, width) of every image, where the source knows.
        numbers: whether the labels are floats to be predicted, as for regression, and not classes.
        look: as `open`, for an element that failed; does not fail itself. By default `open`, which then must not.
    """

    elements: tf.data.Dataset
    open: Callable[[Any], Example]
    shuffled: Callable[[int], tf.data.Dataset]
    shuffled_once: Callable[[Any], tf.data.Dataset]
    class_names: tuple[str, ...] | None
    count: int
    encoded: bool = True
    size: tuple[int, int] | None = None
    numbers: bool = False
    look: Callable[[Any], Example] | None = None


def indexed(
    images: Callable[[Any], Any], image_names: Callable[[Any], Any], labels: targets.Labels, **known: Any
) -> Source:
    """Images that are read by their number, so that only numbers are shuffled."""
    values = tf.constant(labels.values)
    known["numbers"] = labels.class_names is None
    count = len(labels.values)

    def open_example(index: Any) -> Example:
        return Example(image_names(index), values[index], lambda: images(index))

    elements = tf.data.Dataset.range(count)

    def shuffled(seed: int) -> tf.data.Dataset:
        return shuffle(elements, count, seed)

    def shuffled_once(seed: Any) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), tf.cast(seed, tf.int32))
        return tf.data.Dataset.from_tensor_slices(order)

    return Source(elements, open_example, shuffled, shuffled_once, labels.class_names, count, **known)


def files(paths: Sequence[bytes], labels: targets.Labels, names: Sequence[bytes] | None = None) -> Source:
    """Images in files. `names` are what errors call them; by default their paths."""
    stored = tf.constant(paths)
    shown = stored if names is None else tf.constant(names)

    def name(index: Any) -> Any:
        return shown[index]

    return indexed(lambda index: tf.io.read_file(stored[index]), name, labels)


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


def is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)


def described(source: Any) -> str:
    """What a person passed as a source, for a message."""
    return repr(os.fspath(source)) if is_path(source) else f"{type(source).__module__}.{type(source).__name__}"
