"""A directory with a folder per class: its classes, its images, and notes about both.

Without TensorFlow.
"""

import os
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_bit.data.split_names import NotClassesError, part_of, parts_called, refuse_splits, split_folders
from keras_bit.data.walk import (
    KINDS,
    DirectoryWarning,
    LeftOut,
    folders_in,
    holds_image,
    images_below,
    is_image,
    is_within,
)
from keras_bit.wording import composed, some

SHOWN = 5  # folders that a message names
LISTED = 20  # folders that an error lists


class OneClass(UserWarning):
    """Issued if a directory has only one class, so a model has nothing to distinguish."""


class ClassFolders(NamedTuple):
    """The images in a directory with a folder per class.

    `left_out` counts everything else in the directory; `notes` are sentences for a person, also about that.
    """

    paths: list[bytes]
    labels: np.ndarray  # int32 (count,)
    class_names: tuple[str, ...]
    left_out: LeftOut
    notes: tuple[str, ...]


def class_names_in(directory: Path, left_out: LeftOut | None = None) -> list[str]:
    """Returns a directory's classes: its folders, sorted, without hidden ones and those of operating systems.

    Raises:
        ValueError: the directory has no folder, or two names look the same.
        NotClassesError: the folders are the parts of a data set, or wrap one.
    """
    names = _folders(directory, left_out)
    refuse_splits(directory, names)
    if len(names) == 1:
        _refuse_wrapping(directory, names[0])
    return names


def class_folders(directory: Path, class_names: tuple[str, ...] | None = None) -> ClassFolders:
    """Finds the images in a directory with a folder per class, in the order of Keras' `image_dataset_from_directory`.

    Args:
        class_names: some of the folders, in the order of their labels. By default all folders that hold an image,
            sorted.

    Raises:
        ValueError: the directory has no folder or no image, two names look the same, or `class_names` names a folder
            that does not exist.
        NotClassesError: without `class_names`: the folders are not classes, but parts of a data set, or all hold the
            same folders.
    """
    left_out = LeftOut()
    if class_names is None:
        folders = names = class_names_in(directory, left_out)
    else:
        there = {composed(name): name for name in _folders(directory, left_out)}
        if missing := sorted(name for name in class_names if composed(name) not in there):
            raise ValueError(
                f"`class_names` must name folders in {str(directory)!r}. It has no folder "
                f"for {', '.join(map(repr, missing))}; its folders are {some(map(repr, there.values()), LISTED)}."
            )
        names, folders = list(class_names), [there[composed(name)] for name in class_names]
    paths, labels = scan(directory, folders, left_out)
    if class_names is None:
        if len(held := np.unique(labels)) == 1 < len(folders):
            _refuse_wrapping(directory, folders[held[0]])
        refuse_classes_first(directory, folders, paths, labels)
    if not paths:
        raise ValueError(
            f"No folder in {str(directory)!r} holds an image ({KINDS}){f'; there are {left_out}' if left_out else ''}. "
            "Put the images into a folder for each class."
        )
    counts = np.bincount(labels, minlength=len(names))
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    notes = []
    if class_names is None:
        left_out.empty = empty
        labels = (np.cumsum(counts > 0) - 1)[labels].astype(np.int32)
        names = [name for name in names if name not in empty]
    elif empty:
        notes.append(f"These folders in {str(directory)!r} hold no image, but remain classes: {', '.join(empty)}.")
    if left_out:
        notes.append(about_left_out(directory, left_out))
    notes += [*_about_looks(directory, names), *_about_links(directory, folders)]
    return ClassFolders(paths, labels, tuple(names), left_out, tuple(notes))


def about_left_out(directory: str | Path, left_out: LeftOut) -> str:
    return f"Left out in {os.fspath(directory)!r}: {left_out}."


def tell(directory: Path, found: ClassFolders) -> None:
    """Issues the notes as warnings."""
    for note in found.notes:
        warnings.warn(note, DirectoryWarning, stacklevel=5)  # the line that calls `image_dataset`
    if len(found.class_names) == 1:
        one = f"{str(directory)!r} has only one class, {found.class_names[0]!r}. Add a folder for each other class."
        warnings.warn(one, OneClass, stacklevel=5)


def scan(directory: str | Path, folders: Sequence[str] | None, left_out: LeftOut) -> tuple[list[bytes], np.ndarray]:
    """Returns the paths of the images in some folders of a directory, and the number of each image's folder.

    Args:
        folders: directly in the directory; `None` takes everything, loose files too, as one class.
        left_out: counts what is skipped.

    Returns:
        The paths, and labels, int32 `(count,)`. A name may hold bytes that are not UTF-8.
    """
    from tqdm import tqdm

    root = os.fspath(directory)
    paths: list[bytes] = []
    labels: list[int] = []
    with tqdm(desc=f"scan {root}", unit=" images", delay=2, leave=False) as progress:
        for label, part in enumerate([None] if folders is None else [[folder] for folder in folders]):
            found = images_below(root, left_out, folders=part, advance=progress.update)
            # The order of Keras' `image_dataset_from_directory`.
            inside = sorted(os.path.split(os.path.join(root, name)) for name in found)
            paths += [os.fsencode(os.path.join(*image)) for image in inside]
            labels += [label] * len(inside)
    return paths, np.array(labels, np.int32)


