"""Whole numbers as arguments: what is one, and what is said of anything else."""

import numbers


def is_whole(value: object) -> bool:
    """Whether it is a whole number, numpy's included; `True` and `False` are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_whole(name: str, value: int, least: int = 1) -> None:
    """Checks an argument.

    Raises:
        ValueError: it is not a whole number, or below `least`.
    """
    if not is_whole(value) or value < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
