"""Pictures that have to be read from the first on: a `tf.data.Dataset`, TFRecord files.

Imports TensorFlow, and is imported by functions only.
"""

from typing import Any

import tensorflow as tf

from keras_bit import targets
from keras_bit.examples import Example, Source

INTERLEAVED = 16  # record files that are read at a time in training


def stream(
    data: tf.data.Dataset,
    class_names: tuple[str, ...] | None,
    image_column: str,
    label_column: str,
    shuffle_buffer: int,
) -> Source:
    spec = data.element_spec
    if isinstance(spec, dict):
        missing = [name for name in (image_column, label_column) if name not in spec]
        if missing:
            raise ValueError(
                f"`source` has no {' and no '.join(map(repr, missing))} among {', '.join(map(repr, sorted(spec)))}. "
                "Pass `image_column` and `label_column`."
            )
        spec = (spec[image_column], spec[label_column])
        pairs = data.map(lambda columns: (columns[image_column], columns[label_column]), tf.data.AUTOTUNE)
    else:
        pairs = data
    if not isinstance(spec, tuple) or len(spec) != 2 or not all(isinstance(part, tf.TensorSpec) for part in spec):
        raise ValueError(
            "`source` must give (bytes, label), or dictionaries with an image and a label column, got elements of "
            f"{data.element_spec}."
        )
    image, label = spec
    encoded = image.dtype == tf.string and image.shape.rank in (0, None)
    if not encoded and not (image.dtype == tf.uint8 and image.shape.rank == 3):
        raise ValueError(
            "`source` must give one picture at a time, encoded (a scalar string) or uint8 (height, width, channels), "
            f"got {image.dtype.name} {image.shape}. Undo a batch with `unbatch()`."
        )
    rows = label.dtype.is_floating or (label.shape.rank == 1)
    if label.shape.rank != int(rows) or not (label.dtype.is_integer or label.dtype.is_floating or label.dtype.is_bool):
        raise ValueError(
            "`source` must give labels that are whole numbers, or rows of numbers with one per class, got "
            f"{label.dtype.name} {label.shape}. Look names up first."
        )
    if rows:
        if label.shape[0] is None:
            raise ValueError(
                "`source` must give label rows of a known length; set it with `tf.ensure_shape` in a `map`."
            )
        class_names = targets.names_for(label.shape[0], class_names)

    def serialized(image: Any, label: Any) -> tuple[Any, Any]:
        return image if encoded else tf.io.serialize_tensor(image), label

    def open_example(element: tuple[Any, Any, tuple[Any, Any]]) -> Example:
        number, failed, (contents, label) = element
        name = tf.strings.format("element {} of `source`", number)

        def load() -> Any:
            return contents if encoded else tf.ensure_shape(tf.io.parse_tensor(contents, tf.uint8), image.shape)

        problem = tf.where(failed, "cannot be had: `source` fails there by itself. Iterate over it to see why.", "")
        return Example(name, tf.cast(label, tf.float32) if rows else _int32(label), load, problem)

    # Pixels as one string: pictures of several sizes make no batch.
    elements = _numbered(pairs.map(serialized, tf.data.AUTOTUNE))
    count = int(data.cardinality())

    def shuffled(seed: int | None) -> tf.data.Dataset:
        return elements.shuffle(shuffle_buffer, seed=seed)

    def shuffled_once(seed: Any) -> tf.data.Dataset:
        return _shuffled_in_windows(elements, seed, shuffle_buffer)

    return Source(elements, open_example, shuffled, shuffled_once, class_names, count, encoded)


