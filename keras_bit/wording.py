"""Writes lists, long names and numbers for messages."""

import math
import unicodedata
from collections.abc import Iterable, Sequence

LONGEST_SHOWN = 200  # characters of a name in a message


def first_of(lines: Sequence[str], most: int) -> list[str]:
    """Returns the first few of many lines, and a line with the number of others: `and 3 more`."""
    return [*lines[:most], *([f"and {len(lines) - most:,} more"] if len(lines) > most else [])]


def some(names: Iterable[object], most: int = 4, separator: str = ", ") -> str:
    """Returns the first few of many names, for a message: `a, b, c, d and 3 more`."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return separator.join(map(str, listed[:most])) + more


def shortened(name: object) -> str:
    """Returns a name for a message, on one line; a long one loses its middle."""
    text = " ".join(str(name).splitlines())
    if len(text) <= LONGEST_SHOWN:
        return text
    half = LONGEST_SHOWN // 2 - 10
    return f"{text[:half]} ... {text[-half:]}"


def number(value: float) -> str:
    """Returns a number of any range for a table or a line: `465,000`, `12.34`, `0.0002173`."""
    return f"{value:,.0f}" if 1000 <= abs(value) < math.inf else f"{value:.4g}"


def count(many: int, one: str) -> str:
    """Returns a number of things: `1 step`, `2,000 steps`."""
    return f"{many:,} {one}{'' if many == 1 else 's'}"


def duration(seconds: float) -> str:
    """Returns a time in the largest unit that has at least two: `50 seconds`, `90 minutes`, `9 hours`."""
    for size, unit in ((3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return count(round(seconds / size), unit)
    return count(round(seconds), "second")


def composed(name: str) -> str:
    """Returns the name for comparisons: macOS writes an accent as a separate character, which looks the same."""
    return unicodedata.normalize("NFC", name)
