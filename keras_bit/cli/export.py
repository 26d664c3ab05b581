"""`keras-bit export`: a checkpoint as what servers, phones and other engines run."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from keras_bit.cli.arguments import add_hub_arguments, class_names_of, hub_arguments, positive
from keras_bit.cli.terminal import console, printable

# Those of `keras_bit.exporters.exporting`, which is imported when the command runs.
FORMATS = ("saved_model", "tflite", "onnx", "openvino", "huggingface", "tf_saved_model", "litert")
BATCH_SIZE = 8  # images preprocessed at a time
DEFAULT_SIZE = (224, 224)  # px, of TFLite


def add(commands: Any) -> None:
    command = commands.add_parser(
        "export",
        help="write a checkpoint for TF Serving, TFLite, ONNX, OpenVINO or transformers",
        description="Writes a checkpoint for another engine. What is written is loaded in that engine, run, and "
        "compared with the model before it gets its name; if the numbers differ nothing stays.",
        epilog="Examples: keras-bit export google/bit-50 --out served/bit writes served/bit/1 for TF Serving, with its "
        "batching configuration, a docker line and a KServe manifest; keras-bit export DIR --format tflite --quantize "
        "int8 --representative-data PICTURES --out bit.tflite; keras-bit export DIR --format onnx --out bit.onnx",
    )
    command.add_argument("source", metavar="SOURCE", help="Hub id, directory or file of a checkpoint")
    command.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="the file; for a SavedModel the directory that gets the next version; for OpenVINO the .xml",
    )
    command.add_argument(
        "--format",
        default="saved_model",
        choices=FORMATS,
        metavar="NAME",
        help=f"one of {', '.join(FORMATS[:5])} (default: %(default)s)",
    )
    command.add_argument(
        "--quantize",
        choices=("float16", "dynamic", "int8", "int8_full"),
        help="TFLite: weights in 16 bits, weights in 8, convolutions in 8, everything in 8",
    )
    command.add_argument(
        "--representative-data",
        metavar="DIR",
        help="images of the kind that will come, at any depth: int8 is calibrated on them, every format compared; "
        "resized to --image-size where the processor makes another",
    )
    command.add_argument(
        "--num-pictures", type=positive, default=200, metavar="N", help="of these, evenly spread (default: %(default)s)"
    )
    command.add_argument(
        "--labels", metavar="FILE", help="a name per line, or names between commas (default: the checkpoint's)"
    )
    command.add_argument("--batch-size", type=positive, metavar="N", help="a fixed one (default: any; TFLite: 1)")
    command.add_argument(
        "--image-size",
        type=_size,
        metavar="PIXELS",
        help="a fixed one, 224 or 375x500, or 'any' (default: any; TFLite: the processor's, or 224)",
    )
    command.add_argument(
        "--pixels-only",
        action="store_true",
        help="leave the processor out: a SavedModel takes pixels alone, of any --image-size",
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing PATH")
    command.add_argument("--json", action="store_true", help="print the report as JSON instead of a table")
    add_hub_arguments(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import keras_bit

    def tell(line: str) -> None:
        print(f"{printable(line)} ...", file=sys.stderr, flush=True)

    tell(f"loading {options.source}")
    model = keras_bit.from_pretrained(options.source, **hub_arguments(options))
    try:
        processor = keras_bit.BitImageProcessor.from_pretrained(options.source, **hub_arguments(options))
    except FileNotFoundError:
        processor = None
        print("The checkpoint has no processor: the export takes pixels only.", file=sys.stderr)
    data = None
    if options.representative_data is not None:
        if processor is None:
            raise ValueError(
                "--representative-data needs a checkpoint with a preprocessor_config.json, which makes them input."
            )
        tell(f"preprocessing images of {options.representative_data}")
        size = _size_of_data(options.image_size, processor)
        data = list(_preprocessed(Path(options.representative_data), options.num_pictures, processor, size))
    report = keras_bit.export(
        model,
        options.out,
        options.format,
        processor=None if options.pixels_only else processor,
        labels=class_names_of(options.labels),
        quantize=options.quantize,
        representative_data=data,
        batch_size=options.batch_size,
        image_size=options.image_size,
        overwrite=options.overwrite,
        progress=tell,
    )
    if options.json:
        print(json.dumps(dataclasses.asdict(report) | {"path": str(report.path)}, indent=2))
        return 0
    table = Table(title=printable(str(report.path)), title_justify="left", show_header=False)
    table.add_row("format", f"{report.format}{f', {report.quantize}' if report.quantize else ''}")
    table.add_row("size", f"{report.bytes / 1e6:,.1f} MB")
    compared = "pictures" if data else "random patterns"
    table.add_row("compared", f"{report.pictures} {compared}, by its own runtime")
    table.add_row("largest difference", f"{report.max_abs_diff:.1e} (limit {report.limit:.1e})")
    table.add_row("time", f"{report.seconds:,.1f} s")
    console().print(table)
    return 0


def _size_of_data(wanted: tuple[int | None, int | None] | None, processor: Any) -> tuple[int, int] | None:
    """What images are resized to where the processor does not make the exported size; `None` where it does."""
    size = wanted if wanted is not None and None not in wanted else processor.fixed_size or DEFAULT_SIZE
    return None if size == processor.fixed_size else size


def _preprocessed(directory: Path, count: int, processor: Any, size: tuple[int, int] | None) -> Iterator[Any]:
    """Batches of up to `count` images, evenly spread over the sorted paths."""
    import numpy as np

    from keras_bit.data.folders import scan

    if not directory.is_dir():
        raise NotADirectoryError(f"--representative-data {str(directory)!r} is no directory.")
    paths, _ = scan(directory, ["."])
    if not paths:
        raise ValueError(f"--representative-data {str(directory)!r} holds no image.")
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    names = [os.fsdecode(paths[index]) for index in chosen]
    resized = {} if size is None else {"do_resize": True, "size": size, "do_center_crop": False}
    for start in range(0, len(names), BATCH_SIZE):
        yield processor(names[start : start + BATCH_SIZE], **resized)


def _size(text: str) -> tuple[int | None, int | None]:
    if text == "any":
        return None, None
    height, _, width = text.partition("x")
    return positive(height), positive(width or height)
