"""Draws a report as bars."""

from pathlib import Path

from benchmarks.report import Report
from keras_bit.drawing import charts
from keras_bit.drawing.colors import BLUE, GRAY


def draw(report: Report, path: Path) -> None:
    """Writes a PNG with a group of bars for each unit: those of keras_bit next to those of the peer.

    Raises:
        ImportError: matplotlib is not installed.
    """
    panels = {
        unit or "ratio": [
            charts.Bar(
                row.name,
                [(value, color) for value, color in ((row.ours, BLUE), (row.theirs, GRAY)) if value is not None],
                row.limit,
            )
            for row in report.rows
            if row.unit == unit
        ]
        for unit in dict.fromkeys(row.unit for row in report.rows)
    }
    beside = f" beside {report.peer} (gray)" if report.peer else ""
    charts.bars(panels, path, f"{report.title}: keras_bit (blue){beside}; targets are lines")
