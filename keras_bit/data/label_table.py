"""Labels in a CSV file: finds the column of images, the columns of labels, and their kind. Without TensorFlow.

It reads the forms in which data sets are published: a column of class names (fastai, Keras' `flow_from_dataframe`), a
column of several names with a character between them, a column of 0 and 1 for each class (Kaggle), and columns of
numbers to predict. A column `split` may divide the images.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_bit.data import csv_rows, table_images
from keras_bit.data.csv_rows import Row, Rows
from keras_bit.data.split_names import part_of
from keras_bit.wording import composed, some

ONE, SEVERAL, NUMBER = "single_label_classification", "multi_label_classification", "regression"
PROBLEM_TYPES = (ONE, SEVERAL, NUMBER)  # transformers' words
# Names of columns, compared without case and without characters that are not letters.
IMAGE_COLUMNS = ("path", "file", "filename", "filepath", "fname", "image", "imageid", "imagename", "imagepath", "id")
LABEL_COLUMNS = ("label", "labels", "class", "classes", "target", "targets", "tag", "tags", "category", "categories")
SPLIT_COLUMNS = ("split", "subset", "set", "isvalid")
SEPARATORS = (";", "|")  # between several names in a cell, by default
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
NUMBER_TEXT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
LARGEST = float(np.finfo(np.float32).max)  # number
SHOWN = 5  # lines that an error names


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """How to read a CSV file of images and labels, if its columns do not say what they hold.

    Args:
        image_folder: the folder that the paths of images are relative to; by default the folder of the file.
        image_column: the name of the column with the paths; by default `path`, `file_name`, `image` or similar.
        label_columns: the names of the columns with the labels; by default `label`, `class`, `target` or similar, or
            all other columns.
        label_separator: the text between several names in a cell, by default `;` or `|`; a space means any number of
            spaces.
        problem_type: `"single_label_classification"`, `"multi_label_classification"` or `"regression"`. By default it
            follows from the values; whole numbers can be ambiguous.
    """

    image_folder: str | None = None
    image_column: str | None = None
    label_columns: Sequence[str] | None = None
    label_separator: str | None = None
    problem_type: str | None = None

    def __post_init__(self) -> None:
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise ValueError(
                f"`problem_type` must be one of {', '.join(map(repr, PROBLEM_TYPES))}, got {self.problem_type!r}."
            )
        if self.label_separator == "":
            raise ValueError(
                "`label_separator` must be at least one character, such as ';', got an empty text. Leave it out for "
                "the usual separators."
            )


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """The images and labels of a CSV file.

    Args:
        paths: the paths of the images.
        labels: int32 `(count,)` for one class per image; float32 `(count, classes)` of 0 and 1 for several; float64
            `(count,)` or `(count, outputs)` for numbers to predict.
        names: the names of the classes, or of the columns of numbers.
        problem_type: one of `PROBLEM_TYPES`.
        parts: `"train"`, `"validation"` or `"test"` for each image; `None` if the table does not divide them.
        notes: sentences for a person.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]
    problem_type: str
    parts: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def some(self, places: np.ndarray) -> "LabelTable":
        parts = None if self.parts is None else tuple(self.parts[place] for place in places)
        paths = tuple(self.paths[place] for place in places)
        return dataclasses.replace(self, paths=paths, labels=self.labels[places], parts=parts)


