"""Finds real photographs for comparisons: the user's own, or those in scikit-image's wheel."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from keras_bit import packages

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
# Photographs of single objects in the wheel; its other files are drawings, scans and microscopy.
SCIKIT_IMAGE = ("chelsea.png", "rocket.jpg", "astronaut.png", "coffee.png")


def find(paths: Sequence[Path]) -> list[Path]:
    """Returns the photographs in `paths` (files or directories), or those of scikit-image if `paths` is empty.

    Raises:
        FileNotFoundError: a path does not exist, or none of them has a photograph.
        ImportError: no path was given and scikit-image is not installed.
    """
    if not paths:
        return _scikit_image()
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"There is no photograph or folder {path}. Check the path.")
    if not found:
        named = ", ".join(map(str, paths))
        raise FileNotFoundError(
            f"There are no photographs ({', '.join(SUFFIXES)}) in {named}. Add some, or name another folder."
        )
    return found


def _scikit_image() -> list[Path]:
    packages.require("skimage", "demo", "A run without photographs of your own, which takes scikit-image's,")
    found = importlib.util.find_spec("skimage")
    folder = Path(str(found and found.origin)).parent / "data"
    return [folder / name for name in SCIKIT_IMAGE if (folder / name).is_file()]
