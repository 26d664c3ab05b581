"""What the learning rate of each stage is multiplied by."""

from collections.abc import Mapping, Sequence
from typing import Any


def layer_rates(stages: Sequence[str], decay: float | None) -> dict[str, float] | None:
    """By the names of the stages, from the stem on; what is not in a stage has the whole rate.

    Source: Clark et al. 2020, ELECTRA; Bao et al. 2022, BEiT.
    """
    if decay is None:
        return None
    return {stage: decay ** (len(stages) - place) for place, stage in enumerate(stages)}


def factors(variables: Sequence[Any], rates: Mapping[str, float] | None) -> list[float]:
    """What the rate of each variable is multiplied by. Its path begins with its layer's name: `stage1_block0_conv1`."""
    return [1.0 if rates is None else rates.get(variable.path.partition("_")[0], 1.0) for variable in variables]
