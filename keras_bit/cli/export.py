"""`keras-bit export`: writes a checkpoint for servers, phones and other engines."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_bit.cli import options
from keras_bit.cli.command import Command
from keras_bit.cli.terminal import console, note, printable, shown

if TYPE_CHECKING:
    import numpy as np

    from keras_bit.exporters.job import ExportReport
    from keras_bit.hub.finding import HubOptions
    from keras_bit.images.processor import BitImageProcessor

# The names in `keras_bit.exporters.exporting`, which is imported only when the command runs.
FORMATS = ("saved_model", "tflite", "onnx", "openvino", "web", "huggingface", "tf_saved_model", "litert")
BATCH_SIZE = 8  # images preprocessed at a time
DEFAULT_SIZE = (224, 224)  # px, of TFLite


@click.command(
    cls=Command,
    examples=[
        (
            "served/bit/1 for TF Serving, with a script that starts the server and files for batching and KServe",
            "keras-bit export --weights google/bit-50 --out served/bit",
        ),
        (
            "for a phone, in 8 bits",
            "keras-bit export --weights DIR --out bit.tflite --format tflite --quantize int8 --representative-data DIR",
        ),
        ("ONNX", "keras-bit export --weights DIR --out bit.onnx --format onnx"),
        (
            "ONNX in 8 bits",
            "keras-bit export --weights DIR --out bit.onnx --format onnx --quantize int8 --representative-data DIR",
        ),
        (
            "OpenVINO that takes images",
            "keras-bit export --weights DIR --out bit.xml --format openvino --include-preprocessing",
        ),
        (
            "a page that classifies in the browser",
            "keras-bit export --weights DIR --out page --format web --quantize float16",
        ),
    ],
)
@options.weights(f"{options.SOURCE}.")
@options.out(
    "The file to write; for OpenVINO the .xml file; for web and huggingface the directory; for a SavedModel the "
    "directory of its versions.",
    "PATH",
)
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    default="saved_model",
    show_default=True,
    metavar="NAME",
    help=f"One of {', '.join(FORMATS[:6])}.",
)
@click.option(
    "--quantize",
    type=click.Choice(["float16", "dynamic", "int8", "int8_full"]),
    help="Make the file smaller with fewer bits. TFLite: float16 and dynamic are weights in 16 and in 8 bits, int8 is "
    "convolutions in 8 bits, int8_full everything in 8 bits. Web: float16 or int8 weights. OpenVINO: float16 weights. "
    "ONNX, OpenVINO: int8 convolutions and dense layers.",
)
@click.option(
    "--representative-data",
    type=options.PATH,
    metavar="DIR",
    help="Directory with typical images, at any depth, to calibrate int8 and to compare every format. They are "
    "resized to --image-size if the processor makes another size.",
)
@click.option(
    "--num-images",
    type=options.POSITIVE,
    default=200,
    show_default=True,
    metavar="N",
    help="Use this number of these images, evenly spread over the directory.",
)
@click.option(
    "--labels",
    type=options.Names(),
    metavar="A,B,... or FILE",
    show_default="the checkpoint's",
    help="Names of the classes, between commas, or one in each line of a file.",
)
@options.batch_size(None, "A fixed batch size.", "any; TFLite, web: 1")
@options.image_size(
    "A fixed size of the images", "any; TFLite, web: the processor's; TFLite without one: 224", any_size=True
)
@click.option(
    "--pixels-only",
    is_flag=True,
    help="Do not put the checkpoint's preprocessing into the file: a SavedModel then takes only pixels, of any "
    "--image-size.",
)
@click.option(
    "--include-preprocessing",
    is_flag=True,
    help="OpenVINO: the file takes uint8 images, of any size or of --image-size, and preprocesses them itself.",
)
@click.option(
    "--runtime",
    type=options.PATH,
    metavar="DIR",
    show_default="the page loads it from jsDelivr",
    help="Web: the directory of a local npm package onnxruntime-web, from which the page's runtime is copied.",
)
@options.overwrite()
@options.json()
@options.hub
def export(
    weights: str,
    representative_data: str | None,
    num_images: int,
    pixels_only: bool,
    as_json: bool,
    hub: "HubOptions",
    image_size: tuple[int, int] | tuple[None, None] | None,
    include_preprocessing: bool,
    out: str,
    **chosen: Any,
) -> None:
    """Writes a checkpoint for another engine: TF Serving, TFLite, ONNX, OpenVINO, the browser, or transformers.

    The export is loaded in that engine, run, and compared with the model. Only if the numbers match is it kept and
    moved to its final name. Each step is a line on standard error.
    """
    if pixels_only and include_preprocessing:
        raise click.UsageError(
            "--include-preprocessing puts the checkpoint's preprocessing into the file, and --pixels-only leaves it "
            "out. Give only one of them."
        )
    format, quantize = chosen["format"], chosen["quantize"]
    # `keras_bit.export` checks this too, but only after TensorFlow's import.
    for given, option, only in (
        (include_preprocessing, "--include-preprocessing", "openvino"),
        (chosen["runtime"] is not None, "--runtime", "web"),
    ):
        if given and format != only:
            raise click.UsageError(f"{option} is for --format {only}, got --format {format}. Leave it out.")
    import keras_bit
    from keras_bit.exporters import exporting

    if quantize not in (known := exporting.quantizations(format)):
        advice = f"It has {', '.join(filter(None, known))}." if any(known) else "Leave --quantize out."
        raise click.UsageError(f"--format {format} has no --quantize {quantize}. {advice}")
    if representative_data is None and exporting.is_calibrated(format, quantize):
        raise click.UsageError(
            f"--quantize {quantize} of --format {format} needs --representative-data DIR, a directory with some "
            "hundred typical images: the ranges of 8 bits are measured on them."
        )
    exporting.check_path(out, chosen["format"], chosen["overwrite"])
    note(f"loading {shown(weights)}")
    model = keras_bit.from_pretrained(weights, **hub.arguments)
    try:
        processor = keras_bit.BitImageProcessor.from_pretrained(weights, **hub.arguments)
    except FileNotFoundError:
        processor = None
        note("the checkpoint has no processor, so the export takes only pixels")
    data = None
    if representative_data is not None:
        if processor is None:
            raise ValueError(
                "--representative-data needs a checkpoint with a preprocessor_config.json, to prepare the images. "
                "Write one with `BitImageProcessor(...).save_pretrained`."
            )
        note(f"preprocessing images of {representative_data}")
        size = _size_of_data(None if include_preprocessing else image_size, processor)
        data = list(_preprocessed(Path(representative_data), num_images, processor, size))
    report = keras_bit.export(
        model,
        out,
        processor=None if pixels_only else processor,
        representative_data=data,
        image_size=image_size,
        include_preprocessing=include_preprocessing,
        progress=note,
        **chosen,
    )
    if as_json:
        print(json.dumps(dataclasses.asdict(report) | {"path": str(report.path)}, indent=2))
    else:
        _print_table(report, "images" if data else "random patterns")


def _print_table(report: "ExportReport", compared: str) -> None:
    from rich.table import Table

    table = Table(title=printable(str(report.path)), title_justify="left", show_header=False)
    table.add_row("format", f"{report.format}{f', {report.quantize}' if report.quantize else ''}")
    table.add_row("size", f"{report.bytes / 1e6:,.1f} MB")
    table.add_row("compared", f"{report.images} {compared}, by its own runtime")
    table.add_row("largest difference", f"{report.max_abs_diff:.1e} (limit {report.limit:.1e})")
    table.add_row("time", f"{report.seconds:,.1f} s")
    console().print(table)
    if report.advice:
        print(printable(report.advice))


def _size_of_data(
    wanted: tuple[int, int] | tuple[None, None] | None, processor: "BitImageProcessor"
) -> tuple[int, int] | None:
    """Returns the size for images if the processor does not make the exported size; else `None`."""
    fixed = processor.fixed_size
    if wanted is None or wanted[0] is None:
        return DEFAULT_SIZE if fixed is None else None
    return None if wanted == fixed else wanted


def _preprocessed(
    directory: Path, count: int, processor: "BitImageProcessor", size: tuple[int, int] | None
) -> Iterator["np.ndarray"]:
    """Yields batches of up to `count` images, evenly spread over the sorted paths."""
    import numpy as np

    from keras_bit.data.folders import about_left_out, scan
    from keras_bit.data.walk import LeftOut

    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise NotADirectoryError(f"--representative-data {str(directory)!r} {what}. Name a directory with images.")
    left_out = LeftOut()
    paths, _ = scan(directory, None, left_out)
    if not paths:
        raise ValueError(f"--representative-data {str(directory)!r} holds no image. Choose another directory.")
    if left_out:
        note(about_left_out(directory, left_out))
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    names = [os.fsdecode(paths[index]) for index in chosen]
    resized: dict[str, Any] = {} if size is None else {"do_resize": True, "size": size, "do_center_crop": False}
    for start in range(0, len(names), BATCH_SIZE):
        yield processor(names[start : start + BATCH_SIZE], **resized)
