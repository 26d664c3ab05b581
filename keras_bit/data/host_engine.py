"""Reads images with Pillow on the host, in a `tf.data` pipeline: one call of Python for each batch.

Imports TensorFlow, so only functions import this module.
"""

import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bit.data import geometry
from keras_bit.data.graph_augmentation import uniform_numbers
from keras_bit.data.items import Item
from keras_bit.data.options import Options
from keras_bit.data.reading import Reader
from keras_bit.data.skipped import ADVICE, Skipped
from keras_bit.data.source import Source
from keras_bit.data.streams import EMPTY

AT_ONCE = 2  # batches: one begins while the last images of the other are read
BETWEEN = b"\0"  # between two problems; no file name contains it
END = -1  # instead of the number of elements, at the end of the batches


def read(elements: tf.data.Dataset, source: Source, options: Options) -> tuple[tf.data.Dataset, list[str]]:
    """Returns batches of (images, labels), and the seeds in training.

    Args:
        elements: tuples of an element of `source` and, in training, a seed.
        source: the source of the elements.
        options: how to read them.

    Returns:
        The batches, and a list that gets a line for each image that is left out.

    Raises:
        tf.errors.InvalidArgumentError: during iteration: an image cannot be read. The error names it and the reason.
    """
    size = options.size(source.size)
    reader = Reader(
        options.reading_processor,
        options.rule,
        random_resized_crop=options.random_resized_crop,
        max_pixels=options.max_pixels,
        class_names=source.class_names,
        size=size,
        threads=options.num_parallel_calls,
    )
    trains = options.rule is not None
    if trains:
        count = geometry.numbers_needed(options.random_resized_crop)
        elements = elements.map(lambda element, seed: (element, seed, uniform_numbers(seed, count)))
    batch_size = options.batch_size // options.shard[1]
    # An endless data set has no last batch, so the size of its batches is known.
    drop_remainder = options.drop_remainder or options.repeat
    chunks = elements.batch(batch_size, drop_remainder=drop_remainder and not options.skip)

    call = _Call(reader, source.item, elements.element_spec, source.label_spec)
    rows = batch_size if drop_remainder and not options.skip else None
    label = source.label_spec
    types = (tf.float32, label.dtype, *([tf.int64] if trains else []))
    shapes = ([*(size or (None, None)), 3], label.shape, *([[2]] if trains else []))

    def batch(*chunk: Any) -> tuple[Any, ...]:
        failure, problems, count, *parts = tf.numpy_function(
            call, tf.nest.flatten(chunk), (tf.string, tf.string, tf.int64, *types)
        )
        failure, problems, count = (tf.ensure_shape(part, []) for part in (failure, problems, count))
        # Raised before the shape is checked, because that fails if images are missing.
        wrong = failure if options.skip else tf.cond(failure == b"", lambda: _first(problems), lambda: failure)
        with tf.control_dependencies([_raise_unless_empty(wrong)]):
            parts = [tf.ensure_shape(part, [rows, *shape]) for part, shape in zip(parts, shapes, strict=True)]
        return problems, count, *parts

    batches = chunks.map(batch, AT_ONCE, deterministic=True)
    skipped = Skipped()
    if options.skip:
        batches = _without_problems(batches, skipped).rebatch(batch_size, drop_remainder=drop_remainder)
    else:
        batches = batches.map(lambda problems, count, *parts: parts)
    return batches, skipped.files


class _Call:
    """Reads a batch, in Python.

    Args:
        reader: reads the images.
        item: a function from an element to its `Item`.
        spec: the spec of an element and its seed.
        label_spec: the spec of a label.
    """

    def __init__(self, reader: Reader, item: Callable[[Any], Item], spec: Any, label_spec: tf.TensorSpec) -> None:
        self._reader, self._item, self._spec = reader, item, spec
        self._label_type, self._label_shape = label_spec.dtype.as_numpy_dtype, label_spec.shape

    def __call__(self, *columns: np.ndarray) -> tuple[Any, ...]:
        """Returns a failure, the joined problems of images, the number of elements, and the images and labels."""
        elements, *beside = tf.nest.pack_sequence_as(self._spec, columns)
        count = len(columns[0])
        items = [self._item(self._row(elements, number)) for number in range(count)]
        seeds, uniform = beside or (None, None)
        found = self._reader.read(items, uniform)
        labels = np.empty((len(found.places), *self._label_shape), self._label_type)
        for row, place in enumerate(found.places):
            labels[row] = items[place].label
        problems = BETWEEN.join(map(os.fsencode, found.problems))
        parts = [os.fsencode(found.failure), problems, np.int64(count), found.images, labels]
        return *parts, *([] if seeds is None else [seeds[found.places]])

    def _row(self, columns: Any, number: int) -> Any:
        # `tf.nest.map_structure` does the same, but is twenty times slower.
        if isinstance(columns, tuple):
            return tuple(self._row(column, number) for column in columns)
        if isinstance(columns, dict):
            return {name: self._row(column, number) for name, column in columns.items()}
        return columns[number]


def _first(problems: Any) -> Any:
    """Returns the first problem of a batch, with advice; empty for none."""

    def told() -> Any:
        problem = tf.strings.split(problems, BETWEEN)[0]
        ended = tf.strings.regex_full_match(problem, r"\C*\.")
        is_empty = tf.strings.regex_full_match(problem, rf"\C*{re.escape(EMPTY)}")
        return problem + tf.where(ended, "", ".") + tf.where(is_empty, "", ADVICE)

    return tf.cond(problems == b"", lambda: b"", told)


def _without_problems(batches: tf.data.Dataset, skipped: Skipped) -> tf.data.Dataset:
    """Yields the parts of batches that hold an image; reports problems in order, and once more at the end.

    Raises if no image is left in any batch.
    """
    spec = batches.element_spec
    end = tf.nest.map_structure(lambda part: tf.zeros([size or 0 for size in part.shape], part.dtype), spec)
    marked = batches.concatenate(tf.data.Dataset.from_tensors((end[0], tf.constant(END, tf.int64), *end[2:])))

    def look(state: Any, element: Any) -> Any:
        problems, count, *parts = element
        read = tf.shape(parts[0], tf.int64)[0]
        note = tf.cond(problems == b"", lambda: True, lambda: _note(skipped, problems))
        ended = tf.cond(count == END, lambda: _then(_report(skipped, state)), lambda: True)
        with tf.control_dependencies([note, ended]):
            return state + tf.stack([count - read, count]), tuple(map(tf.identity, parts))

    read = marked.scan(tf.zeros([2], tf.int64), look)
    return read.filter(lambda images, *beside: tf.shape(images)[0] > 0)


def _note(skipped: Skipped, problems: Any) -> Any:
    def note(lines: bytes) -> np.bool_:
        skipped.note(map(os.fsdecode, lines.split(BETWEEN)))
        return np.bool_(True)

    return tf.ensure_shape(tf.numpy_function(note, [problems], tf.bool), [])


def _report(skipped: Skipped, state: Any) -> Any:
    def report(state: np.ndarray) -> bytes:
        return os.fsencode(skipped.report(*state.tolist()))

    # Not raised there: TensorFlow would put Python's traceback into the error.
    return _raise_unless_empty(tf.numpy_function(report, [state], tf.string))


def _raise_unless_empty(text: Any) -> Any:
    # Python decodes the text of an error, but a file's name may not be UTF-8.
    return tf.debugging.Assert(text == b"", [tf.strings.unicode_transcode(text, "UTF-8", "UTF-8")])


def _then(operation: Any) -> Any:
    with tf.control_dependencies([operation]):
        return tf.constant(True)
