"""The text of a model card: what the model is, what it was trained on, how good it is, and how to load it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import huggingface_hub  # this is fast, because the package imports its parts only when they are used
import keras

from keras_bit.checkpoints.saving import what_others_do_otherwise
from keras_bit.images.processor import BitImageProcessor
from keras_bit.network.problem_types import ONE
from keras_bit.wording import count

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")  # a name without an owner may be that of a directory
# The name of a metric on the Hub to its title for people.
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "mean_average_precision": "Mean average precision",
    "f1": "F1 over all labels",
    "mae": "Mean absolute error",
    "r_squared": "R²",
}


@dataclass(frozen=True)
class Facts:
    """The facts about a model that its weights and its configuration do not hold.

    Args:
        license: the license of the model, as the Hub spells it, such as `apache-2.0`.
        base_model: the checkpoint that the training started from.
        dataset: the data set that it was trained on: an id of the Hub, or any name.
        dataset_type: the Hub's name for the kind of a data set without an id, such as `imagefolder`.
        training: sentences about the training.
        metrics: name of a metric to its value.
        measured_on: the images of the metrics, such as `1,000 images that were not trained on`.
    """

    license: str | None = None
    base_model: str | None = None
    dataset: str | None = None
    dataset_type: str | None = None
    training: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    measured_on: str = ""


def write(
    model: keras.Model, name: str, layout: str, processor: BitImageProcessor | None, facts: Facts
) -> "huggingface_hub.ModelCard":  # in quotes: importing it takes long, and only a card needs it
    """Returns the card of a model.

    Args:
        model: the model; its `config` describes it.
        name: the repository (`owner/name`) or the directory that the code loads.
        layout: the form of the files that `save_pretrained` wrote: `"transformers"`, `"timm"` or `"npz"`.
        processor: how images become the model's input; `None` if it is not saved with the model.
        facts: further facts, such as the data set.
    """
    head = any(layer.name == "predictions" for layer in model.layers)
    several = model.config.problem_type in (None, ONE) and model.config.num_labels > 1
    classifies = head and processor is not None and several
    title = name.rstrip("/").rpartition("/")[2]
    difference = what_others_do_otherwise(model.config, layout)
    reader = layout if difference is None and layout != "npz" else None  # a library that loads it by its id
    parts = [
        f"---\n{_data(title, head, reader, facts).to_yaml()}\n---\n",
        f"# {title}\n",
        _about(model, head, processor),
        *_training(facts),
        "## How to use it\n",
        _code(
            "In Keras, with keras_bit, which is installed from a checkout (`pip install .`):",
            [*_in_keras(name, head, processor), *(_first_label("outputs[0]") if classifies else [])],
        ),
    ]
    if reader == "transformers":
        lines = _in_transformers(name, head, processor)
        shown = _first_label("outputs.logits[0]") if classifies else []
        parts.append(_code("In PyTorch, with transformers:", [*lines, *shown]))
    elif reader == "timm":
        parts.append(_code("In PyTorch, with timm:", _in_timm(name)))
    elif difference is None:
        parts.append(
            "`model.npz` names its arrays as Google's checkpoints do, so big_transfer, big_vision and timm read it.\n"
        )
    else:
        parts.append(f"Only keras_bit reads it: {difference}.\n")
    return huggingface_hub.ModelCard("\n".join(parts))


def _data(title: str, head: bool, reader: str | None, facts: Facts) -> "huggingface_hub.ModelCardData":
    """Returns the facts that the Hub reads."""
    task = "image-classification" if head else "image-feature-extraction"
    has_id = facts.dataset is not None and facts.dataset_type is None and HUB_ID.fullmatch(facts.dataset) is not None
    results = [
        huggingface_hub.EvalResult(
            task_type=task,
            dataset_type=facts.dataset_type or re.sub(r"[^\w./-]+", "-", str(facts.dataset)),
            dataset_name=str(facts.dataset),
            metric_type=metric,
            metric_name=METRIC_TITLES.get(metric),
            metric_value=value,
        )
        for metric, value in facts.metrics.items()
    ]
    return huggingface_hub.ModelCardData(
        # The Hub shows that library's code for it and counts its downloads.
        library_name=reader or "keras_bit",
        pipeline_tag=task,
        tags=["bit", "keras", *(["image-classification"] if head else [])],
        license=facts.license,
        base_model=facts.base_model if facts.base_model and REPOSITORY.fullmatch(facts.base_model) else None,
        datasets=[facts.dataset] if has_id and facts.dataset else None,
        metrics=list(facts.metrics) or None,
        model_name=title if results else None,
        eval_results=results or None,
    )


def _about(model: keras.Model, head: bool, processor: BitImageProcessor | None) -> str:
    config = model.config
    dtypes = {keras.backend.standardize_dtype(variable.dtype) for variable in model.weights}
    end = f"a head of {count(config.num_labels, 'label')}" if head else "no head (the outputs are feature maps)"
    lines = [
        f"* Architecture: BiT (Big Transfer), {len(config.depths)} stages of {', '.join(map(str, config.depths))} "
        f"blocks, {end}",
        f"* Size: {model.count_params():,} parameters in {', '.join(sorted(dtypes))}",
    ]
    if processor is not None and processor.do_center_crop:
        lines.append(f"* Input: images of {processor.crop_size['width']} x {processor.crop_size['height']} px")
    elif processor is not None and processor.do_resize and "width" in processor.size:
        lines.append(f"* Input: images of {processor.size['width']} x {processor.size['height']} px")
    return "\n".join([*lines, ""])


def _training(facts: Facts) -> list[str]:
    """Returns the parts about the training and the accuracy; none if nothing is known."""
    lines = []
    if facts.dataset is not None:
        lines.append(f"* Data set: {facts.dataset}")
    if facts.base_model is not None:
        lines.append(f"* Fine-tuned from: {facts.base_model}")
    lines += [f"* {sentence}" for sentence in facts.training]
    parts = ["## What it was trained on\n", "\n".join([*lines, ""])] if lines else []
    if facts.metrics:
        on = f" on {facts.measured_on}" if facts.measured_on else ""
        rows = [f"* {METRIC_TITLES.get(metric, metric)}: {value:.4g}{on}" for metric, value in facts.metrics.items()]
        parts += ["## How good it is\n", "\n".join([*rows, ""])]
    return parts


def _in_keras(name: str, head: bool, processor: BitImageProcessor | None) -> list[str]:
    lines = ["import keras_bit", ""]
    lines.append(f'model = keras_bit.from_pretrained("{name}"{"" if head else ", include_top=False"})')
    if processor is not None:
        lines += [
            f'processor = keras_bit.BitImageProcessor.from_pretrained("{name}")',
            'outputs = model.predict(processor("image.jpg"))',
        ]
    return lines


def _in_transformers(name: str, head: bool, processor: BitImageProcessor | None) -> list[str]:
    class_name = "BitForImageClassification" if head else "BitModel"
    if processor is None:
        return [f"from transformers import {class_name}", "", f'model = {class_name}.from_pretrained("{name}")']
    return [
        "from PIL import Image",
        f"from transformers import AutoImageProcessor, {class_name}",
        "",
        f'model = {class_name}.from_pretrained("{name}")',
        f'processor = AutoImageProcessor.from_pretrained("{name}")',
        'outputs = model(**processor(Image.open("image.jpg"), return_tensors="pt"))',
    ]


def _first_label(scores: str) -> list[str]:
    return [f"print(model.config.id2label[int({scores}.argmax())])"]


def _in_timm(name: str) -> list[str]:
    return ["import timm", "", f'model = timm.create_model("hf-hub:{name}", pretrained=True)']


def _code(introduction: str, lines: list[str]) -> str:
    return "\n".join((introduction, "", "```python", *lines, "```", ""))
