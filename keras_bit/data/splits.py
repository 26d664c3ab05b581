"""Divides a data set into the images for training, validation and test."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_bit.data import csv_rows, dividing, exclusions, targets
from keras_bit.data.folders import ClassFolders, class_folders, look, scan, shown
from keras_bit.data.label_table import NUMBER, ONE, TableOptions
from keras_bit.data.parts import Part, of_files
from keras_bit.data.record_parts import about_records, holds_records, record_parts
from keras_bit.data.split_names import TRAIN, are_parts, part_of, split_folders
from keras_bit.data.table_parts import about_several, check_numbers, divided, table_parts
from keras_bit.data.walk import LeftOut, folders_in, holds_image
from keras_bit.wording import composed, some

SUBSETS = ("training", "validation")  # Keras' names
SHOWN = 5  # classes that a note names


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set in the parts that fine-tuning needs; `notes` are sentences for a person.

    `class_names` are the classes or, for regression, the columns of numbers. `unlabeled` are images to train on in
    addition to `train`, if a teacher answers for both. `excluded` are paths of images that nothing may use.
    """

    class_names: tuple[str, ...]
    train: Part
    validation: Part | None
    test: Part | None
    notes: tuple[str, ...] = ()
    problem_type: str = ONE
    unlabeled: Part | None = None
    excluded: tuple[str, ...] = ()


def open_splits(
    data: str | Path,
    *,
    validation_share: float,
    seed: int,
    examples_per_class: int | None = None,
    class_names: Sequence[str] | None = None,
    gone: Sequence[str] = (),
    table: TableOptions | None = None,
    problem_types: Sequence[str] = (ONE,),
    check_files: bool = True,
    exclude: str | Path | None = None,
) -> Splits:
    """Finds the images of a data set and divides them.

    Args:
        data: a directory with a folder per class; one with such directories for train and for val or test, in the
            spellings of `split_names`; a directory of TFRecord files or a pattern for them, which may have these words
            in their names; a CSV file, as `label_table.read` takes it.
        validation_share: the share of each class for validation, if the data set is not divided.
        seed: the seed of this choice, and of the choice of few examples.
        examples_per_class: number of training images of each class, for few-shot learning; `None` takes all.
        class_names: the order of the classes, or the names of the labels of TFRecord files.
        gone: paths of images that no longer exist, but take part in the division.
        table: how to read a CSV file.
        problem_types: the problem types of `label_table.PROBLEM_TYPES` that the caller can use.
        check_files: whether an image that a CSV file names must exist.
        exclude: a CSV of `keras-bit audit`, whose images are left out of the parts. The division does not change; the
            few examples are chosen among the remaining images.

    Raises:
        ValueError: the data set has no training images, the parts have different classes, the labels are of another
            kind, or `exclude` is not a CSV of this data set.
        FileNotFoundError: `data` does not exist.
    """
    names = targets.checked_class_names(class_names)
    if table is not None and not csv_rows.is_csv(data):
        raise ValueError(
            "`image_folder`, `image_column`, `label_columns`, `label_separator` and `problem_type` are for a CSV "
            f"file, got `data` {str(data)!r}. Leave them out."
        )
    records = not csv_rows.is_csv(data) and holds_records(data)
    kind = ONE
    if csv_rows.is_csv(data):
        parts, names, kind, notes = table_parts(data, table, names, check_files)
    elif records:
        parts, names = record_parts(data, names)
        notes = about_records(data)
    else:
        parts, names, notes = _folder_parts(Path(data), names, gone)
    if kind not in problem_types:
        raise ValueError(f"`data` {str(data)!r} must have one class for each image, got labels for {kind}.")
    if "train" not in parts:
        raise ValueError(f"`data` {str(data)!r} has test images, but no training images. Add some.")
    if kind != ONE:
        if examples_per_class is not None:
            raise ValueError(
                f"`examples_per_class` is for one class per image, got {examples_per_class} for {kind}. Leave it out."
            )
        if exclude is not None:
            raise ValueError(
                f"`exclude` is for one class per image, got {str(exclude)!r} for {kind}. Leave it out, and remove the "
                "lines of these images from the CSV file."
            )
        return _of_rows(parts, names, kind, notes, validation_share, seed)
    train, validation, test = parts["train"], parts.get("validation"), parts.get("test")
    first = min(int(part.labels.min()) for part in parts.values()) if records else 0
    notes += [_about_first(first, names)] if first else []
    for name, part in (("validate", validation), ("test", test)):
        counted = [] if part is None else np.bincount(part.labels, minlength=len(names))[first:].tolist()
        if none := [one for one, count in zip(names[first:], counted, strict=False) if count == 0]:
            notes.append(f"The data set has no image of {some(none, SHOWN)} to {name} with.")
    generator = np.random.default_rng(seed)
    if validation is None and test is None and validation_share > 0:
        train, validation = dividing.by_class(train, len(names), validation_share, generator)
        if validation is None:
            notes.append("No class has a second image, so the data set has no validation images.")
    excluded: tuple[str, ...] = ()
    if exclude is not None:
        left, excluded, about = exclusions.without(
            {"train": train, "validation": validation, "test": test}, exclude, data
        )
        train, validation, test = left["train"] or train, left["validation"], left["test"]
        notes += about
    if examples_per_class is not None:
        counts = np.bincount(train.labels, minlength=len(names))
        if few := [name for name, count in zip(names, counts, strict=True) if count < examples_per_class]:
            notes.append(f"There are fewer than {examples_per_class} images of {some(few, SHOWN)}, so all are used.")
        train = dividing.few(train, len(names), examples_per_class, generator)
    notes += _about_counts(train, names, first, examples_per_class)
    if len(names) == 1:
        raise ValueError(f"`data` {str(data)!r} has only one class, {names[0]!r}. Add a folder for each other class.")
    return Splits(names, train, validation if validation is not None else test, test, tuple(notes), excluded=excluded)