def read(
    file: str | Path,
    options: TableOptions | None = None,
    *,
    names: Sequence[str] | None = None,
    check_files: bool = True,
) -> LabelTable:
    """Reads a CSV file of images and labels.

    The image's column is found by its name (`path`, `file_name`, `image`, `image_id` ...); by default it is the first.
    A column `split` (or `is_valid`) divides the images. Labels are in the column `label`, `labels`, `class`, `target`
    or `tags`; without such a column, all others are labels:

    * one column of text: the class of each image, or several if a cell holds `;` or `|`, or `label_separator` is given;
    * one column of whole numbers from 0 on without a gap: the class of each image;
    * one column of other numbers: the number to predict; whole numbers need `problem_type="regression"`;
    * several columns of 0 and 1: several classes per image, or one class if each image has exactly one;
    * several columns of other numbers: numbers to predict.

    Args:
        file: ends in .csv or .tsv and has a header. See `csv_rows.read`.
        options: settles what the file does not tell.
        names: the order of the classes, which must hold all of them; for numbers, the columns.
        check_files: whether a missing image is an error now; otherwise it is one when it is read.

    Raises:
        ValueError: the file is not such a table; the message names the line and the column.
        OSError: it cannot be read.
    """
    options = options or TableOptions()
    table, shown = csv_rows.read(file), str(file)
    image, split, columns, notes = _columns(shown, table, options, names)
    parts = None if split is None else _parts(shown, table, split)
    # Images come before labels, so that the error for a table without a column of images is about images.
    folder = Path(options.image_folder) if options.image_folder is not None else Path(file).parent
    paths, about_paths = table_images.found(shown, table.rows, table.header[image], image, folder, check_files)
    if len(columns) == 1:
        labels, found, kind, about = _one_column(shown, table, columns[0], options, names)
    else:
        labels, found, kind, about = _several_columns(shown, table, columns, options, names)
    whole = LabelTable(tuple(paths), labels, found, kind, None if parts is None else tuple(parts))
    kept, about_twice = _once(shown, table.rows, whole)
    notes = [*notes, *about, *about_paths, *about_twice]
    return dataclasses.replace(whole.some(kept), notes=tuple(notes))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.casefold())


def _columns(
    file: str, table: Rows, options: TableOptions, names: Sequence[str] | None
) -> tuple[int, int | None, list[int], list[str]]:
    """Returns the places of the columns of images, of the division and of labels, and notes about other columns."""
    header = table.header

    def place(name: str, argument: str) -> int:
        if name not in header:
            raise ValueError(
                f"`{argument}` must be a column of {file!r} ({some(map(repr, header), 20)}), got {name!r}."
            )
        return header.index(name)

    named = {number for number, name in enumerate(header) if name}
    chosen = [place(name, "label_columns") for name in options.label_columns or ()]
    if options.image_column is not None:
        image = place(options.image_column, "image_column")
    else:
        known = [number for word in IMAGE_COLUMNS for number in sorted(named) if _plain(header[number]) == word]
        image = next((number for number in [*known, *sorted(named)] if number not in chosen), 0)
    split = next((n for n in sorted(named - {image, *chosen}) if _plain(header[n]) in SPLIT_COLUMNS), None)
    others = sorted(named - {image, *chosen} - ({split} if split is not None else set()))
    if not chosen:
        by_name = [number for number in others if _plain(header[number]) in LABEL_COLUMNS]
        by_class = [header.index(name) for name in names or () if name in header]
        chosen = others
        if len(by_name) == 1:
            chosen = by_name
        elif names is not None and len(by_class) == len(names) > 1:
            chosen = by_class
    if not chosen:
        raise ValueError(
            f"{file!r} must have a column of labels besides the images' column {header[image]!r}, got the columns "
            f"{some(map(repr, header), 20)} with {table.delimiter!r} between them. Add a column of labels, or name the "
            "images' column by `image_column`."
        )
    left = [header[number] for number in others if number not in chosen]
    return (
        image,
        split,
        chosen,
        [f"Left out: the column{'s' * (len(left) > 1)} {some(map(repr, left), 10)}."] if left else [],
    )


def _parts(file: str, table: Rows, column: int) -> list[str]:
    """Returns the part that each row names."""
    flags = _plain(table.header[column]) == "isvalid"

    def part(text: str) -> str | None:
        if flags:
            return "validation" if text.casefold() in YES else "train" if text.casefold() in NO else None
        return part_of(text)

    found = [part(row.cells[column]) for row in table.rows]
    wrong = [row for row, one in zip(table.rows, found, strict=True) if one is None]
    expected = "true or false" if flags else "train, validation or test"
    _refuse(file, table, column, wrong, expected, " If it holds labels, name it in `label_columns`.")
    return [one for one in found if one is not None]


