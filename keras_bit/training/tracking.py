"""Other programs that keep a run's figures: TensorBoard and Weights & Biases, by their own Keras callbacks."""

import contextlib
import importlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_bit.files import json_text
from keras_bit.files.writing import replacing
from keras_bit.packages import needing

TRACKERS = ("tensorboard", "wandb")
IDS_NAME = "tracking.json"  # by which a run that goes on finds its own
PROJECT = "keras_bit"


def check(names: Sequence[str]) -> None:
    """Checks that what the trackers need is installed, before anything is computed.

    Raises:
        MissingPackageError: a package is not; the message says what installs it.
    """
    modules = {"tensorboard": "tensorboard.summary", "wandb": "wandb.integration.keras"}
    for name in names:
        with needing(name, f"--track {name}"):
            # TensorFlow only warns if TensorBoard is missing, and then has no `tf.summary`, which Keras writes with.
            importlib.import_module(modules[name])


@contextlib.contextmanager
def tracked(names: Sequence[str], out: Path, described: Mapping[str, Any]) -> Iterator[list[keras.callbacks.Callback]]:
    """A context in which callbacks send what is measured to each of the trackers. A run that goes on is one run there.

    Where Weights & Biases sends it is its own to say: `WANDB_MODE=offline`, `WANDB_PROJECT`. TensorBoard's files are in
    `out/tensorboard`.

    Args:
        names: of `TRACKERS`.
        out: the directory of the run.
        described: its options and its plan, which are noted with it.

    `check` says beforehand whether their packages are installed.
    """
    opened = {"tensorboard": _tensorboard, "wandb": _wandb}
    with contextlib.ExitStack() as stack:
        callbacks = []
        for name in dict.fromkeys(names):
            callbacks.append(stack.enter_context(opened[name](out, described)))
        yield callbacks


@contextlib.contextmanager
def _tensorboard(out: Path, described: Mapping[str, Any]) -> Iterator[keras.callbacks.Callback]:
    yield keras.callbacks.TensorBoard(out / "tensorboard")


@contextlib.contextmanager
def _wandb(out: Path, described: Mapping[str, Any]) -> Iterator[keras.callbacks.Callback]:
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    identity = _identity(out, "wandb", uuid.uuid4().hex[:8])
    with wandb.init(project=PROJECT, name=out.name, id=identity, resume="allow", dir=str(out), config=dict(described)):
        yield WandbMetricsLogger()


def _identity(out: Path, tracker: str, new: str) -> str:
    """By which a tracker knows the run of `out`; the new one if it has none yet."""
    known = _identities(out)
    if tracker not in known:
        known |= {tracker: new}
        with replacing(out / IDS_NAME) as beside:
            beside.write_text(json.dumps(known) + "\n", encoding="utf-8")
    return known[tracker]


def _identities(out: Path) -> dict[str, Any]:
    try:
        found = json_text.parse((out / IDS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
