"""Draws predicted against true numbers as a PNG file. Needs matplotlib."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_bit.drawing.charts import DPI
from keras_bit.drawing.colors import BLUE, GRAY
from keras_bit.drawing.lettering import one_line
from keras_bit.files.writing import replacing
from keras_bit.packages import needing

COLUMNS = 3  # panels per row
PANELS = 12  # outputs at most
SIDE = 3.6  # inches


@needing("plots", "Drawing a chart")
def predictions(numbers: np.ndarray, predicted: np.ndarray, names: Sequence[str], file: str | Path) -> None:
    """Draws a panel for each of the first `PANELS` outputs: a dot for each image, and the line of right answers.

    Args:
        numbers: floats `(count, outputs)`, the right numbers.
        predicted: the predictions, of the same shape.
        names: the names of the outputs.
        file: the PNG file, which is replaced.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    count = min(len(names), PANELS)
    across = min(count, COLUMNS)
    down = math.ceil(count / across)
    figure = Figure((SIDE * across + 0.6, SIDE * down + 0.4), dpi=DPI, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.set_axis_off()
    for axis, name, true, said in zip(axes, names, numbers.T, predicted.T, strict=False):
        low, high = float(min(true.min(), said.min())), float(max(true.max(), said.max()))
        margin = 0.05 * (high - low) or 1.0
        axis.plot([low - margin, high + margin], [low - margin, high + margin], color=GRAY, linewidth=1, linestyle="--")
        axis.scatter(true, said, s=10, color=BLUE, alpha=0.6, linewidths=0)
        axis.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal")
        axis.set_title(one_line(name)[:60], fontsize=10, loc="left", parse_math=False)
        axis.set_xlabel("true", fontsize=9)
        axis.set_ylabel("predicted", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
    with replacing(file) as beside:
        figure.savefig(beside, format="png", bbox_inches="tight", pad_inches=0.15)
