"""Early stopping, and the best weights, by the metrics of the evaluations."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_bit.recipes.recipe import VALIDATION, Recipe

LOW = ("loss", "error")  # metrics with these words in their names are best when low; others when high


class Watch(keras.callbacks.Callback):
    """Keeps the best weights, and ends training after evaluations without improvement.

    It comes before `SwapEMAWeights` among the callbacks, so that the model has averaged weights at the end of an
    evaluation.

    Args:
        metric: its name in the history, such as `"val_loss"`.
        patience: evaluations in a row without a better value; `None` never ends training.
        keeps: whether to keep the weights of the best evaluation.

    Attributes:
        values: the values of the metric, one per evaluation.
        best: the weights of the best evaluation in the model's order, if they are kept.
        last: the weights of the last step, in the same order, once the model has the best ones.
    """

    def __init__(self, metric: str, patience: int | None, keeps: bool) -> None:
        super().__init__()
        self.metric, self.patience, self.keeps = metric, patience, keeps
        self.values: list[float] = []
        self.best: list[np.ndarray] | None = None
        self.last: list[np.ndarray] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the last `patience` evaluations brought no improvement."""
        if self.patience is None or not self.values:
            return False
        return len(self.values) - 1 - best_place(self.values, self.metric) >= self.patience

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self.values.append(float((logs or {})[self.metric.removeprefix(VALIDATION)]))
        if self.keeps and best_place(self.values, self.metric) == len(self.values) - 1:
            self.best = weights_of(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.is_over:
            self.model.stop_training = True

    def resume(self, values: Sequence[float], best: list[np.ndarray] | None) -> None:
        """Restores the values and weights of an earlier run."""
        self.values, self.best = list(values), best


def watch_of(recipe: Recipe) -> Watch | None:
    """Returns the watch for a recipe's `early_stopping` and `keep_best`."""
    if recipe.watched is None:
        return None
    return Watch(recipe.watched, recipe.early_stopping, recipe.keep_best is not None)


def best_place(values: Sequence[float], metric: str) -> int:
    """Returns the place of the best value; the first one among equals."""
    sign = 1 if any(word in metric for word in LOW) else -1
    return int(np.argmin(sign * np.asarray(values)))


def give_result(model: keras.Model, watch: Watch | None) -> None:
    """Gives a model the final weights of its training: the averaged ones, or the best."""
    # Keras does this at the end of `fit`, but a run that is already complete does not call `fit`.
    model.optimizer.finalize_variable_values(model.trainable_variables)
    if watch is not None and watch.best is not None:
        watch.last = weights_of(model)
        assign(model, watch.best)


def weights_of(model: keras.Model) -> list[np.ndarray]:
    """Returns a copy of a model's weights, in its order."""
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def assign(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    """Gives a model the weights of `weights_of`."""
    for weight, value in zip(model.weights, values, strict=True):
        weight.assign(value)
