"""`keras-bit classify`: what is on pictures."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from keras_bit.commands.arguments import DEFAULT_WEIGHTS, add_hub_arguments, hub_arguments, positive, upright_picture
from keras_bit.commands.terminal import console, printable

BATCH_SIZE = 8  # pictures classified at a time; bounds the memory that many large ones take


def add(commands: Any) -> None:
    command = commands.add_parser(
        "classify",
        help="name what is on pictures",
        description="Prints the most probable labels of each picture. Files that cannot be read get a line on standard "
        "error and exit code 1; the others are classified all the same.",
        epilog="Example: keras-bit classify cat.jpg dog.png --weights google/bit-50 --top 3",
    )
    command.add_argument("images", nargs="+", metavar="IMAGE", help="picture files; turned upright by their EXIF tag")
    command.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        metavar="SOURCE",
        help="Hub id, directory or file of a checkpoint with its preprocessor_config.json (default: %(default)s)",
    )
    command.add_argument("--top", type=positive, default=5, metavar="N", help="labels per picture (default: 5)")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_hub_arguments(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import keras

    import keras_bit
    from keras_bit.labels import labels_of_checkpoint

    model = keras_bit.from_pretrained(options.weights, **hub_arguments(options))
    processor = keras_bit.BitImageProcessor.from_pretrained(options.weights, **hub_arguments(options))
    labels = labels_of_checkpoint(model.config.id2label)

    # A graph is traced for seconds before it gives its first answer, which a few pictures never make good. JAX alone
    # compiles every operation of its own.
    few = len(options.images) <= BATCH_SIZE and keras.backend.backend() != "jax"
    scores_of = model if few else model.predict_on_batch

    results: list[dict[str, Any]] = [{"file": name} for name in options.images]
    for places, batch in _batches(results, processor, model.config.num_channels):
        scores = scores_of(batch)
        for place, found in zip(places, keras_bit.decode_predictions(scores, options.top, labels=labels), strict=True):
            predictions = [{"id": key, "label": label, "score": score} for key, label, score in found]
            results[place]["predictions"] = predictions

    if options.json:
        print(json.dumps(results, indent=2))
    else:
        _print_predictions(results)
    for result in results:
        if "error" in result:
            print(f"keras-bit classify: {printable(result['error'])}", file=sys.stderr)
    return int(any("error" in result for result in results))


def _batches(results: list[dict[str, Any]], processor: Any, num_channels: int) -> Iterator[tuple[list[int], Any]]:
    """Preprocessed pictures of one size, with their places in `results`; what cannot be read gets an `error` there."""
    import numpy as np
    from tqdm import tqdm

    from keras_bit.model import check_input_shape

    places: list[int] = []
    waiting: list[Any] = []
    for place, result in enumerate(tqdm(results, desc="classify", unit="picture", delay=2, leave=False)):
        try:
            pixels = processor(upright_picture(result["file"]))
            # Here and not in the model, which is traced for unknown sizes once it has seen two.
            check_input_shape(pixels.shape[1:], num_channels, "pixel_values")
        except (OSError, ValueError, MemoryError) as error:
            message = str(error)
            result["error"] = message if result["file"] in message else f"{result['file']}: {message}"
            continue
        if waiting and (len(waiting) == BATCH_SIZE or waiting[0].shape != pixels.shape):
            yield places, np.concatenate(waiting)
            places, waiting = [], []
        places.append(place)
        waiting.append(pixels)
    if waiting:
        yield places, np.concatenate(waiting)


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
