"""Numbers to be predicted, in standard deviations: training is then alike for ages, prices and shares.

A step of the gradient is as large as the errors are. Errors in thousands would throw a network off, and errors in
thousandths would teach it nothing.
"""

import dataclasses

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Units:
    """What training counts each number in.

    Args:
        mean, deviation: float64 `(outputs,)`, of the training images; deviations are above 0.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers `(count,)` or `(count, outputs)` in these units, float32 of the same shape."""
        rows = (numbers.reshape(len(numbers), -1) - self.mean) / self.deviation
        return rows.reshape(numbers.shape).astype(np.float32)

    def enter(self, model: keras.Model) -> None:
        """Makes the head of a model that predicts numbers predict them in these units."""
        self._scale(model, 1 / self.deviation, -self.mean / self.deviation)

    def leave(self, model: keras.Model) -> None:
        """Makes the head of a model that predicts in these units predict the numbers themselves."""
        self._scale(model, self.deviation, self.mean)

    def about(self, names: tuple[str, ...]) -> str:
        """What a person who reads the log should know."""
        said = ", ".join(
            f"{name} {deviation:.4g} around {mean:.4g}"
            for name, deviation, mean in zip(names[:3], self.deviation, self.mean, strict=False)
        )
        return (
            f"Training counts each number in its standard deviations ({said}{' ...' * (len(names) > 3)}), and so do "
            "the losses and errors of the log. The model and report.json have the numbers themselves."
        )

    @staticmethod
    def _scale(model: keras.Model, factor: np.ndarray, added: np.ndarray) -> None:
        head = model.get_layer("predictions")
        kernel, bias = (keras.ops.convert_to_numpy(weight).astype(np.float64) for weight in (head.kernel, head.bias))
        head.kernel.assign(kernel * factor)
        head.bias.assign(bias * factor + added)


def units_of(numbers: np.ndarray) -> Units:
    """The units for training labels, `(count,)` or `(count, outputs)`."""
    rows = numbers.reshape(len(numbers), -1).astype(np.float64)
    return Units(rows.mean(axis=0), rows.std(axis=0))
