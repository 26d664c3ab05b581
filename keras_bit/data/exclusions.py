"""The CSV of `keras-bit audit`, which a person edits and training reads to leave images out."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from keras_bit.data.parts import Part
from keras_bit.wording import some

IMAGE, EXCLUDE = "image", "exclude"  # the columns that are used
COLUMNS = (IMAGE, "part", "kind", "score", "label", "suggested_label", "other_image", "detail", EXCLUDE)
YES, NO = ("yes", "y", "true", "1"), ("no", "n", "false", "0", "")
# A spreadsheet treats a cell with such a beginning as a formula. An apostrophe before it makes it text.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}  # file names that are not UTF-8 keep their bytes
SHOWN = 3  # names that a message lists


def cell(value: object) -> str:
    """Converts a value to a cell; one that a spreadsheet would treat as a formula gets an apostrophe."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULAS) else text


def text_of(stored: str) -> str:
    """Undoes `cell`."""
    return stored[1:] if stored.startswith("'") else stored


def write_rows(rows: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Writes findings.

    Args:
        rows: a dictionary with the keys `COLUMNS` for each row; `exclude` is a bool.
        file: the file to write.
    """
    with open(file, "w", newline="", **ENCODING) as opened:  # type: ignore[call-overload]
        writer = csv.writer(opened)
        writer.writerow(COLUMNS)
        for row in rows:
            shown = {**row, EXCLUDE: YES[0] if row[EXCLUDE] else NO[0]}
            # Numbers are written unchanged, because a score may be negative.
            writer.writerow([one if isinstance(one := shown[name], float) else cell(one) for name in COLUMNS])


def read_exclusions(file: str | Path) -> frozenset[str]:
    """Returns the names of the images that any row marks with yes.

    Args:
        file: a CSV with the columns `image`, a path relative to the data set with `/` between folders, and `exclude`,
            yes or no. It may have others, and `,`, `;` or a tab between them.

    Raises:
        ValueError: it is not such a file; the message names the line.
        OSError: it cannot be read.
    """
    try:
        stream = open(file, newline="", encoding="utf-8-sig", errors="surrogateescape")  # noqa: SIM115 - closed below
    except OSError as error:
        raise type(error)(
            f"`exclude` {str(file)!r} cannot be read: {error.strerror}. Pass the audit.csv that `keras-bit audit` "
            "writes."
        ) from None
    with stream as opened:
        try:
            return _read(opened, str(file))
        except csv.Error as error:
            raise ValueError(
                f"{str(file)!r} is not a CSV file: {error}. Pass the audit.csv that `keras-bit audit` writes."
            ) from error


def _read(opened: TextIO, file: str) -> frozenset[str]:
    first = opened.readline()
    separator = max(",;\t", key=first.count)
    header = next(csv.reader([first], delimiter=separator), [])
    names = [name.strip().lower() for name in header]
    if missing := [name for name in (IMAGE, EXCLUDE) if name not in names]:
        raise ValueError(
            f"{file!r} has no column {some(missing)}; its first line is {first.strip()[:80]!r}. Pass the audit.csv "
            "that `keras-bit audit` writes."
        )
    excluded = set()
    reader = csv.DictReader(opened, names, delimiter=separator, restval="")
    for row in reader:
        answer = row[EXCLUDE].strip().lower()
        if answer not in YES + NO:
            raise ValueError(
                f"{file!r}, line {reader.line_num + 1}: the column {EXCLUDE} must be {YES[0]} or {NO[0]}, got "
                f"{row[EXCLUDE]!r}."
            )
        if answer in YES and row[IMAGE]:
            excluded.add(text_of(row[IMAGE]))
    return frozenset(excluded)


def relative(path: str, data: str | Path) -> str:
    """Returns an image's name in the CSV: its path in the data set, with `/` between folders."""
    return Path(os.path.relpath(path, data)).as_posix()


def without(
    parts: Mapping[str, Part | None], file: str | Path, data: str | Path
) -> tuple[dict[str, Part | None], tuple[str, ...], list[str]]:
    """Returns the parts without the images that a CSV excludes, the paths of these images, and notes about it.

    Args:
        parts: the parts of a data set by name; `None` for a missing part.
        file: a CSV file, as `read_exclusions` takes it.
        data: the directory of the data set.

    Raises:
        ValueError: the images are not in files, none of the excluded ones is among them, or no training image is left.
        OSError: the file cannot be read.
    """
    if not all(part.in_files for part in parts.values() if part is not None):
        raise ValueError(
            "`exclude` is for images in folders, got TFRecord files. Leave it out, and write the files without these "
            "images."
        )
    excluded = read_exclusions(file)
    left: dict[str, Part | None] = {}
    counts: list[str] = []
    seen: set[str] = set()
    gone: list[str] = []
    for name, part in parts.items():
        if part is None:
            left[name] = None
            continue
        names = [relative(path, data) for path in part.names]
        kept = np.array([one not in excluded for one in names], bool)
        seen.update(one for one, stays in zip(names, kept, strict=True) if not stays)
        gone += [path for path, stays in zip(part.names, kept, strict=True) if not stays]
        if not kept.all():
            counts.append(f"{(~kept).sum():,} of {len(part):,} images of {name}")
        left[name] = part if kept.all() else part.some(np.flatnonzero(kept)) if kept.any() else None
    if excluded and not seen:
        raise ValueError(
            f"`exclude`: none of the images that {str(file)!r} excludes is in {str(data)!r}: "
            f"{some(sorted(excluded), SHOWN)}. Pass the CSV of this data set."
        )
    if parts["train"] is not None and left["train"] is None:
        raise ValueError(f"`exclude`: {str(file)!r} excludes all training images. Mark fewer with yes.")
    notes = [f"Left out because of {str(file)!r}: {' and '.join(counts) or 'no image'}."]
    if others := sorted(excluded - seen):
        notes.append(f"{str(file)!r} excludes images that are not in {str(data)!r}: {some(others, SHOWN)}.")
    return left, tuple(gone), notes
