"""Lists all kinds by name, in groups; a process reads one group."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

from fuzz.kinds import Kind

# Name of a group to its module and the table in it.
GROUPS = {
    "weights": ("checkpoints", "KINDS"),
    "models": ("checkpoints", "MODEL_KINDS"),
    "configs": ("configs", "KINDS"),
    "images": ("images", "KINDS"),
    "runs": ("runs", "KINDS"),
    "records": ("runs", "RECORD_KINDS"),  # slower: each makes a data set
    "pitfalls": ("pitfalls", "PITFALLS"),
}
# Beginning of the names of kinds to the package that these need.
NEEDED = {"bin": "torch", "parquet": "pyarrow"}


def table(group: str) -> dict[str, Callable[[Path], Kind]]:
    """Returns the kinds of a group whose packages are installed."""
    module, name = GROUPS[group]
    found = getattr(importlib.import_module(f"fuzz.{module}"), name)
    missing = tuple(begin for begin, package in NEEDED.items() if importlib.util.find_spec(package) is None)
    return {kind: make for kind, make in found.items() if not kind.startswith(missing)}


def find(group: str, kind: str) -> Callable[[Path], Kind]:
    return table(group)[kind]
