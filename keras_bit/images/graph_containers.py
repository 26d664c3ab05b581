"""Reads the parts of an encoded image besides its pixels, in a TensorFlow graph: JPEG segments, PNG and WebP chunks.

Imports TensorFlow, so only functions import this module.

Checked against Pillow 13.0, `JpegImagePlugin.py`, `PngImagePlugin.py` and `WebPImagePlugin.py`.
"""

from typing import Any, NamedTuple

import tensorflow as tf

# The most steps of a search: 65,536 chunks of 8 KiB are half a GiB. A file with more is not read to its end.
MOST_STEPS = 2**16
FREQUENCIES, UNSEEN = 10, -1  # the lowest frequencies, in which libjpeg-turbo looks for missing ones; not seen yet
SCAN_HEADER = 16  # bytes: marker, size, number of colors, at most four of them with their tables, frequencies, bits
EXIF = b"Exif\0\0"  # the beginning of a JPEG's segment of tags
LOOK = 10  # bytes of a segment: marker, size, and its first entries


class Segments(NamedTuple):
    """The segments before a JPEG's pixels.

    Args:
        tags: a string scalar, the Exif segments joined as in Pillow: the first with its prefix. Empty if there are
            none.
        first_scan: where the first scan's segment begins, an int32 scalar.
        several: whether other scans follow it: a bool scalar.
    """

    tags: Any
    first_scan: Any
    several: Any


def jpeg_segments(contents: Any) -> Segments:
    """Reads the segments of a JPEG up to its first scan."""
    length = tf.strings.length(contents)

    def going(position: Any, number: Any, *found: Any) -> Any:
        del found
        return (position + LOOK <= length) & (number < MOST_STEPS)

    def step(position: Any, number: Any, tags: Any, first_scan: Any, frame: Any, several: Any) -> tuple[Any, ...]:
        look = tf.strings.substr(contents, position, LOOK)
        head = tf.cast(tf.io.decode_raw(look, tf.uint8), tf.int32)
        marker, size = head[1], head[2] * 256 + head[3]
        # Bytes between segments and repeated marker bytes are skipped; some markers begin no segment.
        between = (head[0] != 0xFF) | (marker == 0xFF)
        alone = (marker < 2) | ((marker >= 0xD0) & (marker <= 0xD9))
        onward = tf.where(between, 1, tf.where(alone, 2, 2 + tf.maximum(size, 2)))
        is_segment = ~between & ~alone

        is_tags = is_segment & (marker == 0xE1) & (size >= 8) & (tf.strings.substr(look, 4, 6) == EXIF)
        before = tf.where(tags == "", 4, LOOK)
        start, count = tf.where(is_tags, position + before, 0), tf.where(is_tags, size + 2 - before, 0)
        tags = tf.strings.join([tags, tf.strings.substr(contents, start, count)])

        numbered = is_segment & (marker >= 0xC0) & (marker <= 0xCF)
        is_frame = numbered & (marker != 0xC4) & (marker != 0xC8) & (marker != 0xCC)
        # A scan of a sequential JPEG may have all color components. A scan of a progressive JPEG (C2, C6, CA, CE) never
        # has all of them, so 256 stands for more than any scan has.
        components = tf.where(marker % 4 == 2, 256, head[9])
        frame = tf.where(is_frame, components, frame)
        is_scan = is_segment & (marker == 0xDA)
        several = is_scan & (head[4] < frame)
        return (
            tf.where(is_scan, length, position + onward),
            number + 1,
            tags,
            tf.where(is_scan, position, first_scan),
            frame,
            several,
        )

    _, _, tags, first_scan, _, several = tf.while_loop(going, step, [2, 0, "", length, 0, False], parallel_iterations=1)
    return Segments(tags, first_scan, several)


class Scans(NamedTuple):
    """The scans of a JPEG.

    Args:
        count: their number, counted up to `most + 1`; an int64 scalar.
        incomplete: whether a color lacks low frequencies, or some of their bits, in a file that has its end marker: a
            bool scalar. Each version of libjpeg-turbo fills them in differently.
    """

    count: Any
    incomplete: Any


def read_scans(contents: Any, first_scan: Any, most: Any) -> Scans:
    """Reads the headers of the scans of a progressive JPEG, at most `most + 1`."""
    data = tf.io.decode_raw(tf.strings.substr(contents, first_scan, tf.strings.length(contents) - first_scan), tf.uint8)
    # In compressed pixels a byte 255 is always followed by a 0 or a restart marker.
    places = tf.where(data[:-1] == 0xFF)[:, 0]
    following = tf.gather(data, places + 1)
    marks = (following != 0) & (following != 0xFF) & ((following < 0xD0) | (following > 0xD7))
    places = tf.boolean_mask(places, marks)
    markers = tf.cast(tf.boolean_mask(following, marks), tf.int32)
    data = tf.concat([data, tf.zeros([SCAN_HEADER], tf.uint8)], axis=0)

    def going(index: Any, scans: Any, missing: Any) -> Any:
        del missing
        return (index < tf.size(places)) & (scans <= most)

    def step(index: Any, scans: Any, missing: Any) -> tuple[Any, Any, Any]:
        place, marker = places[index], markers[index]
        header = tf.cast(data[place : place + SCAN_HEADER], tf.int32)
        behind = tf.searchsorted(places, tf.reshape(place + 2 + tf.cast(header[2] * 256 + header[3], tf.int64), [1]))[0]
        index = tf.where(marker == 0xD9, tf.size(places), tf.maximum(behind, index + 1))
        is_scan = marker == 0xDA
        missing = tf.cond(is_scan, lambda: _still_missing(missing, header), lambda: missing)
        return index, scans + tf.cast(is_scan, tf.int64), missing

    missing = tf.fill([256, FREQUENCIES], UNSEEN)
    start = [0, tf.constant(0, tf.int64), missing]
    _, count, missing = tf.while_loop(going, step, start, parallel_iterations=1)
    seen = tf.reduce_any(missing != UNSEEN, axis=1)
    # Without its end marker the file is truncated, which the decoder reports.
    ended = tf.reduce_any(markers == 0xD9)
    return Scans(count, ended & tf.reduce_any(seen[:, None] & (missing != 0)))


