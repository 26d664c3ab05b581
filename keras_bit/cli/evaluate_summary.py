"""Prints the result of `keras-bit evaluate`."""

from typing import Any

from keras_bit.cli.terminal import console, printable

PER_CLASS = 20  # at most this many classes are all printed
WORST_CLASSES = 10  # printed classes if there are more


def show(report: dict[str, Any], title: str, every: bool) -> None:
    """Prints the report of an evaluation as tables.

    Args:
        title: above the first table.
        every: whether to print every class.
    """
    if "per_output" in report:
        _print_numbers(report, title)
    elif "mean_average_precision" in report:
        _print_several(report, title)
        _print_labels(report, every)
    else:
        _print_summary(report, title)
        _print_classes(report, every)


def _share(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}%}"


def _print_several(report: dict[str, Any], title: str) -> None:
    from rich.table import Table

    table = Table(title=printable(title), title_justify="left", show_header=False)
    table.add_row("images", f"{report['images']:,}")
    table.add_row("labels", f"{report['classes']:,} of the model, {report['classes_that_occur']:,} of the data")
    table.add_row("mean average precision", _share(report["mean_average_precision"]))
    table.add_row("F1 at 0.5", f"{_share(report['micro_f1'])} micro, {_share(report['macro_f1'])} macro")
    table.add_row("all labels right", _share(report["exact_match"]))
    table.add_row("log loss", f"{report['log_loss']:.4f}")
    table.add_row("calibration error", _share(report["calibration"]["expected_calibration_error"]))
    console().print(table)


def _print_labels(report: dict[str, Any], every: bool) -> None:
    from rich.table import Table

    rows, title = report["per_class"], "per label"
    if len(rows) > PER_CLASS and not every:
        known = [row for row in rows if row["average_precision"] is not None]
        rows = sorted(known, key=lambda row: row["average_precision"])[:WORST_CLASSES]
        title = f"the {len(rows)} labels with the lowest average precision, of {report['classes']} (--per-class: all)"
    table = Table(title=title, title_justify="left")
    table.add_column("label", overflow="fold")
    for column in ("images", "average precision", "recall", "precision", "F1"):
        table.add_column(column, justify="right")
    for row in rows:
        shares = [_share(row[key], 1) for key in ("average_precision", "recall", "precision", "f1")]
        table.add_row(printable(row["class"]), f"{row['examples']:,}", *shares)
    console().print(table)


def _print_numbers(report: dict[str, Any], title: str) -> None:
    from rich.table import Table

    from keras_bit.wording import number

    table = Table(title=printable(f"{title}: {report['images']:,} images"), title_justify="left")
    table.add_column("number", overflow="fold")
    for column in ("mean", "standard deviation", "mean absolute error", "root mean squared error", "R²"):
        table.add_column(column, justify="right")
    for row in report["per_output"]:
        keys = ("mean", "standard_deviation", "mean_absolute_error", "root_mean_squared_error")
        values = [number(row[key]) for key in keys]
        table.add_row(printable(row["output"]), *values, "-" if row["r2"] is None else f"{row['r2']:.3f}")
    console().print(table)


def _print_summary(report: dict[str, Any], title: str) -> None:
    from rich.table import Table

    low, high = report["top_1_interval"]
    calibration = report["calibration"]
    table = Table(title=printable(title), title_justify="left", show_header=False)
    table.add_row("images", f"{report['images']:,}")
    table.add_row("classes", f"{report['classes']:,} of the model, {report['classes_that_occur']:,} of the data")
    table.add_row("top-1", f"{report['top_1_accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%})")
    table.add_row(f"top-{report['top_k']}", f"{report['top_k_accuracy']:.2%}")
    table.add_row("mean recall", f"{report['mean_recall']:.2%}")
    table.add_row("log loss", f"{report['log_loss']:.4f}")
    table.add_row("mean confidence", f"{calibration['mean_confidence']:.2%}")
    table.add_row("calibration error", f"{calibration['expected_calibration_error']:.2%}")
    console().print(table)


def _print_classes(report: dict[str, Any], every: bool) -> None:
    """Prints the classes, or the worst of many."""
    from rich.table import Table

    mixed_up: dict[str, str] = {}
    for row in report["confusions"]:
        mixed_up.setdefault(row["true"], f"{row['count']:,} {row['predicted']}")  # the most frequent comes first
    rows, title = report["per_class"], "per class"
    if len(rows) > PER_CLASS and not every:
        rows = sorted(rows, key=lambda row: row["recall"])[:WORST_CLASSES]
        title = f"the {WORST_CLASSES} classes with the lowest recall, of {len(report['per_class'])} (--per-class: all)"
    table = Table(title=title, title_justify="left")
    table.add_column("class", overflow="fold")
    for column in ("images", "recall", "precision", "F1"):
        table.add_column(column, justify="right")
    table.add_column("most often confused with", overflow="fold")
    for row in rows:
        shares = ["-" if row[key] is None else f"{row[key]:.1%}" for key in ("recall", "precision", "f1")]
        table.add_row(
            printable(row["class"]), f"{row['examples']:,}", *shares, printable(mixed_up.get(row["class"], ""))
        )
    console().print(table)
