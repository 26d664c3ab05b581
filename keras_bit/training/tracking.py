"""Experiment trackers: TensorBoard, Weights & Biases and MLflow, with their own Keras callbacks."""

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

TRACKERS = ("tensorboard", "wandb", "mlflow")
IDS_NAME = "tracking.json"  # the file with the trackers' ids, by which a continued run finds its entries
PROJECT = "keras_bit"


def check(names: Sequence[str]) -> None:
    """Checks that the trackers' packages are installed, before anything is computed.

    Raises:
        MissingPackageError: a package is missing; the message says how to install it.
    """
    modules = {"tensorboard": "tensorboard.summary", "wandb": "wandb.integration.keras", "mlflow": "mlflow.keras"}
    for name in names:
        with needing(name, f"--track {name}"):
            # If TensorBoard is missing, TensorFlow only warns, but then it has no `tf.summary`, which Keras needs.
            importlib.import_module(modules[name])


@contextlib.contextmanager
def tracked(names: Sequence[str], out: Path, described: Mapping[str, Any]) -> Iterator[list[keras.callbacks.Callback]]:
    """A context whose callbacks send the metrics to each tracker. A continued run stays one run there.

    TensorBoard's files are in `out/tensorboard`. The others have their own settings for the destination:
    `WANDB_MODE=offline` and `WANDB_PROJECT`, `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME`.

    Args:
        names: keys of `TRACKERS`.
        out: the directory of the run.
        described: its options and its plan, which the trackers note.

    Call `check` first.
    """
    opened = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
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


@contextlib.contextmanager
def _mlflow(out: Path, described: Mapping[str, Any]) -> Iterator[keras.callbacks.Callback]:
    import mlflow
    from mlflow.keras import MlflowCallback

    known = _identities(out).get("mlflow")
    try:
        started = mlflow.start_run(run_id=known, run_name=None if known else out.name)
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ValueError(
            f"{out / IDS_NAME} names the MLflow run {known}, but {mlflow.get_tracking_uri()} has no such run. Set "
            "MLFLOW_TRACKING_URI as before, or delete the file to begin a new run."
        ) from None
    with started as opened:
        if known is None:
            # MLflow chooses the id, and takes each parameter once.
            _identity(out, "mlflow", opened.info.run_id)
            mlflow.log_params(flat(described))
        yield MlflowCallback()


def flat(described: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings, named as in `recipe.ema`."""
    found: dict[str, Any] = {}
    for name, value in described.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


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
