"""Evaluates models: metrics, a report, activation maps, and the match of a data set's names with a model's classes."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_bit.evaluation.evaluating import evaluate as evaluate
    from keras_bit.evaluation.report import write as write

_MODULES = {"evaluate": "evaluating", "write": "report"}
__all__ = ["evaluate", "write"]


if not TYPE_CHECKING:  # to a type checker a misspelled name would be one that comes from here

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
