"""The options of `keras-bit finetune` for its `Recipe`, besides those of the HyperRule."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import click

from keras_bit.cli import options
from keras_bit.cli.command import Option
from keras_bit.cli.terminal import sentence

CHOICES = "Choices besides the rule"


class ClassWeights(click.ParamType):
    """Converts `balanced`, or `NAME=WEIGHT` between commas, to a dict."""

    name = "weights"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or value == "balanced":
            return value
        found = {}
        for part in value.split(","):
            name, equals, number = part.rpartition("=")
            try:
                found[name.strip()] = float(number)
            except ValueError:
                equals = ""
            if not equals:
                self.fail(f"expected balanced or NAME=WEIGHT,NAME=WEIGHT, got {value!r}.", param, ctx)
        return found


def choices(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets the given ones as one argument `choices`, a dict."""

    @functools.wraps(function)
    def collected(*arguments: Any, **given: Any) -> Any:
        chosen = {name: given.pop(name) for name in SETTINGS}
        present = {name: value for name, value in chosen.items() if value is not None}
        return function(*arguments, choices=present, **given)

    for name, settings in reversed(SETTINGS.items()):
        collected = click.option(f"--{name.replace('_', '-')}", cls=Option, group=CHOICES, **settings)(collected)
    return collected


def check(chosen: Mapping[str, Any]) -> None:
    """Refuses values that no recipe takes, before anything is loaded.

    Raises:
        click.UsageError: a value is wrong, or two contradict each other.
    """
    from keras_bit.recipes.hyperrule import HyperRule
    from keras_bit.recipes.recipe import Recipe

    try:
        rule = HyperRule(
            1,
            chosen["image_size"] or 1,
            batch_size=chosen["batch_size"],
            base_learning_rate=chosen["base_learning_rate"],
            scaling=chosen["scaling"],
            steps=chosen["steps"],
        )
        Recipe(rule, freeze_up_to=chosen["freeze_up_to"], **chosen["choices"])
    except ValueError as error:
        context = click.get_current_context()
        raise click.UsageError(sentence(error, context.command), context) from None


SETTINGS: dict[str, dict[str, Any]] = {
    "optimizer": {
        "type": click.Choice(["sgd", "adamw"]),
        "help": "sgd with the schedule of the rule, or adamw with a cosine schedule.",
    },
    "learning_rate": {
        "type": options.ABOVE_ZERO,
        "metavar": "R",
        "show_default": "0.0001",
        "help": "Highest learning rate for adamw.",
    },
    "weight_decay": {
        "type": options.Finite(min=0),
        "metavar": "W",
        "show_default": "0.05",
        "help": "Weight decay of kernels for adamw.",
    },
    "layer_decay": {
        "type": options.ABOVE_ZERO,
        "metavar": "D",
        "help": "Learning rate of each stage, as a share of the rate of the next stage, such as 0.75.",
    },
    "class_weight": {
        "type": ClassWeights(),
        "metavar": "balanced or CLASS=W,...",
        "help": "Weight of each class in the loss.",
    },
    "sampling": {"type": click.Choice(["balanced"]), "help": "Show every class equally often."},
    "label_smoothing": {
        "type": options.SHARE,
        "metavar": "S",
        "help": "Share of each label that is spread evenly over all classes.",
    },
    "ema": {
        "type": options.ABOVE_ZERO,
        "metavar": "M",
        "help": "Average the weights over the steps with this momentum, such as 0.999; the averages are the result.",
    },
    "augment": {
        "type": options.Names(),
        "metavar": "A,B,...",
        "help": "Layers of Keras that change images in addition to crop and flip: rand_augment, cut_mix, "
        "random_erasing.",
    },
    "early_stopping": {
        "type": options.POSITIVE,
        "metavar": "N",
        "help": "End after N evaluations that did not improve the metric of --keep-best, or val_loss.",
    },
    "keep_best": {
        "metavar": "METRIC",
        "help": "Keep the best model by this metric (val_loss ...); the last one is in DIR/last.",
    },
    "lora": {
        "type": options.POSITIVE,
        "metavar": "RANK",
        "help": "Train every convolution by LoRA of this rank, which is merged into the weights at the end.",
    },
    "temperature": {
        "type": options.ABOVE_ZERO,
        "metavar": "T",
        "show_default": "1",
        "help": "Divide the logits of --teacher and of the model by T; above 1, improbable classes count more.",
    },
}
