"""Prepares the arguments of `fit`: data sets with labels and weights for the loss, the loss, and the model."""

import dataclasses
from typing import Any

from keras_bit.network.model import BiTModel
from keras_bit.recipes.recipe import Recipe
from keras_bit.training import choices, distribution, feeding
from keras_bit.training.adapting import adapt
from keras_bit.training.objective import NUMBER, Objective, in_units, objective, with_labels
from keras_bit.training.units import units_for
from keras_bit.training.weighting import class_weights, weighted
from keras_bit.wording import some


def prepared(
    model: BiTModel, recipe: Recipe, train: Any, validation: Any, teacher: BiTModel | None = None
) -> tuple[Any, Any, Objective]:
    """Checks that model, recipe and data sets fit together, and prepares them for `fit`.

    Args:
        model: its layers are frozen or get LoRA, as the recipe says, and its classes get the names of the images'.
        recipe: its rule is checked already.
        train, validation: the data sets that `fine_tune` gets; `validation` may be `None`.
        teacher: the model whose answers are learned, so that `train` needs no labels; `None` if labels are learned.

    Returns:
        The endless training data (with image weights if the recipe has class weights), the validation data or `None`,
        and the objective. Numbers to predict are in the units of the objective.

    Raises:
        ValueError: they do not fit together. The model does not change.
    """
    choices.check_model(recipe, model, validates=validation is not None)
    learned = feeding.without_labels(train) if teacher is not None else train
    labels = [feeding.labels_of(learned, "train")]
    if validation is not None:
        labels.append(feeding.labels_of(validation, "validation"))
    choices.check_data(recipe, train, validation)
    names = choices.class_names(model, train, validation, teacher)
    with distribution.scope_of(model):
        found = objective(model, labels, recipe.label_smoothing)
    if found.problem_type == NUMBER:
        for name, data, found_labels in zip(("train", "validation"), (learned, validation), labels, strict=False):
            _refuse_places(name, data, found_labels)
        units = units_for(model, train)
        with distribution.scope_of(model):
            found = in_units(found, units)
    config = model.config
    if names is not None:
        config = dataclasses.replace(
            config, id2label=dict(enumerate(names)), label2id={name: number for number, name in enumerate(names)}
        )
    ready = with_labels(learned, labels[0], config.num_labels, found)
    if recipe.class_weight is not None:
        counts = getattr(train, "class_counts", None)
        weights = class_weights(recipe.class_weight, config.num_labels, config.label2id or {}, counts)
        ready = weighted(ready, weights)
    if validation is not None:
        validation = with_labels(validation, labels[1], config.num_labels, found)
    with distribution.scope_of(model):
        adapt(model, recipe)
    model.config = config
    return feeding.repeated(ready), validation, found


def _refuse_places(name: str, data: Any, labels: feeding.Labels) -> None:
    """Refuses labels that are class numbers, which make no sense as numbers to predict."""
    names = getattr(data, "class_names", None)
    if not names or list(names) == list(map(str, range(len(names)))):
        return
    if labels.is_integer:
        raise ValueError(
            f"`{name}` must have labels that are numbers, for regression; got numbers of the classes "
            f"{some(map(repr, names))}. Pass `image_dataset((paths, numbers))`."
        )
