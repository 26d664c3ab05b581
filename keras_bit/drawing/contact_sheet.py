"""Draws a batch as a grid of images, each with its label under it."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from keras_bit.drawing.colors import BACKGROUND, FAINT, INK
from keras_bit.drawing.lettering import ELLIPSIS, drawable, one_line, shortened, wrapped
from keras_bit.images.processor import BitImageProcessor

TILE = 192  # px, width and height of an image on the sheet
GAP = 12  # px between images, and around the sheet
LINE = 20  # px
SMALLEST_SHARE = 0.005  # the smallest visible share of a mixed label


def denormalize(images: np.ndarray, processor: BitImageProcessor) -> np.ndarray:
    """Undoes the processor's rescaling and normalization: float32 `(batch, height, width, 3)` to uint8."""
    pixels = np.asarray(images, np.float64)
    if processor.do_normalize:
        pixels = pixels * np.array(processor.image_std) + np.array(processor.image_mean)
    if processor.do_rescale:
        pixels = pixels / processor.rescale_factor
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def label_text(label: np.ndarray, class_names: Sequence[str] | None) -> list[str]:
    """Returns the lines under an image: `cat`, or `0.73 cat` and `+ 0.27 dog` for a label that mixes two classes."""
    label = np.asarray(label)
    if label.ndim == 0:
        return [_name(int(label), class_names)]
    order = [index for index in np.argsort(-label, kind="stable") if label[index] >= SMALLEST_SHARE]
    names = [_name(int(index), class_names) for index in order]
    if len(order) == 1 and label[order[0]] > 1 - SMALLEST_SHARE:
        return names
    lines = [f"{label[index]:.2f} {name}" for index, name in zip(order, names, strict=True)]
    return [lines[0], *(f"+ {line}" for line in lines[1:])] if lines else ["no label"]


def draw(images: np.ndarray, labels: Sequence[Sequence[str]], title: Sequence[str]) -> Image.Image:
    """Draws the sheet.

    Args:
        images: uint8 `(count, height, width, 3)`.
        labels: the lines under each image.
        title: the lines above all of them, the first one darker.
    """
    columns = math.ceil(math.sqrt(len(images)))
    if len(images) > 4:
        columns = math.ceil(math.sqrt(len(images) * 1.5))  # the sheet is wider than high, as screens are
    rows = math.ceil(len(images) / columns)
    lines = min(max(map(len, labels)), 3)
    scale = TILE / max(images.shape[1:3])
    tile = max(1, round(images.shape[2] * scale)), max(1, round(images.shape[1] * scale))
    cell = tile[1] + GAP // 2 + lines * LINE + GAP
    # A title needs some room, even above a single image.
    width = max(columns * (tile[0] + GAP) + GAP, 2 * TILE)
    heading = [
        (part, font, INK if index == 0 else FAINT)
        for index, (line, font) in enumerate(drawable(one_line(line)) for line in title)
        for part in wrapped(line, font, width - 2 * GAP)
    ]
    top = GAP + LINE * len(heading) + GAP
    sheet = Image.new("RGB", (width, top + rows * cell), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for index, (line, font, color) in enumerate(heading):
        pen.text((GAP, GAP + index * LINE), line, color, font)
    # Enlarged pixels stay squares, so that a person sees the model's input.
    resample = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    for index, (image, text) in enumerate(zip(images, labels, strict=True)):
        left, upper = GAP + index % columns * (tile[0] + GAP), top + index // columns * cell
        sheet.paste(Image.fromarray(image).resize(tile, resample), (left, upper))
        _letter(pen, text, lines, (left, upper + tile[1] + GAP // 2), tile[0])
    return sheet


def _letter(pen: ImageDraw.ImageDraw, text: Sequence[str], lines: int, place: tuple[int, int], width: int) -> None:
    """Writes a label below its image, in at most `lines` lines."""
    left, upper = place
    shown = [*text[: lines - 1], f"{ELLIPSIS} {len(text) - lines + 1} more"] if len(text) > lines else text
    for number, line in enumerate(shown):
        line, font = drawable(line)
        color = INK if number == 0 else FAINT
        pen.text((left, upper + number * LINE), shortened(line, font, width), color, font)


def _name(number: int, class_names: Sequence[str] | None) -> str:
    """Returns the name of a class; if no font has all of its characters, its number and the escaped name."""
    if class_names is None:
        return str(number)
    name = one_line(class_names[number])
    text, _ = drawable(name)
    return text if text == name else f"{number}: {text}"
