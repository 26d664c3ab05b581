"""Reads files of earlier versions, which had `pictures` in the names of their entries instead of `images`."""

from typing import Any


def renamed(noted: dict[str, Any]) -> dict[str, Any]:
    """Returns the entries with today's names: `train_pictures` becomes `train_images`."""
    return {name.replace("pictures", "images"): value for name, value in noted.items()}
