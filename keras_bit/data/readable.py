"""Which images of a data set cannot be read, found out before anything is computed: Pillow, in threads."""

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
LARGE = 10_000  # images from which on it is noted which files were looked at


def unreadable(part: Part, *, whole: bool, shown: str, noted: Path | None = None) -> dict[int, str]:
    """The numbers of the images that cannot be read, with a line for each: its name and what is wrong.

    Args:
        whole: whether to decode every image. Otherwise only its header is read, which takes a fraction of the time and
            finds what is no image, but not what is cut off or damaged further on.
        shown: what the progress is called, which is shown after two seconds.
        noted: a file that remembers what was found in large parts, as long as no file has another size or time.
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
    """What is wrong with an image, in the words of who reads it, a sentence that begins with its name; or nothing."""
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
        warnings.simplefilter("ignore")  # Pillow's, of large images and of metadata
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
    """What was found, by what was looked at; nothing of what is damaged, which is looked at again."""
    try:
        known = {} if file is None else json_text.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: found for key, found in known.items() if isinstance(found, dict)} if isinstance(known, dict) else {}


def _is_noted(number: str, line: Any, count: int) -> bool:
    """Whether a note is one that was written about one of `count` images."""
    digits = number.isascii() and number.isdecimal() and len(number) <= len(str(count))
    return digits and int(number) < count and isinstance(line, str)
