"""AdamW, and a schedule by step. Keras loads both by name from saved models of such recipes."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_bit.recipes.layer_rates import factors


@keras.saving.register_keras_serializable(package="keras_bit")
class PerStep(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate by step, for an optimizer that counts batches, of which a step has several.

    Args:
        schedule: a function from a step to its rate.
        batches_per_step: the number of batches per step.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, batches_per_step: int) -> None:
        self.schedule, self.batches_per_step = schedule, batches_per_step

    def __call__(self, step: Any) -> Any:
        return self.schedule(ops.floor_divide(step, self.batches_per_step))

    def get_config(self) -> dict[str, Any]:
        held = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": held, "batches_per_step": self.batches_per_step}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PerStep":
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["batches_per_step"])


@keras.saving.register_keras_serializable(package="keras_bit")
class AdamW(keras.optimizers.Adam):
    """Adam with decoupled weight decay on kernels only, and a learning rate per stage.

    `w -= rate * kernel_decay * w`, then Adam's step at `rate`. Keras' own `AdamW` can exclude variables, but loses that
    when it is saved.

    Args:
        kernel_decay: the weight decay of variables with two axes or more.
        layer_rates: name of a stage to the factor of its learning rate and its decay.
        **arguments: arguments of `keras.optimizers.Adam`.

    Checked against torch 2.13 `torch.optim.AdamW` and Keras 3.15 `AdamW`.
    """

    def __init__(
        self,
        *arguments: Any,
        kernel_decay: float = 0.0,
        layer_rates: Mapping[str, float] | None = None,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self.kernel_decay = kernel_decay
        self.layer_rates = None if layer_rates is None else dict(layer_rates)

    def build(self, variables: Sequence[Any]) -> None:
        super().build(variables)
        self._factors = factors(variables, self.layer_rates)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate = ops.cast(learning_rate, variable.dtype) * self._factors[self._get_variable_index(variable)]
        if self.kernel_decay and len(variable.shape) > 1:
            self.assign_sub(variable, variable * (rate * self.kernel_decay))
        super().update_step(gradient, variable, rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_decay": self.kernel_decay, "layer_rates": self.layer_rates}
