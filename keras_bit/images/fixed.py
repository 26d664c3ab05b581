"""Refuses changes of a processor, with an error that says what to do instead."""

import dataclasses
from typing import Any, NoReturn


class Fixed(dict[str, int]):
    """A size of the processor, as a read-only dictionary.

    >>> Fixed("size", {"shortest_edge": 224})
    {'shortest_edge': 224}

    Args:
        option: the processor's option that has this value.
        values: the dictionary.
    """

    def __init__(self, option: str, values: dict[str, int]) -> None:
        super().__init__(values)
        self._option = option

    def __reduce__(self) -> tuple[Any, ...]:  # otherwise copies and pickles would be filled item by item
        return Fixed, (self._option, dict(self))

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        refuse(self._option)

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = __ior__ = _refuse


def refuse(option: str) -> NoReturn:
    """Refuses a change of an option.

    Raises:
        dataclasses.FrozenInstanceError: always; says what to do.
    """
    raise dataclasses.FrozenInstanceError(
        f"`{option}` of a BitImageProcessor cannot be changed. Pass `{option}=` in the call, for its images only, or "
        f"make another processor with `dataclasses.replace(processor, {option}=...)`."
    )