def _shuffled_in_windows(elements: tf.data.Dataset, seed: Any, size: int) -> tf.data.Dataset:
    """The elements in an order that `seed`, int64 `(2,)`, decides alone: windows of them, each shuffled.

    `Dataset.shuffle` depends on the process's global seed as well. Two windows are held, of half the `size` each: one
    is read while the other is used. Where they begin differs from seed to seed, so that their ends are mixed too.
    """
    length = max(size // 2, 1)
    first = tf.random.stateless_uniform([], seed, 1, length + 1, tf.int64)
    windows = elements.take(first).batch(length).concatenate(elements.skip(first).batch(length))

    def permuted(number: Any, window: Any) -> tf.data.Dataset:
        count = tf.shape(tf.nest.flatten(window)[0])[0]
        window_seed = tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int32), number)
        order = tf.random.experimental.stateless_shuffle(tf.range(count), window_seed)
        return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda part: tf.gather(part, order), window))

    return windows.enumerate().prefetch(1).flat_map(permuted)


def _int32(label: Any) -> Any:
    """A whole number that is outside of all classes stays outside; a cast would take 2**32 to 0."""
    return tf.cast(tf.clip_by_value(tf.cast(label, tf.int64), -(2**31), 2**31 - 1), tf.int32)


def _numbered(data: tf.data.Dataset) -> tf.data.Dataset:
    """(number, failed, element) of each element; for one that `data` fails to give, that of the next with `failed`.

    Further on, pictures that cannot be read are left out and missed, and errors of the source would be left out with
    them, unseen.
    """
    spec = data.element_spec
    end = tf.nest.map_structure(lambda part: tf.zeros([size or 0 for size in part.shape], part.dtype), spec)
    ends = tf.data.Dataset.from_tensors((end, True))
    # A number is used up by an element that fails.
    numbered = data.map(lambda *element: (element if len(element) > 1 else element[0], False)).concatenate(ends)

    def look(expected: Any, numbered: tuple[Any, tuple[Any, Any]]) -> Any:
        number, (element, is_end) = numbered
        return number + 1, (expected, number, element, is_end)

    def missed_and_own(expected: Any, number: Any, element: Any, is_end: Any) -> tf.data.Dataset:
        numbers = tf.data.Dataset.range(expected, tf.where(is_end, number, number + 1))
        return numbers.map(lambda one: (one, one < number, element))

    checked = numbered.enumerate().ignore_errors().scan(tf.constant(0, tf.int64), look)
    return checked.flat_map(missed_and_own)


def records(
    files: list[str], class_names: tuple[str, ...] | None, image_column: str, label_column: str, shuffle_buffer: int
) -> Source:
    features = {image_column: tf.io.FixedLenFeature([], tf.string), label_column: tf.io.FixedLenFeature([], tf.int64)}

    example = tf.train.Example()
    example.features.feature[image_column].bytes_list.value.append(b"")
    example.features.feature[label_column].int64_list.value.append(0)
    nothing = example.SerializeToString()

    def read(file: Any) -> tf.data.Dataset:
        return _numbered(tf.data.TFRecordDataset(file)).map(lambda *numbered: (file, *numbered))

    def open_example(element: tuple[Any, Any, Any, Any]) -> Example:
        file, number, failed, record = element
        # An example that nobody looks at, where there is no record.
        record = tf.where(failed, nothing, record)
        parsed = tf.io.parse_single_example(record, features)
        name = tf.strings.format("record {} of ", number) + file
        problem = tf.where(failed, "cannot be had: the file is damaged there or cut off.", "")
        return Example(name, _int32(parsed[label_column]), lambda: parsed[image_column], problem)

    def in_turns(order: tf.data.Dataset) -> tf.data.Dataset:
        # In the order of the files, whichever is read first: the same in every run.
        return order.interleave(read, cycle_length=INTERLEAVED, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def shuffled(seed: int | None) -> tf.data.Dataset:
        return in_turns(names.shuffle(len(files), seed=seed)).shuffle(shuffle_buffer, seed=seed)

    def shuffled_once(seed: Any) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(files, tf.cast(seed, tf.int32))
        return _shuffled_in_windows(in_turns(tf.data.Dataset.from_tensor_slices(order)), seed, shuffle_buffer)

    names = tf.data.Dataset.from_tensor_slices(files)
    return Source(names.flat_map(read), open_example, shuffled, shuffled_once, class_names, count=-1)
