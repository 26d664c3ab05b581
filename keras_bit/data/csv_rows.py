"""Reads the rows of a CSV file, with their line numbers. Knows nothing about images."""

import codecs
import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from keras_bit.wording import some

SUFFIXES = (".csv", ".tsv")
DELIMITERS = (",", ";", "\t")
# Excel's "Unicode text" is UTF-16; its "CSV UTF-8" begins with a byte order mark too.
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class Row(NamedTuple):
    """The cells of a row, stripped of spaces, and its line number, from 1."""

    line: int
    cells: list[str]


class Rows(NamedTuple):
    """The content of a CSV file.

    Args:
        header: the names of the columns.
        rows: the rows that are not empty, each with a cell per column.
        delimiter: the character between two cells.
    """

    header: list[str]
    rows: list[Row]
    delimiter: str


def is_csv(source: object) -> bool:
    """Returns whether a source is the name of a CSV file, by its suffix."""
    return isinstance(source, str | Path) and str(source).lower().endswith(SUFFIXES)


def read(file: str | Path) -> Rows:
    """Reads a CSV file in UTF-8, or UTF-16 with a byte order mark, with commas, semicolons or tabs.

    Args:
        file: begins with a header; a line `sep=;` before it sets the delimiter, as in Excel.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: it cannot be read.
        ValueError: it is not text, has no row, or has a row of another length than its header.
    """
    text = _text(Path(file))
    first, delimiter = 0, ""
    if said := re.match(r"sep=(.)\r?\n", text):
        first, delimiter, text = 1, said[1], text[said.end() :]
    delimiter = delimiter or _delimiter(text)
    found: list[Row] = []
    # Strict: text after a closing quote, or a quote that is never closed, is an error and not part of a cell.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = first + 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                found.append(Row(line, cells))
            line = first + reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{str(file)!r} is not a valid CSV file, in line {line} or after it: {error}. Correct the quotes there."
        ) from None
    if not found:
        raise ValueError(f"{str(file)!r} is empty. It must begin with the names of its columns, such as 'path,label'.")
    header, rows = found[0].cells, found[1:]
    _check(str(file), header, rows, delimiter)
    return Rows(header, rows, delimiter)


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"The file {str(file)!r} does not exist. Check the path.") from None
    except OSError as error:
        raise OSError(f"{str(file)!r} cannot be read: {error.strerror}. Check the path and its permissions.") from error
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{str(file)!r} must be UTF-8 text, got the byte 0x{content[error.start]:02x} in line {line}. Save it as "
            "'CSV UTF-8'."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{str(file)!r} must be text, got a zero byte in line {line}. Save it as 'CSV UTF-8'.")
    return text


def _delimiter(text: str) -> str:
    """Returns the character that divides the header into most cells; a comma if none does."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def _check(file: str, header: list[str], rows: list[Row], delimiter: str) -> None:
    names = [name for name in header if name]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{file!r} has several columns named {some(map(repr, twice))}. Rename all but one.")
    if not rows:
        raise ValueError(f"{file!r} has a header ({some(map(repr, names))}) but no rows. Add a line for each image.")
    if wrong := [row for row in rows if len(row.cells) != len(header)]:
        shown = some((f"line {row.line} has {len(row.cells)}" for row in wrong), 3)
        raise ValueError(
            f"{file!r} must have {len(header)} cells in every line, as in its header, but {shown} ({len(wrong):,} of "
            f"{len(rows):,} lines). A cell that holds {delimiter!r} must be in double quotes."
        )
