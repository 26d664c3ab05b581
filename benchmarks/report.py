"""The results of a part of the benchmarks: rows of medians, single measurements, the machine and the versions."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity, for keras_bit and a peer.

    Args:
        name: what the row measures.
        unit: the unit of both numbers; empty for a ratio.
        ours: median of keras_bit; `None` if the row is only about the peer.
        theirs: median of the peer; `None` if the peer lacks this, or was not measured.
        limit: the largest `ours` that meets the target, or the smallest if `more_is_better`; `None` without a target.
        more_is_better: whether the quantity is a speed, not a cost.
        details: further measurements, for the last column.
    """

    name: str
    unit: str
    ours: float | None
    theirs: float | None = None
    limit: float | None = None
    more_is_better: bool = False
    details: str = ""

    @property
    def met(self) -> bool:
        if self.limit is None:
            return True
        return self.ours >= self.limit if self.more_is_better else self.ours <= self.limit


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table that replaces that of the rows, if each thing is measured under several conditions.

    Args:
        headings: headings of the columns.
        lines: lines of the table, each with a text for every column.
    """

    headings: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of a part.

    Args:
        title: title of the table.
        peer: heading of the peer's column.
        rows: rows of the table.
        measurements: name of a case to one dictionary for each of its rounds, in their order.
        packages: the distributions whose versions the report names.
        notes: lines to print below the table.
        grid: the table, if it is not that of `rows`.
    """

    title: str
    peer: str
    rows: Sequence[Row]
    measurements: Mapping[str, Sequence[Mapping[str, Any]]]
    packages: Sequence[str]
    notes: Sequence[str] = ()
    grid: Grid | None = None


def to_dict(report: Report) -> dict[str, Any]:
    """Returns the report for JSON, with the versions and the machine."""
    from keras_bit.exporters import machine  # here, because a measuring process times its imports

    return {
        "title": report.title,
        "peer": report.peer,
        "versions": machine.versions(report.packages),
        "machine": machine.machine(),
        "rows": [{**dataclasses.asdict(row), "met": row.met} for row in report.rows],
        "measurements": {case: list(rounds) for case, rounds in report.measurements.items()},
    }


def columns(report: Report) -> list[str]:
    """Returns the headings of the report's table."""
    if report.grid is not None:
        return list(report.grid.headings)
    beside = [report.peer, "ratio"] if _is_compared(report) else []
    target = ["target"] if _has_targets(report) else []
    return ["median of the rounds", "keras_bit", *beside, *target, *(["besides"] if _is_detailed(report) else [])]


def cells(report: Report) -> list[list[str]]:
    """Returns the rows of the report's table; a missed target is marked by a word, not only by its color."""
    if report.grid is not None:
        return [list(line) for line in report.grid.lines]
    return [_cells(row, report) for row in report.rows]


def table(report: Report) -> "Table":
    """Returns the report as a table of `rich`."""
    from rich.table import Table  # imported here, because a measuring process imports this module

    shown = Table(title=report.title, title_justify="left")
    for place, name in enumerate(columns(report)):
        shown.add_column(name, justify="left" if place == 0 or name == "besides" else "right")
    for row in cells(report):
        shown.add_row(*row)
    return shown


def _is_compared(report: Report) -> bool:
    return any(row.theirs is not None for row in report.rows)


def _has_targets(report: Report) -> bool:
    return any(row.limit is not None for row in report.rows)


def _is_detailed(report: Report) -> bool:
    return any(row.details for row in report.rows)


def _cells(row: Row, report: Report) -> list[str]:
    # The ratio stays empty if a number is missing, or the peer's is 0.
    ratio = f"{row.ours / row.theirs:.2f}" if row.theirs and row.ours is not None else ""
    bound = "at least" if row.more_is_better else "at most"
    target = "" if row.limit is None else f"{bound} {row.limit:.4g}: {'met' if row.met else 'MISSED'}"
    return [
        row.name,
        _number(row.ours, row.unit),
        *([_number(row.theirs, row.unit), ratio] if _is_compared(report) else []),
        *([target] if _has_targets(report) else []),
        *([row.details] if _is_detailed(report) else []),
    ]


def _number(value: float | None, unit: str) -> str:
    """Returns at least three digits, because the next run would change further ones; percentages have two decimals."""
    if value is None:
        return "-"
    decimals = 2 if unit == "%" or abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{decimals}f} {unit}".rstrip()
