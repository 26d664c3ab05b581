"""Finds unreadable images before training, with Pillow in threads."""

import contextlib
import hashlib
import io
import itertools
import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from keras_bit.data import reading
from keras_bit.data.parts import Part
from keras_bit.files import json_text
from keras_bit.files.writing import replacing
from keras_bit.images import inputs

THREADS = min(os.cpu_count() or 1, 8)  # each holds an image
AT_ONCE = 64  # images for each thread: records come with their bytes
MISSING = "does not exist."
LARGE = 10_000  # number of images from which the results are noted in a file


def unreadable(part: Part, *, whole: bool, shown: str, noted: Path | None = None) -> dict[int, str]:
    """Returns the numbers of the unreadable images, with a line for each: its name and what is wrong.

    Args:
        whole: whether to decode every image. Otherwise only its header is read, which is much faster and finds files
            that are not images, but not images that are truncated or damaged later.
        shown: the title of the progress bar, which appears after two seconds.
        noted: a file that stores the results for large parts. They hold as long as no file changes its size or time.
    """
    remembered = noted if part.in_files and len(part) >= LARGE else None
    key = _stamp(part.names, whole) if remembered else ""
    known = _read(remembered)
    if key in known and all(_is_noted(number, line, len(part)) for number, line in known[key].items()):
        return {int(number): line for number, line in known[key].items()}
    found = _look(part, whole, shown)
    if remembered:
        with contextlib.suppress(OSError), replacing(remembered) as beside:  # it only saves time
            beside.write_text(json.dumps({**known, key: found}), encoding="utf-8")
    return found


def problem(name: str, file: str | io.BytesIO, whole: bool) -> str:
    """Returns what is wrong with an image, as a sentence that begins with its name; an empty text for nothing."""
    source = file if isinstance(file, str) else file.getvalue()

    def look() -> str:
        if whole:
            inputs.to_rgb(name, inputs.read(name, source, "ignore"))
        else:
            inputs.check_header(name, source)
        return ""

    return reading.attempted(name, look)


def _look(part: Part, whole: bool, shown: str) -> dict[int, str]:
    found: dict[int, str] = {}
    numbered = enumerate(part.files(np.arange(len(part))))
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=len(part), desc=shown, unit=" images", delay=2, leave=False) as bar,
    ):
        warnings.simplefilter("ignore")  # Pillow's warnings about large images and metadata
        while chunk := list(itertools.islice(numbered, AT_ONCE * THREADS)):
            problems = pool.map(lambda one: problem(part.names[one[0]], one[1], whole), chunk)
            for (number, _), text in zip(chunk, problems, strict=True):
                if text:
                    found[number] = text
                bar.update()
    return found


def _stamp(names: Sequence[str], whole: bool) -> str:
    digest = hashlib.sha256(b"whole" if whole else b"header")
    for name in names:
        try:
            status = os.stat(name)
            about = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            about = "missing"
        digest.update(os.fsencode(name) + b"\0" + about.encode() + b"\0")
    return digest.hexdigest()


def _read(file: Path | None) -> dict[str, dict[str, Any]]:
    """Reads the stored results; damaged notes are ignored, so those files are read again."""
    try:
        known = {} if file is None else json_text.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: found for key, found in known.items() if isinstance(found, dict)} if isinstance(known, dict) else {}


def _is_noted(number: str, line: Any, count: int) -> bool:
    """Returns whether a note is valid for one of `count` images."""
    digits = number.isascii() and number.isdecimal() and len(number) <= len(str(count))
    return digits and int(number) < count and isinstance(line, str)
