"""The images of a benchmark: the user's own, possibly with known classes, or patterns like photographs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bit.data import folders
from keras_bit.data.split_names import NotClassesError
from keras_bit.data.walk import LeftOut
from keras_bit.evaluation import class_map
from keras_bit.exporters import comparison_images
from keras_bit.exporters.job import input_dtype
from keras_bit.images.processor import BitImageProcessor
from keras_bit.network.model import BiTModel

CALIBRATING = 128  # images for int8 at most
PATTERNS = 64  # number of patterns instead of images
DEFAULT_SIZE = (224, 224)  # px, if neither the model nor the processor fixes a size
CHUNK = 8  # patterns per call
SHOWN = 3  # unreadable files that a note names
LONGEST = 300  # characters of the reason why the accuracy is not measured


class Images(NamedTuple):
    """The input of the engines.

    Args:
        what: a description.
        pixels: `(images, height, width, channels)`, as the model takes them: float32, or its whole numbers.
        calibration: the same, for int8; other images than `pixels` if there are enough.
        right: the model's classes that are right, for each image; `None` if unknown.
        notes: sentences for a person.
    """

    what: str
    pixels: np.ndarray
    calibration: np.ndarray
    right: list[tuple[int, ...]] | None
    notes: list[str]


def patterns(model: keras.Model, processor: BitImageProcessor | None, size: tuple[int, int]) -> Images:
    """Returns artificial images, which show how much two engines differ, but nothing about accuracy."""
    channels, dtype = model.input_shape[-1], input_dtype(model)
    several = [
        comparison_images.patterns(CHUNK, size, channels, processor, seed, dtype)
        for seed in range(2 * PATTERNS // CHUNK)
    ]
    middle = len(several) // 2
    first, second = np.concatenate(several[:middle]), np.concatenate(several[middle:])
    return Images(f"{len(first)} random patterns", first, second, None, [])


def read(
    directory: str | Path, model: keras.Model, processor: BitImageProcessor, count: int, size: tuple[int, int]
) -> Images:
    """Reads up to `count` images of a directory, evenly spread, and others for calibration.

    If its folders are classes of the model, as for `keras-bit evaluate`, the right classes are known. Unreadable files
    are left out, with a note.

    Raises:
        NotADirectoryError: the directory does not exist.
        ValueError: it holds no image that can be read.
    """
    if not Path(directory).is_dir():
        raise NotADirectoryError(f"`data` must be a directory with images, got {str(directory)!r}.")
    left_out, notes = LeftOut(), []
    try:
        names, classes = _classes(Path(directory), model)
    except ValueError as error:
        problem = error.problem if isinstance(error, NotClassesError) else str(error)
        notes.append(f"Accuracy is not measured, because the right answers are unknown: {_shortened(problem)}")
        names, classes = None, None
    paths, labels = folders.scan(directory, names, left_out)
    if left_out:
        notes.append(folders.about_left_out(directory, left_out))
    chosen = _spread(len(paths), count)
    others = np.setdiff1d(np.arange(len(paths)), chosen)
    others = others[_spread(len(others), CALIBRATING)] if len(others) else chosen[_spread(len(chosen), CALIBRATING)]

    problems: list[str] = []
    dtype = input_dtype(model)
    pixels, places = _read([paths[index] for index in chosen], processor, size, dtype, problems)
    if not len(pixels):
        reason = f" The first: {problems[0]}" if problems else ""
        raise ValueError(f"`data` {str(directory)!r} holds no image that can be read.{reason}")
    right = None if classes is None else [classes[labels[chosen[place]]] for place in places]
    calibration, _ = _read([paths[index] for index in others], processor, size, dtype, problems)
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        notes.append(f"Left out because they cannot be read: {'; '.join(problems[:SHOWN])}{more}")
    if not len(calibration):
        calibration = pixels[:CALIBRATING]
    return Images(f"{len(pixels):,} images of {str(directory)!r}", pixels, calibration, right, notes)


def size_of(
    model: keras.Model, processor: BitImageProcessor | None, wanted: tuple[int | None, int | None] | None
) -> tuple[int, int]:
    """Returns height and width in pixels: as given, else the model's own, the processor's, or 224."""
    fixed = processor.fixed_size if processor is not None else None
    height, width = model.input_shape[1:3]
    usual = fixed or DEFAULT_SIZE
    asked = wanted or (None, None)
    return asked[0] or height or usual[0], asked[1] or width or usual[1]


def _classes(directory: Path, model: keras.Model) -> tuple[list[str], list[tuple[int, ...]]]:
    """Returns the folders of a directory, and the model's classes for each.

    Raises:
        ValueError: they are not classes of the model.
    """
    if not isinstance(model, BiTModel):
        raise ValueError("only a model of keras_bit has labels.")
    names = folders.class_names_in(directory)
    matched = class_map.match(names, model.config)
    return names, [found for found in matched if found is not None]  # without a map none is left out


def _read(
    paths: Sequence[bytes],
    processor: BitImageProcessor,
    size: tuple[int, int],
    dtype: np.dtype[Any],
    problems: list[str],
) -> tuple[np.ndarray, list[int]]:
    """Yields the readable images with their places in `paths`; `problems` gets a sentence for each other."""
    options: dict[str, Any] = (
        {} if processor.fixed_size == size else {"do_resize": True, "size": size, "do_center_crop": False}
    )
    images, places = [], []
    for place, path in enumerate(paths):
        try:
            images.append(processor([os.fsdecode(path)], **options)[0])
        except (OSError, ValueError) as error:
            problems.append(str(error).replace("`images[0]` ", ""))
        else:
            places.append(place)
    return (np.stack(images) if images else np.zeros((0, *size, 3))).astype(dtype), places


def _spread(length: int, count: int) -> np.ndarray:
    """Returns `count` of `length` places, evenly spread, or all."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(int)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()} ..."
