"""Converts numbers to predict to standard deviations, so that training works the same for ages, prices and shares.

The size of a gradient step grows with the errors. Errors in thousands would make training diverge, and errors in
thousandths would teach nothing.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bit.data import targets
from keras_bit.network.plain_weights import quantization_of
from keras_bit.network.weights import HEAD
from keras_bit.training import distribution, feeding
from keras_bit.wording import number

MEASURED = 1024  # labels to measure, if a data set does not note their mean and deviation


@dataclasses.dataclass(frozen=True)
class Units:
    """The unit of each number in training.

    Args:
        mean, deviation: float64 `(outputs,)`, of the training images; deviations are above 0.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def of(self, numbers: Any) -> Any:
        """Converts numbers `(count,)` or `(count, outputs)`, arrays or tensors, to float32 in these units."""
        mean, deviation = (self.mean, self.deviation) if len(numbers.shape) == 2 else (self.mean[0], self.deviation[0])
        if isinstance(numbers, np.ndarray):
            return ((numbers - mean) / deviation).astype(np.float32)
        import tensorflow as tf

        return tf.cast((tf.cast(numbers, tf.float64) - mean) / deviation, tf.float32)

    @contextlib.contextmanager
    def inside(self, model: keras.Model) -> Iterator[None]:
        """A context in which a model predicts in these units."""
        self.enter(model)
        try:
            yield
        finally:
            self.leave(model)

    def enter(self, model: keras.Model) -> None:
        """Changes the head of a model so that it predicts in these units. A new head of zeros predicts the mean."""
        if any(ops.convert_to_numpy(weight).any() for weight in model.get_layer(HEAD).weights):
            self._scale(model, 1 / self.deviation, -self.mean / self.deviation)

    def leave(self, model: keras.Model) -> None:
        """Changes the head back, so that it predicts the numbers themselves."""
        self._scale(model, self.deviation, self.mean)

    def about(self, names: tuple[str, ...]) -> str:
        """Explains the units to a reader of the log."""
        said = ", ".join(
            f"{name}: standard deviation {number(deviation)}, mean {number(mean)}"
            for name, deviation, mean in zip(names[:3], self.deviation, self.mean, strict=False)
        )
        return (
            "In training, and in the losses of the log, the unit of each number is its standard deviation, and 0 is "
            f"its mean ({said}{' ...' * (len(names) > 3)}). The errors of the log, the model and report.json use the "
            "numbers themselves."
        )

    @staticmethod
    def _scale(model: keras.Model, factor: np.ndarray, added: np.ndarray) -> None:
        head = model.get_layer(HEAD)
        kernel, bias = (ops.convert_to_numpy(weight).astype(np.float64) for weight in (head.kernel, head.bias))
        head.kernel.assign(kernel * factor)
        head.bias.assign(bias * factor + added)


@keras.saving.register_keras_serializable("keras_bit")
class UnitsMeanAbsoluteError(keras.metrics.MeanMetricWrapper):
    """The mean absolute error in the numbers' own unit, of labels and predictions in units of their deviation.

    Args:
        deviation: the deviation of each output.
    """

    def __init__(self, deviation: Sequence[float], name: str = "mean_absolute_error", dtype: Any = None) -> None:
        super().__init__(self._error, name, dtype)
        self.deviation = list(deviation)

    def get_config(self) -> dict[str, Any]:
        return {"deviation": self.deviation, "name": self.name, "dtype": self.dtype}

    def _error(self, wanted: Any, given: Any) -> Any:
        difference = ops.abs(ops.reshape(wanted, ops.shape(given)) - given)
        return ops.mean(difference * ops.convert_to_tensor(self.deviation, difference.dtype), axis=-1)


def units_of(numbers: np.ndarray) -> Units:
    """Returns the units for training labels, `(count,)` or `(count, outputs)`."""
    return Units(*targets.mean_and_deviation(numbers))


def units_for(model: keras.Model, data: Any) -> Units | None:
    """Returns the units for training a model on a data set; `None` if it is trained on the numbers as they are.

    The units are those that the data set notes, as `image_dataset` does, or those of its first labels. Several
    processes would each measure other labels, so they take only noted ones. The weights of a head with LoRA, of a
    quantized head and of one without a bias cannot be converted.
    """
    head = model.get_layer(HEAD)
    if head.bias is None or quantization_of(head) or head.lora_enabled:
        return None
    if (noted := getattr(data, "number_units", None)) is not None:
        return noted if isinstance(noted, Units) else Units(*noted)
    return None if distribution.has_several_processes(model) else units_of(feeding.first_labels(data, MEASURED))
