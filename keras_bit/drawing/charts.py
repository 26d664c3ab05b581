"""Charts as PNG files: training curves, confusion matrix, calibration, few-shot probes. Needs matplotlib.

Figures are objects, not made by pyplot, so they need no window and no global state.
"""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np

from keras_bit.drawing.colors import BLUE, GRAY, NO_SHADE, ON_DARK, ON_LIGHT, ORANGE, SHADES
from keras_bit.drawing.lettering import ELLIPSIS, one_line
from keras_bit.files.writing import replacing
from keras_bit.packages import installation, needing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter

INSTALL = installation("plots")
DPI = 120
LONGEST_NAME = 28  # characters of a class name on an axis
NUMBERED_CLASSES = 60  # rows of a matrix; with more, cells have no room for numbers
CELL = 0.34  # inches, the side of a cell with a number
MOST_CELLS = 1000  # cells on a side of a matrix, about the pixels of ten inches
TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1)
RATE = "learning rate"  # a panel and its curve

needs_matplotlib = needing("plots", "Drawing a chart")

Point = tuple[float, float]  # step and value


class Bin(Protocol):
    """The examples whose confidence is in `(lower, upper]`; a `metrics.Bin` has these fields."""

    @property
    def lower(self) -> float: ...
    @property
    def upper(self) -> float: ...
    @property
    def count(self) -> int: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def accuracy(self) -> float | None: ...


class Bar(NamedTuple):
    """A row of `bars`: its name, its values with their colors, and the place of a target line."""

    name: str
    values: Sequence[tuple[float, str]]
    limit: float | None = None


def available() -> bool:
    """Returns whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


@needs_matplotlib
def curves(rows: Sequence[Mapping[str, Any]], file: str | Path) -> None:
    """Draws loss and accuracy over the steps of a training, and the learning rate below them.

    Args:
        rows: the log, in order: `step` and any of `loss`, `val_loss`, `accuracy`, `val_accuracy` and `learning_rate`.
            Missing, `None` and infinite numbers are left out, and so are empty curves and panels.
        file: the PNG file, which is replaced.

    Raises:
        ValueError: no row has a `step` and a number.
        ImportError: matplotlib is not installed.
    """
    panels = _panels(rows)
    if not panels:
        raise ValueError(f"`rows` must have a `step` and numbers such as `loss`, got {len(rows)} rows without any.")
    # Only the shape of the learning rate matters, so it gets the least room.
    heights = [1.2 if title == RATE else 3 for title in panels]
    figure = new_figure(8, 0.9 * sum(heights) + 0.6)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for name, points in lines.items():
            _draw_curve(axis, name, points)
        axis.set_ylabel(title)
        axis.grid(alpha=0.25)
        if title != RATE:
            axis.legend(frameon=False)
        if title == "accuracy":
            axis.yaxis.set_major_formatter(_percent())
    axes[-1].set_xlabel("step")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    steps = {step for lines in panels.values() for points in lines.values() for step, _ in points}
    if len(steps) == 1:
        axes[-1].set_xticks(list(steps))
    save(figure, file)


def _panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[Point]]]:
    """Returns each panel's title with the curves that have points, by name."""
    keys = {
        "loss": {"training": "loss", "validation": "val_loss"},
        "accuracy": {"training": "accuracy", "validation": "val_accuracy"},
        RATE: {RATE: "learning_rate"},
    }
    found = {
        title: {name: points for name, key in curves.items() if (points := _points(rows, key))}
        for title, curves in keys.items()
    }
    return {title: lines for title, lines in found.items() if lines}


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    found = [(row["step"], row[key]) for row in rows if row.get("step") is not None and row.get(key) is not None]
    return [(step, value) for step, value in found if math.isfinite(value)]


def _draw_curve(axis: "Axes", name: str, points: Sequence[Point]) -> None:
    steps, values = zip(*points, strict=True)
    axis.plot(
        steps,
        values,
        color={"training": BLUE, "validation": ORANGE}.get(name, GRAY),
        # A curve of a few points is drawn with markers, because a single point would not be visible as a line.
        marker="o" if name == "validation" or len(points) == 1 else None,
        markersize=3.5,
        linewidth=1.4,
        label=name,
    )