def _refuse(file: str, table: Rows, column: int, wrong: Sequence[Row], expected: str, advice: str = "") -> None:
    if wrong:
        shown = some((f"{row.cells[column]!r} in line {row.line}" for row in wrong), SHOWN)
        raise ValueError(
            f"The column {table.header[column]!r} of {file!r} must hold {expected}; got {shown} ({len(wrong):,} of "
            f"{len(table.rows):,} lines).{advice}"
        )


Found = tuple[np.ndarray, tuple[str, ...], str, list[str]]  # labels, names, problem type, notes


def _one_column(file: str, table: Rows, column: int, options: TableOptions, names: Sequence[str] | None) -> Found:
    texts, kind, head = [row.cells[column] for row in table.rows], options.problem_type, table.header[column]
    separator = options.label_separator
    if separator is None and kind in (None, SEVERAL):
        separator = next((one for one in SEPARATORS if any(one in text for text in texts)), None)
    if kind == SEVERAL or (kind is None and separator is not None):
        return _several_names(file, table, column, separator, names)
    numbers = [_number(text, table.delimiter) for text in texts]
    whole = all(number is not None and number == int(number) for number in numbers)
    # A column with few fractions is numeric too; texts among fractions are mistakes, which the error names.
    fractions = sum(_is_fraction(number) for number in numbers)
    quantities = fractions > 0 and (None not in numbers or 2 * fractions >= len(numbers))
    if kind == NUMBER or (kind is None and quantities):
        return _numbers(file, table, [column])[:, 0], (head,), NUMBER, []
    empty = [row for row in table.rows if not row.cells[column]]
    advice = f" If images have several labels or none, pass `problem_type` {SEVERAL!r}." if kind is None else ""
    _refuse(file, table, column, empty, "a label in every line", advice)
    notes = []
    if whole and kind is None and names is None:
        values = sorted({int(number) for number in numbers if number is not None})
        if values != list(range(len(values))):
            raise ValueError(
                f"The column {head!r} of {file!r} holds whole numbers from {values[0]} to {values[-1]}, which may be "
                f"classes or numbers to predict. Pass `problem_type` {ONE!r} or {NUMBER!r}."
            )
        notes = [f"The numbers in {head!r} are {len(values)} classes; problem_type={NUMBER!r} predicts them."]
    return *_classes(file, table, column, names, whole), ONE, notes


def _is_fraction(number: float | None) -> bool:
    return number is not None and number != int(number)


