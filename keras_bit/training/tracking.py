"""Experiment trackers: TensorBoard and Weights & Biases, with their own Keras callbacks."""

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
IDS_NAME = "tracking.json"  # the file with the trackers' ids, by which a continued run finds its entries
PROJECT = "keras_bit"


def check(names: Sequence[str]) -> None:
    """Checks that the trackers' packages are installed, before anything is computed.

    Raises:
        MissingPackageError: a package is missing; the message says how to install it.
    """
    modules = {"tensorboard": "tensorboard.summary", "wandb": "wandb.integration.keras"}
    for name in names:
        with needing(name, f"--track {name}"):
            # If TensorBoard is missing, TensorFlow only warns, but then it has no `tf.summary`, which Keras needs.
            importlib.import_module(modules[name])


@contextlib.contextmanager
def tracked(names: Sequence[str], out: Path, described: Mapping[str, Any]) -> Iterator[list[keras.callbacks.Callback]]:
    """A context whose callbacks send the metrics to each tracker. A continued run stays one run there.

    Weights & Biases has its own settings for the destination: `WANDB_MODE=offline`, `WANDB_PROJECT`. TensorBoard's
    files are in `out/tensorboard`.

    Args:
        names: keys of `TRACKERS`.
        out: the directory of the run.
        described: its options and its plan, which the trackers note.

    Call `check` first.
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
    """Returns the tracker's id of the run in `out`; a new one if it has none yet."""
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
