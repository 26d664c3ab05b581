"""Factors of the learning rate, per stage."""

from collections.abc import Mapping, Sequence
from typing import Any


def layer_rates(stages: Sequence[str], decay: float | None) -> dict[str, float] | None:
    """Returns the factor of each stage's learning rate, by name, from the stem on; all other layers have the full rate.

    Source: Clark et al. 2020, ELECTRA; Bao et al. 2022, BEiT.
    """
    if decay is None:
        return None
    return {stage: decay ** (len(stages) - place) for place, stage in enumerate(stages)}


def factors(variables: Sequence[Any], rates: Mapping[str, float] | None) -> list[float]:
    """Returns the factor of each variable, whose path begins with its layer's name: `stage1_block0_conv1`."""
    return [1.0 if rates is None else rates.get(variable.path.partition("_")[0], 1.0) for variable in variables]
