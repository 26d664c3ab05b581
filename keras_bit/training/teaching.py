"""Loads and checks the teacher of a run, and finds its images without labels, before anything is computed."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from keras_bit.applications import from_pretrained
from keras_bit.checkpoints import loading
from keras_bit.checkpoints.loading import Checkpoint
from keras_bit.data.folders import about_left_out, scan
from keras_bit.data.label_table import ONE
from keras_bit.data.parts import of_files
from keras_bit.data.splits import Splits
from keras_bit.data.walk import LeftOut
from keras_bit.hub.finding import HubOptions, shown
from keras_bit.images.processor import BitImageProcessor, processor_of
from keras_bit.network.model import BiTModel
from keras_bit.training.distribution import Workers
from keras_bit.wording import some

SHOWN = 3  # classes that an error lists


def load(source: str | None, hub: HubOptions) -> BiTModel | None:
    """Returns the teacher of a run; `None` if it has no teacher."""
    return None if source is None else from_pretrained(source, **_fetched(hub).arguments)


def checked(
    source: str, hub: HubOptions, found: Splits, processor: BitImageProcessor, workers: Workers
) -> tuple[str, list[str]]:
    """Compares a teacher with the data and with the images that it will get.

    Args:
        source: the teacher's checkpoint: a Hub id, also `hf://owner/name@revision`, a directory or a file.
        hub: how to download it; its `revision` is that of `weights` and is not used.
        found: the data set.
        processor: the processor that makes the student's images.
        workers: the processes that train together.

    Returns:
        A digest of the teacher's files, and sentences that a person should read.

    Raises:
        ValueError: the teacher has other classes or another order of them, is for images of another normalization, or
            has no head; or the data has labels of another kind, or several devices train together.
        OSError: the checkpoint does not exist, or cannot be read.
    """
    if found.problem_type != ONE:
        raise ValueError(
            f"`teacher` is for data with one class for each image, got labels for {found.problem_type}. Leave it out."
        )
    if workers != Workers():
        raise ValueError("`teacher` must be left out with a `strategy`. Train on one device.")
    hub = _fetched(hub)
    checkpoint = loading.find(source, hub).open()
    _check_classes(shown(source), checkpoint, found.class_names)
    own, has_one = processor_of(source, hub)
    _check_normalization(shown(source), own, processor)
    notes = []
    if not has_one:
        notes.append("The teacher has no processor: its pixels are taken to be scaled to [-1, 1], as for BiT's own.")
    elif own.fixed_size is not None and own.fixed_size != processor.fixed_size:
        sizes = ("x".join(map(str, size or ())) for size in (own.fixed_size, processor.fixed_size))
        notes.append("The teacher is made for images of {} px. Here it answers for crops of {} px.".format(*sizes))
    return _digest(checkpoint.files), notes


def with_unlabeled(found: Splits, directory: str | None, teacher: str | None, gone: Sequence[str] = ()) -> Splits:
    """Adds the images of a directory to a data set, to be trained on in addition to its own.

    Args:
        found: the data set. Images of the directory that are also in the data set, or excluded from it, are not added.
        directory: the directory; `None` adds nothing.
        teacher: the checkpoint whose answers replace labels; `None` if the run has none.
        gone: paths of images that were in the directory when the run began.

    Raises:
        ValueError: the run has no teacher, no image is left, or the labeled images are not in files.
        FileNotFoundError: the directory does not exist.
    """
    if directory is None:
        return found
    if teacher is None:
        raise ValueError(f"`unlabeled` needs a `teacher` that answers for the images, got {directory!r} without one.")
    if not found.train.in_files:
        raise ValueError(
            f"`unlabeled` is for training images in files, got {directory!r} and training images in TFRecord files. "
            "Leave it out."
        )
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"`unlabeled` must be an existing directory, got {directory!r}.")
    left_out = LeftOut()
    found_there = map(os.fsdecode, scan(directory, None, left_out)[0])
    there = dict.fromkeys([*found_there, *(path for path in gone if Path(path).is_relative_to(directory))])
    folders: dict[str, str] = {}
    parts = (found.train, found.validation, found.test)
    used = {_place(name, folders) for part in parts if part is not None for name in part.names}
    excluded = {_place(name, folders) for name in found.excluded}
    places = {name: _place(name, folders) for name in sorted(there, key=os.path.split)}
    left = [name for name, place in places.items() if place not in used | excluded]
    again, out = sum(place in used for place in places.values()), sum(place in excluded for place in places.values())
    if not left:
        why = "it holds no images"
        if there:
            why = f"all {len(there):,} are in the data set" + (f" or excluded from it ({out:,})" if out else "")
        raise ValueError(f"`unlabeled` {directory!r} must hold images that are not in the data set, but {why}.")
    notes = [*found.notes, *([about_left_out(directory, left_out)] if left_out else [])]
    if again:
        notes.append(
            f"{again:,} of {len(there):,} images of {directory} are in the data set too, and are not counted as "
            "unlabeled."
        )
    if out:
        notes.append(f"{out:,} of {len(there):,} images of {directory} are excluded from the data set, and left out.")
    part = of_files([os.fsencode(name) for name in left], np.zeros(len(left), np.int32))
    return dataclasses.replace(found, unlabeled=part, notes=tuple(notes))


def _fetched(hub: HubOptions) -> HubOptions:
    """Returns the options without the revision, which belongs to the weights to start from."""
    return dataclasses.replace(hub, revision=None)


def _place(path: str, folders: dict[str, str]) -> str:
    """Returns the path of a file without symbolic links in its folder, so that two names of one file compare equal.

    `folders` keeps the real paths of folders for the next calls.
    """
    folder, name = os.path.split(path)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], name)


def _check_classes(name: str, checkpoint: Checkpoint, classes: Sequence[str]) -> None:
    config, held = checkpoint.known_config(), checkpoint.head_classes
    if held is None:
        raise ValueError(
            f"`teacher` {name!r} has no head, so it cannot answer with classes. Use a checkpoint with a head."
        )
    if config.problem_type not in (None, ONE) or held == 1:
        kind = config.problem_type or "regression"
        raise ValueError(f"`teacher` {name!r} must answer with one of several classes, got a model for {kind}.")
    if held != len(classes):
        raise ValueError(f"`teacher` {name!r} must have the {len(classes)} classes of the data, got {held} classes.")
    if not config.has_named_labels:
        if tuple(classes) != tuple(map(str, range(len(classes)))):
            raise ValueError(
                f"`teacher` {name!r} does not name its classes, so that their order is unknown. Write their names into "
                f"id2label of its config.json: those of the data are {some(map(repr, classes), SHOWN)}."
            )
        return
    theirs = [(config.id2label or {}).get(number) for number in range(held)]
    differing = [(own, other) for own, other in zip(classes, theirs, strict=True) if own != other]
    if not differing:
        return
    if sorted(classes) == sorted(map(str, theirs)):
        own, other = differing[0]
        raise ValueError(
            f"`teacher` {name!r} has the classes of the data in another order: {other!r} where the data has {own!r}. "
            "Give the order of the teacher with `class_names`."
        )
    raise ValueError(
        f"`teacher` {name!r} must have the classes of the data, and {len(differing)} of {held} differ: "
        f"{some((f'{other!r} where the data has {own!r}' for own, other in differing), SHOWN)}."
    )


def _check_normalization(name: str, theirs: BitImageProcessor, ours: BitImageProcessor) -> None:
    """Refuses a teacher whose images are normalized differently, because teacher and student get the same images."""
    if all(map(np.allclose, _scale_and_shift(theirs), _scale_and_shift(ours))):
        return
    fields = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    differing = [
        f"{field} {getattr(theirs, field)} for {getattr(ours, field)}"
        for field in fields
        if getattr(theirs, field) != getattr(ours, field)
    ]
    raise ValueError(
        f"`teacher` {name!r} must be for images that are normalized as those of `weights`, got "
        f"{', '.join(differing)}. Give `weights` whose processor has the teacher's values."
    )


def _scale_and_shift(processor: BitImageProcessor) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factor of a pixel, and the number that is then added, for each channel."""
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
    means, deviations = (np.broadcast_to(np.asarray(one, np.float64), 3) for one in (mean, std))
    return scale / deviations, -means / deviations


def _digest(files: Iterable[Path]) -> str:
    """Returns a hash of the contents of some files: 16 hexadecimal digits."""
    found = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]
