"""Arguments that several commands have, and their types."""

import argparse
import os
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

DEFAULT_WEIGHTS = "google/bit-50"


def add_hub_arguments(command: argparse.ArgumentParser) -> None:
    hub = command.add_argument_group("for a Hub id")
    hub.add_argument("--revision", help="branch, tag or commit")
    hub.add_argument("--cache-dir", metavar="DIR", help="cache of huggingface_hub")
    hub.add_argument("--local-files-only", action="store_true", help="use the cache, do not ask the Hub")


def hub_arguments(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "revision": options.revision,
        "cache_dir": options.cache_dir,
        "local_files_only": options.local_files_only,
    }


def class_names_of(text: str | None) -> list[str] | None:
    """The lines of a file of that name, or what stands between commas."""
    if text is None:
        return None
    parts = text.split(",")
    if Path(text).is_file():
        parts = Path(text).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [part.strip() for part in parts if part.strip()]


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {text!r}")
    return int(text)


def positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text!r}")
    return value


def image_size(text: str) -> tuple[int, int]:
    height, times, width = text.partition("x")
    if not times:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, as 375x500, got {text!r}")
    return positive(height), positive(width)


def upright_picture(name: str) -> Image.Image:
    """The image as a person sees it: cameras store the orientation beside the pixels."""
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name} is a directory; name the images in it, {name}/*")
    try:
        with Image.open(name) as image:
            return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"{name!r} does not exist") from None
    except MemoryError:
        raise
    except Exception as error:
        # On damaged files Pillow's decoders raise OSError, SyntaxError, RuntimeError, NotImplementedError and others.
        raise ValueError(f"{name} cannot be read as an image: {error}") from error