def _classes(
    file: str, table: Rows, column: int, names: Sequence[str] | None, whole: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    texts = [composed(row.cells[column]) for row in table.rows]
    if whole:
        texts = [str(int(float(text))) for text in texts]
    found = tuple(sorted(set(texts), key=int if whole else None)) if names is None else tuple(names)
    places = {composed(name): place for place, name in enumerate(found)}
    wrong = [row for row, text in zip(table.rows, texts, strict=True) if text not in places]
    _refuse(file, table, column, wrong, f"one of the classes ({some(map(repr, found), SHOWN)})")
    return np.array([places[text] for text in texts], np.int32), found


def _several_names(file: str, table: Rows, column: int, separator: str | None, names: Sequence[str] | None) -> Found:
    blank = separator is not None and not separator.strip()
    texts = [composed(row.cells[column]) for row in table.rows]
    # A space means any number of spaces.
    cells = [text.split(None if blank else separator) if separator else [text] for text in texts]
    said = [list(dict.fromkeys(part.strip() for part in cell if part.strip())) for cell in cells]
    found = tuple(sorted({name for cell in said for name in cell})) if names is None else tuple(names)
    if not found:
        raise ValueError(
            f"The column {table.header[column]!r} of {file!r} must name at least one class, but all cells are empty. "
            "Fill them in, or name another column by `label_columns`."
        )
    places = {composed(name): place for place, name in enumerate(found)}
    wrong = [row for row, cell in zip(table.rows, said, strict=True) if any(name not in places for name in cell)]
    _refuse(file, table, column, wrong, f"names among the classes ({some(map(repr, found), SHOWN)})")
    rows = np.zeros((len(said), len(found)), np.float32)
    for row, cell in zip(rows, said, strict=True):
        row[[places[name] for name in cell]] = 1
    return rows, found, SEVERAL, _about_none(rows)


def _several_columns(
    file: str, table: Rows, columns: Sequence[int], options: TableOptions, names: Sequence[str] | None
) -> Found:
    found = tuple(table.header[column] for column in columns)
    if options.label_separator is not None:
        raise ValueError(
            f"`label_separator` is for one column of names, got {options.label_separator!r} and the columns "
            f"{some(map(repr, found), 10)}. Name one by `label_columns`."
        )
    known = {*YES, *NO}
    flags = all(row.cells[column].casefold() in known for row in table.rows for column in columns)
    kind = options.problem_type
    if kind == NUMBER or (kind is None and not flags):
        return _numbers(file, table, columns), found, NUMBER, []
    for column in columns:
        wrong = [row for row in table.rows if row.cells[column].casefold() not in known]
        _refuse(file, table, column, wrong, "0 or 1 in every line, as the other columns of labels")
    rows = np.array([[row.cells[column].casefold() in YES for column in columns] for row in table.rows], np.float32)
    if names is not None:
        if sorted(map(composed, names)) != sorted(map(composed, found)):
            raise ValueError(
                f"The columns of labels in {file!r} must be the classes {some(map(repr, names), 10)}, got "
                f"{some(map(repr, found), 10)}. Name the right ones in `label_columns`."
            )
        places = {composed(name): place for place, name in enumerate(found)}
        rows, found = rows[:, [places[composed(name)] for name in names]], tuple(names)
    alone = rows.sum(axis=1) == 1
    if kind == ONE:
        wrong = [row for row, one in zip(table.rows, alone, strict=True) if not one]
        _refuse(file, table, columns[0], wrong, "one 1 in each line, together with the other columns of labels")
    if kind == ONE or (kind is None and alone.all()):
        note = f"Each image has one 1 in the columns of labels, so they are read as its class, not as {SEVERAL!r}."
        return rows.argmax(axis=1).astype(np.int32), found, ONE, [note] if kind is None else []
    return rows, found, SEVERAL, _about_none(rows)


def _about_none(rows: np.ndarray) -> list[str]:
    none = int((rows.sum(axis=1) == 0).sum())
    return [f"{none:,} of {len(rows):,} images have no label."] if none else []


def _number(text: str, delimiter: str) -> float | None:
    """Returns a finite number (with a decimal comma if that is not the delimiter); `None` for other texts."""
    if delimiter != "," and DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    number = float(text) if NUMBER_TEXT.fullmatch(text) else None
    return number if number is not None and abs(number) <= LARGEST else None


def _numbers(file: str, table: Rows, columns: Sequence[int]) -> np.ndarray:
    """Returns float64 `(count, columns)`."""
    found = [[_number(row.cells[column], table.delimiter) for column in columns] for row in table.rows]
    for place, column in enumerate(columns):
        wrong = [row for row, values in zip(table.rows, found, strict=True) if values[place] is None]
        others = " If it is not a label, name the labels in `label_columns`." if len(columns) > 1 else ""
        _refuse(file, table, column, wrong, "a number that float32 can hold in every line", others)
    return np.array(found, np.float64)


def _once(file: str, rows: Sequence[Row], table: LabelTable) -> tuple[np.ndarray, list[str]]:
    """Returns the places of the rows without repeated ones."""
    first: dict[str, int] = {}
    kept, again = [], 0
    for place, path in enumerate(table.paths):
        before = first.setdefault(os.path.normpath(path), place)
        if before == place:
            kept.append(place)
            continue
        if not np.array_equal(table.labels[before], table.labels[place]) or _differ(table.parts, before, place):
            raise ValueError(
                f"{file!r} must name each image once, with all of its labels in that line; got {path!r} in the lines "
                f"{rows[before].line} and {rows[place].line} with different labels. Make one line of them."
            )
        again += 1
    return np.array(kept, np.int64), [f"Left out: {again:,} repeated lines."] if again else []


def _differ(parts: Sequence[str] | None, one: int, other: int) -> bool:
    return parts is not None and parts[one] != parts[other]
