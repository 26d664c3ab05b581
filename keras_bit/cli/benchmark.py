"""`keras-bit benchmark`: runs every file that `export` writes for a checkpoint on this machine."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keras_bit.cli import options
from keras_bit.cli.command import Argument, Command
from keras_bit.cli.terminal import console, note, printable, processor_or_bits, shown

if TYPE_CHECKING:
    from keras_bit.exporters.benchmark_report import Benchmark, Row
    from keras_bit.hub.finding import HubOptions

FORMATS = ("saved_model", "tflite", "onnx", "openvino")
FLOAT32 = "none"
QUANTIZATIONS = (FLOAT32, "float16", "dynamic", "int8", "int8_full")


@click.command(
    cls=Command,
    examples=[
        (
            "which file to use on this machine, with your own images",
            "keras-bit benchmark flowers-bit flowers/test --out report",
        ),
        ("without images: sizes, speeds, and agreement on random patterns", "keras-bit benchmark DIR"),
        ("two engines only, for a program", "keras-bit benchmark DIR photos --format tflite --format onnx --json"),
    ],
)
@click.argument(
    "checkpoint",
    cls=Argument,
    type=options.PATH,
    metavar="[SOURCE]",
    required=False,
    described="The checkpoint; you may pass it as --weights instead.",
)
@click.argument(
    "data",
    cls=Argument,
    type=options.PATH,
    metavar="[DATA]",
    required=False,
    described="Directory with images, at any depth; with a folder per class of the model, accuracy is measured. "
    "Without DATA, random patterns are used.",
)
@options.weights(f"{options.SOURCE}; then the only argument is DATA.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    show_default="all",
    metavar="NAME",
    help=f"One of {', '.join(FORMATS)}; may be repeated.",
)
@click.option(
    "--quantize",
    "quantizations",
    type=click.Choice(QUANTIZATIONS),
    multiple=True,
    show_default="all",
    metavar="NAME",
    help=f"One of {', '.join(QUANTIZATIONS)}, if the format has it; may be repeated.",
)
@click.option(
    "--num-images",
    type=options.POSITIVE,
    default=200,
    show_default=True,
    metavar="N",
    help="Images of DATA, evenly spread; int8 is calibrated on up to 128 others.",
)
@options.image_size("Of images and files", "the processor's, or 224")
@click.option("--out", type=options.PATH, metavar="DIR", help="Directory for benchmark.json and benchmark.png.")
@options.json()
@options.hub
@click.pass_context
def benchmark(
    ctx: click.Context,
    checkpoint: str | None,
    data: str | None,
    weights: str,
    formats: tuple[str, ...],
    quantizations: tuple[str, ...],
    num_images: int,
    image_size: tuple[int, int] | None,
    out: str | None,
    as_json: bool,
    hub: "HubOptions",
) -> int:
    """Exports a checkpoint to every format, runs each file on this machine, and says which one to use.

    For every file it prints how often its best class is the Keras model's, accuracy if the classes are known, size, the
    time of one image, and images per second in batches of 8 (TFLite: of 1). All engines use all CPU cores and no GPU,
    in separate processes, in turn. Figures are medians for this machine. It recommends the fastest file that agrees
    with the Keras model on at least 99 % of the images. With --out it writes the figures as JSON and as a chart.

    A file that fails, that its format cannot have, or whose packages are not installed, is a row with the reason. The
    exit code is 1 if something failed although it is installed.
    """
    weights, data = _told_apart(ctx, checkpoint, data, weights)
    if out is not None:
        _prepare(out)
    if data is not None and not Path(data).is_dir():
        raise NotADirectoryError(f"DATA must be a directory with images, got {data!r}.")
    import keras_bit
    from keras_bit.exporters import benchmark_report
    from keras_bit.exporters.benchmark import benchmark as measure

    note(f"loading {shown(weights)}")
    model = keras_bit.from_pretrained(weights, **hub.arguments)
    found = measure(
        model,
        data,
        processor=processor_or_bits(weights, hub),
        formats=formats or None,
        quantizations=[None if name == FLOAT32 else name for name in quantizations] or None,
        num_images=num_images,
        image_size=image_size,
        progress=note,
    )
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        _print(found, shown(weights))
    if out is not None:
        for file in benchmark_report.write(found, out, shown(weights)):
            print(printable(str(file)), file=sys.stderr if as_json else sys.stdout)
    return int(found.failed)


def _told_apart(ctx: click.Context, first: str | None, second: str | None, weights: str) -> tuple[str, str | None]:
    """Returns the checkpoint and DATA; with --weights the first argument is DATA."""
    if ctx.get_parameter_source("weights") == click.core.ParameterSource.DEFAULT:
        return (weights if first is None else first), second
    if second is not None:
        raise click.UsageError(f"With --weights the only argument must be DATA, got {first!r} and {second!r}.")
    return weights, first


def _prepare(out: str) -> None:
    from keras_bit.drawing import charts
    from keras_bit.exporters import benchmark_report

    options.check_out_directory(out, benchmark_report.JSON)
    if not charts.available():
        note(f"{benchmark_report.PNG} is left out: matplotlib is not installed. Install it with {charts.INSTALL}.")


def _print(found: "Benchmark", title: str) -> None:
    from rich.table import Table

    keras = found.rows[0]
    labeled = keras.accuracy is not None
    table = Table(title=f"{title}: {printable(found.what)}", title_justify="left")
    table.add_column("file")
    names = ("agrees", *(("accuracy",) if labeled else ()), "size", "one image", "time / Keras", "images/s")
    for name in names:
        table.add_column(name, justify="right")
    for row in found.rows:
        cells = [row.status] if row.latency is None else _cells(row, keras, labeled)
        table.add_row(f"{'> ' if row == found.best else ''}{row.name}", *cells)
    console().print(table)
    for row in found.rows:
        if row.reason:
            print(printable(f"{row.name}: {row.status}. {row.reason}"))
    for line in found.notes:
        print(printable(line))
    machine = found.machine
    instructions = ", ".join(machine["instructions"]) or "instructions not known"
    height, width = found.image_size
    calibrated = any(row.quantize in ("int8", "int8_full") for row in found.rows)
    on = f" int8 calibrated on {found.calibration_images} images;" if calibrated else ""
    lines = [
        f"{machine['processor']}, {machine['threads']} threads ({instructions}); {height}x{width} px;{on} medians of "
        "processes that took turns. The figures hold for this machine.",
        found.advice,
    ]
    for line in lines:
        print(printable(line))


def _cells(row: "Row", keras: "Row", labeled: bool) -> list[str]:
    return [
        f"{row.agreement:.1%}",
        *((f"{row.accuracy:.1%}",) if labeled else ()),
        f"{(row.bytes or 0) / 1e6:,.1f} MB",
        f"{_rounded(1e3 * (row.latency or 0))} ms",
        f"{(row.latency or 0) / (keras.latency or 1):.2f}",
        _rounded(row.throughput or 0),
    ]


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
