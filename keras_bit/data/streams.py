"""Images that must be read from the first one on: a `tf.data.Dataset`.

Imports TensorFlow, so only functions import this module.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_bit.data import targets
from keras_bit.data.items import Item
from keras_bit.data.source import Example, Source, shuffle

LARGEST = 2**31 - 1  # number of a class
EMPTY = "does not exist: `source` is empty. Pass at least one image."


def stream(
    data: tf.data.Dataset,
    class_names: tuple[str, ...] | None,
    image_column: str,
    label_column: str,
    shuffle_buffer: int,
) -> Source:
    pairs = _pairs(data, image_column, label_column)
    image, label = pairs.element_spec
    encoded = _check_image(image)
    rows = _check_label(label)
    numbers = label.dtype.is_floating and not rows
    if rows:
        class_names = targets.names_for(label.shape[0], class_names)
    elif numbers and class_names is not None:
        raise ValueError("`class_names` must be None for labels that are floats, which are numbers to predict.")
    count = int(data.cardinality())
    if count == 0:
        raise ValueError("`source` must hold at least one image, got an empty data set.")

    def serialized(image: Any, label: Any) -> tuple[Any, Any]:
        return image if encoded else tf.io.serialize_tensor(image), label

    spec = tf.TensorSpec(label.shape, tf.float32 if rows or numbers else tf.int32)

    def item(element: tuple[Any, bytes, tuple[Any, Any]]) -> Item:
        number, problem, (contents, label) = element
        if not encoded and not problem:
            contents = tf.io.parse_tensor(contents, tf.uint8).numpy()
        label = label if rows or numbers else np.clip(label, -LARGEST, LARGEST)
        return Item(
            f"element {number} of `source`", np.asarray(label, spec.dtype.as_numpy_dtype), contents, problem.decode()
        )

    def open_example(element: tuple[Any, Any, tuple[Any, Any]]) -> Example:
        number, problem, (contents, label) = element
        name = tf.strings.format("element {} of `source`", number)

        def load() -> Any:
            return contents if encoded else tf.ensure_shape(tf.io.parse_tensor(contents, tf.uint8), image.shape)

        return Example(name, tf.cast(label, tf.float32) if rows or numbers else int32(label), load, problem)

    # Pixels as one string, because images of several sizes cannot form a batch.
    elements = numbered(
        pairs.map(serialized, tf.data.AUTOTUNE),
        "cannot be read: `source` itself fails there. Iterate over it to see why.",
        EMPTY if count < 0 else None,
    )

    def shuffled(seed: int) -> tf.data.Dataset:
        return shuffle(elements, shuffle_buffer, seed)

    def shuffled_once(seed: Any) -> tf.data.Dataset:
        return shuffled_in_windows(elements, seed, shuffle_buffer)

    return Source(
        elements, item, open_example, shuffled, shuffled_once, spec, class_names, count, encoded, numbers=numbers
    )


def _pairs(data: tf.data.Dataset, image_column: str, label_column: str) -> tf.data.Dataset:
    """Returns the elements as (image, label)."""
    spec = data.element_spec
    if isinstance(spec, dict):
        if missing := [name for name in (image_column, label_column) if name not in spec]:
            raise ValueError(
                f"`source` has no {' and no '.join(map(repr, missing))} among {', '.join(map(repr, sorted(spec)))}. "
                "Pass `image_column` and `label_column`."
            )
        data = data.map(lambda columns: (columns[image_column], columns[label_column]), tf.data.AUTOTUNE)
    parts = data.element_spec
    if not isinstance(parts, tuple) or len(parts) != 2 or not all(isinstance(part, tf.TensorSpec) for part in parts):
        raise ValueError(
            f"`source` must give (bytes, label), or dictionaries with an image and a label column, got elements of "
            f"{spec}. Convert them in a `map`."
        )
    return data


def _check_image(image: tf.TensorSpec) -> bool:
    """Refuses anything but a file's bytes or uint8 pixels. Returns whether it is bytes."""
    encoded = image.dtype == tf.string and image.shape.rank in (0, None)
    if not encoded and not (image.dtype == tf.uint8 and image.shape.rank == 3):
        raise ValueError(
            "`source` must give one image at a time, encoded (a scalar string) or uint8 (height, width, channels), "
            f"got {image.dtype.name} {image.shape}. Undo a batch with `unbatch()`."
        )
    if not encoded and image.shape[-1] not in (None, 1, 3, 4):
        raise ValueError(
            f"`source` must give images of 1, 3 or 4 channels, got uint8 {image.shape}. Convert them in a `map`."
        )
    return encoded


