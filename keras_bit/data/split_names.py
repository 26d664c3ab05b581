"""Folders that divide a data set into train, validation and test, by their names. Without TensorFlow."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from keras_bit.data.walk import folders_in
from keras_bit.files import some

TRAIN = ("train", "training")
VALIDATION = ("val", "validation", "valid", "dev")
TEST = ("test", "testing", "eval", "evaluation")
WORDS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}  # train is first: it has the classes
SHOWN = 5  # folders that a message names


class NotClassesError(ValueError):
    """The folders of a directory are not its classes, as far as one can see.

    Args:
        problem: what they are, and what to do.
        unless: if what is the case they are classes after all.
    """

    def __init__(self, problem: str, unless: str) -> None:
        super().__init__(f"{problem} If {unless}, pass `class_names`.")
        self.problem, self.unless = problem, unless


def part_of(name: str) -> str | None:
    """`"train"`, `"validation"` or `"test"` for a name that is one of their words, in any case."""
    return next((part for part, words in WORDS.items() if name.casefold() in words), None)


def split_folders(directory: Path, names: Sequence[str]) -> dict[str, Path]:
    """The folders of a directory that are its train, validation and test part, as far as there are any.

    They are called so in any case, or have that word after or before something that they share: `seg_train` and
    `seg_test`. A part holds folders, those of its classes; where it holds only itself again
    (`seg_train/seg_train/class`), that is the part.

    Args:
        names: of the folders in the directory.

    Raises:
        NotClassesError: two of them are the same part.
    """
    exact = [(name, part) for name in names if (part := part_of(name))]
    found = _one_each(directory, [(name, part) for name, part in exact if folders_in(directory / name)])
    if not found:
        found = _one_each(directory, _with_something_shared(directory, names))
    return {part: _unwrapped(directory / found[part]) for part in WORDS if part in found}


def _with_something_shared(directory: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """The folders whose names are a part's word beside the same text, where there are several."""
    shared: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name in names:
        words = re.split(r"([\W_]+)", name)
        if len(words) < 3:
            continue
        if part := part_of(words[-1]):
            shared.setdefault(("".join(words[:-1]).casefold(), ""), []).append((name, part))
        if part := part_of(words[0]):
            shared.setdefault(("", "".join(words[1:]).casefold()), []).append((name, part))
    for group in shared.values():
        if len({part for _, part in group}) > 1 and all(folders_in(directory / name) for name, _ in group):
            return group
    return []


def _one_each(directory: Path, folders: Sequence[tuple[str, str]]) -> dict[str, str]:
    for part in WORDS:
        if len(several := [name for name, of in folders if of == part]) > 1:
            raise NotClassesError(
                f"{str(directory)!r} has several folders for {part}: {', '.join(several)}. Leave one, or name a "
                "directory that holds the folders of the classes.",
                "these folders are classes",
            )
    return {part: name for name, part in folders}


def _unwrapped(folder: Path) -> Path:
    inside = folders_in(folder)
    if len(inside) == 1 and inside[0].casefold() == folder.name.casefold() and folders_in(folder / inside[0]):
        return folder / inside[0]
    return folder


def are_parts(parts: dict[str, Path]) -> bool:
    """Whether what `split_folders` found divides a data set. A single folder with one inside may be a class."""
    return len(parts) > 1 or ("train" in parts and len(folders_in(parts["train"])) > 1)


def refuse_splits(directory: Path, names: Sequence[str]) -> None:
    """Raises for a directory whose folders are the parts of a data set, and not its classes.

    Raises:
        NotClassesError: it says which directory to name instead.
    """
    parts = split_folders(directory, names)
    called_so = bool(names) and all(part_of(name) for name in names)
    if are_parts(parts) or (parts and called_so):
        folders = ", ".join(repr(os.fspath(path)) for path in parts.values())
        raise NotClassesError(
            f"{str(directory)!r} holds the parts of a data set, {some(names, SHOWN)}, not a folder per class. Name one "
            f"of them: {folders}.",
            "these folders are classes",
        )
    if len(names) > 1 and called_so:
        raise NotClassesError(
            f"{str(directory)!r} holds folders that are called as the parts of a data set, {some(names, SHOWN)}, but "
            "they hold no folder per class. Put the images in them into a folder for each class.",
            "these folders are classes",
        )
