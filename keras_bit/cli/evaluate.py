"""`keras-bit evaluate`: measures a checkpoint on images with labels."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_bit.cli import evaluate_csv, evaluate_summary, options
from keras_bit.cli.command import Command
from keras_bit.cli.terminal import note, printable, processor_or_bits, shown, working

if TYPE_CHECKING:
    from keras_bit.data.walk import LeftOut
    from keras_bit.evaluation.evaluating import AnyEvaluation
    from keras_bit.hub.finding import HubOptions
    from keras_bit.images.processor import BitImageProcessor
    from keras_bit.network.config import BitConfig
    from keras_bit.network.model import BiTModel


@click.command(
    cls=Command,
    examples=[
        ("with a report and images in a directory", "keras-bit evaluate imagenette2/val --out report"),
        ("your own model, with output for a program", "keras-bit evaluate flowers/test --weights flowers-bit --json"),
        (
            "folders with other names than the model's labels: first",
            "keras-bit evaluate pets --write-class-map map.json",
        ),
        (
            'complete it, as {"kitten": ["tabby, tabby cat", "Egyptian cat"], "hamster": "hamster", "unsorted": null}; '
            "then",
            "keras-bit evaluate pets --class-map map.json",
        ),
    ],
)
@options.data(
    "Directory with a folder per class, or TFRecord files whose labels are numbers of the model's classes: a file, a "
    "pattern in quotes, or a directory (the files with `test` in their names, else those with `val` or `validation`, "
    "else all). Or a CSV file with a column of paths and columns of labels: classes, several labels or numbers, as "
    "the model predicts. A column `split` selects the test images."
)
@options.weights(f"{options.SOURCE}; without a preprocessor_config.json, images are prepared as for google/bit-50.")
@click.option("--out", type=options.PATH, metavar="DIR", help="Directory for report.json and the images.")
@options.json()
@click.option("--per-class", is_flag=True, help="Print every class.")
@click.option(
    "--class-map",
    type=options.PATH,
    metavar="FILE.json",
    help="JSON file that maps a folder to a label, to the number of a class, to a list of these (each counts as "
    "right), or to null (left out).",
)
@click.option(
    "--write-class-map",
    type=options.PATH,
    metavar="FILE.json",
    help="Write a class map for you to complete, and do not evaluate.",
)
@options.batch_size(32)
@options.on_error(options.ON_ERROR)
@options.table
@options.hub
def evaluate(
    data: str,
    weights: str,
    out: str | None,
    as_json: bool,
    per_class: bool,
    class_map: str | None,
    write_class_map: str | None,
    batch_size: int,
    on_error: str,
    hub: "HubOptions",
    **table: Any,
) -> int:
    """Prints the checkpoint's accuracy on a data set, overall and per class.

    It also prints the expected calibration error. With --out it writes a JSON report, a confusion matrix, a reliability
    diagram and a sheet of the worst mistakes. For several labels it prints average precision and F1, for numbers the
    errors. A folder is a class of the model if its name equals the label or, for ImageNet, the wordnet id; map others
    in a class map. Images are turned upright by their orientation tag.
    """
    from keras_bit.data import csv_rows
    from keras_bit.data.label_table import TableOptions

    table_options = TableOptions(**table)
    if table_options != TableOptions() and not csv_rows.is_csv(data):
        given = ", ".join(f"--{name.replace('_', '-')}" for name, value in table.items() if value is not None)
        raise click.UsageError(f"{given} needs a CSV file as DATA, got {data!r}.")
    # Checked before the images are read, which may take hours.
    if out is not None:
        _prepare(out)
    if write_class_map is not None:
        _check_class_map(Path(write_class_map))
    with working(f"loading {weights}"):
        import keras_bit
        from keras_bit.drawing import charts
        from keras_bit.evaluation import asking, evaluating, report

        model = keras_bit.from_pretrained(weights, **hub.arguments)
    kind = evaluating.check_model(model).problem_type
    if out is not None and not charts.available():
        names = " and ".join(report.chart_names(kind))
        note(f"{names} are left out, because matplotlib is not installed. Install it with {charts.INSTALL}.")
    if write_class_map is not None:
        return _write_class_map(Path(write_class_map), data, model.config)
    processor = processor_or_bits(weights, hub)
    if csv_rows.is_csv(data):
        found, skipped = evaluate_csv.evaluate_csv(
            model, data, table_options, class_map, processor, batch_size, on_error
        )
    elif kind != asking.ONE:
        raise ValueError(
            f"The model is for {kind}, but {data!r} has one class for each image. Pass a CSV file with a column of "
            "paths and columns of labels."
        )
    else:
        found, skipped = _evaluated(model, data, class_map, processor, batch_size, on_error)
    if as_json:
        print(json.dumps(found.report, indent=2))
    else:
        evaluate_summary.show(found.report, f"{shown(weights)} on {data}", every=per_class)
    if out is not None:
        title = (f"The worst mistakes of {shown(weights)}", data)
        for file in report.write(found, out, processor=processor, title=title):
            print(printable(str(file)), file=sys.stderr if as_json else sys.stdout)
    for line in skipped:
        note(line)
    return int(bool(skipped))


def _prepare(out: str) -> None:
    from keras_bit.evaluation import report

    options.check_out_directory(out, report.REPORT)
    Path(out).mkdir(parents=True, exist_ok=True)


def _evaluated(
    model: "BiTModel",
    data: str,
    class_map: str | None,
    processor: "BitImageProcessor",
    batch_size: int,
    on_error: str,
) -> tuple["AnyEvaluation", list[str]]:
    """Returns the evaluation, and a line for each image that was left out."""
    from keras_bit.data.record_parts import holds_records

    if Path(data).is_dir() and not holds_records(data):
        return _evaluate_folders(model, data, class_map, processor, batch_size, on_error)
    if class_map is not None:
        raise click.UsageError(
            f"--class-map is for the folders of a directory, got {data!r}. The labels in TFRecord files are numbers of "
            "the model's classes. Leave it out."
        )
    return _evaluate_records(model, data, processor, batch_size, on_error)


def _evaluate_folders(
    model: "BiTModel",
    data: str,
    map_file: str | None,
    processor: "BitImageProcessor",
    batch_size: int,
    on_error: str,
) -> tuple["AnyEvaluation", list[str]]:
    from keras_bit import wording
    from keras_bit.data.folders import about_left_out
    from keras_bit.data.named_batches import folder_batches
    from keras_bit.data.walk import LeftOut, holds_image
    from keras_bit.evaluation import class_map, evaluating

    left_out = LeftOut()
    said = None if map_file is None else class_map.read(map_file)
    folders = _classes_in(data, left_out, are_mapped=said is not None)
    if said is None:  # a class map covers empty folders too
        left_out.empty = [folder for folder in folders if not holds_image(Path(data) / folder)]
        folders = [folder for folder in folders if folder not in left_out.empty]
    try:
        matched = dict(zip(folders, class_map.match(folders, model.config, said), strict=True))
    except ValueError as error:
        raise ValueError(
            f"{error} Create a class map of these folders with --write-class-map FILE.json, and use it with "
            "--class-map FILE.json."
        ) from None
    used = {folder: right for folder, right in matched.items() if right is not None}
    options: dict[str, Any] = {"processor": processor, "batch_size": batch_size, "on_error": on_error}
    with _class_map_advised():
        batches, _ = folder_batches(data, list(used), **options, are_classes=said is not None, left_out=left_out)
    if unused := [folder for folder in folders if folder not in used]:
        note(f"folders left out by the class map: {wording.some(unused, most=10)}")
    if left_out:
        note(about_left_out(data, left_out))
    names = class_map.shown_names(list(used), model.config)
    found = evaluating.evaluate(model, batches, class_names=names, label_map=list(used.values()))
    return found, batches.skipped


def _classes_in(data: str, left_out: "LeftOut", are_mapped: bool) -> list[str]:
    """Returns the folders of a directory that are its classes. Folders in a class map always are.

    `left_out` counts everything else.
    """
    from keras_bit.data.folders import class_names_in
    from keras_bit.data.walk import folders_in

    if are_mapped:
        return folders_in(data, left_out)
    with _class_map_advised():
        return class_names_in(Path(data), left_out)


@contextlib.contextmanager
def _class_map_advised() -> Iterator[None]:
    """Explains a class map in the command's words."""
    from keras_bit.data.split_names import NotClassesError

    try:
        yield
    except NotClassesError as error:
        raise ValueError(f"{error.problem} If {error.unless}, name them in a --class-map.") from None


