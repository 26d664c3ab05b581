"""Describes in words, in a TensorFlow graph, why an image cannot be read.

Imports TensorFlow, so only functions import this module.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from keras_bit.images import graph_decoding
from keras_bit.images.graph_decoding import ARRAY_PATH
from keras_bit.images.graph_preprocessing import becomes_enormous, pixel_limit

if TYPE_CHECKING:
    from keras_bit.images.processor import BitImageProcessor  # which imports this module

TOO_LONG = "cannot be resized: its long side would get too many pixels. Crop it first."
DAMAGED = "is damaged and cannot be decoded. Pillow reads some damaged files: try `processor(path)`."
JPEG_PIXELS = 2**29 // 3  # the limit of TensorFlow's decoder, 178,956,970, which is Pillow's limit too
LARGE_JPEG = f"is a JPEG of more than {JPEG_PIXELS:,} pixels, which TensorFlow's decoder does not read. {ARRAY_PATH}"
JPEG_END = b"\xff\xd9"

# Without Autograph: these functions have no Python branches, and rewriting them would take longer than tracing.
plain = tf.autograph.experimental.do_not_convert


def attempt(prepare: Callable[[], Any], otherwise: Any) -> tuple[Any, Any]:
    """Returns the result of `prepare` and True or, if an operation in it fails, `otherwise` and False."""
    once = tf.data.Dataset.from_tensors(0).map(plain(lambda _: (prepare(), True))).ignore_errors()
    return once.concatenate(tf.data.Dataset.from_tensors((otherwise, False))).take(1).get_single_element()


def problem(contents: Any, processor: "BitImageProcessor") -> Any:
    """Finds out why an encoded image failed, as far as the image shows it.

    Args:
        contents: a scalar string, the bytes of the file.
        processor: the processor that read it.

    Returns:
        A scalar string that continues a sentence after its name ("is empty."); empty if nothing is wrong.
    """
    limit = pixel_limit(None)

    def damaged(header: graph_decoding.Header) -> Any:
        nothing = np.zeros((0, 0, 3), np.uint8)
        _, complete = attempt(lambda: graph_decoding.decode(contents, header), nothing)
        # Only the end is checked, because with its recovery option TensorFlow's decoder hangs on some files that end
        # inside a marker.
        end, _ = attempt(lambda: tf.strings.substr(contents, -2, 2), JPEG_END)
        cut = (header.kind == graph_decoding.JPEG) & (end != JPEG_END)
        text = tf.where(cut, "is a truncated JPEG: its data ends too early. Save or fetch it again.", DAMAGED)
        pixels = tf.cast(header.height, tf.int64) * tf.cast(header.width, tf.int64)
        large = (header.kind == graph_decoding.JPEG) & (pixels > JPEG_PIXELS)
        return tf.where(complete, "", tf.where(large, LARGE_JPEG, text))

    nothing = graph_decoding.Header(graph_decoding.UNKNOWN, 0, 0, 1, "")
    # The orientation does not change the faults.
    header, whole = attempt(lambda: graph_decoding.read_header(contents, limit, "ignore"), nothing)
    known = tf.where(whole, header.problem, "is a JPEG with a damaged header. Save or fetch it again.")
    size = (tf.maximum(header.height, 1), tf.maximum(header.width, 1))
    known = tf.where((known == "") & becomes_enormous(size, processor), TOO_LONG, known)
    return tf.cond(known == "", lambda: damaged(header), lambda: known)


def sentence_of(text: str) -> str:
    """Returns the message of a TensorFlow error without the graph's nodes around it."""
    text = re.sub(r"^(\{\{[^}]*\}\} ?)+", "", text)
    text = re.split(r"\n\t \[\[| \[Op:", text)[0]
    if asserted := re.search(r"assertion failed: \[(.*)\]", text, re.DOTALL):
        # The message has C escapes, for example for quotes.
        text = asserted[1].encode("ascii", "backslashreplace").decode("unicode_escape")
    return " ".join(text.split())
