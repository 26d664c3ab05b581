"""TFRecord files of `tf.Example`, as a source.

Imports TensorFlow, so only functions import this module.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # TensorFlow's own dependency

from keras_bit.data.items import Item
from keras_bit.data.record_names import record_names
from keras_bit.data.source import Example, Source, shuffle
from keras_bit.data.streams import LARGEST, int32, numbered, shuffled_in_windows
from keras_bit.wording import some

# The default features of an image and its label, those of TensorFlow's ImageNet records.
IMAGE, LABEL = "image/encoded", "image/class/label"
INTERLEAVED = 16  # files that are read at the same time in training
PEEKED = 16  # first records of which one must fit, if others are left out
SHOWN = 20  # features of a record that an error lists
# The beginnings of compressed record files: `gzip`, and `zlib` at each level. Others may begin so by chance.
COMPRESSIONS = {"GZIP": (b"\x1f\x8b",), "ZLIB": (b"x\x01", b"x^", b"x\x9c", b"x\xda")}
# The types of a feature, and the lists of a `tf.train.Feature`.
FEATURES = {tf.string: "bytes", tf.int64: "int64", tf.float32: "float"}
DAMAGED = (
    "cannot be read: the file is damaged or truncated there, and the records after it in this file are lost too. Write "
    "the file again."
)


def record_files(source: Any) -> list[str]:
    """Returns the TFRecord files that `source` names, one by one or by a pattern; empty if it names other files."""
    names = record_names(source)
    # A name that exists is not a pattern, even with brackets.
    found = [[name] if tf.io.gfile.exists(name) else sorted(tf.io.gfile.glob(name)) for name in names]
    missing = [name for name, files in zip(names, found, strict=True) if not files]
    if missing:
        raise FileNotFoundError(
            f"`source` names TFRecord files that do not exist: {', '.join(map(repr, missing))}. Correct the paths or "
            "the pattern."
        )
    return [file for files in found for file in files]


@dataclasses.dataclass(frozen=True)
class _Columns:
    """The features of an example that hold its image and its label."""

    image: str
    label: str

    @property
    def wanted(self) -> dict[str, tf.DType]:
        return {self.image: tf.string, self.label: tf.int64}

    @property
    def expected(self) -> str:
        return f"a tf.Example with one bytes value in {self.image!r} and one int64 value in {self.label!r}"

    def parse(self, record: Any) -> tuple[Any, Any]:
        features = {column: tf.io.FixedLenFeature([], kind) for column, kind in self.wanted.items()}
        parsed = tf.io.parse_single_example(record, features)
        return parsed[self.image], int32(parsed[self.label])

    def item(self, element: tuple[bytes, Any, bytes, bytes]) -> Item:
        file, number, problem, record = element
        name = f"record {number} of {os.fsdecode(file)}"
        if problem:
            return Item(name, np.int32(0), b"", problem.decode())
        stored = _stored(record)
        if stored is None:
            return Item(name, np.int32(0), b"", f"is not {self.expected}, it has bytes that are not a tf.Example.")
        one = {column: (FEATURES[kind], 1) for column, kind in self.wanted.items()}
        features = _kinds(stored)
        if not one.items() <= features.items():
            there = [_there(column, *features.get(column, ("", 0))) for column in self.wanted]
            return Item(name, np.int32(0), b"", f"is not {self.expected}, it has {' and '.join(there)}.")
        label = np.int32(np.clip(stored[self.label].int64_list.value[0], -LARGEST, LARGEST))
        return Item(name, label, stored[self.image].bytes_list.value[0])

    def open(self, element: tuple[Any, Any, Any, Any]) -> Example:
        file, number, problem, record = element
        # A placeholder example for a missing record, which is never read.
        contents, label = self.parse(tf.where(problem == "", record, self._empty()))
        return Example(tf.strings.format("record {} of ", number) + file, label, lambda: contents, problem)

    def _empty(self) -> bytes:
        """Returns a record without an image."""
        example = tf.train.Example()
        example.features.feature[self.image].bytes_list.value.append(b"")
        example.features.feature[self.label].int64_list.value.append(0)
        return example.SerializeToString()


def _there(column: str, kind: str, count: int) -> str:
    return f"{count} {kind} in {column!r}" if count else f"no {column!r}"


def records(
    files: list[str],
    class_names: tuple[str, ...] | None,
    image_column: str,
    label_column: str,
    shuffle_buffer: int,
    check: bool,
) -> Source:
    """Opens TFRecord files. With `check` the first record must fit; otherwise one of the first ones."""
    columns = _Columns(image_column, label_column)
    compressions = [_compression(file) for file in files]
    _check_beginning(files, compressions, columns, 1 if check else PEEKED)
    stored = tf.data.Dataset.from_tensor_slices((files, compressions))

    def shuffled(seed: int) -> tf.data.Dataset:
        return shuffle(_in_turns(shuffle(stored, len(files), seed)), shuffle_buffer, seed)

    def shuffled_once(seed: Any) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(files)), tf.cast(seed, tf.int32))
        turns = tf.data.Dataset.from_tensor_slices((tf.gather(files, order), tf.gather(compressions, order)))
        return shuffled_in_windows(_in_turns(turns), seed, shuffle_buffer)

    elements = stored.flat_map(_read)
    label = tf.TensorSpec([], tf.int32)
    return Source(elements, columns.item, columns.open, shuffled, shuffled_once, label, class_names, count=-1)


def _read(file: Any, compression: Any) -> tf.data.Dataset:
    """Yields (file, number, problem, record) of each record."""
    return numbered(tf.data.TFRecordDataset(file, compression), DAMAGED).map(lambda *record: (file, *record))


def _in_turns(order: tf.data.Dataset) -> tf.data.Dataset:
    # In the order of the files, whichever is read first, so that every run is the same.
    return order.interleave(_read, cycle_length=INTERLEAVED, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def record_data(files: Sequence[str]) -> tf.data.Dataset:
    """Reads the records of some files, one file after the other, compressed or not."""
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
                continue  # a record's length that looks like a compressed file, or a damaged file
    return ""


def _check_beginning(files: list[str], compressions: list[str], columns: _Columns, count: int) -> None:
    """Raises if the files have no record, or if none of the first `count` fits, as with a misspelled column."""
    stored = tf.data.Dataset.from_tensor_slices((files, compressions))
    named = stored.flat_map(lambda file, kind: tf.data.TFRecordDataset(file, kind).map(lambda record: (file, record)))
    try:
        first = list(named.take(count).as_numpy_iterator())
    except tf.errors.DataLossError:
        return  # reported when it is read
    if not first:
        raise ValueError(f"`source` must hold at least one image, got no record in {some(files, SHOWN)}.")
    held = [None if (stored := _stored(record)) is None else _kinds(stored) for _, record in first]
    one = {column: (FEATURES[kind], 1) for column, kind in columns.wanted.items()}
    if not any(features is not None and one.items() <= features.items() for features in held):
        found = "bytes that are not a tf.Example"
        if held[0] is not None:
            names = [f"{name!r} ({count} {kind})" for name, (kind, count) in sorted(held[0].items())]
            found = some(names, SHOWN) or "no feature"
        raise ValueError(
            f"`source` must hold records that are {columns.expected}, got {found} in record 0 of "
            f"{first[0][0].decode()}. Pass `image_column` and `label_column`, or write such records."
        )


def _stored(record: bytes) -> Any:
    """Returns the features by name, or `None` if it is not a `tf.Example`."""
    try:
        return tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return None


def _kinds(stored: Any) -> dict[str, tuple[str, int]]:
    """Returns the type and the number of values of each feature."""
    kinds = {name: feature.WhichOneof("kind") for name, feature in stored.items()}
    return {
        name: (kind.removesuffix("_list"), len(getattr(stored[name], kind).value)) if kind else ("values", 0)
        for name, kind in kinds.items()
    }
