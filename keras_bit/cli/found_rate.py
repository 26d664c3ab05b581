"""Prints and writes the result of `keras-bit finetune --find-lr`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from keras_bit.cli.terminal import console, note

if TYPE_CHECKING:
    from keras_bit.training.find_rate import FoundRate
    from keras_bit.training.planning import Plan

FILE, CHART = "find-lr.json", "find-lr.png"


def show(found: "FoundRate", plan: "Plan", out: Path) -> None:
    """Prints a table and the option to use; writes a JSON file with all steps and, with matplotlib, a chart."""
    from rich.table import Table

    from keras_bit.drawing import charts
    from keras_bit.drawing.rate_chart import rate_chart
    from keras_bit.files.writing import replacing

    option = "--learning-rate"
    value = found.suggested
    if plan.recipe.optimizer == "sgd":  # the option is for batches of 512
        option = "--base-learning-rate"
        value *= plan.rule.base_learning_rate / plan.rule.learning_rate
    table = Table(title="Learning-rate range test", title_justify="left", show_header=False)
    table.add_row("steps", f"{len(found.rates)}, rates {found.rates[0]:.1e} to {found.rates[-1]:.1e}")
    table.add_row("rate of the lowest loss", f"{found.lowest:.2g}")
    table.add_row("rate of the steepest fall", f"{found.steepest:.2g}")
    table.add_row("suggested", f"{found.suggested:.2g}, a tenth of the first")
    console().print(table)
    console().print(f"Start the run with {option} {value:.2g}.", soft_wrap=True)
    out.mkdir(parents=True, exist_ok=True)
    report = {**found._asdict(), "suggested": found.suggested, "option": option, "value": value}
    with replacing(out / FILE) as beside:
        beside.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if charts.available():
        rate_chart(found.rates, found.losses, found.smoothed, found.suggested, out / CHART)
    else:
        note(f"no chart is drawn: matplotlib is not installed. Install it with {charts.INSTALL}.")