def _of_rows(
    parts: dict[str, Part], names: tuple[str, ...], kind: str, notes: list[str], validation_share: float, seed: int
) -> Splits:
    """Divides a data set of several classes per image, or of numbers."""
    train, validation, test = parts["train"], parts.get("validation"), parts.get("test")
    if validation is None and test is None and validation_share > 0:
        train, validation = divided(train, kind, len(names), validation_share, np.random.default_rng(seed))
        if validation is None:
            notes = [*notes, "The data set has only one image, so it has no validation images."]
    if kind == NUMBER:
        check_numbers(train, names)
    else:
        notes = [*notes, *about_several({"train": train, "validation": validation, "test": test}, names)]
    return Splits(names, train, validation if validation is not None else test, test, tuple(notes), kind)


def _about_first(first: int, names: tuple[str, ...]) -> str:
    return (
        f"The labels begin at {first}, not at 0. The model gets an output for {some(names[:first], SHOWN)} although it "
        "has no image. Renumber the labels from 0 if this is not intended."
    )


def _about_counts(train: Part, names: tuple[str, ...], first: int, examples_per_class: int | None) -> list[str]:
    """Notes which classes have one image or none, except those before the `first` label."""
    counts = np.bincount(train.labels, minlength=len(names))
    notes = []
    if single := [name for name, count in zip(names, counts, strict=True) if count == 1 != examples_per_class]:
        notes.append(f"The data set has only one training image of {some(single, SHOWN)}.")
    if none := [name for name, count in zip(names[first:], counts[first:], strict=True) if count == 0]:
        notes.append(f"The data set has no training image of {some(none, SHOWN)}.")
    return notes


class Subset(NamedTuple):
    """The part of a directory's images that `image_dataset` reads.

    Args:
        validation_split: the share of each class for validation.
        which: `"training"` or `"validation"`.
        seed: the seed of the choice of these images.
    """

    validation_split: float
    which: str
    seed: int


def checked_subset(validation_split: float | None, subset: str | None, seed: int | None) -> Subset | None:
    """Checks these arguments of `image_dataset`, if given.

    Raises:
        ValueError: one of them lacks the others, or is invalid.
    """
    if validation_split is None and subset is None:
        return None
    if validation_split is None or subset not in SUBSETS:
        raise ValueError(
            f"`subset` must be one of {', '.join(map(repr, SUBSETS))}, with a `validation_split`, got "
            f"subset={subset!r} and validation_split={validation_split!r}."
        )
    if isinstance(validation_split, bool) or not isinstance(validation_split, float | int | np.floating):
        raise ValueError(f"`validation_split` must be a number between 0 and 1, got {validation_split!r}.")
    if not 0 < validation_split < 1:
        raise ValueError(f"`validation_split` must be between 0 and 1, got {validation_split!r}.")
    if seed is None or seed < 0:
        raise ValueError(
            f"`seed` must be a whole number of at least 0 with `validation_split`, the same for both subsets, got "
            f"{seed}: otherwise they would overlap."
        )
    return Subset(float(validation_split), subset, int(seed))


def subset_of(directory: Path, class_names: tuple[str, ...] | None, subset: Subset) -> ClassFolders:
    """Returns a part of the images in a directory with a folder per class, divided as in `open_splits`."""
    found = class_folders(directory, class_names)
    whole = of_files(found.paths, found.labels)
    generator = np.random.default_rng(subset.seed)
    train, validation = dividing.by_class(whole, len(found.class_names), subset.validation_split, generator)
    part = train if subset.which == "training" else validation
    if part is None:
        raise ValueError(
            f"No class in {str(directory)!r} has a second image, so `validation_split` leaves no validation images. "
            "Add images, or leave `validation_split` out."
        )
    return found._replace(paths=[os.fsencode(name) for name in part.names], labels=part.labels)