def _evaluate_records(
    model: "BiTModel", data: str, processor: "BitImageProcessor", batch_size: int, on_error: str
) -> tuple["AnyEvaluation", list[str]]:
    from keras_bit.data.named_batches import NamedBatches
    from keras_bit.evaluation import class_map, evaluating

    batches = NamedBatches(
        _record_files(data) if Path(data).is_dir() else data,
        processor=processor,
        batch_size=batch_size,
        on_error=on_error,
        class_names=[str(number) for number in range(len(class_map.labels_of(model.config)))],
    )
    return evaluating.evaluate(model, batches), batches.skipped


def _record_files(directory: str) -> list[str]:
    """Returns the files in a directory that are for testing, by their names."""
    from keras_bit import wording
    from keras_bit.data import record_parts

    parts = record_parts.record_files(directory)
    everything = [file for part in parts.values() for file in part]
    chosen = parts.get("test") or parts.get("validation") or everything
    if len(chosen) < len(everything):
        names = wording.some((Path(file).name for file in chosen), most=3)
        note(f"{len(chosen)} of {len(everything)} TFRecord files, by their names: {names}")
    return chosen


def _check_class_map(file: Path) -> None:
    from keras_bit.files.writing import check_writable

    if file.exists():
        raise FileExistsError(f"--write-class-map: {str(file)!r} exists, and may have been edited. Choose a new name.")
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"--write-class-map: the directory {str(file.absolute().parent)!r} does not exist. Create it first."
        )
    check_writable(file)


def _write_class_map(file: Path, data: str, config: "BitConfig") -> int:
    from keras_bit.data.walk import LeftOut
    from keras_bit.evaluation import class_map
    from keras_bit.files.writing import replacing

    found = class_map.template(_classes_in(data, LeftOut(), are_mapped=False), config)
    with replacing(file) as beside:
        beside.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    unknown = sum(label.startswith(class_map.UNKNOWN) for label in found.values())
    rest = "all have a label"
    if unknown:
        rest = f"complete the {unknown} entries that begin with {class_map.UNKNOWN.strip()!r}, with {class_map.ALLOWED}"
    print(f"{printable(str(file))}: {len(found)} folders; {rest}")
    return 0
