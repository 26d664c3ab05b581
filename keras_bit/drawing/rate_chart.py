"""The chart of a learning-rate range test. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path

from keras_bit.drawing.charts import needs_matplotlib, new_figure, save
from keras_bit.drawing.colors import BLUE, GRAY, ORANGE


@needs_matplotlib
def rate_chart(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggested: float, file: str | Path
) -> None:
    """Draws the loss over the learning rate, raw and smoothed, and the suggested rate.

    Args:
        rates, losses, smoothed: the learning rate, the loss and the smoothed loss of each step; rates rise.
        suggested: a rate.
        file: the PNG file, which is replaced.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(6.4, 4.4)
    axis = figure.subplots()
    axis.plot(rates, losses, color=GRAY, linewidth=0.8, label="loss")
    axis.plot(rates, smoothed, color=BLUE, label="smoothed")
    axis.axvline(suggested, color=ORANGE, linestyle="--", label=f"suggested: {suggested:.2g}")
    lowest, highest = min(smoothed), max(smoothed[0], min(smoothed))
    axis.set_ylim(lowest - 0.1 * (highest - lowest + 0.1), highest + 0.5 * (highest - lowest + 0.1))
    axis.set_xscale("log")
    axis.set(xlabel="learning rate", ylabel="loss")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    save(figure, file)
