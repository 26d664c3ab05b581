"""`keras-bit evaluate`: how good a checkpoint is on images with labels."""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from rich.table import Table

from keras_bit.cli.arguments import add_hub_arguments, hub_arguments, positive
from keras_bit.cli.terminal import console, input_size, printable

PER_CLASS = 20  # classes that are all printed
WORST_CLASSES = 10  # those printed of more


def add(commands: Any) -> None:
    command = commands.add_parser(
        "evaluate",
        help="how good a checkpoint is on images with labels",
        description="Prints how many images of a data set the checkpoint answers correctly, overall and per class, "
        "and how far it can be trusted when it is sure (expected calibration error). With --out also a JSON report, a "
        "confusion matrix, a reliability diagram and a sheet of the worst mistakes. A folder is a class of the model "
        "if its name is exactly the label or, for ImageNet, its wordnet id; others are named in a class map. Images "
        "are read as they are stored: orientation tags are ignored.",
        epilog="Examples: keras-bit evaluate google/bit-50 imagenette2/val --out report; where the folders have other "
        "names than the model's labels: keras-bit evaluate google/bit-50 pets --write-class-map map.json, complete "
        'map.json, as {"kitten": ["tabby, tabby cat", "Egyptian cat"], "hamster": "hamster", "unsorted": null} (any of '
        "several labels counts as right, null leaves a folder out), and: keras-bit evaluate google/bit-50 pets "
        "--class-map map.json",
    )
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="Hub id, directory or file of a checkpoint; without a preprocessor_config.json, images are prepared as "
        "for google/bit-50",
    )
    command.add_argument(
        "data",
        metavar="DATA",
        help="directory with a folder per class, or TFRecord files whose labels are numbers of the model's classes: a "
        "file, a pattern in quotes, or a directory, of which the files with `test` in their names are taken, else "
        "those with `val` or `validation`, else all",
    )
    command.add_argument("--out", metavar="DIR", help="where report.json and the images are written")
    command.add_argument("--json", action="store_true", help="print the report as JSON instead of tables")
    command.add_argument("--per-class", action="store_true", help="print every class, however many there are")
    command.add_argument(
        "--class-map", metavar="FILE.json", help="folder to label, to a list of labels, or to null, as in the example"
    )
    command.add_argument(
        "--write-class-map", metavar="FILE.json", help="write a class map to be completed, and evaluate nothing"
    )
    command.add_argument("--batch-size", type=positive, default=32, metavar="N", help="images at a time (default: 32)")
    command.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="at an image that cannot be read: end (default), or leave it out, with a line for each and exit code 1",
    )
    add_hub_arguments(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import keras_bit
    from keras_bit.data import splits
    from keras_bit.drawing import charts
    from keras_bit.evaluation import evaluating, report

    if options.out is not None:
        # Before the images are read, which may take hours.
        if Path(options.out).is_file():
            raise NotADirectoryError(f"`--out` must be a directory, got the file {options.out!r}.")
        Path(options.out).mkdir(parents=True, exist_ok=True)
        if not charts.available():
            left_out = f"{report.CONFUSION} and {report.CALIBRATION}"
            print(f"keras-bit evaluate: without matplotlib {left_out} are left out: {charts.INSTALL}", file=sys.stderr)
    model = keras_bit.from_pretrained(options.source, **hub_arguments(options))
    evaluating.check_model(model)
    if options.write_class_map is not None:
        return _write_class_map(options, model.config)
    processor = _processor(options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"[\d,]+ of [\d,]+ images were left out")  # they get their lines below
        if Path(options.data).is_dir() and not splits.holds_records(options.data):
            found, skipped = _evaluate_folders(options, model, processor)
        else:
            found, skipped = _evaluate_records(options, model, processor)

    if options.json:
        print(json.dumps(found.report, indent=2))
    else:
        _print_report(found.report, options)
    if options.out is not None:
        title = (f"The worst mistakes of {options.source}", options.data)
        for file in report.write(found, options.out, processor=processor, title=title):
            print(printable(str(file)), file=sys.stderr if options.json else sys.stdout)
    for line in skipped:
        print(f"keras-bit evaluate: {printable(line)}", file=sys.stderr)
    return int(bool(skipped))


def _processor(options: argparse.Namespace) -> Any:
    """The checkpoint's own; where it has none, BiT's, as fine-tuning takes it."""
    from keras_bit import BitImageProcessor
    from keras_bit.images import processor

    try:
        return BitImageProcessor.from_pretrained(options.source, **hub_arguments(options))
    except FileNotFoundError:
        processor = BitImageProcessor(**processor.BIT_50)
        print(
            "keras-bit evaluate: the checkpoint has no preprocessor_config.json: images are prepared as for "
            f"google/bit-50, {input_size(processor)}, pixels scaled to [-1, 1]",
            file=sys.stderr,
        )
        return processor


def _evaluate_folders(options: argparse.Namespace, model: Any, processor: Any) -> tuple[Any, list[str]]:
    """What was found, and a line for each image that was left out."""
    from keras_bit.data.named_batches import folder_batches, folder_names
    from keras_bit.evaluation import class_map
    from keras_bit.evaluation.evaluating import evaluate

    said = None if options.class_map is None else class_map.read(options.class_map)
    folders = folder_names(options.data)
    matched = dict(zip(folders, class_map.match(folders, model.config, said), strict=True))
    used = {folder: right for folder, right in matched.items() if right is not None}
    batches, empty = folder_batches(
        options.data, list(used), processor=processor, batch_size=options.batch_size, on_error=options.on_error
    )
    left_out = [folder for folder in folders if folder not in used]
    for what, why in ((left_out, "left out, as the class map says"), (empty, "without an image")):
        if what:
            some = ", ".join(what[:10]) + ", ..." * (len(what) > 10)
            print(f"keras-bit evaluate: folders {why}: {printable(some)}", file=sys.stderr)
    names = class_map.shown_names(used, model.config)
    return evaluate(model, batches, class_names=names, label_map=list(used.values())), batches.skipped


def _evaluate_records(options: argparse.Namespace, model: Any, processor: Any) -> tuple[Any, list[str]]:
    import keras_bit
    from keras_bit.data.named_batches import batches_of
    from keras_bit.evaluation.evaluating import evaluate

    if options.class_map is not None:
        raise ValueError(
            f"`--class-map` is for the folders of a directory, got {options.data!r}, which is none. The labels in "
            "TFRecord files are numbers of the model's classes."
        )
    numbers = [str(number) for number in range(model.config.num_labels)]  # names may stand twice among the labels
    source = _record_files(options.data) if Path(options.data).is_dir() else options.data
    data = keras_bit.image_dataset(
        source, processor=processor, batch_size=options.batch_size, on_error="skip", class_names=numbers
    )
    return evaluate(model, batches_of(data, options.on_error)), data.skipped


def _record_files(directory: str) -> list[str]:
    """Those in a directory that are for testing, by their names."""
    from keras_bit.data import splits

    files = splits.record_files(directory)
    everything = [file for part in files.values() for file in part]
    chosen = files.get("test") or files.get("validation") or everything
    if len(chosen) < len(everything):
        names = printable(", ".join(Path(file).name for file in chosen[:3]) + ", ..." * (len(chosen) > 3))
        print(
            f"keras-bit evaluate: {len(chosen)} of {len(everything)} TFRecord files, by their names: {names}",
            file=sys.stderr,
        )
    return chosen


def _write_class_map(options: argparse.Namespace, config: Any) -> int:
    from keras_bit.data.named_batches import folder_names
    from keras_bit.evaluation import class_map
    from keras_bit.files import replacing

    file = Path(options.write_class_map)
    if file.exists():
        raise FileExistsError(f"`--write-class-map`: {str(file)!r} exists, and may have been edited. Name a new file.")
    found = class_map.template(folder_names(options.data), config)
    with replacing(file) as beside:
        beside.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    unknown = sum(label.startswith(class_map.UNKNOWN) for label in found.values())
    rest = f"complete the {unknown} that begin with {class_map.UNKNOWN.strip()!r}" if unknown else "all have a label"
    print(f"{printable(str(file))}: {len(found)} folders; {rest}")
    return 0


def _print_report(report: dict[str, Any], options: argparse.Namespace) -> None:
    low, high = report["top_1_interval"]
    calibration = report["calibration"]
    table = Table(
        title=f"{printable(options.source)} on {printable(options.data)}", title_justify="left", show_header=False
    )
    table.add_row("pictures", f"{report['pictures']:,}")
    table.add_row("classes", f"{report['classes']:,} of the model, {report['classes_that_occur']:,} of the data")
    table.add_row("top-1", f"{report['top_1_accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%})")
    table.add_row(f"top-{report['top_k']}", f"{report['top_k_accuracy']:.2%}")
    table.add_row("mean recall", f"{report['mean_recall']:.2%}")
    table.add_row("log loss", f"{report['log_loss']:.4f}")
    table.add_row("mean confidence", f"{calibration['mean_confidence']:.2%}")
    table.add_row("calibration error", f"{calibration['expected_calibration_error']:.2%}")
    console().print(table)

    mixed_up: dict[str, str] = {}
    for row in report["confusions"]:
        mixed_up.setdefault(row["true"], f"{row['count']:,} {row['predicted']}")  # the most frequent comes first
    rows, title = report["per_class"], "per class"
    if len(rows) > PER_CLASS and not options.per_class:
        rows = sorted(rows, key=lambda row: row["recall"])[:WORST_CLASSES]
        title = f"the {WORST_CLASSES} classes with the lowest recall, of {len(report['per_class'])} (--per-class: all)"
    table = Table(title=title, title_justify="left")
    table.add_column("class", overflow="fold")
    for column in ("pictures", "recall", "precision", "F1"):
        table.add_column(column, justify="right")
    table.add_column("most often taken for", overflow="fold")
    for row in rows:
        shares = ["-" if row[key] is None else f"{row[key]:.1%}" for key in ("recall", "precision", "f1")]
        table.add_row(
            printable(row["class"]), f"{row['examples']:,}", *shares, printable(mixed_up.get(row["class"], ""))
        )
    console().print(table)
