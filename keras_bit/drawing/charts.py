"""Charts as PNG files: training curves, confusion matrix, calibration. Needs matplotlib, which draws them.

Figures are made as objects, not through pyplot: no window, no global state, nothing to close.
"""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit.drawing.lettering import ELLIPSIS, one_line
from keras_bit.files import replacing

INSTALL = "pip install 'keras_bit[plots]'"
DPI = 120
BLUE, ORANGE, GREY = "#1f5fa8", "#d9730d", "#8a8a8a"
LONGEST_NAME = 28  # characters of a class name on an axis
NUMBERED_CLASSES = 60  # of more, cells have no room for their numbers
CELL = 0.34  # inches, with its number
MOST_CELLS = 1000  # on a side of a matrix: about the pixels of ten inches
SHADES = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1)


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def curves(rows: Sequence[Mapping[str, Any]], file: str | Path) -> None:
    """Loss and accuracy over the steps of a training, and the learning rate below them.

    Args:
        rows: what was logged, in order: `step` and any of `loss`, `val_loss`, `accuracy`, `val_accuracy` and
            `learning_rate`. A number that is missing, `None` or not finite is left out of its curve; a curve without
            numbers is left out, and so is a panel without curves.
        file: the PNG file, which is replaced.

    Raises:
        ValueError: no row has a `step` and a number.
        ImportError: matplotlib is not installed.
    """
    panels = [
        (title, lines)
        for title, names in (
            ("loss", {"loss": "training", "val_loss": "validation"}),
            ("accuracy", {"accuracy": "training", "val_accuracy": "validation"}),
            ("learning rate", {"learning_rate": "learning rate"}),
        )
        if (lines := {name: points for key, name in names.items() if (points := _points(rows, key))})
    ]
    if not panels:
        raise ValueError(f"`rows` must have a `step` and numbers such as `loss`, got {len(rows)} rows without any.")
    # The learning rate is looked at for its shape: it gets the least room.
    heights = [1.2 if title == "learning rate" else 3 for title, _ in panels]
    figure = _figure(8, 0.9 * sum(heights) + 0.6)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, lines) in zip(axes, panels, strict=True):
        for name, points in lines.items():
            steps, values = zip(*points, strict=True)
            validation = name == "validation"
            # A curve of a few points is drawn with its points: a single one would not be seen as a line.
            axis.plot(
                steps,
                values,
                color=GREY if title == "learning rate" else ORANGE if validation else BLUE,
                marker="o" if validation or len(points) == 1 else None,
                markersize=3.5,
                linewidth=1.4,
                label=name,
            )
        axis.set_ylabel(title)
        axis.grid(alpha=0.25)
        if title != "learning rate":
            axis.legend(frameon=False)
        if title == "accuracy":
            axis.yaxis.set_major_formatter(_percent())
    axes[-1].set_xlabel("step")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    steps = {step for _, lines in panels for points in lines.values() for step, _ in points}
    if len(steps) == 1:
        axes[-1].set_xticks(list(steps))
    _save(figure, file)


