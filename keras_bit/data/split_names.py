"""Recognizes folders that divide a data set into train, validation and test. Without TensorFlow."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from keras_bit.data.walk import folders_in
from keras_bit.wording import some

TRAIN = ("train", "training")
VALIDATION = ("val", "validation", "valid", "dev")
TEST = ("test", "testing", "eval", "evaluation")
WORDS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}  # train is first: it has the classes
# Words that may accompany these, as in `training_set`, `TestData` and `02 val images`.
THINGS = r"(?:data)?sets?|data|images?|imgs?|pictures?|pics?|photos?|samples?|examples?|splits?|folders?"
SPELLED = {
    part: re.compile(rf"[\W\d_]*(?:(?:{THINGS})[\W\d_]*)?(?:{'|'.join(words)})[\W\d_]*(?:(?:{THINGS})[\W\d_]*)*")
    for part, words in WORDS.items()
}
SHOWN = 5  # folders that a message names


class NotClassesError(ValueError):
    """The folders of a directory do not seem to be its classes.

    Args:
        problem: what the folders are, and what to do.
        unless: the condition under which they are classes after all.
    """

    def __init__(self, problem: str, unless: str) -> None:
        super().__init__(f"{problem} If {unless}, pass `class_names`.")
        self.problem, self.unless = problem, unless


def part_of(name: str) -> str | None:
    """Returns `"train"`, `"validation"` or `"test"` for a name that means it, in any case.

    The name may also contain numbers, punctuation and words such as `set` and `images`.
    """
    return next((part for part, spelled in SPELLED.items() if spelled.fullmatch(name.casefold())), None)


def parts_called(names: Sequence[str]) -> dict[str, str]:
    """Returns the names that mean parts, and those parts.

    These are names that `part_of` knows, and names with a shared text next to the word: `seg_train` and `seg_test`.
    """
    found = {name: part for name in names if (part := part_of(name))}
    return found if len({*found.values()}) > 1 else found | _with_something_shared(names)


def split_folders(directory: Path, names: Sequence[str]) -> dict[str, Path]:
    """Returns the folders of a directory that are its train, validation and test part, if there are any.

    Their names are those of `parts_called`. A part holds the folders of its classes; if it holds only a folder of the
    same name (`seg_train/seg_train/class`), that one is the part.

    Args:
        names: the names of the folders in the directory.

    Raises:
        NotClassesError: two folders mean the same part.
    """
    found: dict[str, list[str]] = {}
    for name, part in parts_called(names).items():
        if folders_in(directory / name):
            found.setdefault(part, []).append(name)
    chosen = {part: _one_of(directory, part, found[part]) for part in WORDS if part in found}
    return {part: _unwrapped(directory / name) for part, name in chosen.items()}


def _with_something_shared(names: Sequence[str]) -> dict[str, str]:
    """Returns the names that consist of a part's word and a shared text, if they mean several parts."""
    shared: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        words = re.split(r"([\W_]+)", name)
        if len(words) < 3:
            continue
        if part := part_of(words[-1]):
            shared.setdefault(("".join(words[:-1]).casefold(), ""), {})[name] = part
        if part := part_of(words[0]):
            shared.setdefault(("", "".join(words[1:]).casefold()), {})[name] = part
    return next((group for group in shared.values() if len({*group.values()}) > 1), {})


def _one_of(directory: Path, part: str, names: Sequence[str]) -> str:
    """Returns the folder of a part; among several, the one whose name is only the word."""
    plain = [name for name in names if name.casefold() in WORDS[part]]
    if len(several := plain or names) > 1:
        raise NotClassesError(
            f"{str(directory)!r} has several folders for {part}: {', '.join(several)}. Keep one, or name a directory "
            "that holds the folders of the classes.",
            "these folders are classes",
        )
    return several[0]


def _unwrapped(folder: Path) -> Path:
    inside = folders_in(folder)
    if len(inside) == 1 and inside[0].casefold() == folder.name.casefold() and folders_in(folder / inside[0]):
        return folder / inside[0]
    return folder


def are_parts(parts: dict[str, Path]) -> bool:
    """Returns whether parts of `split_folders` divide a data set. A single folder with one inside may be a class."""
    return len(parts) > 1 or ("train" in parts and len(folders_in(parts["train"])) > 1)


def refuse_splits(directory: Path, names: Sequence[str]) -> None:
    """Raises if a directory's folders are the parts of a data set and not its classes.

    Raises:
        NotClassesError: they are; the message says which directory to name instead.
    """
    parts = split_folders(directory, names)
    called = parts_called(names)
    # A single such folder may be a class; a train and a test folder are parts, whatever else there is.
    called_so = len({*called.values()}) > 1 or (bool(names) and len(called) == len(names))
    if are_parts(parts) or (parts and called_so):
        folders = ", ".join(repr(os.fspath(path)) for path in parts.values())
        raise NotClassesError(
            f"{str(directory)!r} holds the parts of a data set, {some(names, SHOWN)}, not a folder per class. Name one "
            f"of them: {folders}.",
            "these folders are classes",
        )
    if len(names) > 1 and called_so:
        raise NotClassesError(
            f"{str(directory)!r} holds folders with the names of parts, {some(called, SHOWN)}, but without a folder "
            "per class. Put their images into a folder for each class.",
            "these folders are classes",
        )
