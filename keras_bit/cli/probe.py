"""`keras-bit probe`: measures how well a checkpoint's features separate classes, without training."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_bit.cli import options
from keras_bit.cli.command import Command
from keras_bit.cli.terminal import console, note, printable, processor_or_bits, shown, working

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keras_bit.examining.probing import Result
    from keras_bit.hub.finding import HubOptions


class Counts(click.ParamType):
    """Converts whole numbers above 0 between commas to a list."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isdecimal() and int(part) for part in parts):
            self.fail(f"expected whole numbers above 0 between commas, such as 1,5,10, got {value!r}.", param, ctx)
        return [int(part) for part in parts]


@click.command(
    cls=Command,
    examples=[
        ("find out whether BiT is good enough for your images", "keras-bit probe flowers"),
        ("with a report and a chart in a directory", "keras-bit probe flowers --out flowers-probe"),
        ("only a few images, drawn ten times", "keras-bit probe flowers --shots 1,2,5 --seeds 10"),
    ],
)
@options.data("Directory with a folder per class, also below train/ and val/ or test/.")
@options.weights(f"{options.SOURCE}; without a preprocessor_config.json, images are prepared as for google/bit-50.")
@click.option("--out", type=options.PATH, metavar="DIR", help="Directory for probe.json and probe.png.")
@click.option(
    "--shots",
    type=Counts(),
    default="1,5,10",
    show_default=True,
    metavar="N,N,...",
    help="Numbers of images of each class.",
)
@click.option(
    "--seeds",
    type=options.POSITIVE,
    default=3,
    show_default=True,
    metavar="N",
    help="Number of random choices of these images.",
)
@click.option(
    "--examples-per-class", type=options.POSITIVE, metavar="N", help="Use only N training images of each class."
)
@click.option(
    "--validation-share",
    type=options.SHARE,
    default=0.2,
    show_default=True,
    metavar="S",
    help="Share of each class for testing, if DATA has no val or test.",
)
@options.batch_size(32)
@options.on_error(options.ON_ERROR)
@options.json()
@options.hub
def probe(
    data: str,
    weights: str,
    out: str | None,
    shots: list[int],
    seeds: int,
    examples_per_class: int | None,
    validation_share: float,
    batch_size: int,
    on_error: str,
    as_json: bool,
    hub: "HubOptions",
) -> int:
    """Prints the accuracy of two simple classifiers on the network's features.

    A ridge regression and the nearest neighbors learn from a few images of each class, and from all of them. The
    network is not trained: most of the time is spent on computing the features of each image once. Fine-tuning usually
    reaches a higher accuracy. With --out it writes a JSON report and a chart. Needs scikit-learn.
    """
    from tqdm import tqdm

    from keras_bit import packages
    from keras_bit.data import splits
    from keras_bit.examining import probe_report, probing
    from keras_bit.examining.features import features_of

    packages.require("sklearn", "examine", "A probe")
    if out is not None:
        options.check_out_directory(out, probe_report.REPORT)
        Path(out).mkdir(parents=True, exist_ok=True)
    found = splits.open_splits(data, validation_share=validation_share, seed=0, examples_per_class=examples_per_class)
    test_part = found.test or found.validation
    if test_part is None:
        raise ValueError(f"{data!r} has no test images. Leave out --validation-share 0.")
    for line in found.notes:
        note(line)
    with working(f"loading {weights}"):
        import keras_bit

        model = keras_bit.from_pretrained(weights, include_top=False, pooling="avg", fused=True, **hub.arguments)
    processor = processor_or_bits(weights, hub)
    train, test = (
        features_of(model, part, processor=processor, batch_size=batch_size, on_error=on_error, shown=name)
        for name, part in (("train", found.train), ("test", test_part))
    )
    count = probing.runs(train.labels, shots, seeds)
    with tqdm(total=count, desc="classifiers", delay=2, leave=False) as progress:
        results = probing.probe(train, test, shots=shots, seeds=seeds, advance=progress.update)
    report = {
        "weights": shown(weights),
        "data": data,
        **probe_report.described(results, train, test, found.class_names),
    }
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _print_table(results, f"{shown(weights)} on {data}", report)
    if out is not None:
        largest = max(int((train.labels == label).sum()) for label in range(len(found.class_names)))
        for file in probe_report.write(report, results, largest, out):
            print(printable(str(file)), file=sys.stderr if as_json else sys.stdout)
    for line in report["skipped"]:
        note(line)
    return int(bool(report["skipped"]))


def _print_table(results: "Sequence[Result]", title: str, report: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=printable(title), title_justify="left")
    table.add_column("images of each class")
    methods = list(dict.fromkeys(result.method for result in results))
    for method in methods:
        table.add_column(method, justify="right")
    for shots in dict.fromkeys(result.shots for result in results):
        cells = [_cell(result) for result in results if result.shots == shots]
        table.add_row("all" if shots is None else f"{shots:,}", *cells)
    console().print(table)
    best = max((result for result in results if result.shots is None), key=lambda result: result.mean)
    console().print(
        f"Learned from all {report['train_images']:,} training images, {best.method} is right for {best.mean:.1%} of "
        f"{report['test_images']:,} test images; guessing for {1 / len(report['classes']):.1%}."
    )


def _cell(result: "Result") -> str:
    spread = f" ± {100 * result.spread:.1f}" if len(result.accuracies) > 1 else ""
    return f"{100 * result.mean:.1f}{spread} %"
