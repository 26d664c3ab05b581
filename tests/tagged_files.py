"""Writes image files with an orientation tag byte by byte, for each format and each place in it that can hold one."""

import struct
import zlib

from PIL import Image

from image_files import encoded

SHORT, LONG, ASCII, BYTE, UNDEFINED = 3, 4, 2, 1, 7
TAG = 0x0112
ORDERS = {">": b"MM\0*", "<": b"II*\0"}
# How a camera stores an upright image if it is held in the way of each tag.
AS_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def stored(image, tag):
    """Returns the pixels of a file that shows `image` with this tag."""
    return image if tag == 1 else image.transpose(AS_STORED[tag])


def entry(order, tag, kind, count, value):
    """Returns the twelve bytes of an entry; `value` is a number of `kind`, or the four bytes."""
    if not isinstance(value, bytes):
        value = struct.pack(order + {BYTE: "B", SHORT: "H", LONG: "I"}[kind], value).ljust(4, b"\0")
    return struct.pack(order + "HHI", tag, kind, count) + value


def directory(*entries, order=">"):
    """Returns a TIFF header and a directory with these entries."""
    head = ORDERS[order] + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)


def block(orientation, order=">", before=(), kind=SHORT):
    """Returns a TIFF header and a directory with the tag, after the entries in `before`."""
    return directory(*before, entry(order, TAG, kind, 1, orientation), order=order)


def elsewhere(kind, value, order=">"):
    """Returns a directory whose tag has a value of more than four bytes, which follows the directory."""
    return directory(entry(order, TAG, kind, 1, struct.pack(order + "I", 26)), order=order) + value


def segment(marker, payload):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def jpeg(*blocks, image, others=b"", **options):
    """Returns a JPEG with `others` and then Exif segments after its first marker."""
    contents = encoded(image, "JPEG", quality=90, **options)
    return contents[:2] + others + b"".join(segment(0xE1, b"Exif\0\0" + one) for one in blocks) + contents[2:]


def png(exif, image, behind=False, name=b"eXIf"):
    """Returns a PNG with the block before its pixels, or after them."""
    contents = encoded(image, "PNG")
    chunk = struct.pack(">I", len(exif)) + name + exif + struct.pack(">I", zlib.crc32(name + exif))
    place = contents.index(b"IEND") - 4 if behind else 33
    return contents[:place] + chunk + contents[place:]


def webp(exif, image, **options):
    return encoded(image, "WEBP", exif=exif, **options)


def tiff(orientation, image, **options):
    return encoded(image, "TIFF", tiffinfo={TAG: orientation}, **options)


def _raw_profile(tag):
    hexadecimal = f"\nexif\n{len(block(tag)):8}\n{block(tag).hex()}\n".encode()
    return b"Raw profile type exif\0\0" + zlib.compress(hexadecimal)


_CAMERA = (entry(">", 0x10F, ASCII, 4, b"abc\0"), entry(">", 0x110, UNDEFINED, 3, b"abcd"))
_PADDING = segment(0xE2, bytes(60_000)) + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
_XMP = '<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/>'


def _xmp(tag):
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _XMP.format(tag).encode())


# Name of a format to a function from an image and a tag to a file with both. A graph also reads these:
TAGGED = {
    "JPEG, big endian": lambda image, tag: jpeg(block(tag), image=image),
    "JPEG, little endian": lambda image, tag: jpeg(block(tag, "<"), image=image),
    "JPEG, behind 120,000 bytes": lambda image, tag: jpeg(block(tag), others=_PADDING * 2, image=image),
    "JPEG, other tags first": lambda image, tag: jpeg(block(tag, before=_CAMERA), image=image),
    "JPEG, a long number": lambda image, tag: jpeg(block(tag, kind=LONG), image=image),
    "JPEG, two blocks": lambda image, tag: jpeg(block(tag), block(9 - tag), image=image),
    "JPEG, progressive": lambda image, tag: jpeg(block(tag), progressive=True, image=image),
    "JPEG, gray": lambda image, tag: jpeg(block(tag, "<"), image=image.convert("L")),
    "PNG": lambda image, tag: png(block(tag), image),
    "PNG, little endian, behind the pixels": lambda image, tag: png(block(tag, "<"), image, behind=True),
    "PNG, palette": lambda image, tag: png(block(tag), image.quantize(16)),
    "WebP": lambda image, tag: webp(block(tag), image),
    "WebP, lossless, alpha, prefix": lambda image, tag: webp(
        b"Exif\0\0" + block(tag, "<"), image.convert("RGBA"), lossless=True
    ),
}
# Only the host reads these.
HOST_TAGGED = {
    "TIFF": lambda image, tag: tiff(tag, image),
    "TIFF, compressed": lambda image, tag: tiff(tag, image, compression="tiff_lzw"),
    "JPEG, XMP": lambda image, tag: jpeg(others=_xmp(tag), image=image),
    "PNG, text": lambda image, tag: png(b"exif\0" + block(tag), image, name=b"tEXt"),
    "PNG, raw profile": lambda image, tag: png(_raw_profile(tag), image, name=b"zTXt"),
}
