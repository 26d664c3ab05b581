"""The directory of a fine-tuning run: its files, whether it is writable, and the run that it holds."""

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

from keras_bit.files import claims, json_text, old_names, writing
from keras_bit.recipes.recipe import Recipe

# In `out`: the folder with the state to continue from, and the files in it and next to it.
STATE_FOLDER, STATE_NAME, RUN_NAME = "training", "state.safetensors", "run.json"
IMAGES_NAME, READABLE_NAME = "images.json.gz", "readable.json"
LOG_NAME, MODEL_NAME, CURVES_NAME = "log.csv", "model.keras", "curves.png"
LAST_FOLDER = "last"  # the model of the last step, if the result is that of the best evaluation

COMPARED = ("options", "plan")  # parts of a run's description that must be equal to continue it
# Options that may change when a run continues. `exclude` may name another file: the plan's digests of the images show
# whether it leaves the same ones.
MAY_CHANGE = ("on_error", "calibrate", "exclude")


@contextlib.contextmanager
def writable(out: Path, *data: str, is_chief: bool = True) -> Iterator[None]:
    """Creates `out` and tests whether it is writable, before anything is computed.

    Directories that it created are removed again if they are empty at the end.

    Args:
        out: the directory of the run.
        data: where it gets its images.
        is_chief: whether this process writes the run's files. It then keeps other runs out of `out`.

    Raises:
        ValueError: `out` is in the data, where its charts would be images.
        BlockingIOError: another process is training there.
        OSError: nothing can be written there.
    """
    for folder in data:
        if Path(folder).is_dir() and out.resolve().is_relative_to(Path(folder).resolve()):
            raise ValueError(
                f"`out` must not be inside the data, where it would become a class, got {out} in {folder}. Choose "
                "another directory."
            )
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"`out` must be a directory, or a new name for one. {out} is a file.")
    with claims.claimed(out / STATE_FOLDER, argument="out", exclusive=is_chief):
        writing.check_writable(out / MODEL_NAME)  # the folder may be writable although this file is not
        yield


def check_space(model: keras.Model, recipe: Recipe, out: Path) -> None:
    """Checks the room for two states with momentum, and for the model in its files and their temporary copies."""
    size = 4 * sum(int(np.prod(variable.shape)) for variable in model.weights)
    # A state has weights and momentum, and possibly AdamW's second moment, the average and the best weights.
    copies = 2 + (recipe.optimizer == "adamw") + (recipe.ema is not None) + (recipe.keep_best is not None)
    needed, free = 2 * copies * size + (3 + (recipe.keep_best is not None)) * size, shutil.disk_usage(out).free
    held = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if needed > free + held:
        raise OSError(
            f"`out`: {out} has {free / 1e9:.2f} GB of free space, but this model needs {needed / 1e9:.2f} GB for its "
            "training state and results. Make room, or choose another directory."
        )


class Images(NamedTuple):
    """The images of a run: those of its data set at the beginning, and a line for each one left out."""

    names: list[str]
    left_out: list[str]


def remembered_images(out: Path) -> Images | None:
    """Returns the images of the unfinished run in `out`; `None` if `out` has no run, or the run has no list."""
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
    """Notes the run's description, or compares it with the run in `out`.

    Args:
        described: its options, its plan, and its recipe, each a dictionary that JSON can hold. The plan contains the
            recipe's choices too, and is compared; runs of earlier versions lack the recipe.

    Raises:
        ValueError: it is another run. The options in `MAY_CHANGE` are not compared.
    """
    new = json.loads(json.dumps(described))
    folder = out / STATE_FOLDER
    file = folder / RUN_NAME
    if not (folder / STATE_NAME).exists():  # nothing is trained yet
        with writing.replacing(file) as beside:
            beside.write_text(json.dumps(new, indent=2) + "\n", encoding="utf-8")
        return
    try:
        old = json_text.parse(file.read_text(encoding="utf-8"))
        if not isinstance(old, dict) or not all(isinstance(old.get(group, {}), dict) for group in COMPARED):
            raise ValueError(f"it must hold an object with the objects {' and '.join(COMPARED)}")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`out` {str(out)!r} has a training state whose {RUN_NAME} cannot be read ({error}). Remove {folder}, or "
            "use another directory."
        ) from None
    # The rest of the plan follows from these, so it is only named if they are the same.
    chosen = [one.get("options", {}) | {"recipe": one.get("plan", {}).get("recipe")} for one in (old, new)]
    differing = _differing(*chosen) or _differing(old_names.renamed(old.get("plan", {})), new["plan"])
    if differing:
        raise ValueError(
            f"`out` {str(out)!r} holds another run, which differs in {'; '.join(differing)}. Use the options it was "
            "started with, use another directory, or remove that one."
        )


def remove_unfinished(out: Path) -> None:
    """Removes the remains of a run that was killed while it wrote."""
    folder = out / STATE_FOLDER
    for directory in (out, folder):
        writing.remove_abandoned(directory)
    # From earlier versions; nobody else writes to the claimed folder.
    for left in (*out.glob(".save_pretrained-*"), *folder.glob(".tmp*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Describes each value that differs."""
    before, now = _flat(old), _flat(new)
    return [
        f"{name}: {_short(before.get(name))} there, {_short(now.get(name))} now"
        for name in {**before, **now}
        if name not in MAY_CHANGE and before.get(name) != now.get(name)
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested dictionaries under names such as `rule.total_steps`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
