"""From where a person keeps images to what a model is trained on, validated with and tested on."""

import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from keras_bit.data import targets
from keras_bit.data.folders import ClassFolders, class_folders, scan
from keras_bit.data.record_names import is_record_name
from keras_bit.data.split_names import TRAIN, WORDS, are_parts, part_of, split_folders
from keras_bit.data.walk import LeftOut, folders_in, images_below
from keras_bit.files import composed, some
from keras_bit.packages import require_tensorflow

LOOKED_AT = 50  # images whose size is looked up for the rule
SHOWN = 5  # classes that a note names


@dataclasses.dataclass(frozen=True)
class Part:
    """Some images of a data set.

    Args:
        labels: int32 `(count,)`.
        names: what each image is called.
        source: from some of the images' numbers, in increasing order, and a label for each, to a source of
            `image_dataset`.
        files: from the same to what Pillow opens: a path, or a file in memory.
        in_files: whether each image is a file, whose path is its name.
    """

    labels: np.ndarray
    names: Sequence[str]
    source: Callable[[np.ndarray, np.ndarray], Any]
    files: Callable[[np.ndarray], Iterable[str | io.BytesIO]]
    in_files: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def some(self, numbers: np.ndarray) -> "Part":
        numbers = np.sort(numbers)
        return Part(
            self.labels[numbers],
            [self.names[number] for number in numbers],
            lambda chosen, labels: self.source(numbers[chosen], labels),
            lambda chosen: self.files(numbers[chosen]),
            self.in_files,
        )

    @property
    def everything(self) -> Any:
        """All of it, as a source of `image_dataset`."""
        return self.source(np.arange(len(self)), self.labels)

    @property
    def digest(self) -> str:
        """Changes with the images' names, their order and their labels."""
        found = hashlib.sha256(self.labels.tobytes())
        for name in self.names:
            found.update(os.fsencode(name) + b"\0")
        return found.hexdigest()[:16]

    def typical_size(self) -> tuple[int, int]:
        """Height and width in pixels: the medians of some of the images."""
        sizes = []
        for file in self.files(np.unique(np.linspace(0, len(self) - 1, LOOKED_AT).astype(int))):
            try:
                with Image.open(file) as image:
                    sizes.append((image.height, image.width))
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                continue  # training says what is wrong with it
        if not sizes:
            raise ValueError(f"None of the first images can be read: {self.names[0]} is one of them.")
        height, width = np.median(np.array(sizes), axis=0)
        return int(height), int(width)


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set as fine-tuning needs it; `notes` are sentences that a person should read."""

    class_names: tuple[str, ...]
    train: Part
    validation: Part | None
    test: Part | None
    notes: tuple[str, ...] = ()


def open_splits(
    data: str | Path,
    *,
    validation_share: float,
    seed: int,
    examples_per_class: int | None = None,
    class_names: Sequence[str] | None = None,
    gone: Sequence[str] = (),
) -> Splits:
    """Finds the images of a data set and divides them.

    Args:
        data: a directory with a folder per class; one with such directories that are called train and val or test, in
            one of the spellings in `split_names`; a directory of TFRecord files, or a pattern for some, which may have
            these words in their names.
        validation_share: of each class, for validation, where the data set does not divide itself.
        seed: decides which images these are, and which the few examples.
        examples_per_class: how many of each class are trained on, for few-shot learning; `None` takes all.
        class_names: the order of the classes; what the labels of TFRecord files are called.
        gone: paths of images that have been there, and are divided as if they were.

    Raises:
        ValueError: there is nothing to train on, or the parts have different classes.
        FileNotFoundError: `data` does not exist.
    """
    names = targets.checked_class_names(class_names)
    records = holds_records(data)
    parts, names, notes = (*_record_parts(data, names), []) if records else _folder_parts(Path(data), names, gone)
    if "train" not in parts:
        raise ValueError(f"`data` {str(data)!r} has images to test with, but none to train on.")
    train, validation, test = parts["train"], parts.get("validation"), parts.get("test")
    first = min(int(part.labels.min()) for part in parts.values()) if records else 0
    notes += [_about_first(first, names)] if first else []
    generator = np.random.default_rng(seed)
    if validation is None and test is None and validation_share > 0:
        train, validation = _divided(train, len(names), validation_share, generator)
        if validation is None:
            notes.append("No class has a second image to validate with: there is no validation.")
    if examples_per_class is not None:
        counts = np.bincount(train.labels, minlength=len(names))
        if few := [name for name, count in zip(names, counts, strict=True) if count < examples_per_class]:
            notes.append(f"There are fewer than {examples_per_class} images of {some(few, SHOWN)}: all are taken.")
        train = train.some(
            np.concatenate([_chosen(train, label, examples_per_class, generator) for label in range(len(names))])
        )
    notes += _about_counts(train, names, first, examples_per_class)
    if len(names) == 1:
        raise ValueError(f"`data` {str(data)!r} has one class, {names[0]!r}: there is nothing to tell apart.")
    return Splits(names, train, validation if validation is not None else test, test, tuple(notes))


def _about_first(first: int, names: tuple[str, ...]) -> str:
    return (
        f"The labels begin at {first}, not at 0: no image is of {some(names[:first], SHOWN)}, and the model gets an "
        "output for it all the same. Where nothing is meant by that, write the labels anew, from 0."
    )


def _about_counts(train: Part, names: tuple[str, ...], first: int, examples_per_class: int | None) -> list[str]:
    """Which classes have a single image or none, those before the `first` label apart."""
    counts = np.bincount(train.labels, minlength=len(names))
    notes = []
    if single := [name for name, count in zip(names, counts, strict=True) if count == 1 != examples_per_class]:
        notes.append(f"There is a single image to train with of {some(single, SHOWN)}.")
    if none := [name for name, count in zip(names[first:], counts[first:], strict=True) if count == 0]:
        notes.append(f"There is no image to train with of {some(none, SHOWN)}.")
    return notes


def _divided(part: Part, classes: int, share: float, generator: np.random.Generator) -> tuple[Part, Part | None]:
    """Two parts, the second with a share of each class: at least one of its images, and never all."""
    taken = []
    for label in range(classes):
        numbers = generator.permutation(np.flatnonzero(part.labels == label))
        taken.append(numbers[: min(max(round(share * len(numbers)), 1), len(numbers) - 1) if len(numbers) else 0])
    chosen = np.concatenate(taken)
    if not chosen.size:
        return part, None
    return part.some(np.setdiff1d(np.arange(len(part)), chosen)), part.some(chosen)


def _chosen(part: Part, label: int, count: int, generator: np.random.Generator) -> np.ndarray:
    return generator.permutation(np.flatnonzero(part.labels == label))[:count]


def subset(
    directory: Path, class_names: tuple[str, ...] | None, validation_split: float, which: str, seed: int
) -> ClassFolders:
    """A part of the images in a directory with a folder per class, as `open_splits` divides them.

    Args:
        validation_split: the share of each class that is for validation.
        which: `"training"` or `"validation"`.
    """
    found = class_folders(directory, class_names)
    whole = _of_files(found.paths, found.labels)
    train, validation = _divided(whole, len(found.class_names), validation_split, np.random.default_rng(seed))
    part = train if which == "training" else validation
    if part is None:
        raise ValueError(f"No class in {str(directory)!r} has a second image: there is nothing for validation.")
    return found._replace(paths=[os.fsencode(name) for name in part.names], labels=part.labels)


def _folder_parts(
    data: Path, names: tuple[str, ...] | None, gone: Sequence[str]
) -> tuple[dict[str, Part], tuple[str, ...], list[str]]:
    """The parts, the classes, and what a person should read."""
    if not data.is_dir():
        raise FileNotFoundError(f"`data` must be an existing directory or TFRecord files, got {str(data)!r}.")
    left_out = LeftOut()
    there = folders_in(data, left_out)
    # Folders that are named as classes are classes, whatever they are called.
    as_classes = names is not None and {composed(name) for name in names} <= {composed(name) for name in there}
    directories = {} if as_classes else split_folders(data, there)
    if "train" not in directories and there and not as_classes and all(part_of(name) for name in there) and directories:
        raise ValueError(
            f"`data` {str(data)!r} has the folder {some(there, SHOWN)}, but no folder {TRAIN[0]!r} with images to "
            "train on. Put them there, in a folder per class, or name the directory that has such folders."
        )
    if "train" not in directories or not are_parts(directories):
        found = class_folders(data, names)
        return {"train": _with_gone(data, found, gone)}, found.class_names, list(found.notes)
    used = {path.relative_to(data).parts[0] for path in directories.values()}
    found = class_folders(directories["train"], names)
    notes = [f"{part}: {path}" for part, path in directories.items()]
    if others := [name for name in there if name not in used]:
        notes.append(f"Left out: the folder{'s' * (len(others) > 1)} {some(others, SHOWN)} in {str(data)!r}.")
    if left_out:
        notes.append(f"Left out in {str(data)!r}: {left_out}.")
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
    """The images of a directory that may lack some of the classes.

    Args:
        classes: in `train`.
        notes: gets what is left out.
        every: whether folders of other classes are an error; otherwise they are left out.
    """
    left_out, names = LeftOut(), classes.class_names
    there = folders_in(directory, left_out)
    known = {composed(name): label for label, name in enumerate(names)}
    unknown = [name for name in there if composed(name) not in known]
    if every:
        unknown = [name for name in unknown if any(images_below(directory, LeftOut(), folders=[name]))]
    if unknown and every:
        spelled = {composed(name).casefold(): name for name in names}
        alike = [spelled[one] for name in unknown if (one := composed(name).casefold()) in spelled]
        hint = f" {some(alike, SHOWN)} there: names that differ in case are different classes." if alike else ""
        raise ValueError(f"{str(directory)!r} has folders that {str(train)!r} lacks: {some(unknown, SHOWN)}.{hint}")
    there = [name for name in there if composed(name) in known]
    paths, labels = scan(directory, there, left_out)
    if not paths:
        raise ValueError(f"No folder in {str(directory)!r} holds an image of the classes in {str(train)!r}.")
    if unknown:
        notes.append(f"Left out: folders in {str(directory)!r} that are not among the classes: {some(unknown, SHOWN)}.")
    if left_out:
        notes.append(f"Left out in {str(directory)!r}: {left_out}.")
    return classes._replace(paths=paths, labels=np.array([known[composed(name)] for name in there], np.int32)[labels])


def _with_gone(directory: Path, found: ClassFolders, gone: Sequence[str]) -> Part:
    """The images, and those that have been in the directory, in the same order."""
    labels = {composed(name): label for label, name in enumerate(found.class_names)}
    images = dict(zip(map(os.fsdecode, found.paths), found.labels.tolist(), strict=True))
    for path in gone:
        if Path(path).is_relative_to(directory):
            label = labels.get(composed(Path(path).relative_to(directory).parts[0]))
            images |= {} if label is None else {path: label}
    if len(images) == len(found.paths):
        return _of_files(found.paths, found.labels)
    place = {label: number for number, label in reversed([*enumerate(found.labels.tolist())])}
    ordered = sorted(images, key=lambda path: (place.get(images[path], len(images)), os.path.split(path)))
    return _of_files([*map(os.fsencode, ordered)], np.array([images[path] for path in ordered], np.int32))


def _of_files(paths: Sequence[bytes], labels: np.ndarray) -> Part:
    names = [os.fsdecode(path) for path in paths]
    return Part(
        labels,
        names,
        lambda chosen, given: ([names[number] for number in chosen], given),
        lambda chosen: (names[number] for number in chosen),
    )


def holds_records(data: str | Path) -> bool:
    """Whether `data` is TFRecord files: a directory with some, or a name or pattern of them."""
    if Path(data).is_dir():
        return any(is_record_name(entry.name) for entry in Path(data).iterdir() if entry.is_file())
    return is_record_name(str(data))


def record_files(data: str | Path) -> dict[str, list[str]]:
    """TFRecord files by what their names say they are for: `train`, `validation`, `test`; nothing said is `train`.

    Args:
        data: a directory of them, or a name or pattern.
    """
    if Path(data).is_dir():
        files = sorted(entry.path for entry in os.scandir(data) if is_record_name(entry.name))
    else:
        from keras_bit.data import records

        files = records.record_files(data)
    grouped: dict[str, list[str]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", os.path.basename(file).lower())
        part = next((part for part, known in WORDS.items() if set(words) & set(known)), "train")
        grouped.setdefault(part, []).append(file)
    return {part: grouped[part] for part in sorted(grouped, key=list(WORDS).index)}


def _record_parts(data: str | Path, names: tuple[str, ...] | None) -> tuple[dict[str, Part], tuple[str, ...]]:
    parts = {part: _of_records(files) for part, files in record_files(data).items()}
    count = max(int(part.labels.max()) for part in parts.values()) + 1
    least = min(int(part.labels.min()) for part in parts.values())
    if least < 0:
        raise ValueError(f"Labels in TFRecord files must count from 0, got {least}.")
    names = names or tuple(map(str, range(count)))
    if count > len(names):
        hint = ""
        if least == count - len(names):
            hint = f" The labels begin at {least}: write them anew, from 0, or name what comes before, too."
        raise ValueError(f"`class_names` must name all {count} classes in {str(data)!r}, got {len(names)} names.{hint}")
    return parts, names


def _of_records(files: list[str]) -> Part:
    """The records of some files, read once for their labels."""
    require_tensorflow("Reading TFRecord files")
    import tensorflow as tf

    from keras_bit.data import records

    labels, names = _read_labels(files)
    examples = {
        records.IMAGE: tf.io.FixedLenFeature([], tf.string),
        records.LABEL: tf.io.FixedLenFeature([], tf.int64),
    }

    def chosen_records(chosen: np.ndarray, given: np.ndarray) -> Any:
        is_wanted = np.zeros(len(labels), bool)
        is_wanted[chosen] = True
        given_to = np.zeros(len(labels), np.int32)
        given_to[chosen] = given
        wanted, new_labels = tf.constant(is_wanted), tf.constant(given_to)

        def image_and_label(number: Any, record: Any) -> Any:
            return tf.io.parse_single_example(record, examples)[records.IMAGE], new_labels[number]

        data = records.record_data(files).enumerate().filter(lambda number, record: wanted[number])
        return data.map(image_and_label).apply(tf.data.experimental.assert_cardinality(len(chosen)))

    def images(chosen: np.ndarray) -> Iterable[io.BytesIO]:
        return (io.BytesIO(image) for image, _ in chosen_records(chosen, chosen).as_numpy_iterator())

    return Part(labels, names, chosen_records, images, in_files=False)


def _read_labels(files: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The labels of all records, and what the records are called.

    Raises:
        ValueError: a file is damaged, a record has no label, or there are none.
    """
    import tensorflow as tf

    from keras_bit.data import records

    features = {records.LABEL: tf.io.FixedLenFeature([], tf.int64)}
    labels: list[int] = []
    names: list[str] = []
    with tqdm(desc="labels", unit="record", delay=2, leave=False) as progress:
        for file in files:
            batches = records.record_data([file]).batch(256)
            found: list[int] = []
            try:
                for batch in batches.as_numpy_iterator():
                    found.extend(tf.io.parse_example(batch, features)[records.LABEL].numpy().tolist())
                    progress.update(len(batch))
            except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
                lacking = f"has no {records.LABEL!r} that is one int64"
                kind = "is damaged" if isinstance(error, tf.errors.DataLossError) else lacking
                raise ValueError(f"{file} {kind}, at the record {len(found)} or up to 255 further on.") from None
            names += [f"record {number} of {file}" for number in range(len(found))]
            labels += found
    if not labels:
        raise ValueError(f"There are no records in {some(files)}.")
    return np.array(labels, np.int64).clip(-1, 2**31 - 1).astype(np.int32), names
