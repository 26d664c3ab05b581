"""Builds a recipe's optimizer and learning rate."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_bit.recipes.adamw import AdamW, PerStep
from keras_bit.recipes.hyperrule import MOMENTUM, HyperRuleSchedule, MomentumSGD
from keras_bit.recipes.layer_rates import layer_rates
from keras_bit.recipes.recipe import LEARNING_RATE, WEIGHT_DECAY, Recipe

EPSILON = 1e-8  # torch's AdamW; Keras has 1e-7


def highest_rate(recipe: Recipe) -> float:
    """Returns the learning rate after the warm-up."""
    if recipe.optimizer == "sgd":
        return recipe.rule.learning_rate
    return LEARNING_RATE if recipe.learning_rate is None else recipe.learning_rate


def schedule(recipe: Recipe, batches_per_step: int = 1) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate by batch; a step may have several batches."""
    rule, rate = recipe.rule, highest_rate(recipe)
    if recipe.optimizer == "sgd":
        return HyperRuleSchedule(rate, rule.boundaries, batches_per_step)
    falling = max(rule.total_steps - rule.warmup_steps, 1)
    if rule.warmup_steps:
        cosine = keras.optimizers.schedules.CosineDecay(
            0.0, falling, warmup_target=rate, warmup_steps=rule.warmup_steps
        )
    else:
        cosine = keras.optimizers.schedules.CosineDecay(rate, falling)
    return cosine if batches_per_step == 1 else PerStep(cosine, batches_per_step)


def optimizer(
    recipe: Recipe,
    stages: Sequence[str],
    batches_per_step: int = 1,
    rate: keras.optimizers.schedules.LearningRateSchedule | None = None,
) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a recipe.

    Args:
        recipe: the recipe, which has the kind, the learning rate, the decays, and the momentum of the averaged weights.
        stages: the names of the model's stages, from the stem on.
        batches_per_step: batches whose gradients are averaged for a step.
        rate: the learning rate by batch; `None` is the recipe's.
    """
    shared: dict[str, Any] = {"layer_rates": layer_rates(stages, recipe.layer_decay)}
    if batches_per_step > 1:
        shared["gradient_accumulation_steps"] = batches_per_step
    if recipe.ema is not None:
        # Keras averages after each batch, but a step has several. The root of the momentum gives the same result.
        shared |= {"use_ema": True, "ema_momentum": recipe.ema ** (1 / batches_per_step)}
    rate = rate or schedule(recipe, batches_per_step)
    if recipe.optimizer == "adamw":
        decay = WEIGHT_DECAY if recipe.weight_decay is None else recipe.weight_decay
        return AdamW(rate, kernel_decay=decay, epsilon=EPSILON, **shared)
    return MomentumSGD(rate, momentum=MOMENTUM, **shared)
