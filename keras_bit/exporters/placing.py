"""From the directory in which an export is written to its place: what is refused, replaced, numbered and cleaned up."""

import os
from collections.abc import Callable
from pathlib import Path

from keras_bit import files
from keras_bit.exporters.job import Format


def check_places(writer: Format, target: Path, overwrite: bool) -> None:
    """Refuses, before anything is computed, what could not get its name at the end.

    Raises:
        FileExistsError: `target`, or a file that belongs to it, exists and is not to be replaced, or cannot be.
        NotADirectoryError: it would be in a file.
    """
    parent = next(folder for folder in (target.parent, *target.parent.parents) if os.path.lexists(folder))
    if not parent.is_dir():
        raise NotADirectoryError(f"`path` must be in a directory, and {str(parent)!r} is a file.")
    for place in (target, *(target.with_suffix(suffix) for suffix in writer.BESIDE)):
        _check_kind(place, writer.KIND != "file", overwrite)


def move_version(version: Path, next_target: Callable[[], Path]) -> Path:
    """`version` to the next free number, which another export may take meanwhile; returns where it is."""
    files.allow_what_the_umask_allows(version)
    while True:
        target = next_target()
        try:
            os.rename(version, target)  # in one step: servers look for new versions all the time
        except OSError:
            if not os.path.lexists(target):
                raise
        else:
            return target


def move(staging: Path, target: Path, overwrite: bool) -> None:
    """Everything in `staging` to beside `target`, and `target` itself last; after an error all is as it was."""
    for entry in files.entries(staging):
        _check_place(entry, target.parent / entry.name, overwrite)
    files.take_places(staging, target.parent, last=target.name)


def _check_place(file: Path, place: Path, overwrite: bool) -> None:
    """Refuses to replace what is not an earlier export."""
    _check_kind(place, file.is_dir(), overwrite)
    if place.is_dir():
        others = sorted({inside.name for inside in place.iterdir()} - {inside.name for inside in file.iterdir()})
        if others:
            raise FileExistsError(
                f"{str(place)!r} holds what the export does not write, and what would be lost: {files.some(others)}. "
                "Move it away, or choose another `path`."
            )


def _check_kind(place: Path, directory: bool, overwrite: bool) -> None:
    if not os.path.lexists(place):
        return
    if not overwrite:
        raise FileExistsError(f"{str(place)!r} exists. Choose another `path`, or replace it with `overwrite=True`.")
    if directory != place.is_dir():
        kind = "directory" if place.is_dir() else "file"
        raise FileExistsError(f"{str(place)!r} is a {kind}, which this format cannot replace. Choose another `path`.")
