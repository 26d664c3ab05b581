"""Checks that a recipe fits the data sets, the labels and the metrics, before anything is computed."""

import warnings
from collections.abc import Sequence
from typing import Any

from keras_bit.network.config import BitConfig
from keras_bit.network.model import BiTModel
from keras_bit.network.weights import HEAD
from keras_bit.recipes.hyperrule import HyperRule
from keras_bit.recipes.recipe import CUT_MIX, EVERYTHING, VALIDATION, Recipe
from keras_bit.training.objective import NUMBER, ONE, metric_names, problem_type
from keras_bit.wording import some


def one_of(rule: HyperRule | None, recipe: Recipe | None) -> Recipe:
    """Returns the recipe, or a recipe that has only the rule.

    Raises:
        ValueError: both or neither are given, or one has another type.
    """
    if (rule is None) == (recipe is None):
        got = "none of them" if rule is None else "both"
        raise ValueError(
            f"`fine_tune` takes one of `rule` and `recipe`, got {got}. A Recipe contains its rule. Pass one of them."
        )
    if recipe is not None:
        if not isinstance(recipe, Recipe):
            raise ValueError(f"`recipe` must be a keras_bit.Recipe, got {type(recipe).__name__}.")
        return recipe
    if not isinstance(rule, HyperRule):
        raise ValueError(f"`rule` must be a keras_bit.HyperRule, got {type(rule).__name__}.")
    return Recipe(rule)


def check_temperature(recipe: Recipe, is_taught: bool) -> None:
    """Refuses a temperature without a teacher.

    Raises:
        ValueError: the recipe has a `temperature`, but the training has no teacher.
    """
    if recipe.temperature != 1 and not is_taught:
        raise ValueError(
            f"`temperature` of the recipe must be 1 without a teacher, got {recipe.temperature}. Pass `teacher`."
        )


def check_data(recipe: Recipe, train: Any, validation: Any) -> None:
    """Compares a recipe with the one of the data set, which `image_dataset` noted.

    Raises:
        ValueError: the training images were not made by this recipe.
    """
    wanted, made_by = _of_images(recipe), getattr(train, "recipe", None)
    if made_by is None:
        asked = [f"{name}={wanted[name]!r}" for name in ("augment", "sampling") if wanted[name] is not None]
        if asked:
            raise ValueError(
                f"`recipe` has {' and '.join(asked)}, which `image_dataset` applies, but `train` was not made with it. "
                "Pass the result of `image_dataset(..., training=True, recipe=recipe)` itself, without `map` or "
                "`take`; or a recipe without these choices."
            )
    else:
        made = _of_images(made_by)
        differing = [name for name in wanted if made[name] != wanted[name]]
        if differing:
            raise ValueError(
                "`train` must be made with the recipe of the training. It was made with "
                f"{', '.join(f'{name} {made[name]!r}' for name in differing)}, and `fine_tune` was given "
                f"{', '.join(f'{name} {wanted[name]!r}' for name in differing)}. Pass the same `rule` or `recipe` to "
                "both."
            )
    size, crop = getattr(validation, "image_size", None), recipe.rule.crop_size
    if size is not None and size != (crop, crop):
        warnings.warn(
            f"The images of `validation` are {size[0]}x{size[1]} px, but the recipe trains on crops of {crop}x{crop}. "
            "Make validation images of that size with `image_dataset(..., recipe=recipe)`.",
            stacklevel=3,
        )


def class_names(model: BiTModel, train: Any, validation: Any, teacher: BiTModel | None) -> list[str] | None:
    """Compares the classes of the data sets, which `image_dataset` noted, with each other and with the models.

    Returns:
        The names that the model's classes have after the training, if it has no names or others.

    Raises:
        ValueError: training and validation have other classes, or the model or the teacher has them in another order.
    """
    if problem_type(model) == NUMBER:
        return None
    names, others = _names_of(train), _names_of(validation)
    if names and others and names != others:
        raise ValueError(
            f"`validation` must have the classes of `train` in their order, {some(map(repr, names))}; got "
            f"{some(map(repr, others))}. Pass the same `class_names` to `image_dataset` for both."
        )
    names = names or others
    if not names or len(names) != model.config.num_labels:
        return None
    for argument, one in (("teacher", teacher), ("model", model)):
        theirs = None if one is None or not one.config.has_named_labels else list((one.config.id2label or {}).values())
        if theirs in (None, names):
            continue
        if argument == "teacher" or sorted(theirs or ()) == sorted(names):
            raise ValueError(
                f"`{argument}` must have the classes of the images in their order, {some(map(repr, names))}; got "
                f"{some(map(repr, theirs or ()))}. Pass the order of `{argument}` as `class_names` to `image_dataset`."
            )
        warnings.warn(
            f"The head's classes were {some(map(repr, theirs or ()))}. It is trained on the classes of the images and "
            f"gets their names, {some(map(repr, names))}.",
            stacklevel=3,
        )
    return names