@needs_matplotlib
def confusion(
    matrix: np.ndarray, class_names: Sequence[str], file: str | Path, *, column_names: Sequence[str] | None = None
) -> None:
    """Draws a confusion matrix in shades, each row as shares of its class, with numbers of examples if there is room.

    Args:
        matrix: whole numbers `(rows, columns)`, a row per true class, a column per predicted one.
        class_names: a name for each row.
        file: the PNG file, which is replaced.
        column_names: a name for each column, `class_names` by default.

    Raises:
        ValueError: the number of names does not match, or is 0.
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
    # A class without examples has no shares, so NaN leaves its row gray.
    shares = np.where(totals > 0, matrix / np.maximum(totals, 1), np.nan)
    most = max(matrix.shape)
    numbered = most <= NUMBERED_CLASSES
    side = max(CELL * most, 4.0) if numbered else 10.0
    figure = new_figure(side + 3, side + 2)
    axis = figure.subplots()
    _draw_shares(figure, axis, shares)
    axis.set_xlabel("predicted", fontsize=9)
    axis.set_ylabel("true", fontsize=9)
    size = 8 if numbered else 6  # points
    _name_ticks(axis.xaxis, column_names, side, size)
    _name_ticks(axis.yaxis, class_names, side, size)
    widest = max(len(_short(name)) for name in column_names)
    axis.tick_params("x", rotation=0 if widest * 0.6 * size * matrix.shape[1] < 72 * side else 90)
    if numbered:
        _write_counts(axis, matrix, shares, side)
    save(figure, file)


def _draw_shares(figure: "Figure", axis: "Axes", shares: np.ndarray) -> None:
    rows, columns = shares.shape
    image = axis.imshow(
        _pooled(shares, MOST_CELLS),
        # Most mistakes are a few percent of a class, and would look white in linear shades.
        norm=_power_norm(0.5),
        cmap=_colors(SHADES).with_extremes(bad=NO_SHADE),
        interpolation="nearest",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
    )
    bar = figure.colorbar(image, ax=axis, fraction=0.046, pad=0.03, format=_percent(), ticks=TICKS)
    bar.set_label("of the true class", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _name_ticks(ticks: "Axis", names: Sequence[str], side: float, size: float) -> None:
    """Sets as many of the names as fit on a side of `side` inches, in letters of `size` points."""
    shown = range(0, len(names), math.ceil(len(names) * 1.2 * size / (72 * side)))
    ticks.set_ticks(list(shown))
    ticks.set_ticklabels([_short(names[index]) for index in shown], parse_math=False, fontsize=size)
    ticks.set_tick_params(length=2)


def _write_counts(axis: "Axes", matrix: np.ndarray, shares: np.ndarray, side: float) -> None:
    digits = len(str(matrix.max()))
    size = min(8.0, 72 * side / max(matrix.shape) / (0.75 * max(digits, 2)))  # a digit is 0.6 of its size wide
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            color = ON_DARK if shares[row, column] > 0.35 else ON_LIGHT
            axis.text(column, row, f"{count}", ha="center", va="center", fontsize=size, color=color)


@needs_matplotlib
def shots(curves: Mapping[str, Sequence[tuple[float, float, float]]], classes: int, file: str | Path) -> None:
    """Draws accuracy over the training images of each class, with its spread, and the accuracy of guessing.

    Args:
        curves: name to points: images of each class, the mean accuracy in [0, 1] and its standard deviation.
        classes: the number of classes.
        file: the PNG file, which is replaced.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(6.4, 4.4)
    axis = figure.subplots()
    for color, (name, points) in zip((BLUE, ORANGE), curves.items(), strict=False):
        counts, means, spreads = zip(*sorted(points), strict=True)
        axis.errorbar(counts, means, spreads, color=color, marker="o", markersize=4, capsize=3, label=name)
    ticks = sorted({point[0] for points in curves.values() for point in points})
    axis.axhline(1 / classes, color=GRAY, linestyle="--", linewidth=1, label="guessing")
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="images of each class (the last is all)", ylabel="accuracy", ylim=(0, 1))
    axis.yaxis.set_major_formatter(_percent())
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    save(figure, file)


