"""Makes the images of `benchmarks.serving`: many sizes, kinds and orientations, and some that cannot be read."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

KINDS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")  # the formats that an exported graph decodes
MODES = ("RGB", "L", "P", "RGBA")
MODES_OF = {"JPEG": MODES[:2], "PNG": MODES, "GIF": MODES[:3]}  # a BMP of others has a palette, which no graph decodes
SIDES = (12, 900)  # px, the shortest and the longest side
TAG = 0x0112  # orientation in Exif
ORIENTATIONS = 8
TAGGED = ("JPEG", "PNG", "WEBP")


class Corrupt(NamedTuple):
    """An unreadable file, and the start of the expected refusal."""

    content: bytes
    reason: str


def readable(count: int, seed: int = 0) -> list[bytes]:
    """Returns files of `count` different images: soft shapes with noise.

    Formats, modes and orientations take turns. Sides are drawn at random, small ones as often as large ones.
    """
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        height, width = np.exp(generator.uniform(*np.log(SIDES), 2)).astype(int)
        kind = KINDS[number % len(KINDS)]
        image = Image.fromarray(_pixels(generator, height, width))
        mode = MODES[number // len(KINDS) % len(MODES)]
        if mode in MODES_OF.get(kind, ()):
            image = image.convert(mode)
        exif = Image.Exif()
        exif[TAG] = 1 + number % ORIENTATIONS
        found.append(_encoded(image, kind, exif))
    return found


def corrupt(seed: int = 0) -> list[Corrupt]:
    """Returns unreadable files, each with the expected reason."""
    generator = np.random.default_rng(seed)
    whole = {kind: _encoded(Image.fromarray(_pixels(generator, 200, 300)), kind, Image.Exif()) for kind in KINDS}
    flipped = bytearray(whole["PNG"])
    flipped[len(flipped) // 2] ^= 0xFF
    return [
        Corrupt(b"", "is empty."),
        Corrupt(b"no image", "is not a JPEG, PNG, GIF, BMP or WebP file."),
        *(Corrupt(whole["JPEG"][:size], "is a truncated JPEG") for size in (1500, len(whole["JPEG"]) // 2)),
        Corrupt(whole["PNG"][: len(whole["PNG"]) // 2], "is a truncated PNG"),
        *(Corrupt(whole[kind][: len(whole[kind]) // 2], "is damaged") for kind in ("GIF", "BMP", "WEBP")),
        Corrupt(bytes(flipped), "is damaged"),
    ]


def _pixels(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width][..., None] / generator.uniform(10, 80, 3)
    waves = np.sin(x + generator.uniform(0, 6, 3)) * np.cos(y + generator.uniform(0, 6, 3))
    noise = generator.uniform(-20, 20, (height, width, 1))
    return np.clip(generator.uniform(60, 190, 3) + 70 * waves + noise, 0, 255).astype(np.uint8)


def _encoded(image: Image.Image, kind: str, exif: Image.Exif) -> bytes:
    file = io.BytesIO()
    options = {"exif": exif} if kind in TAGGED and len(exif) else {}
    image.save(file, kind, **options)
    return file.getvalue()
