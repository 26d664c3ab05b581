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
    """What a file holds, and the words of which an error has to have one, if there are any."""

    content: bytes
    words: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of input.

    Args:
        file: where each input is written.
        whole: what it holds undamaged, which must be read.
        inputs: from how many and a seed to the inputs.
        read: from `file` to what was read, of which `digest` is compared.
        errors: the documented exceptions; the classes themselves and the builtin ones below them.
        names: the texts of which an error has one: by default the file's path.
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
    """Mutations of `whole`; each is made when it is asked for.

    Args:
        mend: what is done to each, so that a checksum does not hide the damage from what reads it.
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
    """The `inputs` of a `Kind`: mutations of bytes."""
    return functools.partial(Mutated, whole, mend)


def changed(values: Any, mend: Callable[[bytes], bytes] = bytes, *, fields: bool = False) -> Callable[..., list[Input]]:
    """The `inputs` of a `Kind`: JSON with another value.

    Args:
        fields: whether an error has to name one of the keys that lead to the value.
    """
    from fuzz import structured

    def inputs(count: int, seed: int) -> list[Input]:
        found = structured.drawn(structured.changed_json(values), count, seed)
        return [Input(mend(one.text.encode()), one.keys if fields else ()) for one in found]

    return inputs


def digest(found: Any) -> str:
    """The same text for the same values."""
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
