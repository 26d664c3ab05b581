"""Writes the card of a model, from the directory of a `keras-bit finetune` run and from what its owner adds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_bit.checkpoints import card, saving
from keras_bit.evaluation.report import REPORT
from keras_bit.files import json_text, old_names
from keras_bit.hub import names
from keras_bit.images.processor import BitImageProcessor
from keras_bit.recipes.hyperrule import HyperRule
from keras_bit.training import run_directory
from keras_bit.wording import count, some

if TYPE_CHECKING:
    import huggingface_hub

# The name of a metric in a report to its name on the Hub.
METRICS = {
    "top_1_accuracy": "accuracy",
    "mean_average_precision": "mean_average_precision",
    "micro_f1": "f1",
    "mean_absolute_error": "mae",
    "r2": "r_squared",
}
SHOWN = 10  # classes that a card lists


def model_card(
    model: keras.Model,
    name: str,
    *,
    processor: BitImageProcessor | None = None,
    layout: str = "transformers",
    run: str | Path | None = None,
    license: str | None = None,
    base_model: str | None = None,
    dataset: str | None = None,
    metrics: Mapping[str, float] | None = None,
) -> huggingface_hub.ModelCard:
    """Writes the model card (`README.md`) of a model, for `push_to_hub` and `save_pretrained`.

    The card says what the model was trained on, its size, its accuracy if that is known, and how to load it in
    keras_bit and in transformers or timm. The Hub reads the same facts from the metadata at its top.

    Args:
        model: a model that keras_bit built.
        name: where the code of the card loads the model from: `owner/name` on the Hub, or a directory.
        processor: how images become the model's input, if it is saved with the model.
        layout: `"transformers"`, `"timm"` or `"npz"`: the files that `save_pretrained` writes with this `layout`.
        run: the directory of a `keras-bit finetune` run. The card then has its data set, checkpoint, number of images,
            steps and accuracy. Only the last part of a path is shown.
        license: the license that you choose, as the Hub spells it (`"apache-2.0"`, `"mit"`). `None` names none.
        base_model: the checkpoint that the training started from. `None` takes the one of the `run`.
        dataset: the data set: an id on the Hub, or any name. `None` takes the one of the `run`.
        metrics: name of a metric, as the Hub spells it, to its value: `{"accuracy": 0.86}`. `None` takes those of the
            `run`. Metrics need a `dataset` or a `run`.

    Returns:
        The card. `str(card)` is its text, and `card.data` its metadata.

    Raises:
        TypeError: `name` or `license` is not a string.
        ValueError: `model` was not built by keras_bit, `layout` is unknown, `run` is damaged, or `metrics` come without
            a data set.
        FileNotFoundError: `run` holds no run.

    Checked against huggingface_hub 2.4 `ModelCard` and `EvalResult`.
    """
    for argument, value in (("name", name), ("license", license or "")):
        if not isinstance(value, str):
            raise TypeError(f"`{argument}` must be a string, got {type(value).__name__}: {value!r}.")
    saving.check_layout(layout)
    saving.check_processor(processor)
    saving.own_config(model)
    found: dict[str, Any] = {} if run is None else _of_run(Path(run).expanduser())
    if dataset is not None:
        found |= {"dataset": dataset, "dataset_type": None}
    if base_model is not None:
        found["base_model"] = base_model
    if metrics is not None:
        found |= {"metrics": dict(metrics), "measured_on": ""}
    if found.get("metrics") and found.get("dataset") is None:
        raise ValueError("`metrics` must come with the `dataset` that they were measured on, got none. Pass its name.")
    return card.write(model, name, layout, processor, card.Facts(license=license, **found))


def _of_run(directory: Path) -> dict[str, Any]:
    """Returns the facts in a run's directory, as arguments of `card.Facts`."""
    file = directory / run_directory.STATE_FOLDER / run_directory.RUN_NAME
    if not file.is_file():
        raise FileNotFoundError(
            f"`run` must be the directory of a `keras-bit finetune` run, got {str(directory)!r}, which has no "
            f"{run_directory.STATE_FOLDER}/{run_directory.RUN_NAME}."
        )
    read = file
    try:
        noted = json_text.parse(file.read_text(encoding="utf-8"))
        options, plan = noted["options"], old_names.renamed(noted["plan"])
        data = Path(options["data"])
        found: dict[str, Any] = {
            "dataset": data.name,
            "dataset_type": "csv" if data.suffix.lower() == ".csv" else "imagefolder",
            "base_model": _base_model(options["weights"]),
            "training": _sentences(plan),
        }
        if not (directory / REPORT).is_file():
            return found
        read = directory / REPORT
        report = old_names.renamed(json_text.parse(read.read_text(encoding="utf-8")))
        values = {metric: report.get(key) for key, metric in METRICS.items()}
        found |= {
            "metrics": {metric: float(value) for metric, value in values.items() if value is not None},
            "measured_on": f"{int(report['images']):,} images that it was not trained on",
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`run`: {read} is damaged ({type(error).__name__}: {error}). Run `keras-bit finetune` again, or leave "
            "`run` out and pass `dataset`, `base_model` and `metrics`."
        ) from None
    return found


def _base_model(weights: str) -> str:
    """Returns the name of a checkpoint for a card: an id of the Hub, or a name without its path."""
    try:
        place = names.resolve(weights, exists=os.path.exists(weights))
    except ValueError:  # a name that this version does not know
        return Path(weights).name
    if isinstance(place, names.Repository):
        return place.id
    if isinstance(place, names.Address):
        return place.file
    is_id = place is None and card.HUB_ID.fullmatch(weights) is not None
    return weights if is_id else Path(weights).name


def _sentences(plan: dict[str, Any]) -> list[str]:
    rule, classes = HyperRule(**plan["rule"]), plan["class_names"]
    listed = some(classes, SHOWN)
    recipe = "the BiT-HyperRule" + (" with changed options" if plan.get("recipe") else "")
    return [
        f"Images: {int(plan['train_images']):,} for training, {int(plan['validation_images']):,} for validation",
        f"Labels: {listed}",
        f"Training: {count(rule.total_steps, 'step')} of {count(rule.batch_size, 'image')} at {rule.crop_size} x "
        f"{rule.crop_size} px, by {recipe}",
    ]
