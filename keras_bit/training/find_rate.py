"""The learning-rate range test: finds the rates at which the loss falls. The trained model is discarded."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from keras_bit.recipes.optimizers import PerStep, optimizer
from keras_bit.training import distilling, teaching
from keras_bit.training.distribution import Workers
from keras_bit.training.planning import Plan
from keras_bit.training.preparing import prepared
from keras_bit.training.run import Say, new_model, precision, training_data

# fastai's `lr_find` (2.7): the rates, the number of steps, the smoothing, and when to stop.
LOWEST, HIGHEST, STEPS = 1e-7, 10.0, 100
MOMENTUM = 0.98  # of the average of losses
TOO_FAR = 4  # times the lowest smoothed loss
LAST = 5  # steps to leave out at the end; a tenth is left out at the beginning


class FoundRate(NamedTuple):
    """The result of a range test, with a number for each step.

    Args:
        rates: the rising learning rates.
        losses: the loss of each step.
        smoothed: their running average.
        lowest: the rate at which the smoothed loss is lowest.
        steepest: the rate at which it falls fastest.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    lowest: float
    steepest: float

    @property
    def suggested(self) -> float:
        """The suggested rate: a tenth of the rate of the lowest loss, because the loss still falls there."""
        return self.lowest / 10


def find_rate(plan: Plan, say: Say, steps: int = STEPS) -> FoundRate:
    """Trains a new model for some steps while the rate rises from 1e-7 to 10, with the plan's optimizer and data.

    It ends early if the smoothed loss becomes four times its lowest value, or NaN.

    Sources: Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3; fastai's `lr_find`, whose
    rates, smoothing and rule (`minimum`, a tenth of the rate of the lowest loss) these are.

    Args:
        plan: the plan of a run.
        say: receives notes about the checkpoint.
        steps: the largest number of steps.

    Raises:
        ValueError: the loss was NaN from the beginning.
    """
    keras.utils.set_random_seed(plan.options.seed)
    with precision(plan.options):
        model = new_model(plan, say)
        teacher = teaching.load(plan.options.teacher, plan.options.hub)
    recipe = dataclasses.replace(plan.recipe, early_stopping=None, keep_best=None)  # which need validation data
    rising: Any = keras.optimizers.schedules.ExponentialDecay(LOWEST, 1, (HIGHEST / LOWEST) ** (1 / (steps - 1)))
    if plan.accumulation > 1:
        rising = PerStep(rising, plan.accumulation)
    measure = _Measure(steps)
    with distilling.gives_logits(model) if teacher is not None else contextlib.nullcontext():
        data = training_data(plan, 0, Workers())
        train, _, found = prepared(model, recipe, data, None, teacher)
        fitted = model if teacher is None else distilling.student_of(model, teacher, recipe.temperature)
        fitted.compile(optimizer(plan.recipe, model.config.stage_names, plan.accumulation, rising), loss=found.loss)
        with contextlib.nullcontext() if found.units is None else found.units.inside(model):
            # One Keras epoch per step, so that its loss is the loss of this step only.
            fitted.fit(
                train, shuffle=False, epochs=steps, steps_per_epoch=plan.accumulation, callbacks=[measure], verbose=0
            )
    return judged(measure.losses, steps)


def judged(losses: Sequence[float], steps: int) -> FoundRate:
    """Evaluates the losses of the first steps of a test."""
    losses = [loss for loss in losses if math.isfinite(loss)]
    if len(losses) < 2:
        raise ValueError("The loss was NaN from the first steps on. Check the images and the labels.")
    rates = np.geomspace(LOWEST, HIGHEST, steps)[: len(losses)]
    smoothed = smooth(losses)
    inner = slice(len(losses) // 10, max(len(losses) - LAST, len(losses) // 10 + 2))
    falls = np.gradient(smoothed[inner], np.log(rates[inner]))
    return FoundRate(
        tuple(map(float, rates)),
        tuple(losses),
        tuple(map(float, smoothed)),
        float(rates[inner][np.argmin(smoothed[inner])]),
        float(rates[inner][np.argmin(falls)]),
    )


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Returns the running average, in which the latest values count most; float64 `(steps,)`."""
    average, smoothed = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = MOMENTUM * average + (1 - MOMENTUM) * loss
        smoothed.append(average / (1 - MOMENTUM**count))
    return np.array(smoothed)


class _Measure(keras.callbacks.Callback):
    """Notes the loss of each step, and stops when it is too high."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.bar = tqdm(total=steps, desc="find the rate", unit="step")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.losses.append(float((logs or {})["loss"]))
        self.bar.update()
        is_over = not math.isfinite(self.losses[-1])
        if not is_over:
            smoothed = smooth(self.losses)
            is_over = smoothed[-1] > TOO_FAR * smoothed.min()
        if is_over:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.bar.close()
