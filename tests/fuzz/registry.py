"""Lists all kinds by name, in groups; a process reads one group."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

from fuzz.kinds import Kind

# Group to the module and the table in it.
GROUPS = {
    "weights": ("checkpoints", "KINDS"),
    "models": ("checkpoints", "MODEL_KINDS"),
    "configs": ("configs", "KINDS"),
    "images": ("images", "KINDS"),
    "runs": ("runs", "KINDS"),
    "records": ("runs", "RECORD_KINDS"),  # slower: each makes a data set
    "pitfalls": ("pitfalls", "PITFALLS"),
}
# What the kinds whose names begin so need.
NEEDED = {"bin": "torch", "parquet": "pyarrow"}


def table(group: str) -> dict[str, Callable[[Path], Kind]]:
    """The kinds of a group, but for those whose package is not installed."""
    module, name = GROUPS[group]
    found = getattr(importlib.import_module(f"fuzz.{module}"), name)
    missing = tuple(begin for begin, package in NEEDED.items() if importlib.util.find_spec(package) is None)
    return {kind: make for kind, make in found.items() if not kind.startswith(missing)}


def find(group: str, kind: str) -> Callable[[Path], Kind]:
    return table(group)[kind]
