"""Images that have to be read from the first on: a `tf.data.Dataset`, TFRecord files.

Imports TensorFlow, and is imported by functions only.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # TensorFlow's own dependency

from keras_bit.data import targets
from keras_bit.data.source import Example, Source, shuffle
from keras_bit.images.graph_faults import attempt

INTERLEAVED = 16  # record files that are read at a time in training
PEEKED = 16  # records of which one has to fit, where those that do not are left out
SHOWN = 20  # features of a record that an error lists
# How compressed record files begin: `gzip`, and `zlib` at each of its levels. Others may begin so by chance.
COMPRESSIONS = {"GZIP": (b"\x1f\x8b",), "ZLIB": (b"x\x01", b"x^", b"x\x9c", b"x\xda")}
# The types of a feature, and the lists of a `tf.train.Feature`.
FEATURES = {tf.string: "bytes", tf.int64: "int64", tf.float32: "float"}


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
            "`source` must give one image at a time, encoded (a scalar string) or uint8 (height, width, channels), "
            f"got {image.dtype.name} {image.shape}. Undo a batch with `unbatch()`."
        )
    if not encoded and image.shape[-1] not in (None, 1, 3, 4):
        raise ValueError(f"`source` must give images of 1, 3 or 4 channels, got uint8 {image.shape}.")
    rows = label.dtype.is_floating or (label.shape.rank == 1)
    if label.shape.rank != int(rows) or not (label.dtype.is_integer or label.dtype.is_floating or label.dtype.is_bool):
        raise ValueError(
            "`source` must give labels that are whole numbers, or rows of numbers with one per class, got "
            f"{label.dtype.name} {label.shape}. Look names up first."
        )
    if rows:
        if label.shape[0] == 1 and not label.dtype.is_floating:
            raise ValueError(
                f"`source` must give labels that are scalars, got a list of one, {label.dtype.name} {label.shape}. "
                "Squeeze it in a `map`; a row for one class is of floats."
            )
        if label.shape[0] is None:
            raise ValueError(
                "`source` must give label rows of a known length; set it with `tf.ensure_shape` in a `map`."
            )
        class_names = targets.names_for(label.shape[0], class_names)
    count = int(data.cardinality())
    if count == 0:
        raise ValueError("`source` must hold at least one image, got an empty data set.")

    def serialized(image: Any, label: Any) -> tuple[Any, Any]:
        return image if encoded else tf.io.serialize_tensor(image), label

    def open_example(element: tuple[Any, Any, tuple[Any, Any]]) -> Example:
        number, problem, (contents, label) = element
        name = tf.strings.format("element {} of `source`", number)

        def load() -> Any:
            return contents if encoded else tf.ensure_shape(tf.io.parse_tensor(contents, tf.uint8), image.shape)

        return Example(name, tf.cast(label, tf.float32) if rows else _int32(label), load, problem)

    # Pixels as one string: images of several sizes make no batch.
    elements = _numbered(
        pairs.map(serialized, tf.data.AUTOTUNE),
        "cannot be had: `source` fails there by itself. Iterate over it to see why.",
        "is not there: `source` is empty." if count < 0 else None,
    )

    def shuffled(seed: int) -> tf.data.Dataset:
        return shuffle(elements, shuffle_buffer, seed)

    def shuffled_once(seed: Any) -> tf.data.Dataset:
        return _shuffled_in_windows(elements, seed, shuffle_buffer)

    return Source(elements, open_example, shuffled, shuffled_once, class_names, count, encoded)


def named_files(names: Callable[[], Iterable[bytes]]) -> Source:
    """The files that `names()` gives at the beginning of each epoch, for evaluation, without labels: all are 0."""
    elements = tf.data.Dataset.from_generator(names, output_signature=tf.TensorSpec([], tf.string))

    def open_example(name: Any) -> Example:
        return Example(name, tf.constant(0), lambda: tf.io.read_file(name))

    def shuffled(seed: Any) -> tf.data.Dataset:
        raise ValueError("`source` is read in its order: it is for training=False.")

    return Source(elements, open_example, shuffled, shuffled, class_names=None, count=-1)


def _shuffled_in_windows(elements: tf.data.Dataset, seed: Any, size: int) -> tf.data.Dataset:
    """The elements in an order that `seed`, int64 `(2,)`, decides alone: windows of them, each shuffled.

    Two windows are held, of half the `size` each: one is read while the other is used. Where they begin differs from
    seed to seed, so that their ends are mixed too.
    """
    length = max(size // 2, 1)
    first = tf.random.stateless_uniform([], seed, 1, length + 1, tf.int64)
    # The first window is filled up with nothing: to take it and to skip it would read `elements` twice, whose order may
    # be another then.
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


def _int32(label: Any) -> Any:
    """A whole number that is outside of all classes stays outside; a cast would take 2**32 to 0."""
    return tf.cast(tf.clip_by_value(tf.cast(label, tf.int64), -(2**31), 2**31 - 1), tf.int32)


def _numbered(data: tf.data.Dataset, failure: str, emptiness: str | None = None) -> tf.data.Dataset:
    """(number, problem, element) of each element; for one that `data` fails to give, the next with `failure`.

    Where there is none at all and `emptiness` is given, one with that.

    Further on, images that cannot be read are left out and missed, and errors of the source would be left out with
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
        last = tf.where(is_end, number if emptiness is None else tf.maximum(number, 1), number + 1)
        own = tf.where(is_end, emptiness or "", "")
        return tf.data.Dataset.range(expected, last).map(
            lambda one: (one, tf.where(one < number, failure, own), element)
        )

    checked = numbered.enumerate().ignore_errors().scan(tf.constant(0, tf.int64), look)
    return checked.flat_map(missed_and_own)


