"""Images that cannot be read, in a TensorFlow graph: which, why, and a data set without them.

Imports TensorFlow, and is imported by functions only.
"""

import os
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bit.files import first_of
from keras_bit.images.graph_faults import plain

CHUNK = 64  # elements that are held until all of them are known to be read
ADVICE = " To leave such images out, pass on_error='skip'."
# What fails so, fails for a reason outside of the image.
RUNTIME_ERRORS = (
    MemoryError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
)
MEMORY = "Fewer images at a time take less memory: num_parallel_calls=1."
SHOWN = 10  # images that the warning at the end of an epoch lists


class ImagesLeftOut(UserWarning):
    """Images were left out of an epoch; the data set's `skipped` lists them."""


class Skipped:
    """The images that a data set left out, and the warning about them at the end of each epoch.

    Attributes:
        files: a line `"name problem"` for each of them, once.
        none_left: whether an epoch failed because none of its images could be read. TensorFlow's error has this in its
            text alone. Who reads an epoch sets it to `False` before.
    """

    def __init__(self) -> None:
        self.files: list[str] = []
        self.none_left = False

    def note(self, lines: np.ndarray) -> np.bool_:
        for line in map(_one_line, map(os.fsdecode, lines)):
            if line not in self.files:
                self.files.append(line)
        return np.bool_(True)

    def report(self, left_out: np.ndarray, total: np.ndarray) -> bytes:
        """Warns, or returns what the error is, where no image is left."""
        if not left_out:
            return b""
        lines = [f"{left_out:,} of {total:,} images were left out; the data set's `skipped` lists them:"]
        lines += first_of(self.files, SHOWN)
        if left_out == total:
            self.none_left = True
            return os.fsencode(" ".join(lines))  # an error in a graph shows a line's end as `\\n`
        # Without a registry, in which the same warning of the next epoch would be found and not be shown.
        warnings.warn_explicit("\n  ".join(lines), ImagesLeftOut, __name__, 0)
        return b""


def _one_line(text: str) -> str:
    """A file's name may hold line breaks; bytes that are not UTF-8 stay what `os.fsdecode` made of them."""
    return "".join(repr(one)[1:-1] if len(f"{one}.".splitlines()) > 1 or one < " " else one for one in text)


def read_or_name(
    data: tf.data.Dataset,
    read: Callable[..., tuple[Any, ...]],
    describe: Callable[..., tuple[Any, Any, Any]],
    nothing: tuple[Any, ...],
    skipped: Skipped | None,
    num_parallel_calls: int,
) -> tf.data.Dataset:
    """`data.map(read)`, in order, where an element that `read` fails for is named.

    A graph has no exceptions: an operation that fails ends the data set, without a word about the element, or, after
    `ignore_errors`, the element is not there. So the elements go through `read` with their places in a chunk, and with
    the chunk; where a place is missing afterwards, the chunk still has the element. A check of each image by itself,
    in a data set of its own, cost 0.7 ms per image.

    A failure that is not the image's, as a lack of memory, ends the data set, also where images are left out.

    Args:
        data: elements that can be batched.
        read: from an element to a tuple of tensors.
        describe: from an element that failed to its name, what is wrong with it (as `problem`), and whether that is
            certain.
        nothing: a tuple of arrays of the types and ranks that `read` returns.
        skipped: collects names with what is wrong; `None` raises the first.
        num_parallel_calls: elements that are read at a time.
    """
    chunks = data.batch(CHUNK)
    # An empty chunk ends the epoch.
    empty = tf.nest.map_structure(lambda spec: tf.zeros([0, *spec.shape[1:]], spec.dtype), chunks.element_spec)
    places = chunks.concatenate(tf.data.Dataset.from_tensors(empty)).flat_map(_places)

    @plain
    def read_place(place: Any, chunk: Any) -> Any:
        return place, chunk, tf.cond(place < _size(chunk), lambda: read(*_at(place, chunk)), lambda: nothing)

    check = plain(_Check(_Again(read, data.element_spec), describe, skipped).check)
    results = places.map(read_place, num_parallel_calls, deterministic=True).ignore_errors()
    checked = results.scan(tf.zeros([3], tf.int64), check)
    elements = checked.filter(lambda is_element, result: is_element)
    return elements.map(lambda is_element, result: result)


def _places(*chunk: Any) -> tf.data.Dataset:
    """The places of the elements in a chunk, and one more, which cannot fail, so that the last are missed too."""
    return tf.data.Dataset.zip(tf.data.Dataset.range(_size(chunk) + 1), tf.data.Dataset.from_tensors(chunk).repeat())


