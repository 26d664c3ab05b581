"""A report as bars, for whoever would rather look than read."""

from pathlib import Path

from benchmarks.report import Report
from keras_bit import files, packages

OURS, THEIRS = "#1f77b4", "#b0b0b0"


def draw(report: Report, path: Path) -> None:
    """Writes a PNG with a group of bars for each unit, keras_bit's and the peer's beside each other.

    Raises:
        ImportError: matplotlib is not installed.
    """
    packages.require("matplotlib", "plots", "A chart")
    from matplotlib.figure import Figure

    units = list(dict.fromkeys(row.unit for row in report.rows))
    groups = {unit: [row for row in report.rows if row.unit == unit] for unit in units}
    counts = [len(rows) for rows in groups.values()]
    figure = Figure(figsize=(9, 0.32 * sum(counts) + 0.9 * len(units) + 0.6), layout="constrained")
    figure.suptitle(f"{report.title}: keras_bit (blue) beside {report.peer} (gray); targets are lines")
    for axes, (unit, rows) in zip(
        figure.subplots(len(units), 1, squeeze=False, height_ratios=[count + 1.5 for count in counts])[:, 0],
        groups.items(),
        strict=True,
    ):
        for place, row in enumerate(rows):
            bars = [(value, color) for value, color in ((row.ours, OURS), (row.theirs, THEIRS)) if value is not None]
            for index, (value, color) in enumerate(bars):
                at = place + (index - (len(bars) - 1) / 2) * 0.4
                axes.barh(at, value, height=0.8 / len(bars), color=color)
                axes.text(value, at, f" {value:.3g}", va="center", fontsize=8)
            if row.limit is not None:
                axes.plot([row.limit] * 2, [place - 0.45, place + 0.45], color="black")
        axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel(unit or "ratio")
    with files.replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=150)
