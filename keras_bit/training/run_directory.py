"""The directory of a fine-tuning run: its files, whether it can be written, and whose run it holds."""

import contextlib
import gzip
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bit.files import claims, json_text, writing
from keras_bit.recipes.recipe import Recipe

# In `out`: the folder of what a run goes on from, and the files in it and beside it.
STATE_FOLDER, STATE_NAME, RUN_NAME = "training", "state.safetensors", "run.json"
IMAGES_NAME, READABLE_NAME = "images.json.gz", "readable.json"
LOG_NAME, MODEL_NAME, CURVES_NAME = "log.csv", "model.keras", "curves.png"

# Options with which a run may go on. Which images `exclude` leaves is in the plan's digests.
MAY_CHANGE = ("on_error", "calibrate", "exclude")


@contextlib.contextmanager
def writable(out: Path, data: str, is_chief: bool = True) -> Iterator[None]:
    """Creates `out` and writes to it, so that what cannot be written is an error before anything is computed.

    Directories that it made, and that are still empty at the end, are removed again.

    Args:
        out, data: of the run.
        is_chief: whether this process writes the run's files. It then keeps another run's out of `out`.

    Raises:
        ValueError: `out` is in the data.
        BlockingIOError: another process is training there.
        OSError: nothing can be written there.
    """
    if Path(data).is_dir() and out.resolve().is_relative_to(Path(data).resolve()):
        raise ValueError(f"`out` must not be in the data, where it would be a class, got {out} in {data}.")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"`out` must be a directory, or a new name for one. {out} is a file.")
    with claims.claimed(out / STATE_FOLDER, argument="out", exclusive=is_chief):
        writing.check_writable(out / MODEL_NAME)  # its folder may be writable where it is not
        yield


def check_space(model: keras.Model, recipe: Recipe, out: Path) -> None:
    """Room for the old state and the new one, with a momentum each, and for the model in two files, written aside."""
    size = 4 * sum(int(np.prod(variable.shape)) for variable in model.weights)
    # In a state: weights and momentum; AdamW's second one, the average, the best weights.
    copies = 2 + (recipe.optimizer == "adamw") + (recipe.ema is not None) + (recipe.keep_best is not None)
    needed, free = 2 * copies * size + 3 * size, shutil.disk_usage(out).free
    held = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if needed > free + held:
        raise OSError(
            f"`out`: {out} has {free / 1e9:.2f} GB of free space, and this model needs {needed / 1e9:.2f} GB for its "
            "training state and results. Make room, or choose another directory."
        )


class Images(NamedTuple):
    """The images of a run: those that its data set had at its beginning, and lines for those that it leaves out."""

    names: list[str]
    left_out: list[str]


def remembered_images(out: Path) -> Images | None:
    """The images of the run that `out` holds the beginning of; `None` if there is no such run, or it has no list."""
    if not (out / STATE_FOLDER / STATE_NAME).exists():
        return None
    try:
        with gzip.open(out / STATE_FOLDER / IMAGES_NAME, "rt", encoding="utf-8") as file:
            images = Images(**json_text.parse(file.read()))
    except (OSError, EOFError, zlib.error, ValueError, TypeError):
        return None
    are_lines = (isinstance(lines, list) and all(isinstance(line, str) for line in lines) for lines in images)
    return images if all(are_lines) else None


def remember_images(out: Path, images: Images) -> None:
    with (
        writing.replacing(out / STATE_FOLDER / IMAGES_NAME) as beside,
        gzip.open(beside, "wt", encoding="utf-8") as file,
    ):
        json.dump(images._asdict(), file)


def check_same_run(described: dict[str, dict[str, Any]], out: Path) -> None:
    """Notes what the run is, or compares it with the one that `out` holds.

    Args:
        described: its options and its plan, each a dictionary that JSON can hold.

    Raises:
        ValueError: it is another one. What `MAY_CHANGE` names does not make it another.
    """
    new = json.loads(json.dumps(described))
    folder = out / STATE_FOLDER
    file = folder / RUN_NAME
    if not (folder / STATE_NAME).exists():  # nothing has been trained yet
        with writing.replacing(file) as beside:
            beside.write_text(json.dumps(new, indent=2) + "\n", encoding="utf-8")
        return
    try:
        old = json_text.parse(file.read_text(encoding="utf-8"))
        if not isinstance(old, dict) or not all(isinstance(old.get(group, {}), dict) for group in new):
            raise ValueError(f"it must hold an object with the objects {' and '.join(new)}")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`out` {str(out)!r} has a training state whose {RUN_NAME} cannot be read ({error}). Remove {folder}, or "
            "use another directory."
        ) from None
    differing = [
        f"{name}: {_short(old.get(group, {}).get(name))} there, {_short(new[group].get(name))} now"
        for group in new
        for name in {**old.get(group, {}), **new[group]}
        if name not in MAY_CHANGE and old.get(group, {}).get(name) != new[group].get(name)
    ]
    if differing:
        raise ValueError(
            f"`out` {str(out)!r} holds another run, which differs in {'; '.join(differing)}. Use the options it was "
            "started with, use another directory, or remove that one."
        )


def remove_unfinished(out: Path) -> None:
    """Removes what a run that was killed while it wrote has left."""
    folder = out / STATE_FOLDER
    for directory in (out, folder):
        writing.remove_abandoned(directory)
    # By earlier versions; nobody else writes to the folder, which is claimed.
    for left in (*out.glob(".save_pretrained-*"), *folder.glob(".tmp*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
