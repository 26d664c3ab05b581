"""How often the pixels of a JPEG are gone through, and how often they may be.

A scan of a few bytes goes through all of them: a progressive JPEG of 400 kB can keep a decoder busy for a minute.
"""

import re

# A JPEG of the most pixels that are allowed may have so many scans, a smaller one more, in proportion. libjpeg writes
# 10, mozjpeg up to some 15. At Pillow's limit of 178,956,970 pixels these are 2.5 s of decoding.
SCANS = 20
MOST = 10_000  # however small it is
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # in the pixels' code, a 255 is followed by those


def most_scans(pixels: int, max_pixels: int) -> int:
    """The number of scans that a JPEG of so many pixels may have."""
    return min(max(SCANS * max_pixels // max(pixels, 1), 1), MOST)


def count_scans(contents: bytes | bytearray | memoryview, most: int) -> int:
    """The number of scans of a JPEG, counted up to `most` and one.

    A sequential JPEG whose first scan has all colors counts as one, without a look at the pixels.
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
            # Of a progressive frame a scan never has all.
            components = 256 if marker % 4 == 2 else contents[place + 9]
        if marker == 0xDA:
            scans += 1
            if contents[place + 4] >= components:
                break
        place += 2 + max(int.from_bytes(contents[place + 2 : place + 4], "big"), 2)
    return scans
