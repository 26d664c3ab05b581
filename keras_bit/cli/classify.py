"""`keras-bit classify`: what is on images."""

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.table import Table

from keras_bit.cli.arguments import DEFAULT_WEIGHTS, add_hub_arguments, hub_arguments, positive, upright_picture
from keras_bit.cli.terminal import console, printable

ORIENTATION = 0x0112  # EXIF's tag
DEFAULT_TOP = 5  # labels; an exported SavedModel tells as many
BATCH_SIZE = 8  # images classified at a time; bounds the memory that many large ones take


def add(commands: Any) -> None:
    command = commands.add_parser(
        "classify",
        help="name what is on images",
        description="Prints the most probable labels of each image. Files that cannot be read get a line on standard "
        "error and exit code 1; the others are classified all the same.",
        epilog="Examples: keras-bit classify cat.jpg dog.png --weights google/bit-50 --top 3; keras-bit classify "
        "cat.jpg --server grpc://127.0.0.1:8500, where TF Serving has what keras-bit export wrote",
    )
    command.add_argument("images", nargs="+", metavar="IMAGE", help="image files; turned upright by their EXIF tag")
    command.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        metavar="SOURCE",
        help="Hub id, directory or file of a checkpoint with its preprocessor_config.json (default: %(default)s)",
    )
    command.add_argument("--top", type=positive, default=DEFAULT_TOP, metavar="N", help="labels per image (default: 5)")
    command.add_argument(
        "--server",
        metavar="ADDRESS",
        help="ask a TF Serving at grpc://HOST:PORT or http://HOST:PORT instead of loading weights",
    )
    command.add_argument(
        "--server-model", default="bit", metavar="NAME", help="what the server calls the model (default: %(default)s)"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_hub_arguments(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    results: list[dict[str, Any]] = [{"file": name} for name in options.images]
    if options.server is None:
        _by_weights(options, results)
    else:
        _by_server(options, results)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        _print_predictions(results)
    for result in results:
        if "error" in result:
            print(f"keras-bit classify: {printable(result['error'])}", file=sys.stderr)
    return int(any("error" in result for result in results))


def _by_weights(options: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Adds `predictions`, or an `error`, to each of `results`."""
    import keras

    import keras_bit
    from keras_bit.labels import labels_of_checkpoint

    model = keras_bit.from_pretrained(options.weights, fused=True, **hub_arguments(options))
    processor = keras_bit.BitImageProcessor.from_pretrained(options.weights, **hub_arguments(options))
    labels = labels_of_checkpoint(model.config.id2label)

    # A graph is traced for seconds before it gives its first answer, which a few images never make good. JAX alone
    # compiles every operation of its own.
    few = len(options.images) <= BATCH_SIZE and keras.backend.backend() != "jax"
    scores_of = model if few else model.predict_on_batch

    for places, batch in _batches(results, processor, model.config.num_channels):
        scores = scores_of(batch)
        for place, found in zip(places, keras_bit.decode_predictions(scores, options.top, labels=labels), strict=True):
            predictions = [{"id": key, "label": label, "score": score} for key, label, score in found]
            results[place]["predictions"] = predictions


def _by_server(options: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """The same, by the answers of a server."""
    from tqdm import tqdm

    from keras_bit.exporters.serving_client import classify_each, connect

    classify = connect(options.server, options.server_model)
    starts = range(0, len(results), BATCH_SIZE)
    most = 0  # labels in an answer
    for start in tqdm(starts, desc="classify", unit="request", delay=2, leave=False):
        batch = []
        for result in results[start : start + BATCH_SIZE]:
            try:
                batch.append((result, _encoded_upright(result["file"])))
            except (OSError, ValueError, MemoryError) as error:
                result["error"] = _told(result["file"], error)
        if not batch:
            continue
        for (result, _), answer in zip(batch, classify_each(classify, [one for _, one in batch]), strict=True):
            if isinstance(answer, str):
                result["error"] = f"{result['file']} {answer}"
                continue
            most = max(most, len(answer))
            best = answer[: options.top]
            result["predictions"] = [{"label": label, "score": score} for label, score in best]
    if most and options.top > max(most, DEFAULT_TOP):
        print(
            f"keras-bit classify: the server answers with {most} labels, not the {options.top} of --top",
            file=sys.stderr,
        )


def _batches(results: list[dict[str, Any]], processor: Any, num_channels: int) -> Iterator[tuple[list[int], Any]]:
    """Preprocessed images of one size, with their places in `results`; what cannot be read gets an `error` there."""
    import numpy as np
    from tqdm import tqdm

    from keras_bit.network.model import check_input_shape

    places: list[int] = []
    waiting: list[Any] = []
    for place, result in enumerate(tqdm(results, desc="classify", unit="picture", delay=2, leave=False)):
        try:
            pixels = processor(upright_picture(result["file"]))
            # Here and not in the model, which is traced for unknown sizes once it has seen two.
            check_input_shape(pixels.shape[1:], num_channels, "pixel_values")
        except (OSError, ValueError, MemoryError) as error:
            result["error"] = _told(result["file"], error)
            continue
        if waiting and (len(waiting) == BATCH_SIZE or waiting[0].shape != pixels.shape):
            yield places, np.concatenate(waiting)
            places, waiting = [], []
        places.append(place)
        waiting.append(pixels)
    if waiting:
        yield places, np.concatenate(waiting)


def _told(name: str, error: Exception) -> str:
    return str(error) if name in str(error) else f"{name}: {error}"


def _encoded_upright(name: str) -> bytes:
    """The file as it is, or, where a camera noted that it is to be turned, the turned image as a PNG."""
    contents = Path(name).read_bytes() if os.path.isfile(name) else b""
    with contextlib.suppress(Exception), Image.open(io.BytesIO(contents)) as image:
        if image.getexif().get(ORIENTATION, 1) == 1:
            return contents  # whether it can be read is the server's to say
    turned = io.BytesIO()
    upright_picture(name).convert("RGB").save(turned, "PNG")
    return turned.getvalue()


def _print_predictions(results: Sequence[dict[str, Any]]) -> None:
    table = Table()
    table.add_column("picture", overflow="fold")
    table.add_column("label")
    table.add_column("score", justify="right")
    for result in results:
        for rank, prediction in enumerate(result.get("predictions", ())):
            name = "" if rank else printable(result["file"])
            table.add_row(name, printable(prediction["label"]), f"{prediction['score']:.4f}")
        table.add_section()
    if table.row_count:
        console().print(table)
