"""A directory with a folder per class: the folders, and the images in them at any depth. Without TensorFlow."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_bit.data import targets
from keras_bit.files import some

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")  # Keras' list, and what TensorFlow decodes beside it


class OneClass(UserWarning):
    """A directory has one class, which a model cannot be trained to tell from another."""


def folders_in(directory: str | Path) -> list[str]:
    """The names of the folders in a directory, sorted; hidden ones are left out."""
    return sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and not entry.name.startswith("."))


def class_folders(directory: Path, class_names: tuple[str, ...] | None = None) -> tuple[list[bytes], targets.Labels]:
    """The paths of the images in a directory with a folder per class, and their labels."""
    folders = folders_in(directory)
    if not folders:
        raise ValueError(
            f"`source` must hold a folder per class. {str(directory)!r} has none; put the images in some. TFRecord "
            "files are passed by their names or by a pattern, such as 'records/*.tfrecord'."
        )
    names = tuple(folders) if class_names is None else class_names
    missing = sorted(set(names) - set(folders))
    if missing:
        raise ValueError(
            f"`class_names` must name folders in {str(directory)!r}. There is none for "
            f"{', '.join(map(repr, missing))}; there are {some(map(repr, folders), 20)}."
        )
    paths, labels = scan(directory, names)
    if not paths:
        raise ValueError(f"No folder in {str(directory)!r} holds an image ({', '.join(SUFFIXES)}).")
    empty = [name for name, count in zip(names, np.bincount(labels, minlength=len(names)), strict=True) if not count]
    if empty:
        warnings.warn(
            f"These folders in {str(directory)!r} hold no image and remain classes: {', '.join(empty)}.", stacklevel=4
        )
    if len(names) == 1:
        warnings.warn(
            f"{str(directory)!r} has one class, {names[0]!r}: there is nothing to tell apart.", OneClass, stacklevel=4
        )
    return paths, targets.Labels(np.array(labels, np.int32), names)


def scan(directory: Path, names: Sequence[str]) -> tuple[list[bytes], list[int]]:
    """The paths of the images in the folders of these names, and for each the place of its folder among the names."""
    from tqdm import tqdm

    paths: list[bytes] = []
    labels: list[int] = []
    with tqdm(desc=f"scan {directory}", unit=" images", delay=2, leave=False) as progress:
        for label, name in enumerate(names):
            found = []
            for image in _images_below(directory / name):
                found.append(image)
                progress.update()
            # The order of Keras' `image_dataset_from_directory`. A name may hold bytes that are not UTF-8.
            paths += [os.fsencode(os.path.join(*image)) for image in sorted(found)]
            labels += [label] * len(found)
    return paths, labels


def _images_below(folder: Path) -> Iterator[tuple[str, str]]:
    """Folder and name of each image, as the disk gives them; what begins with a dot is hidden."""
    waiting = [os.fspath(folder)]
    while waiting:
        root = waiting.pop()
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if not entry.is_symlink():  # it may lead in a circle
                        waiting.append(entry.path)
                elif entry.name.lower().endswith(SUFFIXES):
                    yield root, entry.name
