"""Finds the images that a column of a table names. Without TensorFlow."""

import os
from collections.abc import Sequence
from pathlib import Path

from keras_bit.data.csv_rows import Row
from keras_bit.data.walk import SUFFIXES
from keras_bit.wording import some

COMMON = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".tif", ".tiff")  # for names without one
SHOWN = 5  # lines that an error names


def found(
    file: str, rows: Sequence[Row], name: str, column: int, folder: Path, check: bool
) -> tuple[list[str], list[str]]:
    """Returns the path of each image, and notes.

    A name is taken unchanged, relative to a folder or absolute. If that file does not exist, it is tried with `/` for
    Windows' `\\` and, if it has no suffix, with a common one.

    Args:
        file: the table's name, for messages.
        rows: the rows of the table.
        name, column: the column's name and place.
        folder: the folder that names are relative to.
        check: whether a single missing image is an error.

    Raises:
        ValueError: an image's name is empty, is a web address, or does not exist; the message names the lines.
    """
    if _existing(os.path.join(folder, name)) is not None:
        raise ValueError(
            f"{file!r} must begin with the names of its columns, as 'path,label', got a line with the image {name!r}. "
            "Add such a first line."
        )
    if empty := [str(row.line) for row in rows if not row.cells[column]]:
        raise ValueError(
            f"The column {name!r} of {file!r} must name an image in every line; empty: {some(empty, SHOWN)}. "
            "Fill these cells in, or remove the lines."
        )
    if addresses := [row for row in rows if "://" in row.cells[column]]:
        raise ValueError(
            f"The column {name!r} of {file!r} must hold paths, got the address {addresses[0].cells[column]!r} in line "
            f"{addresses[0].line}. Download the images first."
        )
    paths, completed, missing = [], 0, []
    for row in rows:
        path = _existing(os.path.join(folder, row.cells[column]))
        if path is None:
            missing.append(row)
            path = os.path.join(folder, row.cells[column])
        completed += Path(path).suffix != Path(row.cells[column]).suffix
        paths.append(path)
    if missing and (check or len(missing) == len(rows)):
        raise ValueError(_about_missing(file, rows, missing, name, column, folder))
    return paths, [f"{completed:,} images have no suffix in the table, and were found with one."] if completed else []


def _existing(path: str) -> str | None:
    if os.path.isfile(path):
        return path
    if "\\" in path and os.sep == "/" and os.path.isfile(path.replace("\\", "/")):
        return path.replace("\\", "/")
    if path.lower().endswith(SUFFIXES):
        return None
    path = path.replace("\\", os.sep)
    return next((path + suffix for suffix in COMMON if os.path.isfile(path + suffix)), None)


def _about_missing(file: str, rows: Sequence[Row], missing: Sequence[Row], name: str, column: int, folder: Path) -> str:
    shown = some((f"{row.cells[column]!r} in line {row.line}" for row in missing), SHOWN)
    said = (
        f"{len(missing):,} of {len(rows):,} images that the column {name!r} of {file!r} names do not exist, relative "
        f"to {str(folder)!r}: {shown}."
    )
    if len(missing) < len(rows):
        return f"{said} Correct them, or pass on_error='skip' to leave them out."
    return f"{said} Pass the folder that they are relative to as `image_folder`, or the column as `image_column`."