def confusion(
    matrix: np.ndarray, class_names: Sequence[str], file: str | Path, *, column_names: Sequence[str] | None = None
) -> None:
    """A confusion matrix in shades, each row as shares of its class; numbers of examples where they have room.

    Args:
        matrix: whole numbers `(rows, columns)`, a row per true class, a column per predicted one.
        class_names: a name for each row.
        file: the PNG file, which is replaced.
        column_names: a name for each column, `class_names` by default.

    Raises:
        ValueError: there are not as many names as rows or columns, or none.
        ImportError: matplotlib is not installed.
    """
    matrix = np.asarray(matrix)
    column_names = class_names if column_names is None else column_names
    if matrix.shape != (len(class_names), len(column_names)) or not matrix.size:
        raise ValueError(
            "`matrix` must have a row for each of `class_names` and a column for each of `column_names`, got shape "
            f"{matrix.shape} for {len(class_names)} and {len(column_names)} names."
        )
    totals = matrix.sum(axis=1, keepdims=True)
    # A class without examples has no shares; NaN leaves its row gray.
    shares = np.where(totals > 0, matrix / np.maximum(totals, 1), np.nan)
    rows, columns = matrix.shape
    numbered = max(rows, columns) <= NUMBERED_CLASSES
    side = max(CELL * max(rows, columns), 4.0) if numbered else 10.0
    figure = _figure(side + 3, side + 2)
    axis = figure.subplots()
    image = axis.imshow(
        _pooled(shares, MOST_CELLS),
        # Most mistakes are a few percent of a class: in even shades they would all look white.
        norm=_power_norm(0.5),
        cmap=_colors("Blues").with_extremes(bad="#e4e4e4"),
        interpolation="nearest",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
    )
    bar = figure.colorbar(image, ax=axis, fraction=0.046, pad=0.03, format=_percent(), ticks=SHADES)
    bar.set_label("of the true class", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    axis.set_xlabel("predicted", fontsize=9)
    axis.set_ylabel("true", fontsize=9)
    size = 8 if numbered else 6  # points
    for ticks, names in ((axis.xaxis, column_names), (axis.yaxis, class_names)):
        shown = range(0, len(names), math.ceil(len(names) * 1.2 * size / (72 * side)))
        ticks.set_ticks(list(shown))
        ticks.set_ticklabels([_short(names[index]) for index in shown], parse_math=False, fontsize=size)
        ticks.set_tick_params(length=2)
    widest = max(len(_short(name)) for name in column_names)
    axis.tick_params("x", rotation=0 if widest * 0.6 * size * columns < 72 * side else 90)
    if numbered:
        digits = len(str(matrix.max()))
        size = min(8.0, 72 * side / max(rows, columns) / (0.75 * max(digits, 2)))  # a digit is 0.6 of its size wide
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if shares[row, column] > 0.35 else "#222222"
                axis.text(column, row, f"{count}", ha="center", va="center", fontsize=size, color=color)
    _save(figure, file)


def calibration(bins: Sequence[Any], ece: float, file: str | Path) -> None:
    """The reliability diagram: how often the model is right where it is so confident, and how often it is that.

    Args:
        bins: as in `metrics.Calibration`: `lower`, `upper`, `count`, `confidence`, `accuracy`.
        ece: the expected calibration error, in [0, 1].
        file: the PNG file, which is replaced.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = _figure(5.6, 6.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    edges = [part.lower for part in bins]
    widths = [part.upper - part.lower for part in bins]
    filled = [part for part in bins if part.count]
    upper.bar(
        [part.lower for part in filled],
        [part.accuracy for part in filled],
        [part.upper - part.lower for part in filled],
        align="edge",
        color=BLUE,
        edgecolor="white",
        linewidth=0.8,
        label="right, of the answers in the bin",
    )
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="calibrated: as often as it says")
    upper.plot(
        [part.confidence for part in filled],
        [part.accuracy for part in filled],
        color=ORANGE,
        marker="o",
        markersize=4,
        linewidth=0,
        clip_on=False,
        label="mean confidence of the bin",
    )
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.set_title(f"Expected calibration error {100 * ece:.1f} %", fontsize=11, loc="left")
    upper.legend(loc="upper left", fontsize=8, framealpha=0.9, edgecolor="none")
    total = sum(part.count for part in bins)
    lower.bar(
        edges,
        [part.count / max(total, 1) for part in bins],
        widths,
        align="edge",
        color=GREY,
        edgecolor="white",
        linewidth=0.8,
    )
    lower.set(xlabel="confidence", ylabel=f"share of {total:,}")
    for axis in (upper, lower):
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.yaxis.set_major_formatter(_percent())
    lower.xaxis.set_major_formatter(_percent())
    _save(figure, file)


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    found = [(row["step"], row[key]) for row in rows if row.get("step") is not None and row.get(key) is not None]
    return [(step, value) for step, value in found if math.isfinite(value)]


def _figure(width: float, height: float) -> Any:
    """Width and height in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"Charts are drawn by matplotlib, which is not installed: {INSTALL}") from error
    return Figure((width, height), dpi=DPI, layout="constrained")


def _pooled(shares: np.ndarray, most: int) -> np.ndarray:
    """At most `most` cells on a side, each the largest of a block: a matrix drawn smaller would lose whole classes."""
    for axis, size in enumerate(shares.shape):
        if size > most:
            shares = np.fmax.reduceat(shares, np.arange(0, size, math.ceil(size / most)), axis=axis)
    return shares


def _power_norm(gamma: float) -> Any:
    from matplotlib.colors import PowerNorm

    return PowerNorm(gamma, vmin=0, vmax=1)


def _colors(name: str) -> Any:
    from matplotlib import colormaps

    return colormaps[name]


def _percent() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1, symbol=" %", decimals=None)


def _short(name: str) -> str:
    """`name` as one line that an axis has room for; characters that matplotlib's font lacks are escaped."""
    name = _drawable(one_line(name))
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1].rstrip() + ELLIPSIS


def _drawable(text: str) -> str:
    """A box for every such character would make all names of, say, emoji look alike."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    # In the place of a list of families a name would be taken for a pattern.
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in FontProperties().get_family()]
    return "".join(
        character
        if any(font.get_char_index(ord(character)) for font in fonts)
        else character.encode("unicode_escape").decode()
        for character in text
    )


def _save(figure: Any, file: str | Path) -> None:
    with replacing(file) as beside:
        figure.savefig(beside, format="png", bbox_inches="tight", pad_inches=0.15)
