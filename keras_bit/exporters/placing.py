"""Moves an export from its staging directory to its place: refuses, replaces, numbers and cleans up."""

import contextlib
import os
from collections.abc import Set
from pathlib import Path

from keras_bit import wording
from keras_bit.exporters.formats import Format
from keras_bit.files import writing


def check_places(format: Format, target: Path, overwrite: bool, processor: bool = True) -> None:
    """Refuses, before anything is computed, a place that the export cannot take.

    Args:
        format: the format of the export.
        target: the file or directory to write.
        overwrite: whether to replace existing files.
        processor: whether the export has a processor, or may have one.

    Raises:
        FileExistsError: `target`, or a file that belongs to it, exists and is not to be replaced, or cannot be.
        NotADirectoryError: a parent of it is a file.
        OSError: nothing can be written there.
    """
    parent = next(folder for folder in (target.parent, *target.parent.parents) if os.path.lexists(folder))
    if not parent.is_dir():
        raise NotADirectoryError(
            f"`path` must be in a directory, and {str(parent)!r} is a file. Choose another `path`."
        )
    for place in (target, *format.beside(target)):
        _check_kind(place, format.kind != "file", overwrite)
        if place.is_dir() and format.kind == "directory":
            _check_nothing_lost(place, format.entries(place, processor))
        writing.check_writable(place, is_directory=format.kind != "file")


def take_place(format: Format, made: Path, path: Path, overwrite: bool) -> Path:
    """Moves the export from its staging directory to its place, and returns the place.

    An error changes nothing.

    Args:
        format: the format of the export.
        made: the written file or directory; files next to it are moved too.
        path: the path that the caller passed. A version gets a number that is free now.
        overwrite: whether to replace existing files.
    """
    if format.kind == "version":
        return writing.take_free_place(made, lambda: format.target(path))
    target = format.target(path)
    written = {entry.name for entry in writing.entries(made.parent)}
    for name in written:
        _check_place(format, made.with_name(name), target.with_name(name), overwrite)
    replaced = os.path.lexists(target)
    writing.take_places(made.parent, target.parent, last=target.name)
    for place in format.beside(target):
        if replaced and place.name not in written:  # it belonged to the replaced file
            with contextlib.suppress(OSError):
                place.unlink()
    return target


def _check_place(format: Format, file: Path, place: Path, overwrite: bool) -> None:
    """Refuses to replace anything but an earlier export."""
    _check_kind(place, file.is_dir(), overwrite)
    if place.is_dir():
        written = {inside.name for inside in file.iterdir()}
        _check_nothing_lost(place, written | format.entries(place, processor=False))


def _check_nothing_lost(place: Path, ours: Set[str]) -> None:
    if others := sorted({inside.name for inside in place.iterdir()} - ours):
        raise FileExistsError(
            f"{str(place)!r} holds other files, which would be lost: {wording.some(others)}. Move them away, or "
            "choose another `path`."
        )


def _check_kind(place: Path, directory: bool, overwrite: bool) -> None:
    if not os.path.lexists(place):
        return
    if not overwrite:
        raise FileExistsError(f"{str(place)!r} exists. Choose another `path`, or replace it with `overwrite=True`.")
    if directory != place.is_dir():
        kind = "directory" if place.is_dir() else "file"
        raise FileExistsError(f"{str(place)!r} is a {kind}, which this format cannot replace. Choose another `path`.")