def _names_of(data: Any) -> list[str] | None:
    """Returns the names of a data set's classes; `None` if they are unknown or only numbers."""
    names = list(getattr(data, "class_names", None) or ())
    return names if names and names != list(map(str, range(len(names)))) else None


def check_batches(rule: HyperRule, train: Any, accumulated: int) -> None:
    """Compares the batches that `image_dataset` made by a rule with those that the rule's learning rate is for.

    Raises:
        ValueError: a step would take more images than the rule says, or fewer.
    """
    wanted = rule.batch_size // accumulated
    if getattr(train, "recipe", None) is not None and train.batch_size != wanted:
        divided = f" / gradient_accumulation_steps {accumulated}" if accumulated > 1 else ""
        raise ValueError(
            f"`train` must have batches of {wanted} images (the rule's batch_size {rule.batch_size}{divided}), "
            f"because the learning rate is for these; got {train.batch_size}. Pass "
            f"`image_dataset(..., batch_size={wanted})`, "
            f"or a HyperRule with batch_size={train.batch_size * accumulated}."
        )


def _of_images(recipe: Recipe) -> dict[str, Any]:
    """Returns the choices of a recipe that concern the training images."""
    rule = recipe.rule
    found = {name: getattr(rule, name) for name in ("resize_size", "crop_size", "mixup_alpha")}
    return found | {"augment": recipe.augment, "sampling": recipe.sampling}


def check_model(recipe: Recipe, model: BiTModel, validates: bool) -> None:
    """Refuses choices that do not fit a model's problem type.

    Raises:
        ValueError: class weights or balanced sampling without exactly one class per image, smoothing or `cut_mix` for
            numbers, a stage that the model does not have, or a metric that is not measured.
    """
    check_stage(recipe, model.config)
    kind = problem_type(model)
    for name in ("class_weight", "sampling"):
        value = getattr(recipe, name)
        if value is not None and kind != ONE:
            raise ValueError(
                f"`{name}` must be None for {kind}, got {value!r}: an image does not have exactly one class."
            )
    if kind == NUMBER and recipe.label_smoothing:
        raise ValueError(f"`label_smoothing` must be 0 for {kind}, got {recipe.label_smoothing}.")
    if kind == NUMBER and CUT_MIX in (recipe.augment or ()):
        raise ValueError(f"`augment` must not contain {CUT_MIX!r} for {kind}, because it mixes classes.")
    if recipe.watched is None:
        return
    asked = "keep_best" if recipe.keep_best else "early_stopping"
    if not validates:
        raise ValueError(
            f"`{asked}` needs validation data, got {getattr(recipe, asked)!r} without it. Pass `validation`, or leave "
            f"`{asked}` out."
        )
    check_watched(recipe, metric_names(kind, model.config.num_labels, model.get_layer(HEAD).compute_dtype))


def check_stage(recipe: Recipe, config: BitConfig) -> None:
    """Refuses to freeze up to a stage that a network does not have.

    Raises:
        ValueError: the network has other stages.
    """
    stages = (*config.stage_names, EVERYTHING)
    if recipe.freeze_up_to not in (None, *stages):
        raise ValueError(
            f"`freeze_up_to` must be None or one of {', '.join(map(repr, stages))} for this network, got "
            f"{recipe.freeze_up_to!r}."
        )


def check_watched(recipe: Recipe, metrics: Sequence[str]) -> None:
    """Refuses a metric to watch that is not measured.

    Args:
        metrics: the metrics' names, without the loss.

    Raises:
        ValueError: the recipe watches another metric.
    """
    measured = [f"{VALIDATION}loss", *(f"{VALIDATION}{name}" for name in metrics)]
    if recipe.watched not in (None, *measured):
        raise ValueError(f"`keep_best` must be one of {', '.join(map(repr, measured))}, got {recipe.watched!r}.")
