"""Converts labels to numbers: names, whole numbers, rows with a number per class, and numbers to predict."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_bit.wording import some

SHOWN = 5  # wrong labels that an error lists
MOST_CLASSES = 1_000_000  # for a mistaken label of 2**31, names would fill the memory


# Floats this close to [0, 1] are meant as probabilities, and are wrong; others are another quantity.
NEAR = 0.01
MISTAKEN = 0.25  # of the rows: if at most this share has other values, they are mistakes among shares of classes


class Labels(NamedTuple):
    """Labels as numbers; `class_names` is `None` for regression, whose floats are the numbers to predict."""

    values: np.ndarray  # int32 (count,), float32 (count, classes); for regression float32 (count,) or (count, outputs)
    class_names: tuple[str, ...] | None

    @property
    def class_counts(self) -> np.ndarray | None:
        """Returns the images of each class, int64 `(classes,)`; `None` if an image does not have exactly one class."""
        if self.class_names is None or self.values.dtype.kind != "i" or self.values.ndim != 1:
            return None
        inside = (self.values >= 0) & (self.values < len(self.class_names))
        return np.bincount(self.values[inside], minlength=len(self.class_names))

    @property
    def number_units(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the mean and the deviation of each number to predict; `None` for classes."""
        return None if self.class_names is not None else mean_and_deviation(self.values)


