"""Divides a part of a data set at random: for validation, and for few-shot learning."""

import numpy as np

from keras_bit.data.parts import Part


def by_class(part: Part, classes: int, share: float, generator: np.random.Generator) -> tuple[Part, Part | None]:
    """Returns two parts, the second with a share of each class: at least one of its images, and never all.

    Args:
        part: its labels are whole numbers `(count,)`.
    """
    taken = [_taken(generator.permutation(np.flatnonzero(part.labels == label)), share) for label in range(classes)]
    return _divided(part, np.concatenate(taken))


def by_rows(part: Part, share: float, generator: np.random.Generator) -> tuple[Part, Part | None]:
    """Returns two parts, the second with about a share of each class, for images with several classes.

    The images of the rarest class are divided first, then the rest of the next class, and last those without a class.

    Args:
        part: its labels are rows of 0 and 1 `(count, classes)`.

    Source: Sechidis et al. 2011, "On the Stratification of Multi-Label Data", whose order this is.
    """
    rows = part.labels > 0
    left, taken = np.ones(len(rows), bool), []
    for label in np.argsort(rows.sum(axis=0), kind="stable"):
        numbers = generator.permutation(np.flatnonzero(rows[:, label] & left))
        left[numbers] = False
        taken.append(_taken(numbers, share))
    taken.append(_taken(generator.permutation(np.flatnonzero(left)), share))
    return _divided(part, np.concatenate(taken))


def by_chance(part: Part, share: float, generator: np.random.Generator) -> tuple[Part, Part | None]:
    """Returns two parts, the second with a share of all images."""
    return _divided(part, _taken(generator.permutation(len(part)), share))


def few(part: Part, classes: int, count: int, generator: np.random.Generator) -> Part:
    """Picks `count` images of each class, or all if it has fewer."""
    chosen = [generator.permutation(np.flatnonzero(part.labels == label))[:count] for label in range(classes)]
    return part.some(np.concatenate(chosen))


def _taken(numbers: np.ndarray, share: float) -> np.ndarray:
    """Picks a share of some images: at least one, and never all."""
    return numbers[: min(max(round(share * len(numbers)), 1), len(numbers) - 1) if len(numbers) else 0]


def _divided(part: Part, chosen: np.ndarray) -> tuple[Part, Part | None]:
    if not chosen.size:
        return part, None
    return part.some(np.setdiff1d(np.arange(len(part)), chosen)), part.some(chosen)
