"""Pooled features of any number of images, as shards of Parquet."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_bit.embedding.shards import embed as embed

__all__ = ["embed"]


if not TYPE_CHECKING:  # with this function, a type checker would accept misspelled names

    def __getattr__(name: str) -> Any:
        if name == "embed":
            return importlib.import_module("keras_bit.embedding.shards").embed
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