def _still_missing(missing: Any, header: Any) -> Any:
    """Counts the bits of each color's low frequencies that are missing after a scan with this header."""
    colors = tf.clip_by_value(header[4], 0, 4)
    named = tf.reduce_any(header[5 : 5 + 2 * colors : 2] == tf.range(256)[:, None], axis=1)
    rest = header[5 + 2 * colors :]
    frequency = tf.range(FREQUENCIES)
    given = named[:, None] & (frequency >= rest[0]) & (frequency <= rest[1])
    return tf.where(given, rest[2] % 16, missing)


def png_tags(contents: Any) -> Any:
    """Returns the last `eXIf` chunk of a PNG, with the prefix that Pillow adds, as a string scalar; empty if none."""
    length = tf.strings.length(contents)

    def going(position: Any, number: Any, *found: Any) -> Any:
        del found
        return (position + 12 <= length) & (number < MOST_STEPS)

    def step(position: Any, number: Any, tags: Any, has_pixels: Any) -> tuple[Any, ...]:
        size = tf.io.decode_raw(tf.strings.substr(contents, position, 4), tf.int32, little_endian=False)[0]
        name = tf.strings.substr(contents, position + 4, 4)
        is_tags = name == b"eXIf"
        start, count = tf.where(is_tags, position + 8, 0), tf.where(is_tags, tf.maximum(size, 0), 0)
        tags = tf.where(is_tags, tf.strings.join([EXIF, tf.strings.substr(contents, start, count)]), tags)
        # Pillow stops after the first frame of an animation.
        ends = (name == b"IEND") | (has_pixels & (name == b"fcTL")) | (size < 0) | (size > length - position)
        onward = tf.where(ends, length, position + 12 + tf.where(ends, 0, size))
        return onward, number + 1, tags, has_pixels | (name == b"IDAT")

    return tf.while_loop(going, step, [8, 0, "", False], parallel_iterations=1)[2]


def webp_tags(contents: Any) -> Any:
    """Returns the first `EXIF` chunk of a WebP file of several chunks, as a string scalar; empty if none."""
    length = tf.strings.length(contents)

    def going(position: Any, number: Any, *found: Any) -> Any:
        del found
        return (position + 8 <= length) & (number < MOST_STEPS)

    def step(position: Any, number: Any, tags: Any) -> tuple[Any, ...]:
        size = tf.io.decode_raw(tf.strings.substr(contents, position + 4, 4), tf.int32)[0]
        is_tags = tf.strings.substr(contents, position, 4) == b"EXIF"
        ends = is_tags | (size < 0) | (size > length - position)
        start, count = tf.where(is_tags, position + 8, 0), tf.where(is_tags, tf.maximum(size, 0), 0)
        onward = tf.where(ends, length, position + 8 + tf.where(ends, 0, size + size % 2))
        return onward, number + 1, tf.strings.substr(contents, start, count)

    return tf.while_loop(going, step, [12, 0, ""], parallel_iterations=1)[2]


def gif_first_frame(contents: Any) -> Any:
    """Cuts a GIF after its first frame, because TensorFlow's decoder would decode all frames."""
    length = tf.strings.length(contents)
    # The missing part is read as zeros: at most a header, a color table and a block.
    data = tf.concat([tf.io.decode_raw(contents, tf.uint8), tf.zeros([13 + 3 * 256 + 256], tf.uint8)], axis=0)

    def number(position: Any) -> Any:
        return tf.cast(data[position], tf.int32)

    def colors(packed: Any) -> Any:
        return tf.where(packed >= 128, 3 * tf.bitwise.left_shift(2, packed % 8), 0)

    def blocks_end(position: Any) -> Any:
        # Nearly all blocks but the last have 255 bytes, so these are skipped at once, and the others one by one.
        full = tf.where(data[position:length:256] != 0xFF)[:, 0]
        whole = tf.cond(tf.size(full) > 0, lambda: tf.cast(full[0], tf.int32), lambda: 0)
        position, _ = tf.while_loop(
            lambda position, count: (position < length) & (data[position] != 0) & (count < MOST_STEPS),
            lambda position, count: [position + 1 + number(position), count + 1],
            [position + 256 * whole, 0],
        )
        return position + 1

    (frame,) = tf.while_loop(
        lambda position: (position < length) & (data[position] == 0x21),
        lambda position: [blocks_end(position + 2)],
        [13 + colors(number(10))],
    )
    frame = tf.minimum(frame, length)
    end = blocks_end(tf.minimum(frame + 11 + colors(number(frame + 9)), length))
    is_whole = (end < length) & (data[tf.minimum(end - 1, length)] == 0)
    return tf.cond(is_whole, lambda: tf.strings.join([tf.strings.substr(contents, 0, end), ";"]), lambda: contents)