@needs_matplotlib
def calibration(bins: Sequence[Bin], ece: float, file: str | Path) -> None:
    """Draws the reliability diagram: accuracy by confidence, and the distribution of confidence.

    Args:
        bins: the bins of `metrics.Calibration`: `lower`, `upper`, `count`, `confidence`, `accuracy`.
        ece: the expected calibration error, in [0, 1].
        file: the PNG file, which is replaced.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(5.6, 6.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    _draw_accuracies(upper, [part for part in bins if part.count])
    upper.set_title(f"Expected calibration error {100 * ece:.1f} %", fontsize=11, loc="left")
    total = sum(part.count for part in bins)
    _draw_bars(lower, bins, [part.count / max(total, 1) for part in bins], GRAY)
    lower.set(xlabel="confidence", ylabel=f"share of {total:,}")
    for axis in (upper, lower):
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.yaxis.set_major_formatter(_percent())
    lower.xaxis.set_major_formatter(_percent())
    # The legend is below the chart, because every part of the chart may have points.
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower left", fontsize=8, frameon=False)
    save(figure, file)


def _draw_accuracies(axis: "Axes", bins: Sequence[Bin]) -> None:
    """Draws the accuracies; `bins` have examples, so no value is `None`."""
    accuracies = [cast(float, part.accuracy) for part in bins]
    _draw_bars(axis, bins, accuracies, BLUE, label="right, of the answers in the bin")
    axis.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle="--", label="calibrated: as often as it says")
    axis.plot(
        [cast(float, part.confidence) for part in bins],
        accuracies,
        color=ORANGE,
        marker="o",
        markersize=4,
        linewidth=0,
        clip_on=False,
        label="mean confidence of the bin",
    )
    axis.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")


def _draw_bars(axis: "Axes", bins: Sequence[Bin], heights: Sequence[float], color: str, label: str = "") -> None:
    edges = [part.lower for part in bins]
    widths = [part.upper - part.lower for part in bins]
    axis.bar(edges, heights, widths, align="edge", color=color, edgecolor="white", linewidth=0.8, label=label)


@needs_matplotlib
def bars(panels: Mapping[str, Sequence[Bar]], file: str | Path, title: str, side_by_side: bool = False) -> None:
    """Draws bars with their numbers, a panel for each quantity.

    Args:
        panels: the title of each axis, to its rows from the top. A row without values stays empty.
        file: the PNG file, which is replaced.
        title: the title above all panels, of one line or several.
        side_by_side: whether the panels are side by side and share the names of their rows, which must be equal.
            Otherwise each panel is below the one before.

    Raises:
        ImportError: matplotlib is not installed.
    """
    counts = [len(rows) for rows in panels.values()]
    if side_by_side:
        figure = new_figure(2.6 + 2.2 * len(panels), 0.34 * max(counts) + 1.6)
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    else:
        figure = new_figure(9, 0.32 * sum(counts) + 0.9 * len(panels) + 0.6)
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[count + 1.5 for count in counts])[:, 0]
    figure.suptitle("\n".join(_drawable(line) for line in title.split("\n")), fontsize=10, parse_math=False)
    for axis, (name, rows) in zip(axes, panels.items(), strict=True):
        _draw_rows(axis, rows, margin=0.4 if side_by_side else 0.12)
        axis.set_xlabel(name)
    axes[0].invert_yaxis()
    for axis in () if side_by_side else axes[1:]:
        axis.invert_yaxis()
    save(figure, file)


def _draw_rows(axis: "Axes", rows: Sequence[Bar], margin: float) -> None:
    for place, row in enumerate(rows):
        for index, (value, color) in enumerate(row.values):
            at = place + (index - (len(row.values) - 1) / 2) * 0.4
            axis.barh(at, value, height=0.8 / len(row.values), color=color)
            axis.text(value, at, f" {value:,.0f}" if abs(value) >= 100 else f" {value:.3g}", va="center", fontsize=8)
        if row.limit is not None:
            axis.plot([row.limit] * 2, [place - 0.45, place + 0.45], color=ON_LIGHT)
    axis.set_yticks(range(len(rows)))
    axis.set_yticklabels([_drawable(one_line(row.name)) for row in rows], fontsize=8, parse_math=False)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.margins(x=margin)


def new_figure(width: float, height: float) -> "Figure":
    """Returns a figure with this width and height in inches."""
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=DPI, layout="constrained")


def _pooled(shares: np.ndarray, most: int) -> np.ndarray:
    """Reduces a matrix to at most `most` cells per side, each the maximum of a block, so that no class disappears."""
    for axis, size in enumerate(shares.shape):
        if size > most:
            shares = np.fmax.reduceat(shares, np.arange(0, size, math.ceil(size / most)), axis=axis)
    return shares


def _power_norm(gamma: float) -> "Normalize":
    from matplotlib.colors import PowerNorm

    return PowerNorm(gamma, vmin=0, vmax=1)


def _colors(name: str) -> "Colormap":
    from matplotlib import colormaps

    return colormaps[name]


def _percent() -> "Formatter":
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1, symbol=" %", decimals=None)


def _short(name: str) -> str:
    """Shortens `name` to one line for an axis; characters that matplotlib's font lacks are escaped."""
    name = _drawable(one_line(name))
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1].rstrip() + ELLIPSIS


def _drawable(text: str) -> str:
    """Escapes characters that matplotlib's font lacks. It would draw a box for each, so emoji would look alike."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    # The name is in a list, because matplotlib would read a string as a pattern.
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in FontProperties().get_family()]
    return "".join(
        character
        if any(font.get_char_index(ord(character)) for font in fonts)
        else character.encode("unicode_escape").decode()
        for character in text
    )


def save(figure: "Figure", file: str | Path) -> None:
    with replacing(file) as beside:
        figure.savefig(beside, format="png", bbox_inches="tight", pad_inches=0.15)