def records(
    files: list[str],
    class_names: tuple[str, ...] | None,
    image_column: str,
    label_column: str,
    shuffle_buffer: int,
    check: bool,
) -> Source:
    """TFRecord files; `check` wants the very first record to fit, otherwise one of the first."""
    wanted = {image_column: tf.string, label_column: tf.int64}
    expected = f"a tf.Example with one bytes value in {image_column!r} and one int64 value in {label_column!r}"
    compressions = [_compression(file) for file in files]
    _check_beginning(files, compressions, wanted, expected, 1 if check else PEEKED)

    def read(file: Any, compression: Any) -> tf.data.Dataset:
        damaged = "cannot be had: the file is damaged there or cut off, and what follows it in this file is lost too."
        return _numbered(tf.data.TFRecordDataset(file, compression), damaged).map(lambda *numbered: (file, *numbered))

    def parse(record: Any) -> tuple[Any, Any]:
        parsed = tf.io.parse_single_example(
            record, {column: tf.io.FixedLenFeature([], kind) for column, kind in wanted.items()}
        )
        return parsed[image_column], _int32(parsed[label_column])

    def name(file: Any, number: Any) -> Any:
        return tf.strings.format("record {} of ", number) + file

    example = tf.train.Example()
    example.features.feature[image_column].bytes_list.value.append(b"")
    example.features.feature[label_column].int64_list.value.append(0)
    nothing = example.SerializeToString()

    def open_example(element: tuple[Any, Any, Any, Any]) -> Example:
        file, number, problem, record = element
        # An example that nobody looks at, where there is no record.
        contents, label = parse(tf.where(problem == "", record, nothing))
        return Example(name(file, number), label, lambda: contents, problem)

    def look(element: tuple[Any, Any, Any, Any]) -> Example:
        file, number, problem, record = element
        (contents, label), fits = attempt(lambda: parse(record), (b"", 0))
        problem = tf.cond(
            fits | (problem != ""),
            lambda: problem,
            lambda: tf.strings.join([f"is not {expected}, it has ", _found(record, wanted), "."]),
        )
        return Example(name(file, number), label, lambda: contents, problem)

    def in_turns(order: tf.data.Dataset) -> tf.data.Dataset:
        # In the order of the files, whichever is read first: the same in every run.
        return order.interleave(read, cycle_length=INTERLEAVED, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def shuffled(seed: int) -> tf.data.Dataset:
        return shuffle(in_turns(shuffle(stored, len(files), seed)), shuffle_buffer, seed)

    def shuffled_once(seed: Any) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(files)), tf.cast(seed, tf.int32))
        turns = tf.data.Dataset.from_tensor_slices((tf.gather(files, order), tf.gather(compressions, order)))
        return _shuffled_in_windows(in_turns(turns), seed, shuffle_buffer)

    stored = tf.data.Dataset.from_tensor_slices((files, compressions))
    return Source(stored.flat_map(read), open_example, shuffled, shuffled_once, class_names, count=-1, look=look)


