"""Turns a table of labels into the parts of a data set."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_bit.data import dividing, label_table, targets
from keras_bit.data.label_table import NUMBER, ONE, SEVERAL, TableOptions
from keras_bit.data.parts import Part, of_files
from keras_bit.data.split_names import WORDS
from keras_bit.wording import some

SHOWN = 5  # classes that a note names


class TableParts(NamedTuple):
    """The parts by name (`train`, `validation`, `test`); the other fields as in `LabelTable`."""

    parts: dict[str, Part]
    names: tuple[str, ...]
    problem_type: str
    notes: list[str]


def table_parts(
    file: str | Path, options: TableOptions | None, names: Sequence[str] | None, check_files: bool
) -> TableParts:
    """Reads a table and divides it by its column `split`. See `label_table.read`."""
    table = label_table.read(file, options, names=names, check_files=check_files)
    said = np.array(table.parts or ["train"] * len(table.paths))
    parts = {part: part_of_table(table.some(np.flatnonzero(said == part))) for part in WORDS if (said == part).any()}
    return TableParts(parts, table.names, table.problem_type, list(table.notes))


def part_of_table(table: label_table.LabelTable) -> Part:
    part = of_files([os.fsencode(path) for path in table.paths], table.labels)
    return numeric(part, table.labels) if table.problem_type == NUMBER else part


def numeric(part: Part, values: np.ndarray) -> Part:
    """Returns the same images with numbers to predict, which are never read as shares of classes.

    Args:
        values: `(count,)` or `(count, outputs)`.
    """

    def source(chosen: np.ndarray, given: np.ndarray) -> Any:
        images, _ = part.source(chosen, chosen)
        return images, targets.Labels(given.astype(np.float32), None)

    return Part(values, part.names, source, part.files, part.in_files)


def divided(
    part: Part, problem_type: str, classes: int, share: float, generator: np.random.Generator
) -> tuple[Part, Part | None]:
    """Returns two parts, the second with a share of the images, class by class if there are classes."""
    if problem_type == ONE:
        return dividing.by_class(part, classes, share, generator)
    if problem_type == SEVERAL:
        return dividing.by_rows(part, share, generator)
    return dividing.by_chance(part, share, generator)


def about_several(parts: dict[str, Part | None], names: Sequence[str]) -> list[str]:
    """Notes which of several classes no image of a part has, or every image."""
    notes = []
    for name, part in parts.items():
        if part is None:
            continue
        counts = part.labels.sum(axis=0)
        for count, what in ((0, "no image"), (len(part), "every image")):
            if alike := [one for one, found in zip(names, counts, strict=True) if found == count]:
                notes.append(f"In {name} {what} has {some(alike, SHOWN)}.")
    return notes


def check_numbers(part: Part, names: Sequence[str]) -> None:
    """Refuses columns in which all numbers are the same.

    Raises:
        ValueError: there is such a column.
    """
    constant = np.atleast_1d(np.ptp(part.labels, axis=0)) == 0
    if same := [name for name, one in zip(names, constant, strict=True) if one]:
        advice = "Choose others with `label_columns`." if len(same) == len(names) else "Leave these columns out."
        raise ValueError(
            f"The numbers to predict are the same for all training images in {some(same, SHOWN)}. {advice}"
        )