def images_in(directory: str | os.PathLike[str]) -> list[str]:
    """Returns the images in a directory at any depth: folder by folder in the order of paths, each sorted by name.

    Warns about what is left out.

    Raises:
        ValueError: it has none.
    """
    left_out = LeftOut()
    found, _ = scan(os.fspath(directory), None, left_out)
    if not found:
        there = f"; there are {left_out}" if left_out else ""
        raise ValueError(
            f"{os.fspath(directory)} is a directory that holds no image ({KINDS}){there}. Name another directory."
        )
    if left_out:
        warnings.warn(about_left_out(os.fspath(directory), left_out), DirectoryWarning, stacklevel=2)
    return list(map(os.fsdecode, found))


def _folders(directory: Path, left_out: LeftOut | None) -> list[str]:
    names = folders_in(directory, left_out)
    if not names:
        raise ValueError(
            f"{str(directory)!r} must hold a folder per class, but has none. Put the images into such folders. Pass "
            "TFRecord files by name or by a pattern, such as 'records/*.tfrecord'."
        )
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(composed(name), []).append(name)
    if twice := [several for several in alike.values() if len(several) > 1]:
        spelled = " and ".join(ascii(name) for name in twice[0])
        raise ValueError(
            f"{str(directory)!r} has two folders whose names look the same, {twice[0][0]!r}, but encode an accent "
            f"differently: {spelled}. Move their images into one."
        )
    return names


def _refuse_wrapping(directory: Path, name: str) -> None:
    """Raises if the only folder holds folders of classes, as after unpacking an archive into a folder."""
    folder = directory / name
    while not _holds_image_itself(folder):
        inside = folders_in(folder)
        if len(inside) > 1 or split_folders(folder, inside):
            break
        if not inside or os.path.islink(folder / inside[0]):  # which may form a circle
            return
        folder /= inside[0]
    else:
        return
    if holds_image(folder):
        raise NotClassesError(
            f"{str(directory)!r} has one folder, {str(folder.relative_to(directory))!r}, which holds no image but the "
            f"folders {some(inside, SHOWN)}. Did you mean {str(folder)!r}?",
            f"{name!r} is the only class",
        )


def _holds_image_itself(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(not entry.is_dir() and is_image(entry.path) for entry in entries)


def refuse_classes_first(directory: Path, folders: Sequence[str], paths: Sequence[bytes], labels: np.ndarray) -> None:
    """Raises if the classes contain folders that may be the parts or the classes of the data set.

    These are folders with the names of several parts in one class, or the same folders in all classes. A single folder
    in each class, such as `images`, is allowed.

    Args:
        folders: the folders of the classes.
        paths, labels: the paths and labels of the images in them, as `scan` returns them.

    Raises:
        NotClassesError: there are such folders.
    """
    inside: list[set[str]] = [set() for _ in folders]
    starts = [len(os.fsencode(os.path.join(directory, folder, ""))) for folder in folders]
    for path, label in zip(paths, labels.tolist(), strict=True):
        inside[label].add(os.fsdecode(os.path.dirname(path[starts[label] :])).partition(os.sep)[0])
    divided = {}
    for folder, names in zip(folders, inside, strict=True):
        called = parts_called(sorted(names - {""}))
        if len({*called.values()}) > 1:
            divided[folder] = called
    held = [one for one in inside if one]
    all_are_parts = len(held) > 1 and all(part_of(name) for one in held for name in one)
    if divided or all_are_parts:
        outer = some(divided or folders, SHOWN)
        inner = some(sorted({name for called in divided.values() for name in called} or set.union(*held)), SHOWN)
        raise NotClassesError(
            f"{str(directory)!r} has the parts of a data set ({inner}) inside its classes ({outer}). Make a folder "
            "for each part, with a folder per class in it, or name one of these folders.",
            _belong_together(outer),
        )
    if len(held) > 1 and len(held[0]) > 1 and "" not in held[0] and all(one == held[0] for one in held):
        outer, inner = some(folders, SHOWN), some(sorted(held[0]), SHOWN)
        raise NotClassesError(
            f"The folders of {str(directory)!r} ({outer}) all hold the same folders ({inner}), so it is not clear "
            "which are the classes. If the inner ones are, name a directory that holds only them.",
            _belong_together(outer),
        )


def _belong_together(classes: str) -> str:
    return f"the classes are {classes}, with the images in all of their folders"


def look(name: str) -> str:
    """Returns the same text for names that are easily confused: that differ in case, spaces, `_` or `-`."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(one for one in plain if one not in "_-" and unicodedata.category(one) not in ("Cf", "Zs", "Cc"))


def shown(name: str) -> str:
    """Returns a name for a message, quoted if a part of it would be invisible."""
    return name if name == name.strip() and name.isprintable() else ascii(name)


def _about_links(directory: Path, folders: Sequence[str]) -> list[str]:
    """Notes which classes are links to the images of others."""
    places = {folder: os.path.realpath(directory / folder) for folder in folders}
    notes = []
    for folder, place in places.items():
        if os.path.islink(directory / folder) and (
            others := [name for name, other in places.items() if name != folder and is_within(other, place)]
        ):
            notes.append(f"{shown(folder)} in {str(directory)!r} is a link to {some(others)}: its images count twice.")
    return notes


def _about_looks(directory: Path, names: Sequence[str]) -> list[str]:
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(look(name), []).append(name)
    notes = []
    for several in alike.values():
        if len(several) > 1:
            case_alone = len({composed(name).casefold() for name in several}) == 1
            differ = "differ only in case" if case_alone else "look alike"
            notes.append(
                f"{' and '.join(map(shown, several))} in {str(directory)!r} {differ}, but are {len(several)} classes."
            )
    return notes
