"""Compares the outputs of an export with those of the model."""

from collections.abc import Mapping

import keras
import numpy as np

from keras_bit.exporters.job import OUTPUT, Checks, Outputs, Run


def outputs(model: keras.Model, batch: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the model's outputs by name, in float32.

    Raises:
        ValueError: it gives NaN or infinity.
    """
    given = model(batch, training=False)
    named = given if isinstance(given, Mapping) else {OUTPUT: given}
    arrays = {name: keras.ops.convert_to_numpy(keras.ops.cast(values, "float32")) for name, values in named.items()}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(
                f"`model` gives NaN or infinity for `{name}`: an export could not be compared. Check its weights."
            )
    return arrays


def compare(run: Run, checks: Checks, share: float, what: str) -> tuple[float, float]:
    """Returns the largest difference and its limit.

    Raises:
        ArithmeticError: a difference is above `share` of the largest output.
    """
    found = [
        compare_outputs(run(batch), expected, share, what)
        for batch, expected in zip(checks.batches, checks.expected, strict=True)
    ]
    return max(found, default=(0.0, 0.0))


def compare_outputs(outputs: Outputs, expected: Outputs, share: float, what: str) -> tuple[float, float]:
    """Compares the outputs of one batch; returns the largest difference and its limit."""
    largest, limit = 0.0, 0.0
    if outputs.keys() != expected.keys():
        raise ArithmeticError(
            f"The export ({what}) has the outputs {sorted(outputs)}, expected {sorted(expected)}. Nothing was kept."
        )
    for name, values in expected.items():
        found = np.asarray(outputs[name], np.float64)
        if found.shape != values.shape or not np.isfinite(found).all():
            raise ArithmeticError(
                f"The export ({what}) gives {_described(found)} for `{name}`, but the model gives "
                f"{_described(values)}. Nothing was kept."
            )
        allowed = share * float(np.abs(values).max(initial=0.0))
        difference = float(np.abs(found - values).max(initial=0.0))
        if difference > allowed:
            raise ArithmeticError(
                f"The export ({what}) differs from the model by {difference:.2e} in `{name}`, more than the "
                f"{allowed:.2e} allowed ({share:.0e} of the largest output). Nothing was kept."
            )
        if difference >= largest:
            largest, limit = difference, allowed
    return largest, limit


def _described(values: np.ndarray) -> str:
    infinite = int(values.size - np.isfinite(values).sum())
    return f"{values.shape}" + (f" with {infinite} NaN or infinite values" if infinite else "")
