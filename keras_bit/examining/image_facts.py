"""Facts about an image file without a network: hashes, size, mode, tags and a thumbnail."""

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from keras_bit.data.items import named
from keras_bit.data.reading import attempted
from keras_bit.images import inputs

THUMBNAIL = 16  # px, height and width
SAME_COLOR = 8  # of 255: the largest difference between the pixels of a blank image, in each channel
GRAY_SPREAD = 2  # of 255: between the channels of a gray thumbnail; JPEG's rounding
ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts about an image file.

    Args:
        problem: why it cannot be read, as a sentence; the other fields are then meaningless.
        file_sha256: the hash of the file's bytes.
        pixels_sha256: the hash of the height, the width and the RGB pixels of the upright image.
        height, width: the size of the upright image, in pixels.
        mode: Pillow's mode of the stored image.
        orientation: the value of the orientation tag, 1 to 8; 1 if the file has none.
        frames: the number of images in the file.
        is_gray, is_transparent, is_blank: whether all pixels are gray, some are not opaque, or all have one color.
    """

    problem: str = ""
    file_sha256: str = ""
    pixels_sha256: str = ""
    height: int = 0
    width: int = 0
    mode: str = ""
    orientation: int = 1
    frames: int = 1
    is_gray: bool = False
    is_transparent: bool = False
    is_blank: bool = False

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def facts_of(path: str, orientation: str) -> tuple[Facts, np.ndarray]:
    """Reads an image file.

    Args:
        path: the path of the file.
        orientation: the option of the processor, `"upright"` or `"ignore"`.

    Returns:
        Its facts, and its thumbnail, uint8 `(THUMBNAIL, THUMBNAIL, 3)`: zeros if it cannot be read.

    Raises:
        OSError: reading failed, but not because of the file.
    """
    name = named(path)
    found = attempted(name, lambda: _read(name, path, orientation))
    if isinstance(found, str):
        return Facts(problem=found), np.zeros((THUMBNAIL, THUMBNAIL, 3), np.uint8)
    return found


def _read(name: str, path: str, orientation: str) -> tuple[Facts, np.ndarray]:
    with open(path, "rb", buffering=0) as file:
        contents = file.read()
    stored = inputs.read(name, contents, "ignore")
    tag = _orientation(stored)
    frames = 1 if stored.format == "MPO" else getattr(stored, "n_frames", 1)  # cameras' previews in a JPEG
    image = inputs.to_rgb(name, stored)
    if orientation == "upright" and tag in inputs.TURNS:
        image = image.transpose(inputs.TURNS[tag])
    thumbnail = np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    spread = int((thumbnail.max(axis=-1).astype(int) - thumbnail.min(axis=-1)).max())
    size = f"{image.height}x{image.width} ".encode()
    facts = Facts(
        file_sha256=hashlib.sha256(contents).hexdigest(),
        pixels_sha256=hashlib.sha256(size + image.tobytes()).hexdigest(),
        height=image.height,
        width=image.width,
        mode=stored.mode,
        orientation=tag,
        frames=int(frames),
        is_gray=spread <= GRAY_SPREAD,
        is_transparent=_is_transparent(stored),
        is_blank=all(high - low <= SAME_COLOR for low, high in _extrema(image)),
    )
    return facts, thumbnail


def _orientation(image: Image.Image) -> int:
    """Returns the value of the orientation tag; 1 if it cannot be read, as in the processor."""
    try:
        tag = image.getexif().get(ExifTags.Base.Orientation, 1)
        return tag if tag in inputs.TURNS else 1
    except MemoryError:
        raise
    except Exception:  # on damaged blocks: SyntaxError, struct.error, TypeError and others
        return 1


def _is_transparent(image: Image.Image) -> bool:
    if image.mode not in ALPHA_MODES and "transparency" not in image.info:
        return False
    low, _ = image.convert("RGBA").getchannel("A").getextrema()
    return float(low) < 255  # type: ignore[arg-type]  # a pair of numbers for one channel


def _extrema(image: Image.Image) -> list[tuple[float, float]]:
    """Returns the darkest and the brightest value of each channel of an RGB image."""
    return [(float(low), float(high)) for low, high in image.getextrema()]  # type: ignore[misc]


def stamp(path: str) -> str:
    """Returns a file's size and time, which change when it is rewritten."""
    try:
        status = os.stat(path)
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"