def _folder_parts(
    data: Path, names: tuple[str, ...] | None, gone: Sequence[str]
) -> tuple[dict[str, Part], tuple[str, ...], list[str]]:
    """Returns the parts, the classes and the notes."""
    if not data.is_dir():
        raise FileNotFoundError(
            f"`data` must be an existing directory, CSV file or TFRecord files, got {str(data)!r}. Check the path."
        )
    left_out = LeftOut()
    there = folders_in(data, left_out)
    # Folders that the caller names as classes are classes, whatever their names are.
    as_classes = names is not None and {composed(name) for name in names} <= {composed(name) for name in there}
    directories = {} if as_classes else split_folders(data, there)
    if "train" not in directories and there and not as_classes and all(part_of(name) for name in there) and directories:
        raise ValueError(
            f"`data` {str(data)!r} has the folder {some(there, SHOWN)}, but no folder {TRAIN[0]!r} with training "
            "images. Put them there, in a folder per class, or name the directory with the folders of the classes."
        )
    if "train" not in directories or not are_parts(directories):
        found = class_folders(data, names)
        notes = [*_about_others(data, there, found.class_names), *found.notes] if names else list(found.notes)
        return {"train": _with_gone(data, found, gone)}, found.class_names, notes
    used = {path.relative_to(data).parts[0] for path in directories.values()}
    found = class_folders(directories["train"], names)
    notes = [f"{part}: {path}" for part, path in directories.items()]
    if others := [name for name in there if name not in used]:
        notes.append(f"Left out: the folder{'s' * (len(others) > 1)} {some(others, SHOWN)} in {str(data)!r}.")
    if left_out:
        notes.append(f"Left out in {str(data)!r}: {left_out}.")
    if names:
        notes += _about_others(directories["train"], folders_in(directories["train"]), found.class_names)
    notes += found.notes
    parts = {"train": _with_gone(directories["train"], found, gone)}
    for part, directory in directories.items():
        if part != "train":
            fewer = _of_fewer_classes(directory, found, directories["train"], notes, names is None)
            parts[part] = _with_gone(directory, fewer, gone)
    return parts, found.class_names, notes


def _of_fewer_classes(
    directory: Path, classes: ClassFolders, train: Path, notes: list[str], every: bool
) -> ClassFolders:
    """Returns the images of a directory that may lack some of the classes.

    Args:
        classes: the classes in `train`.
        notes: is extended by what is left out.
        every: whether folders of other classes are an error; otherwise they are left out.
    """
    left_out, names = LeftOut(), classes.class_names
    there = folders_in(directory, left_out)
    known = {composed(name): label for label, name in enumerate(names)}
    unknown = [name for name in there if composed(name) not in known]
    if every:
        left_out.empty = [name for name in unknown if not holds_image(directory / name)]
        unknown = [name for name in unknown if name not in left_out.empty]
    if unknown and every:
        spelled = {look(name): name for name in names}
        alike = [shown(spelled[one]) for name in unknown if (one := look(name)) in spelled]
        hint = (
            f" The training images have {some(alike, SHOWN)}: names that differ in case or spaces are different "
            "classes."
        )
        raise ValueError(
            f"{str(directory)!r} has folders that {str(train)!r} lacks: {some(map(shown, unknown), SHOWN)}."
            f"{hint if alike else ''} Add them to the training images, or remove them."
        )
    there = [name for name in there if composed(name) in known]
    paths, labels = scan(directory, there, left_out)
    if not paths:
        raise ValueError(
            f"No folder in {str(directory)!r} holds an image of the classes in {str(train)!r}. Give the folders the "
            "same names in both."
        )
    if not every:
        notes += _about_others(directory, unknown, names)
    if left_out:
        notes.append(f"Left out in {str(directory)!r}: {left_out}.")
    return classes._replace(paths=paths, labels=np.array([known[composed(name)] for name in there], np.int32)[labels])


def _about_others(directory: Path, there: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Notes the folders that are not among the named classes."""
    known = set(map(composed, classes))
    others = [name for name in there if composed(name) not in known]
    return [f"Left out in {str(directory)!r}: the folders of other classes, {some(others, SHOWN)}."] if others else []


def _with_gone(directory: Path, found: ClassFolders, gone: Sequence[str]) -> Part:
    """Returns the images together with those that no longer exist, in order."""
    if not gone:
        return of_files(found.paths, found.labels)
    labels = {composed(name): label for label, name in enumerate(found.class_names)}
    images = dict(zip(map(os.fsdecode, found.paths), found.labels.tolist(), strict=True))
    for path in gone:
        if Path(path).is_relative_to(directory):
            label = labels.get(composed(Path(path).relative_to(directory).parts[0]))
            images |= {} if label is None else {path: label}
    place = {label: number for number, label in reversed([*enumerate(found.labels.tolist())])}
    ordered = sorted(images, key=lambda path: (place.get(images[path], len(images)), os.path.split(path)))
    return of_files([*map(os.fsencode, ordered)], np.array([images[path] for path in ordered], np.int32))
