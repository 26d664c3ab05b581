"""Compares Keras' numbers with the reference's, stage by stage."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from rich.table import Table
from rich.text import Text

from keras_bit.network.model import BiTModel, stage_outputs

LIMIT = 1e-4  # relative to the output's largest magnitude; float32 itself drifts by about 1e-5 through 50 layers


@dataclasses.dataclass(frozen=True)
class Row:
    """The comparison of one output, for the batch in which it differs most."""

    name: str
    shape: tuple[int, ...]
    absolute: float
    relative: float

    @property
    def passed(self) -> bool:
        return self.relative <= LIMIT


def outputs(model: BiTModel, batches: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Returns the outputs of `model` (`classifier_activation=None`) for every batch, under the reference's names."""
    named = {"embedding" if stage == "stem" else stage: tensor for stage, tensor in stage_outputs(model).items()}
    named["pooled"] = model.get_layer("avg_pool").output
    named["logits"] = model.output
    probe = keras.Model(model.input, named)
    return [
        {name: keras.ops.convert_to_numpy(values) for name, values in probe(batch, training=False).items()}
        for batch in batches
    ]


def compare(ours: Sequence[dict[str, np.ndarray]], theirs: Sequence[dict[str, np.ndarray]]) -> list[Row]:
    """Returns a row for every output.

    Raises:
        ValueError: the two sides do not hold the same outputs in the same shapes.
    """
    rows: dict[str, Row] = {}
    for found, expected in zip(ours, theirs, strict=True):
        if list(found) != list(expected):
            raise ValueError(f"The reference holds the outputs {list(expected)}, the model {list(found)}.")
        for name, values in expected.items():
            if found[name].shape != values.shape:
                raise ValueError(f"{name} has shape {found[name].shape}, in the reference {values.shape}.")
            row = _row(name, found[name], values)
            if name not in rows or row.relative > rows[name].relative:
                rows[name] = row
    return list(rows.values())


def _row(name: str, found: np.ndarray, expected: np.ndarray) -> Row:
    absolute = float(np.abs(found.astype(np.float64) - expected).max())
    if not np.isfinite(absolute):  # NaN: every comparison with it is false, and it must not pass
        return Row(name, expected.shape, np.inf, np.inf)
    magnitude = float(np.abs(expected).max())
    return Row(name, expected.shape, absolute, absolute / max(magnitude, np.finfo(np.float32).tiny))


def table(rows: Sequence[Row], title: str) -> Table:
    made = Table(title=title, title_justify="left")
    made.add_column("output")
    made.add_column("shape")
    for heading in ("largest difference", "relative", "limit"):
        made.add_column(heading, justify="right")
    made.add_column("verdict")
    for row in rows:
        made.add_row(
            row.name,
            "x".join(map(str, row.shape)),
            f"{row.absolute:.2e}",
            f"{row.relative:.2e}",
            f"{LIMIT:.0e}",
            "equal" if row.passed else Text("DIFFERS", style="bold red"),
        )
    return made
