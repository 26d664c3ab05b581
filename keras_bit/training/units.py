"""Converts numbers to predict to standard deviations, so that training works the same for ages, prices and shares.

The size of a gradient step grows with the errors. Errors in thousands would make training diverge, and errors in
thousandths would teach nothing.
"""

import dataclasses

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Units:
    """The unit of each number in training.

    Args:
        mean, deviation: float64 `(outputs,)`, of the training images; deviations are above 0.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Converts numbers `(count,)` or `(count, outputs)` to these units, as float32."""
        rows = (numbers.reshape(len(numbers), -1) - self.mean) / self.deviation
        return rows.reshape(numbers.shape).astype(np.float32)

    def enter(self, model: keras.Model) -> None:
        """Changes the head of a model so that it predicts in these units."""
        self._scale(model, 1 / self.deviation, -self.mean / self.deviation)

    def leave(self, model: keras.Model) -> None:
        """Changes the head back, so that it predicts the numbers themselves."""
        self._scale(model, self.deviation, self.mean)

    def about(self, names: tuple[str, ...]) -> str:
        """Explains the units to a reader of the log."""
        said = ", ".join(
            f"{name}: standard deviation {deviation:.4g}, mean {mean:.4g}"
            for name, deviation, mean in zip(names[:3], self.deviation, self.mean, strict=False)
        )
        return (
            "In training, and in the losses and errors of the log, the unit of each number is its standard deviation, "
            f"and 0 is its mean ({said}{' ...' * (len(names) > 3)}). The model and report.json use the numbers "
            f"themselves."
        )

    @staticmethod
    def _scale(model: keras.Model, factor: np.ndarray, added: np.ndarray) -> None:
        head = model.get_layer("predictions")
        kernel, bias = (keras.ops.convert_to_numpy(weight).astype(np.float64) for weight in (head.kernel, head.bias))
        head.kernel.assign(kernel * factor)
        head.bias.assign(bias * factor + added)


def units_of(numbers: np.ndarray) -> Units:
    """Returns the units for training labels, `(count,)` or `(count, outputs)`."""
    rows = numbers.reshape(len(numbers), -1).astype(np.float64)
    return Units(rows.mean(axis=0), rows.std(axis=0))
