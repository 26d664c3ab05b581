"""Limits the number of scans of a JPEG.

Each scan goes through all pixels, even one of a few bytes: a small progressive JPEG can keep a decoder busy for a
minute.
"""

import re

# The most scans of a JPEG with the most pixels allowed; a smaller one may have more, in proportion. libjpeg writes 10,
# mozjpeg up to about 15.
SCANS = 20
MOST = 10_000  # for small JPEGs
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # these follow a byte 255 in compressed pixels


def most_scans(pixels: int, max_pixels: int) -> int:
    """Returns the most scans allowed for a JPEG of this many pixels."""
    return min(max(SCANS * max_pixels // max(pixels, 1), 1), MOST)


def count_scans(contents: bytes | bytearray | memoryview, most: int) -> int:
    """Counts the scans of a JPEG, up to `most + 1`.

    A sequential JPEG whose first scan has all colors counts as one scan; its pixels are not read.
    """
    scans, components, place = 0, 0, 2
    while scans <= most and (found := _MARKER.search(contents, place)):
        place = found.start()
        marker = contents[place + 1]
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8) or len(contents) < place + 10:
            place += 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            # A scan of a progressive frame never has all.
            components = 256 if marker % 4 == 2 else contents[place + 9]
        if marker == 0xDA:
            scans += 1
            if contents[place + 4] >= components:
                break
        place += 2 + max(int.from_bytes(contents[place + 2 : place + 4], "big"), 2)
    return scans
