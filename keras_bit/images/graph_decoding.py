"""Decodes images in a TensorFlow graph if its decoders give Pillow's values; refuses them otherwise.

Imports TensorFlow, so only functions import this module.

Checked against Pillow 13.0's own decoders, through `convert("RGB")`.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_bit import versions
from keras_bit.images import graph_containers, graph_orientation, jpeg_scans
from keras_bit.images.graph_resizing import Window

# TensorFlow's default is a faster and less exact transform. This one is libjpeg's own default, which Pillow uses.
DCT_METHOD = "INTEGER_ACCURATE"
# A decoder that starts inside the image lacks the neighbors of the first and last column, which change their colors.
MARGIN = 2  # pixels

DECODES_WEBP = not versions.is_older(tf.__version__, versions.DECODES_WEBP)

HEADER = 40  # bytes, enough for every format's sizes
CUT_PNG = "is a truncated PNG (no IEND chunk). If only the end is missing, Pillow can read it: call `processor(path)`."
ARRAY_PATH = "Read it outside of the graph with `processor(path)`."


# Such a function is not inlined, so TensorFlow prepares it when it first runs. Otherwise TensorFlow would optimize it
# at the start of every epoch, although JPEGs need little of this file.
_apart = tf.function(autograph=False, experimental_attributes={"_noinline": True})


class Header(NamedTuple):
    """The facts in an image's header, as int32 scalars and one string scalar.

    Args:
        kind: the kind of file, `JPEG`, `UNKNOWN` or one that follows.
        height, width: the size of the decoded image, upright unless tags are ignored.
        orientation: the orientation of the stored pixels, 1 to 8; 1 if tags are ignored.
        problem: why the image cannot be decoded, a string; empty if it can.
    """

    kind: Any
    height: Any
    width: Any
    orientation: Any
    problem: Any


def read_header(contents: Any, max_pixels: int | None, orientation: str) -> Header:
    """Reads an image's kind and size, and why it cannot be decoded here, as far as the header shows.

    Args:
        contents: a scalar string, the bytes of the file.
        max_pixels: the most pixels that an image may have; `None` for no limit.
        orientation: "upright", or "ignore" for the image as it is stored.

    Returns:
        A `Header`; its `problem` continues a sentence that begins with the image's name ("is empty.").

    Raises:
        tf.errors.InvalidArgumentError: a JPEG whose header is damaged.
    """
    # JPEGs, by far the most frequent, skip the tests for other kinds.
    is_jpeg = tf.strings.substr(contents, 0, 3) == b"\xff\xd8\xff"
    kind, height, width, tags, problem = tf.cond(
        is_jpeg, lambda: _jpeg(contents, max_pixels), lambda: _others(contents)
    )
    if max_pixels is not None:
        pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
        problem = tf.cond(
            (pixels > max_pixels) & (problem == ""), lambda: _too_large(height, width, max_pixels), lambda: problem
        )
    if orientation == "ignore":
        return Header(kind, height, width, tf.constant(1), problem)
    tag = tf.cond(tags == "", lambda: 1, lambda: _orientation(tags))
    swapped = graph_orientation.is_swapped(tag)
    return Header(kind, tf.where(swapped, width, height), tf.where(swapped, height, width), tag, problem)


def decode(contents: Any, header: Header, window: Window | None = None) -> Any:
    """Decodes an image or a part of it.

    Only the part of a JPEG that the window needs is decoded. The image is turned by the header's orientation, alpha is
    dropped, and only the first of several frames is used.

    Args:
        contents: a scalar string, the bytes of the file.
        header: the result of `read_header`, without a problem.
        window: the part of the turned image to decode; `None` is the whole image.

    Returns:
        uint8 `(height, width, 3)`, RGB.

    Raises:
        tf.errors.InvalidArgumentError: the image is damaged.
    """

    stored = window if window is None else _stored_window(window, header)

    def jpeg() -> Any:
        whole = lambda: _cut(tf.io.decode_jpeg(contents, channels=3, dct_method=DCT_METHOD), stored)  # noqa: E731
        if stored is None:
            return whole()
        # The part after the window is not read, so the end marker is checked here. Otherwise the decoder checks it.
        ended = tf.strings.substr(contents, -2, 2) == b"\xff\xd9"
        width = tf.where(graph_orientation.is_swapped(header.orientation), header.height, header.width)
        return tf.cond(ended, lambda: _decode_jpeg_window(contents, width, stored), whole)

    pixels = tf.cond(header.kind == JPEG, jpeg, lambda: _cut(_decode_other(contents, header.kind), stored))
    pixels = tf.cond(header.orientation == 1, lambda: pixels, lambda: _turned(pixels, header.orientation))
    return tf.ensure_shape(pixels, [None, None, 3])


def _stored_window(window: Window, header: Header) -> Window:
    parts = [tf.convert_to_tensor(part, tf.int32) for part in window]
    whole = (header.height, header.width, header.orientation)
    return Window(*tf.cond(header.orientation == 1, lambda: parts, lambda: list(_window(Window(*parts), *whole))))


_orientation, _window = _apart(graph_orientation.orientation), _apart(graph_orientation.stored_window)
_turned = _apart(graph_orientation.turned)


def _cut(pixels: Any, window: Window | None) -> Any:
    return pixels if window is None else window.cut(pixels)


@_apart
def _decode_other(contents: Any, kind: Any) -> Any:
    nothing = tf.zeros([0, 0, 3], tf.uint8)  # never reached, because an unknown kind has a problem
    branches = [
        lambda: nothing,
        lambda: tf.io.decode_png(contents, channels=3),
        lambda: tf.io.decode_image(graph_containers.gif_first_frame(contents), channels=3, expand_animations=False),
        lambda: tf.io.decode_bmp(_bmp_alone(contents))[..., :3],
        lambda: tf.io.decode_webp(contents)[0][..., :3] if DECODES_WEBP else nothing,
    ]
    return tf.switch_case(kind - UNKNOWN, branches)


def _decode_jpeg_window(contents: Any, width: Any, window: Window) -> Any:
    left = tf.maximum(window.left - MARGIN, 0)
    right = tf.minimum(window.left + window.width + MARGIN, width)
    box = tf.stack([window.top, left, window.height, right - left])
    pixels = tf.io.decode_and_crop_jpeg(contents, box, channels=3, dct_method=DCT_METHOD)
    start = window.left - left
    return pixels[:, start : start + window.width]


# The kinds of files, numbered by the order of the branches of `decode`. The kinds of `_MARKS` follow from 2 on.
JPEG, UNKNOWN = 0, 1
# The first bytes of a PNG, GIF, BMP and WebP file; `None` is any byte.
_MARKS = (tuple(b"\x89PNG\r\n\x1a\n"), (*b"GIF8", None, *b"a"), tuple(b"BM"), (*b"RIFF", *[None] * 4, *b"WEBP"))


@_apart
def _others(contents: Any) -> tuple[Any, Any, Any, Any, Any]:
    padded = tf.strings.substr(tf.strings.join([contents, "\0" * HEADER]), 0, HEADER)
    head = tf.ensure_shape(tf.cast(tf.io.decode_raw(padded, tf.uint8), tf.int32), [HEADER])
    begins = [tf.cast(_begins(head, mark), tf.int32) for mark in _MARKS]
    kind = UNKNOWN + sum(index * begun for index, begun in enumerate(begins, start=1))
    readers = (_unknown, _png, _gif, _bmp, _webp)
    read = tf.switch_case(kind - UNKNOWN, [lambda reader=reader: reader(contents, head) for reader in readers])
    return kind, *read


def _too_large(height: Any, width: Any, max_pixels: int) -> Any:
    return tf.strings.format(
        f"has {{}}x{{}} pixels (height x width), more than the limit of {max_pixels:,} in all. If you trust its "
        "source, raise PIL.Image.MAX_IMAGE_PIXELS, half of the limit, or pass `max_pixels` to `image_dataset`.",
        (height, width),
    )


def _begins(head: Any, mark: tuple[int | None, ...]) -> Any:
    return tf.reduce_all([head[index] == byte for index, byte in enumerate(mark) if byte is not None])


def _number(head: Any, start: int, size: int, *, big: bool = False) -> Any:
    """Reads an unsigned number of `size` bytes, lowest byte first unless `big`."""
    places = range(size - 1, -1, -1) if big else range(size)
    return sum(head[start + index] * 256**place for index, place in enumerate(places))


def _either(*cases: tuple[Any, str]) -> Any:
    """Returns the text of the first case that is true, or an empty one."""
    text = tf.constant("")
    for condition, problem in reversed(cases):
        text = tf.where(condition, problem, text)
    return text


def _unknown(contents: Any, head: Any) -> tuple[Any, Any, Any, Any]:
    del head
    other = "is not a JPEG, PNG, GIF, BMP or WebP file. Read other images outside of the graph with `processor(path)`."
    problem = tf.where(tf.strings.length(contents) == 0, "is empty. Replace or remove it.", other)
    return tf.constant(0), tf.constant(0), tf.constant(""), problem


def _jpeg(contents: Any, max_pixels: int | None) -> tuple[Any, Any, Any, Any, Any]:
    height, width, channels = tf.unstack(tf.io.extract_jpeg_shape(contents))
    segments = _segments(contents)
    # TensorFlow's decoder multiplies the colors by black and rounds down; Pillow rounds to the nearest number.
    cmyk = f"is a JPEG of four colors (CMYK), which TensorFlow's decoder converts differently. {ARRAY_PATH}"
    problem = _either((channels == 4, cmyk))
    scans = lambda: _of_several_scans(contents, segments.first_scan, height, width, max_pixels)  # noqa: E731
    problem = tf.cond(segments.several & (problem == ""), scans, lambda: problem)
    return tf.constant(JPEG), height, width, segments.tags, problem


@_apart
def _of_several_scans(contents: Any, first_scan: Any, height: Any, width: Any, max_pixels: int | None) -> Any:
    """Returns why a JPEG of several scans is refused; an empty text if it is not."""
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    most = tf.constant(jpeg_scans.MOST, tf.int64)
    if max_pixels is not None:
        most = tf.clip_by_value(jpeg_scans.SCANS * max_pixels // tf.maximum(pixels, 1), 1, jpeg_scans.MOST)
    scans = graph_containers.read_scans(contents, first_scan, most)
    many = tf.strings.format(
        "is a JPEG of more than {} scans, each of which goes through all of its {} pixels. If you trust its source, "
        "raise PIL.Image.MAX_IMAGE_PIXELS, or pass `max_pixels` to `image_dataset`.",
        (most, pixels),
    )
    incomplete = f"is an incomplete JPEG: scans are missing, and every decoder fills them in differently. {ARRAY_PATH}"
    too_many = scans.count > most if max_pixels is not None else False
    return tf.where(too_many, many, tf.where(scans.incomplete, incomplete, ""))


_segments = _apart(graph_containers.jpeg_segments)


def _png(contents: Any, head: Any) -> tuple[Any, Any, Any, Any]:
    ended = tf.strings.substr(contents, -8, 4) == b"IEND"
    ended = tf.cond(ended, lambda: True, lambda: _holds(contents, "IEND"))  # other bytes may follow
    palette = tf.cond(head[25] == 3, lambda: _holds(contents, "PLTE"), lambda: True)
    gray16 = (
        "is a gray PNG of 16 bits, which Pillow would make white above 255. Scale it to 8 bits first, or convert it to "
        "color."
    )
    return (
        _number(head, 20, 4, big=True),
        _number(head, 16, 4, big=True),
        graph_containers.png_tags(contents),
        _either(
            ((head[24] == 16) & (head[25] == 0), gray16),
            (~ended, CUT_PNG),
            (~palette, "is a damaged PNG: its palette is missing. Save or fetch it again."),
        ),
    )


def _holds(contents: Any, name: str) -> Any:
    return tf.strings.regex_full_match(contents, rf"\C*{name}\C*")


def _gif(contents: Any, head: Any) -> tuple[Any, Any, Any, Any]:
    height, width = _number(head, 8, 2), _number(head, 6, 2)
    data = tf.cast(tf.io.decode_raw(contents, tf.uint8), tf.int32)
    # A truncated file is read past its end, by at most a color table or an extension's block.
    data = tf.concat([data, tf.zeros([3 * 256 + 256 + HEADER], tf.int32)], axis=0)
    length = tf.strings.length(contents)
    packed = head[10]
    start = 13 + tf.where(packed >= 128, 3 * tf.bitwise.left_shift(2, packed % 8), 0)

    def is_extension(position: Any, transparent: Any) -> Any:
        del transparent
        return (position < length) & (data[position] == 0x21)

    def skip_extension(position: Any, transparent: Any) -> tuple[Any, Any]:
        control = data[position + 1] == 0xF9  # this extension describes the frame that follows
        transparent = transparent | (control & (data[position + 3] % 2 == 1))
        (position,) = tf.while_loop(
            lambda block: (block < length) & (data[block] != 0), lambda block: [block + 1 + data[block]], [position + 2]
        )
        return position + 1, transparent

    position, transparent = tf.while_loop(is_extension, skip_extension, [start, False])
    frame = data[position:]
    covers = (
        (_number(frame, 1, 2) == 0)
        & (_number(frame, 3, 2) == 0)
        & (_number(frame, 5, 2) == width)
        & (_number(frame, 7, 2) == height)
    )
    problem = _either(
        (frame[0] != 0x2C, "is a damaged GIF. Save or fetch it again."),
        (transparent, f"is a GIF with transparency, which TensorFlow's decoder draws black. {ARRAY_PATH}"),
        (~covers, f"is a GIF whose first frame does not cover it, and Pillow fills the rest differently. {ARRAY_PATH}"),
    )
    return height, width, tf.constant(""), problem


def _bmp(contents: Any, head: Any) -> tuple[Any, Any, Any, Any]:
    del contents
    plain = (_number(head, 14, 4) >= 40) & (_number(head, 30, 4) == 0)
    bits = _number(head, 28, 2)
    # The height is negative if the first row is the top one. The numbers are int32 and may wrap around.
    height, width = tf.abs(_number(head, 22, 4)), _number(head, 18, 4)
    problem = f"is a BMP with a palette or a compression, which TensorFlow's decoder does not read. {ARRAY_PATH}"
    # The lowest int32 has no absolute value.
    damaged = (height < 0) | (width < 0)
    found = _either(
        (~(plain & ((bits == 24) | (bits == 32))), problem), (damaged, "is a damaged BMP. Save or fetch it again.")
    )
    return tf.maximum(height, 0), tf.maximum(width, 0), tf.constant(""), found


def _bmp_alone(contents: Any) -> Any:
    """Cuts a BMP after its pixels: TensorFlow's decoder treats further bytes as damage, Pillow ignores them."""
    head = tf.ensure_shape(
        tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 0, HEADER), tf.uint8), tf.int32), [HEADER]
    )
    row = (_number(head, 18, 4) * _number(head, 28, 2) + 31) // 32 * 4  # bytes, a multiple of four
    return tf.strings.substr(contents, 0, _number(head, 10, 4) + row * tf.abs(_number(head, 22, 4)))


