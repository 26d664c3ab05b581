"""Shortens lists and long names in messages."""

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


def composed(name: str) -> str:
    """Returns the name for comparisons: macOS writes an accent as a separate character, which looks the same."""
    return unicodedata.normalize("NFC", name)