class _Check:
    """Looks which places were not read, and names their elements.

    Args:
        again: reads an element once more.
        describe, skipped: of `read_or_name`.
    """

    def __init__(self, again: "_Again", describe: Callable[..., tuple[Any, Any, Any]], skipped: Skipped | None) -> None:
        self._again, self._describe, self._skipped = again, describe, skipped

    def check(self, state: Any, read_element: Any) -> Any:
        """Of `scan`: the state is the place that is expected, how many were left out, and how many there were."""
        place, chunk, result = read_element
        expected, left_out, total = tf.unstack(state)
        size = _size(chunk)
        count = place - expected
        done = [tf.cond(count > 0, lambda: _then(self._name(chunk, expected, place)), lambda: True)]
        if (skipped := self._skipped) is not None:
            done.append(tf.cond(size == 0, lambda: _then(_report(skipped, left_out, total)), lambda: True))
        is_element = place < size
        with tf.control_dependencies(done):
            state = tf.stack(
                [tf.where(is_element, place + 1, 0), left_out + count, total + count + tf.cast(is_element, tf.int64)]
            )
        return state, (is_element, result)

    def _name(self, chunk: Any, start: Any, stop: Any) -> Any:
        """Raises with the first of the places from `start` to `stop`, or collects them."""
        missing = tf.data.Dataset.range(start, stop).map(plain(lambda place: self._line(_at(place, chunk))))
        if self._skipped is None:
            return _raise_unless_empty(missing.take(1).get_single_element() + ADVICE)
        return tf.numpy_function(self._skipped.note, [missing.batch(CHUNK).get_single_element()], tf.bool)

    def _line(self, element: Any) -> Any:
        """The name of an element that failed and what is wrong with it; an error if that is not the image's fault."""
        name, wrong, certain = self._describe(*element)
        cause = tf.cond(certain, lambda: "", lambda: self._cause(wrong, element))
        # At the first: every attempt without memory takes TensorFlow ten seconds.
        checked = _raise_unless_empty(tf.where(cause == "", "", tf.strings.join([name, " ", cause])))
        with tf.control_dependencies([checked]):
            return tf.strings.join([name, " ", wrong])

    def _cause(self, wrong: Any, element: Any) -> Any:
        return tf.numpy_function(self._again, [wrong, *tf.nest.flatten(element)], tf.string, stateful=False)


def _report(skipped: Skipped, left_out: Any, total: Any) -> Any:
    # Not raised there: TensorFlow would put Python's traceback into the error.
    return _raise_unless_empty(tf.numpy_function(skipped.report, [left_out, total], tf.string))


def _raise_unless_empty(text: Any) -> Any:
    # Python decodes the text of an error, and a file's name may not be UTF-8.
    return tf.debugging.Assert(text == b"", [tf.strings.unicode_transcode(text, "UTF-8", "UTF-8")])


def _at(place: Any, chunk: Any) -> Any:
    return tf.nest.map_structure(lambda values: values[place], chunk)


def _size(chunk: Any) -> Any:
    return tf.shape(tf.nest.flatten(chunk)[0], tf.int64)[0]


def _then(operation: Any) -> Any:
    with tf.control_dependencies([operation]):
        return tf.constant(True)


class _Again:
    """Reads an element that failed once more, in Python, where the reason comes as an exception."""

    def __init__(self, read: Callable[[Any], Any], spec: Any) -> None:
        self._read, self._spec = read, spec

    def __call__(self, wrong: bytes, *element: Any) -> bytes:
        """What failed but the image, a sentence without a subject; empty where the image is to blame.

        `wrong` is what is wrong with it as far as could be seen, or empty.
        """
        with tf.init_scope():
            parts = map(tf.constant, element, [part.dtype for part in tf.nest.flatten(self._spec)])
            try:
                self._read(*tf.nest.pack_sequence_as(self._spec, list(parts)))
            except Exception as error:
                if wrong and not isinstance(error, RUNTIME_ERRORS):
                    return b""
                # without the graph's nodes around it
                said = re.sub(r"\{\{[^}]*\}\} ?|\s*\[Op:[^]]*\].*", "", str(error).partition("\n")[0])
                memory = isinstance(error, MemoryError | tf.errors.ResourceExhaustedError)
                cause = f"failed for a reason that is not in the image: {type(error).__name__}: {said}"
                return f"{cause}{f'. {MEMORY}' * memory}".encode()
        return (
            "failed, and at a second attempt did not: the reason is not in the image. Memory ran out for a moment, "
            f"most likely. {MEMORY}"
        ).encode()
