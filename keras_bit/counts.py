"""Checks of arguments that must be whole numbers."""

import numbers


def is_whole(value: object) -> bool:
    """Returns whether `value` is a whole number, including numpy's. `True` and `False` are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_whole(name: str, value: int, least: int = 1) -> None:
    """Checks an argument.

    Raises:
        ValueError: it is not a whole number, or below `least`.
    """
    if not is_whole(value) or value < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
