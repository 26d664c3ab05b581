"""Draws a class activation map over the image, with a scale."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from keras_bit.drawing.colors import AGAINST, BACKGROUND, FAINT, FOR, INK
from keras_bit.drawing.lettering import Font, drawable, one_line, shortened, wrapped
from keras_bit.images.processor import BitImageProcessor
from keras_bit.images.steps import resized_shape

SIDE = 448  # px, the longer side of an image on the sheet
GAP, LINE = 16, 21  # px
HEADLINE = 22  # px, its font
BAR = 18  # px, height of the scale
OPAQUE = 0.7  # opacity of the strongest color over the gray image
DARK, LIGHT = 50, 230  # the range of the gray image, because colors are not visible on black


class Seen(NamedTuple):
    """The part of an image that becomes the model's input."""

    image: Image.Image  # that part, at the size of the drawing
    rows: np.ndarray  # the place of each row in the model's input, in pixels from the center of the first pixel
    columns: np.ndarray
    part: str  # a description of the part


def seen(image: Image.Image, processor: BitImageProcessor) -> Seen:
    """Returns the part of `image` that the model sees, in the image's own pixels, before resize and crop.

    The padding of a crop around a smaller image is black.
    """
    width, height = image.size
    resized = resized_shape(height, width, processor.size) if processor.do_resize else (height, width)
    crop = resized
    if processor.do_center_crop:
        crop = (processor.crop_size["height"], processor.crop_size["width"])
    # The processor's center crop, converted to the image's own pixels.
    starts = [(whole - cut) // 2 for whole, cut in zip(resized, crop, strict=True)]
    scales = [own / whole for own, whole in zip((height, width), resized, strict=True)]
    upper, left = (round(start * scale) for start, scale in zip(starts, scales, strict=True))
    lower, right = (
        max(round((start + cut) * scale), edge + 1)
        for start, cut, scale, edge in zip(starts, crop, scales, (upper, left), strict=True)
    )
    shrink = SIDE / max(right - left, lower - upper)
    size = (max(1, round((right - left) * shrink)), max(1, round((lower - upper) * shrink)))
    # Enlarged pixels stay squares, without invented detail.
    resample = Image.Resampling.LANCZOS if shrink < 1 else Image.Resampling.NEAREST
    shown = image.convert("RGB").crop((left, upper, right, lower)).resize(size, resample)
    rows, columns = (
        (np.arange(count) + 0.5) * cut / count - 0.5 for count, cut in zip(reversed(size), crop, strict=True)
    )
    part = "the whole image"
    if (left, upper, right, lower) != (0, 0, width, height):
        part = f"the middle {right - left}x{lower - upper} of {width}x{height} px, which the model sees"
    return Seen(shown, rows, columns, part)


def draw(image: Image.Image, heat: np.ndarray, title: Sequence[str], name: str, notes: Sequence[str]) -> Image.Image:
    """Draws the sheet: the image, the map over it, and the scale of its colors.

    Args:
        image: RGB.
        heat: `(height, width)` of the image, contributions to the logit.
        title: the lines above, the first in large letters.
        name: the name of the class.
        notes: the lines below.
    """
    strongest = float(np.abs(heat).max())
    width, height = image.size
    # Words need some room, even next to a high, narrow image.
    total = max(2 * width + 3 * GAP, SIDE + 2 * GAP)
    room = total - 2 * GAP
    first, headline = drawable(one_line(title[0]), HEADLINE)
    lines = [(shortened(first, headline, room), headline, INK, LINE + 9)]
    lines += [(part, font, FAINT, LINE) for part, font in _lines(title[1:], room)]
    below = [(part, font, INK if index == 0 else FAINT) for index, (part, font) in enumerate(_lines(notes, room))]
    top = GAP + sum(step for *_, step in lines) + GAP // 2
    scale_top = top + height + GAP
    notes_top = scale_top + BAR + 2 * LINE + GAP // 2 + 4
    sheet = Image.new("RGB", (total, notes_top + LINE * len(below) + GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    upper = GAP
    for line, font, color, step in lines:
        pen.text((GAP, upper), line, color, font)
        upper += step

    side = (total - 2 * width - GAP) // 2
    sheet.paste(image, (side, top))
    gray = DARK + np.asarray(image.convert("L"), np.float64) * ((LIGHT - DARK) / 255)
    sheet.paste(Image.fromarray(_colored(gray, heat / strongest if strongest else heat)), (side + width + GAP, top))
    _draw_scale(sheet, scale_top, room, strongest, one_line(name))
    for index, (line, font, color) in enumerate(below):
        pen.text((GAP, notes_top + index * LINE), line, color, font)
    return sheet


def _draw_scale(sheet: Image.Image, top: int, room: int, strongest: float, name: str) -> None:
    """Draws all colors in a bar, and the contributions of three of them below it."""
    values = np.tile(np.linspace(-1, 1, room), (BAR, 1))
    sheet.paste(Image.fromarray(_colored(np.full(values.shape, (DARK + LIGHT) / 2), values)), (GAP, top))
    pen = ImageDraw.Draw(sheet)
    for share, number, meaning in (
        (0.0, f"-{strongest:.3g}", f"against {name}"),
        (0.5, "0", "neither"),
        (1.0, f"+{strongest:.3g}", f"for {name}"),
    ):
        place = GAP + round(share * (room - 1))
        pen.line((place, top + BAR, place, top + BAR + 4), FAINT)
        for row, (text, color) in enumerate(((number, INK), (meaning, FAINT))):
            text, font = drawable(text)
            text = shortened(text, font, round(room * 0.4))
            # The first text begins at its place, the second is centered there, and the third ends there.
            x = place - round(share * font.getlength(text))
            pen.text((x, top + BAR + 5 + row * LINE), text, color, font)


def _lines(texts: Sequence[str], room: int) -> list[tuple[str, Font]]:
    found = [drawable(one_line(text)) for text in texts]
    return [(part, font) for text, font in found for part in wrapped(text, font, room)]


def _colored(gray: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Returns a gray image in [0, 255] under the colors of `heat` in [-1, 1], as uint8 `(height, width, 3)`."""
    strength = (OPAQUE * np.abs(heat))[..., None]
    color = np.where(heat[..., None] < 0, np.array(AGAINST), np.array(FOR))
    return np.rint(gray[..., None] * (1 - strength) + color * strength).astype(np.uint8)
