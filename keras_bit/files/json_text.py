"""Parses JSON from a file; every problem is a ValueError."""

import json
from typing import Any

# The deepest nesting of objects and lists. A `.keras` file has about ten levels; Python's own functions raise a
# RecursionError at several hundred.
DEEPEST = 100


def parse(text: str | bytes, **options: Any) -> Any:
    """Returns the value of a JSON text.

    Args:
        options: arguments of `json.loads`.

    Raises:
        ValueError: it is not JSON, not Unicode, or nested more than `DEEPEST` levels deep.
    """
    too_deep = f"more than {DEEPEST} nested objects and lists"
    try:
        value = json.loads(text, **options)
    except RecursionError:
        raise ValueError(too_deep) from None
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
        if not level:
            return value
    raise ValueError(too_deep)


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
