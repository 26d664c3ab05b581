"""Defines a kind of input: the files to try, the function that reads them, and the documented errors."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fuzz.mutations import mutated


class Input(NamedTuple):
    """The contents of a file, and words of which an error must have at least one; empty for no such rule."""

    content: bytes
    words: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of input.

    Args:
        file: the path to which each input is written.
        whole: the undamaged contents, which must be readable.
        inputs: function from a count and a seed to the inputs.
        read: function that reads `file`; the `digest` of what it returns is compared.
        errors: the documented exceptions: these classes, and builtin subclasses of them.
        names: texts of which an error must contain one; by default the path of the file.
    """

    file: Path
    whole: bytes
    inputs: Callable[[int, int], Sequence[Input]]
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...] = (ValueError, OSError)
    names: tuple[str, ...] | None = None

    @property
    def named(self) -> tuple[str, ...]:
        return (str(self.file),) if self.names is None else self.names


@dataclasses.dataclass(frozen=True)
class Mutated(Sequence[Input]):
    """Mutations of `whole`; each is made when it is needed.

    Args:
        mend: corrects the checksums of each, so that the reader gets past them and meets the damage.
    """

    whole: bytes
    mend: Callable[[bytes], bytes]
    size: int
    seed: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return Input(self.mend(mutated(self.whole, np.random.default_rng([self.seed, index]))))


def damaged(whole: bytes, mend: Callable[[bytes], bytes] = bytes) -> Callable[[int, int], Sequence[Input]]:
    """Returns the `inputs` of a `Kind` that mutate bytes."""
    return functools.partial(Mutated, whole, mend)


def changed(values: Any, mend: Callable[[bytes], bytes] = bytes, *, fields: bool = False) -> Callable[..., list[Input]]:
    """Returns the `inputs` of a `Kind` that change a value in JSON.

    Args:
        fields: whether an error must name one of the keys that lead to the value.
    """
    from fuzz import structured

    def inputs(count: int, seed: int) -> list[Input]:
        found = structured.drawn(structured.changed_json(values), count, seed)
        return [Input(mend(one.text.encode()), one.keys if fields else ()) for one in found]

    return inputs


def digest(found: Any) -> str:
    """Returns a text that is equal for equal values."""
    total = hashlib.sha256()
    for part in _parts(found):
        total.update(part)
    return total.hexdigest()


def _parts(found: Any) -> Iterator[bytes]:
    if isinstance(found, dict):
        for key in sorted(found, key=repr):
            yield repr(key).encode("utf-8", "backslashreplace")
            yield from _parts(found[key])
    elif hasattr(found, "__array__"):
        array = np.asarray(found)
        yield f"{array.shape} {array.dtype}".encode()
        yield np.ascontiguousarray(array).tobytes()
    else:
        yield json.dumps(found, default=str).encode()