def mean_and_deviation(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of numbers to predict, float64 `(outputs,)`, for `training.units`.

    Rows that are not finite do not count. The deviation of a number that is always the same is 1.

    Args:
        numbers: `(count,)` or `(count, outputs)`, at least one.
    """
    rows = numbers.reshape(len(numbers), -1).astype(np.float64)
    finite = rows[np.isfinite(rows).all(axis=1)]
    if not len(finite):
        return np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    deviation = finite.std(axis=0)
    return finite.mean(axis=0), np.where(deviation > 0, deviation, 1.0)


def checked_class_names(class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    if class_names is None:
        return None
    names = () if isinstance(class_names, str) else tuple(class_names)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"`class_names` must be a list of different strings, at least one, got {class_names!r}.")
    return names


def names_for(count: int, class_names: tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns a name for each number in a row of labels."""
    if class_names is None:
        return tuple(map(str, range(count)))
    if len(class_names) != count:
        raise ValueError(
            f"`class_names` must have a name for each of the {count} numbers in a row of labels, got "
            f"{len(class_names)} names."
        )
    return class_names


def read_labels(labels: Any, class_names: tuple[str, ...] | None, check: bool) -> Labels:
    """Converts labels to numbers.

    Args:
        labels: strings; lists of strings, for images of several classes, which become rows of 0 and 1; whole numbers
            from 0 on, below a million without `class_names`; rows with a number in [0, 1] per class,
            `(count, classes)`; or, without `class_names`, floats to predict: `(count,)`, or `(count, outputs)` with
            values outside of [0, 1] in more than a quarter of the rows.
        class_names: the order of the classes. By default the sorted strings, or the numbers themselves as strings.
        check: whether to raise for labels that are not a class; otherwise a name becomes -1, and a number is kept.

    Raises:
        ValueError: labels are of another kind, or outside of `class_names`.
    """
    if isinstance(labels, list | tuple) and labels and all(map(_are_names, labels)):
        return _rows_of_names(labels, class_names, check)
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
    if values.size and values.dtype.kind == "f" and _are_quantities(values, class_names):
        quantities = values.astype(np.float32)
        if check:
            wrong = ~np.isfinite(quantities.reshape(len(values), -1)).all(axis=1)
            _refuse(values, np.asarray(wrong), "finite numbers")
        return Labels(quantities, None)
    if values.ndim == 2 and values.dtype.kind in "biuf" and values.size:
        rows = values.astype(np.float32)
        if check:
            _refuse(values, np.asarray(~((rows >= 0) & (rows <= 1)).all(axis=1)), "rows of numbers in [0, 1]")
        return Labels(rows, names_for(rows.shape[1], class_names))
    came = f"{values.dtype} {values.shape if values.ndim else 'of different lengths or none'}"
    if values.ndim == 1 and values.dtype.kind == "f" and class_names is not None:
        came = f"{values.dtype} {values.shape}, which are numbers to predict and have no `class_names`"
    elif values.ndim < 2 and values.dtype.kind in "OU" and hasattr(labels, "__iter__"):
        came = " and ".join(sorted({_kind(label) for label in labels})) or "none"
        came += ", of different lengths" if len({len(label) for label in labels if isinstance(label, list)}) > 1 else ""
    raise ValueError(
        "Labels must be whole numbers, strings, lists of strings, rows with a number per class (count, classes), or "
        f"floats for regression, got {came}."
    )


def read_numbers(labels: Any, check: bool) -> Labels:
    """Checks numbers to predict, of any range, if the caller has said that labels are such numbers.

    Args:
        labels: floats or whole numbers, `(count,)` or `(count, outputs)`.
        check: whether to raise for numbers that are not finite.

    Raises:
        ValueError: they are of another kind.
    """
    try:
        values = np.asarray(labels)
    except ValueError:  # rows of different lengths
        values = np.array(None)
    if values.ndim not in (1, 2) or values.dtype.kind not in "iuf" or not values.size:
        raise ValueError(
            "Labels must be numbers (count,) or (count, outputs) for regression, got "
            f"{values.dtype} {values.shape if values.ndim else 'of different lengths or none'}."
        )
    numbers = values.astype(np.float32)
    if check:
        wrong = ~np.isfinite(numbers.reshape(len(values), -1)).all(axis=1)
        _refuse(values, np.asarray(wrong), "finite numbers")
    return Labels(numbers, None)


def _kind(label: Any) -> str:
    """Describes a label for a message: its type, and the types in a list."""
    if not isinstance(label, list | tuple | set | frozenset):
        return type(label).__name__
    return f"{type(label).__name__} of {'/'.join(sorted({type(one).__name__ for one in label})) or 'nothing'}"


def _are_names(label: Any) -> bool:
    return isinstance(label, list | tuple | set | frozenset) and all(isinstance(name, str) for name in label)


def _rows_of_names(labels: Sequence[Any], class_names: tuple[str, ...] | None, check: bool) -> Labels:
    """Returns for each image a row with 1 for its classes. An unknown name makes it a row of -1."""
    names = class_names or tuple(sorted({str(name) for label in labels for name in label}))
    if not names:
        raise ValueError("Labels must name at least one class, got only empty lists.")
    places = {name: place for place, name in enumerate(names)}
    rows = np.zeros((len(labels), len(names)), np.float32)
    for row, label in zip(rows, labels, strict=True):
        known = [places[name] for name in label if name in places]
        row[known] = 1
        if len(known) < len(label):
            row[:] = -1
    if check:
        _refuse([*map(list, labels)], rows[:, 0] < 0, f"of `class_names` ({some(map(repr, names), SHOWN)})")
    return Labels(rows, names)


def _are_quantities(values: np.ndarray, class_names: tuple[str, ...] | None) -> bool:
    """Returns whether floats are numbers to predict, not a share of each class."""
    if class_names is not None or values.ndim not in (1, 2):
        return False
    rows = values.reshape(len(values), -1)
    outside = ((rows < -NEAR) | (rows > 1 + NEAR)).any(axis=1)
    return values.ndim == 1 or float(outside.mean()) > MISTAKEN


def read_renamed(labels: Any, names: tuple[str, ...], wanted: tuple[str, ...] | None, check: bool) -> Labels:
    """Converts labels that are numbers for `names` to numbers for the `wanted` names."""
    values = np.array(labels, np.int64)
    inside = (values >= 0) & (values < len(names))
    found = np.where(inside, np.array(renumbered(names, wanted))[np.where(inside, values, 0)], -1).astype(np.int32)
    if check:
        known = [names[value] if fits else int(value) for value, fits in zip(values, inside, strict=True)]
        _refuse(known, found < 0, f"one of {some(map(repr, wanted or names), SHOWN)}")
    return Labels(found, wanted or names)


def renumbered(names: tuple[str, ...], wanted: tuple[str, ...] | None) -> list[int]:
    """Returns the place of each of `names` among the `wanted`, or -1."""
    unknown = [name for name in wanted or () if name not in names]
    if unknown:
        raise ValueError(
            f"`class_names` must be names that `source` has, got {some(map(repr, unknown), 20)}; it has "
            f"{some(map(repr, names), 20)}."
        )
    places = {name: place for place, name in enumerate(wanted or names)}
    return [places.get(name, -1) for name in names]


def problem(label: Any, class_names: Sequence[str] | None) -> str:
    """Returns what is wrong with an image's label, to continue a sentence after its name; empty for nothing.

    Args:
        label: whole number, or a row of numbers.
        class_names: `None` if the classes are unknown.
    """
    label = np.asarray(label)
    if label.dtype.kind == "f" and class_names is None:
        return "" if np.isfinite(label).all() else f"has the label {label}, which is not a finite number."
    if label.dtype.kind == "f":
        fits = bool(((label >= 0) & (label <= 1)).all())
        return "" if fits else f"has the label {label}, which is not a row of numbers in [0, 1]."
    if class_names is None:
        return "" if label >= 0 else f"has the label {label}, but labels begin at 0."
    if 0 <= label < len(class_names):
        return ""
    return f"has the label {label}, which is not one of the {len(class_names)} classes, [0, {len(class_names)})."


def _refuse(labels: Any, wrong: np.ndarray, expected: str) -> None:
    places = np.flatnonzero(wrong)
    if places.size:
        shown = some((f"{labels[place]!s} for image {place}" for place in places), SHOWN)
        raise ValueError(
            f"Labels must be {expected}, got {shown} ({places.size:,} of {len(labels):,}). Correct them, or pass "
            "on_error='skip' to leave out images with such labels."
        )
