"""Shows and records the progress of training: a bar, a line per evaluation, a CSV file."""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from tqdm import tqdm

from keras_bit.files import writing
from keras_bit.recipes.hyperrule import HyperRule
from keras_bit.training.state import Row, TrainingState
from keras_bit.wording import duration, number

LONG = 1800.0  # seconds; the remaining time of a run that is worth a warning
MEASURED = 2  # steps to measure for it, after the first one, which compiles


class Progress(keras.callbacks.Callback):
    """Shows a bar over all steps on standard error and a line per evaluation, and writes the log as CSV."""

    def __init__(
        self,
        rule: HyperRule,
        accumulation: int,
        state: TrainingState,
        log: Path,
        say: Callable[[str], None],
        validation_batches: int,
    ) -> None:
        super().__init__()
        self.validation_batches = validation_batches
        self.rule, self.accumulation, self.state, self.log, self.say = rule, accumulation, state, log, say
        self.bar = tqdm(total=rule.total_steps, initial=state.step, desc="fine-tune", unit="step")
        self.begun, self.done = 0.0, 0  # when the first step of this process ended, and how many have ended

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.bar.set_description("fine-tune")
        self.started, self.first = time.perf_counter(), self.bar.n

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (batch + 1) % self.accumulation:
            return
        self.bar.update()
        rate = (self.bar.n - self.first) * self.rule.batch_size / (time.perf_counter() - self.started)
        shown = {name: f"{float(logs[name]):.4f}" for name in ("loss", "accuracy") if name in logs}
        self.bar.set_postfix({**shown, "images/s": f"{rate:.1f}"}, refresh=False)
        self._warn_of_long_run()

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.bar.set_description(f"validate batch {batch + 1}/{self.validation_batches}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # The state has already written this row, so that a run that continues later has the same log.
        row = self.state.rows[-1]
        # Errors are in the unit of the labels, which may be prices or thousandths.
        values = {name: number(row[name]) if "error" in name else f"{row[name]:.4f}" for name in row}
        shown = "  ".join(f"{name} {values[name]}" for name in row if name not in ("step", "learning_rate"))
        with tqdm.external_write_mode():
            self.say(f"step {row['step']}/{self.rule.total_steps}  {shown}")
        write_log(self.state.rows, self.log)

    def _warn_of_long_run(self) -> None:
        """Says once how long a long run will take, because a log file has no bar and a person may overlook it."""
        self.done += 1
        if self.done == 1:
            self.begun = time.perf_counter()
        if self.done != 1 + MEASURED:
            return
        one, left = (time.perf_counter() - self.begun) / MEASURED, self.rule.total_steps - self.bar.n
        if one * left < LONG:
            return
        saved = min((self.state.epoch + 1) * self.state.steps_per_epoch, self.rule.total_steps)
        until = duration(max(saved - self.bar.n, 0) * one)
        with tqdm.external_write_mode():
            self.say(
                f"The remaining {left:,} steps take about {duration(one * left)} at this speed. The run is next saved "
                f"after step {saved:,}, in about {until}. Use a GPU, or a smaller batch size, a smaller image size or "
                "fewer steps, to end sooner."
            )

    def close(self) -> None:
        self.bar.close()


def write_log(rows: list[Row], file: Path) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with writing.replacing(file) as beside, open(beside, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
