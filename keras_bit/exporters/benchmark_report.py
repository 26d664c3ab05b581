"""The result of a benchmark: a row for each file, and which file to use on this processor."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_bit.drawing import charts, colors
from keras_bit.files import writing

AGREEMENT = 0.99  # the share of images on which a recommended file must agree with the Keras model
KERAS = "keras"
JSON, PNG = "benchmark.json", "benchmark.png"
MEASURED, FAILED, MISSING = "measured", "failed", "not installed"
UNSUPPORTED = "not supported"  # the format cannot have this model
SHOWN = 200  # characters of a reason on a chart's axis and in a table


@dataclasses.dataclass(frozen=True)
class Row:
    """One file in its engine, or the Keras model itself.

    Args:
        format: the `format` of `keras_bit.export`; "keras" is the Keras model itself, run by `predict`.
        quantize: the `quantize` of `keras_bit.export`.
        status: "measured", "failed", "not installed", or "not supported" if the format cannot have this model.
        reason: why it was not measured, in sentences.
        bytes: the size of the file, or of all files of the export.
        agreement: the share of images whose best class is the Keras model's, in [0, 1].
        accuracy: the share of images whose best class is right; `None` if unknown.
        latency: median seconds of a call with one image, or with the model's fixed batch.
        throughput: images per second in batches of `batch_size`.
        batch_size: 8, or the file's fixed batch.
        start: seconds from the start of a process to its first answer, including imports.
    """

    format: str
    quantize: str | None
    status: str
    reason: str = ""
    bytes: int | None = None
    agreement: float | None = None
    accuracy: float | None = None
    latency: float | None = None
    throughput: float | None = None
    batch_size: int | None = None
    start: float | None = None

    @property
    def name(self) -> str:
        if self.format == KERAS:
            return "Keras, predict"
        return f"{self.format}, {self.quantize}" if self.quantize else self.format


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The result of `benchmark`.

    Args:
        rows: a row for each file; the first one is the Keras model's.
        what: a description of the images.
        images: the number of images.
        calibration_images: the number of images for the calibration of int8.
        image_size: height and width in pixels.
        own_images: whether they were the caller's, not patterns.
        machine: facts about this machine: the processor's name, the number of threads of every engine, and more.
        versions: name of a package to its version.
        environment: the environment variables that change TensorFlow's kernels.
        notes: sentences for a person.
    """

    rows: Sequence[Row]
    what: str
    images: int
    calibration_images: int
    image_size: tuple[int, int]
    own_images: bool
    machine: Mapping[str, Any]
    versions: Mapping[str, str | None]
    environment: Mapping[str, str | None]
    notes: Sequence[str] = ()

    @property
    def failed(self) -> bool:
        """Whether anything failed although its packages are installed."""
        return any(row.status == FAILED for row in self.rows)

    @property
    def best(self) -> Row | None:
        """The recommended file; `None` if no file agrees with the model often enough."""
        agreeing = self._agreeing()
        return agreeing[0] if agreeing else None

    def _agreeing(self) -> list[Row]:
        found = [
            row
            for row in self.rows
            if row.format != KERAS and row.status == MEASURED and (row.agreement or 0) >= AGREEMENT
        ]
        return sorted(found, key=lambda row: row.latency or 0)

    @property
    def advice(self) -> str:
        """Sentences that recommend a file for this processor, with the rule that chose it."""
        where = f"on this processor ({self.machine['processor']}, {self.machine['threads']} threads)"
        rule = f"whose best class is the Keras model's for at least {AGREEMENT:.0%} of {self.what}"
        agreeing = self._agreeing()
        if not agreeing:
            return f"No file was measured {where} {rule}. Look at the agreement of the files before you use one."
        best, others = agreeing[0], agreeing[1:]
        seconds = best.latency or 1
        of_keras = seconds / (self.rows[0].latency or 1)
        after = (
            f" The next is {others[0].name}, with {(others[0].latency or 0) / seconds:.2f} times its time."
            if others
            else ""
        )
        doubt = "" if self.own_images else " Before you rely on this, measure with your own images."
        return (
            f"Use {best.name} {where}. It takes {1e3 * seconds:.3g} ms for one image, {of_keras:.2f} of the time of "
            f"Keras' predict, and is the fastest of the files {rule}.{after}{doubt}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns it as a dictionary for JSON."""
        fields = dataclasses.asdict(self)
        return {
            **fields,
            "image_size": list(self.image_size),
            "agreement_needed": AGREEMENT,
            "advice": self.advice,
            "best": None if self.best is None else {"format": self.best.format, "quantize": self.best.quantize},
        }


def write(found: Benchmark, directory: str | Path, title: str = "") -> list[Path]:
    """Writes `benchmark.json` and, if matplotlib is installed, `benchmark.png`; replaces older ones.

    Args:
        found: the result of `benchmark`.
        directory: created if needed.
        title: a line above the chart; none if empty.

    Returns:
        The files that were written.

    Raises:
        OSError: one cannot be written.
    """
    directory = Path(directory)
    writing.check_writable(directory / JSON)
    directory.mkdir(parents=True, exist_ok=True)
    with writing.replacing(directory / JSON) as beside:
        beside.write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
    if not charts.available():
        return [directory / JSON]
    draw(found, directory / PNG, title)
    return [directory / JSON, directory / PNG]


def draw(found: Benchmark, path: Path, title: str = "") -> None:
    """Draws a bar for every row: latency, images per second, agreement, accuracy if known, and size."""
    best = found.best

    def bars(value_of: Any) -> list[charts.Bar]:
        bars = []
        for row in found.rows:
            color = colors.ORANGE if row == best else colors.GRAY if row.format == KERAS else colors.BLUE
            value = value_of(row) if row.status == MEASURED else None
            name = row.name if row.status == MEASURED else f"{row.name}: {row.status}"
            bars.append(charts.Bar(name, [] if value is None else [(value, color)]))
        return bars

    panels = {
        "one image, ms": bars(lambda row: 1e3 * row.latency),
        "images per second": bars(lambda row: row.throughput),
        "best class as Keras, %": bars(lambda row: 100 * row.agreement),
        "right, %": bars(lambda row: None if row.accuracy is None else 100 * row.accuracy),
        "size, MB": bars(lambda row: row.bytes / 1e6),
    }
    if all(row.accuracy is None for row in found.rows):
        del panels["right, %"]
    machine = f"{found.machine['processor']}, {found.machine['threads']} threads; {found.what}"
    advised = "" if best is None else f"; orange is recommended: {best.name}"
    charts.bars(panels, path, "\n".join([*filter(None, [title]), machine + advised]), side_by_side=True)
