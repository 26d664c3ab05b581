"""Reads files of earlier versions, which wrote `pictures` where this version writes `images`."""

from typing import Any


def renamed(noted: dict[str, Any]) -> dict[str, Any]:
    """Returns the entries with today's names: `train_pictures` becomes `train_images`."""
    return {name.replace("pictures", "images"): value for name, value in noted.items()}
