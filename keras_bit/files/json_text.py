"""JSON from a file: whatever is wrong with it is a ValueError."""

import json
from typing import Any

# Objects and lists within each other. A `.keras` file has about ten; Python's own functions end in a RecursionError at
# several hundred, and not all at the same number.
DEEPEST = 100


def parse(text: str | bytes, **options: Any) -> Any:
    """The value that a JSON text holds.

    Args:
        options: of `json.loads`.

    Raises:
        ValueError: it is not JSON, not Unicode, or has more than `DEEPEST` objects and lists within each other.
    """
    too_deep = f"more than {DEEPEST} objects and lists within each other"
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