def _webp(contents: Any, head: Any) -> tuple[Any, Any, Any, Any]:
    extended, lossless, lossy = (_begins(head[12:], tuple(name)) for name in (b"VP8X", b"VP8L", b"VP8 "))
    packed = _number(head, 21, 4)  # 14 bits each, minus one, without the sign bit
    width = tf.where(extended, 1 + _number(head, 24, 3), _number(head, 26, 2) % 2**14)
    width = tf.where(lossless, 1 + packed % 2**14, width)
    height = tf.where(extended, 1 + _number(head, 27, 3), _number(head, 28, 2) % 2**14)
    height = tf.where(lossless, 1 + tf.bitwise.right_shift(packed, 14) % 2**14, height)
    animated = extended & (head[20] // 2 % 2 == 1)
    refused = (
        f"is a WebP file, which TensorFlow {tf.__version__} does not decode; {versions.DECODES_WEBP} and newer do. "
        f"{ARRAY_PATH}"
    )
    problem = _either(
        (~(extended | lossless | lossy), "is a damaged WebP file. Save or fetch it again."),
        # TensorFlow 2.21 aborts the process on some of them.
        (animated, f"is an animated WebP file, which TensorFlow's decoder does not read. {ARRAY_PATH}"),
        (tf.constant(not DECODES_WEBP), refused),
    )
    has_tags = extended & (head[20] // 8 % 2 == 1)
    tags = tf.cond(has_tags, lambda: graph_containers.webp_tags(contents), lambda: "")
    return height, width, tags, problem