def record_data(files: Sequence[str]) -> tf.data.Dataset:
    """The records of some files, one file after the other, each compressed as it is."""
    stored = tf.data.Dataset.from_tensor_slices((list(files), [_compression(file) for file in files]))
    return stored.flat_map(tf.data.TFRecordDataset)


def _compression(file: str) -> str:
    with tf.io.gfile.GFile(file, "rb") as opened:
        begin = opened.read(2)
    for compression, marks in COMPRESSIONS.items():
        if begin in marks:
            try:
                list(tf.data.TFRecordDataset(file, compression).take(1))
                return compression
            except tf.errors.DataLossError:
                continue  # the length of a record that looks like it, or a damaged file
    return ""


def _check_beginning(
    files: list[str], compressions: list[str], wanted: dict[str, tf.DType], expected: str, count: int
) -> None:
    """Raises where there is no record, or where none of the first `count` is what is wanted: a misspelt column."""
    stored = tf.data.Dataset.from_tensor_slices((files, compressions))
    named = stored.flat_map(lambda file, kind: tf.data.TFRecordDataset(file, kind).map(lambda record: (file, record)))
    try:
        first = list(named.take(count).as_numpy_iterator())
    except tf.errors.DataLossError:
        return  # is named in its turn
    if not first:
        raise ValueError(f"`source` must hold at least one image, got no record in {', '.join(files[:SHOWN])}.")
    held = [_features(record) for _, record in first]
    one = {column: (FEATURES[kind], 1) for column, kind in wanted.items()}
    if not any(features is not None and one.items() <= features.items() for features in held):
        found = "bytes that are no tf.Example"
        if held[0] is not None:
            names = [f"{name!r} ({count} {kind})" for name, (kind, count) in sorted(held[0].items())]
            found = ", ".join(names[:SHOWN] + ["..."] * (len(names) > SHOWN)) or "no feature"
        raise ValueError(
            f"`source` must hold records that are {expected}, got {found} in record 0 of {first[0][0].decode()}. Pass "
            "`image_column` and `label_column`, or write such records."
        )


def _features(record: bytes) -> dict[str, tuple[str, int]] | None:
    """The type and the number of values of each feature, or `None` for what is no `tf.Example`."""
    try:
        stored = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return None
    kinds = {name: feature.WhichOneof("kind") for name, feature in stored.items()}
    return {
        name: (kind.removesuffix("_list"), len(getattr(stored[name], kind).value)) if kind else ("values", 0)
        for name, kind in kinds.items()
    }


def _found(record: Any, columns: Iterable[str]) -> Any:
    """What a record that does not fit has in the columns, in words, in the graph."""

    def count(column: str, kind: tf.DType) -> tuple[Any, Any]:
        feature = {column: tf.io.VarLenFeature(kind)}
        return attempt(lambda: tf.size(tf.io.parse_single_example(record, feature)[column].values), 0)

    parts = []
    for column in columns:
        part = tf.constant(f"no {column!r}")
        for kind, word in FEATURES.items():
            number, is_kind = count(column, kind)
            there = tf.strings.join([tf.strings.as_string(number), f" {word} in {column!r}"])
            part = tf.where(is_kind & (number > 0), there, part)
        parts.append(part)
    # A feature that no record has is missing in every example, and in nothing else.
    _, is_example = count("", tf.int64)
    return tf.where(is_example, tf.strings.reduce_join(parts, separator=" and "), "bytes that are no tf.Example")
