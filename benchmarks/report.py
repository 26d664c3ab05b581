"""What a part of the benchmarks has found: rows of medians, the single measurements, where and with what."""

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity, of keras_bit and of a peer.

    Args:
        name: what it is.
        unit: of both numbers; empty for a ratio.
        ours: median of keras_bit; `None` where the row is the peer's alone.
        theirs: median of the peer; `None` where it has no such thing, or was not measured.
        limit: the largest `ours` that meets the target, or the smallest where `more_is_better`; `None` where there is
            none.
        more_is_better: whether the quantity is a speed, not a cost.
        details: what else was measured of it, for a last column.
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
class Report:
    """The outcome of a part.

    Args:
        title: of the table.
        peer: name of the other column.
        rows: what the table shows.
        measurements: case to one dictionary for each of its rounds, in their order.
        packages: the distributions whose versions count.
        notes: lines to print below the table.
    """

    title: str
    peer: str
    rows: Sequence[Row]
    measurements: Mapping[str, Sequence[Mapping[str, Any]]]
    packages: Sequence[str]
    notes: Sequence[str] = ()


def to_dict(report: Report) -> dict[str, Any]:
    """The report as JSON holds it, with the versions and the machine."""
    return {
        "title": report.title,
        "peer": report.peer,
        "versions": versions(report.packages),
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "rows": [{**dataclasses.asdict(row), "met": row.met} for row in report.rows],
        "measurements": {case: list(rounds) for case, rounds in report.measurements.items()},
    }


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Version of Python and of every package; `None` where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def table(report: Report) -> "Table":
    """A `rich` table; a missed target is marked in words, not by color alone."""
    from rich.table import Table  # here: a measuring process imports this module and should not pay for it

    shown = Table(title=report.title, title_justify="left")
    shown.add_column("median of the rounds")
    for name in ("keras_bit", report.peer, "ratio", "target"):
        shown.add_column(name, justify="right")
    detailed = any(row.details for row in report.rows)
    if detailed:
        shown.add_column("besides")
    for row in report.rows:
        ratio = (
            f"{row.ours / row.theirs:.2f}" if row.theirs and row.ours is not None else ""
        )  # none, or nothing to compare with
        bound = "at least" if row.more_is_better else "at most"
        target = "" if row.limit is None else f"{bound} {row.limit:.4g}: {'met' if row.met else 'MISSED'}"
        cells = [row.name, _number(row.ours, row.unit), _number(row.theirs, row.unit), ratio, target]
        shown.add_row(*cells, *([row.details] if detailed else []))
    return shown


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.2f} {unit}".rstrip()