def _check_label(label: tf.TensorSpec) -> bool:
    """Refuses anything but a number or a row with a number per class. Returns whether it is a row."""
    rows = label.shape.rank == 1
    if label.shape.rank not in (0, 1) or not (label.dtype.is_integer or label.dtype.is_floating or label.dtype.is_bool):
        raise ValueError(
            "`source` must give labels that are whole numbers, floats, or rows of numbers with one per class, got "
            f"{label.dtype.name} {label.shape}. Convert names to numbers first."
        )
    if rows and label.shape[0] == 1 and not label.dtype.is_floating:
        raise ValueError(
            f"`source` must give labels that are scalars, got a list of one, {label.dtype.name} {label.shape}. "
            "Squeeze it in a `map`; a row for one class is of floats."
        )
    if rows and label.shape[0] is None:
        raise ValueError("`source` must give label rows of a known length; set it with `tf.ensure_shape` in a `map`.")
    return rows


def shuffled_in_windows(elements: tf.data.Dataset, seed: Any, size: int) -> tf.data.Dataset:
    """Returns the elements in an order that depends only on `seed`, int64 `(2,)`: in windows, each shuffled.

    Memory holds two windows of half the `size` each: one is read while the other is used. Their first place depends on
    the seed, so that their ends are mixed too.
    """
    length = max(size // 2, 1)
    first = tf.random.stateless_uniform([], seed, 1, length + 1, tf.int64)
    # The first window is padded with empty elements: `take` and `skip` would read `elements` twice, possibly in another
    # order.
    nothing = tf.nest.map_structure(lambda part: tf.zeros(part.shape, part.dtype), elements.element_spec)
    filled = tf.data.Dataset.from_tensors(nothing).repeat(length - first).concatenate(elements)
    windows = filled.batch(length)

    def permuted(number: Any, window: Any) -> tf.data.Dataset:
        empty = tf.where(number == 0, length - first, 0)
        window = tf.nest.map_structure(lambda part: part[empty:], window)
        count = tf.shape(tf.nest.flatten(window)[0])[0]
        window_seed = tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int32), number)
        order = tf.random.experimental.stateless_shuffle(tf.range(count), window_seed)
        return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda part: tf.gather(part, order), window))

    return windows.enumerate().prefetch(1).flat_map(permuted)


def int32(label: Any) -> Any:
    """Converts a label to int32. A number outside of all classes stays so; a plain cast would turn 2**32 into 0."""
    return tf.cast(tf.clip_by_value(tf.cast(label, tf.int64), -LARGEST, LARGEST), tf.int32)


def numbered(data: tf.data.Dataset, failure: str, emptiness: str | None = None) -> tf.data.Dataset:
    """Yields (number, problem, element) of each element; one that `data` fails to return gets the problem `failure`.

    If the stream is empty and `emptiness` is given, yields one element with that problem.

    Later steps leave unreadable images out, and would hide errors of the source with them.
    """
    spec = data.element_spec
    end = tf.nest.map_structure(lambda part: tf.zeros([size or 0 for size in part.shape], part.dtype), spec)
    ends = tf.data.Dataset.from_tensors((end, True))
    # An element that fails has a number too.
    numbered = data.map(lambda *element: (element if len(element) > 1 else element[0], False)).concatenate(ends)

    def look(expected: Any, numbered: tuple[Any, tuple[Any, Any]]) -> Any:
        number, (element, is_end) = numbered
        return number + 1, (expected, number, element, is_end)

    def missed_and_own(expected: Any, number: Any, element: Any, is_end: Any) -> tf.data.Dataset:
        last = tf.where(is_end, number if emptiness is None else tf.maximum(number, 1), number + 1)
        own = tf.where(is_end, emptiness or "", "")
        return tf.data.Dataset.range(expected, last).map(
            lambda one: (one, tf.where(one < number, failure, own), element)
        )

    checked = numbered.enumerate().ignore_errors().scan(tf.constant(0, tf.int64), look)
    return checked.flat_map(missed_and_own)
