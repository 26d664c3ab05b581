"""Labels as people write them, to numbers: names, whole numbers, and rows with a number per class."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_bit.files import some

SHOWN = 5  # wrong labels that an error lists
MOST_CLASSES = 1_000_000  # that are named by their numbers: a mistaken label of 2**31 would take all memory for names


class Labels(NamedTuple):
    values: np.ndarray  # int32 (count,), or float32 (count, classes)
    class_names: tuple[str, ...]


def checked_class_names(class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    if class_names is None:
        return None
    names = () if isinstance(class_names, str) else tuple(class_names)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"`class_names` must be a list of different strings, at least one, got {class_names!r}.")
    return names


def names_for(count: int, class_names: tuple[str, ...] | None) -> tuple[str, ...]:
    """A name for each of the numbers a row of labels holds."""
    if class_names is None:
        return tuple(map(str, range(count)))
    if len(class_names) != count:
        raise ValueError(
            f"`class_names` must have a name for each of the {count} numbers in a row of labels, got "
            f"{len(class_names)} names."
        )
    return class_names


def read_labels(labels: Any, class_names: tuple[str, ...] | None, check: bool) -> Labels:
    """Numbers for labels.

    Args:
        labels: strings; whole numbers from 0 on, below a million where there are no `class_names`; or rows with a
            number in [0, 1] per class, `(count, classes)`.
        class_names: the order of the classes. By default the sorted strings, or the numbers themselves as strings.
        check: whether to raise for labels that are not a class; otherwise their number is -1, or what it was.

    Raises:
        ValueError: labels of another kind, or outside of `class_names`.
    """
    try:
        values = np.asarray(labels)
    except ValueError:  # rows of different lengths
        values = np.array(None)
    if values.ndim == 1 and all(isinstance(label, str) for label in labels):
        names = class_names or tuple(sorted(set(map(str, values))))
        numbers = {name: number for number, name in enumerate(names)}
        found = np.array([numbers.get(str(label), -1) for label in values], np.int32)
        if check:
            _refuse(values, found < 0, f"one of `class_names` ({some(map(repr, names), SHOWN)})")
        return Labels(found, names)
    if values.ndim == 1 and values.dtype.kind in "iu" and values.size:
        classes = values[(values >= 0) & (values < MOST_CLASSES)]
        names = class_names or tuple(map(str, range(int(classes.max(initial=0)) + 1)))
        if check:
            limit, why = (len(names), ", as there are class names") if class_names else (MOST_CLASSES, "")
            _refuse(values, (values < 0) | (values >= limit), f"in [0, {limit}){why}")
        return Labels(np.clip(values, -(2**31), 2**31 - 1).astype(np.int32), names)
    if values.ndim == 2 and values.shape[1] == 1 and values.dtype.kind != "f":
        raise ValueError(
            f"Labels must be of the shape (count,), got a column, {values.dtype} {values.shape}. Squeeze it: "
            "`numpy.squeeze(labels, axis=1)`. Rows with a number for one class must be floats."
        )
    if values.ndim == 2 and values.dtype.kind in "biuf" and values.size:
        rows = values.astype(np.float32)
        if check:
            _refuse(values, np.asarray(~((rows >= 0) & (rows <= 1)).all(axis=1)), "rows of numbers in [0, 1]")
        return Labels(rows, names_for(rows.shape[1], class_names))
    came = f"{values.dtype} {values.shape if values.ndim else 'of different lengths or none'}"
    if values.ndim == 1 and values.dtype.kind in "OU":
        came = " and ".join(sorted({type(label).__name__ for label in labels}))
    raise ValueError(
        f"Labels must be whole numbers, strings, or rows with a number per class (count, classes), got {came}."
    )


def read_renamed(labels: Any, names: tuple[str, ...], wanted: tuple[str, ...] | None, check: bool) -> Labels:
    """Labels that are numbers for `names`, as numbers for the `wanted` names, in their order."""
    values = np.array(labels, np.int64)
    inside = (values >= 0) & (values < len(names))
    found = np.where(inside, np.array(renumbered(names, wanted))[np.where(inside, values, 0)], -1).astype(np.int32)
    if check:
        known = [names[value] if fits else int(value) for value, fits in zip(values, inside, strict=True)]
        _refuse(known, found < 0, f"one of {some(map(repr, wanted or names), SHOWN)}")
    return Labels(found, wanted or names)


def renumbered(names: tuple[str, ...], wanted: tuple[str, ...] | None) -> list[int]:
    """The place of each of `names` among the `wanted`, or -1."""
    unknown = [name for name in wanted or () if name not in names]
    if unknown:
        raise ValueError(
            f"`class_names` must be names that `source` has, got {some(map(repr, unknown), 20)}; it has "
            f"{some(map(repr, names), 20)}."
        )
    places = {name: place for place, name in enumerate(wanted or names)}
    return [places.get(name, -1) for name in names]


def problem(label: Any, class_names: Sequence[str] | None) -> str:
    """What is wrong with the label of one image; goes on after its name. Empty for nothing.

    Args:
        label: whole number, or a row of numbers.
        class_names: `None` where the classes are not known.
    """
    label = np.asarray(label)
    if label.dtype.kind == "f":
        fits = bool(((label >= 0) & (label <= 1)).all())
        return "" if fits else f"has the label {label}, which is not a row of numbers in [0, 1]."
    if class_names is None:
        return "" if label >= 0 else f"has the label {label}, which is below 0, where labels begin."
    if 0 <= label < len(class_names):
        return ""
    return f"has the label {label}, which is not one of the {len(class_names)} classes, [0, {len(class_names)})."


def _refuse(labels: Any, wrong: np.ndarray, expected: str) -> None:
    places = np.flatnonzero(wrong)
    if places.size:
        shown = some((f"{labels[place]!s} for image {place}" for place in places), SHOWN)
        raise ValueError(
            f"Labels must be {expected}, got {shown} ({places.size:,} of {len(labels):,}). "
            "Correct them, or pass on_error='skip' to leave labels outside of the classes out."
        )
