"""`keras-bit classify`: prints the labels of images."""

import csv
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from keras_bit.cli import images as images_named
from keras_bit.cli import options
from keras_bit.cli.command import Argument, Command
from keras_bit.cli.terminal import console, note, noting, printable, working

if TYPE_CHECKING:
    import numpy as np

    from keras_bit.hub.finding import HubOptions
    from keras_bit.images.processor import BitImageProcessor

DEFAULT_TOP = 5  # labels; an exported SavedModel returns as many
BATCH_SIZE = 8  # images per batch, to bound the memory for large ones
CSV_COLUMNS = ("file", "rank", "id", "label", "score")

Result = dict[str, Any]  # `file`, and `predictions` or an `error`


@click.command(
    cls=Command,
    examples=[
        ("the three most probable labels of two images", "keras-bit classify cat.jpg dog.png --top 3"),
        ("every image in a folder, with your own model", "keras-bit classify photos --weights flowers-bit"),
        ("the files of a pattern, as a spreadsheet", "keras-bit classify 'photos/**/*.jpg' --csv > labels.csv"),
        (
            "the files that another program finds",
            "find /disk -name '*.jpg' | keras-bit classify - --json > labels.json",
        ),
        ("an image on the web", "keras-bit classify https://example.org/cat.jpg"),
        (
            "with a TF Serving that runs an export of keras-bit",
            "keras-bit classify cat.jpg --server grpc://127.0.0.1:8500",
        ),
    ],
)
@click.argument(
    "images",
    cls=Argument,
    nargs=-1,
    required=True,
    type=options.PATH,
    metavar="IMAGES...",
    described="Files, folders (images at any depth), patterns in quotes, http(s) addresses, or - for a list of "
    "these on standard input, one per line. Images are turned upright by their orientation tag.",
)
@options.weights()
@click.option(
    "--top", type=options.POSITIVE, default=DEFAULT_TOP, show_default=True, metavar="N", help="Labels per image."
)
@click.option(
    "--server",
    metavar="ADDRESS",
    help="Ask a TF Serving at grpc://HOST:PORT or http://HOST:PORT instead of loading weights.",
)
@click.option(
    "--server-model", default="bit", show_default=True, metavar="NAME", help="The model's name on the server."
)
@options.json()
@click.option("--csv", "as_csv", is_flag=True, help=f"Print CSV: {', '.join(CSV_COLUMNS)}.")
@options.hub
def classify(
    images: tuple[str, ...],
    weights: str,
    top: int,
    server: str | None,
    server_model: str,
    as_json: bool,
    as_csv: bool,
    hub: "HubOptions",
) -> int:
    """Prints the most probable labels of each image, or the predicted numbers of a regression.

    It reads a few images at a time. An image that cannot be read gets a line on standard error, and the exit code is
    then 1; the others are classified. It writes no file.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv cannot be used together. Leave one out.")
    from keras_bit.data.walk import DirectoryWarning

    results: list[Result] = []
    with noting(DirectoryWarning):
        for name, problem in images_named.listed(images):
            results.append({"file": name} if problem is None else {"file": name, "error": problem})
    if not results:
        raise ValueError("Standard input must have a line for each image, got none.")
    if server is None:
        are_numbers = _by_weights(results, weights, top, hub)
    else:
        are_numbers = _by_server(results, server, server_model, top)
    for result in results:
        result["file"] = images_named.shown(result["file"])
    if as_json:
        print(json.dumps(results, indent=2))
    elif as_csv:
        _print_csv(results)
    else:
        _print_table(results, are_numbers)
    problems = [result["error"] for result in results if "error" in result]
    for problem in problems:
        note(problem)
    return int(bool(problems))


def _by_weights(results: list[Result], weights: str, top: int, hub: "HubOptions") -> bool:
    """Adds `predictions`, or an `error`, to each of `results`; returns whether the model predicts numbers."""
    with working(f"loading {weights}"):
        import keras

        import keras_bit
        from keras_bit.labels import labels_of_checkpoint
        from keras_bit.network.model import head_activation

        model = keras_bit.from_pretrained(weights, fused=True, **hub.arguments)
        processor = keras_bit.BitImageProcessor.from_pretrained(weights, **hub.arguments)
    named = labels_of_checkpoint(model.config.id2label or {})
    labels = None if named is None else [named[index] for index in sorted(named)]

    # Tracing a graph takes seconds, which is not worth it for a few images. Plain JAX would compile every operation
    # separately.
    few = len(results) <= BATCH_SIZE and keras.backend.backend() != "jax"
    scores_of = model if few else model.predict_on_batch

    predicts_numbers = head_activation(model.config) is None
    for asked, batch in _batches(results, processor, model.config.num_channels):
        scores = scores_of(batch)
        if predicts_numbers:
            answers = _numbers(scores, labels)
        else:
            answers = keras_bit.decode_predictions(scores, top, labels=labels)
        for result, answer in zip(asked, answers, strict=True):
            result["predictions"] = [{"id": key, "label": label, "score": score} for key, label, score in answer]
    return predicts_numbers


def _numbers(predicted: Any, names: Sequence[str] | None) -> list[list[tuple[str, str, float]]]:
    """Returns all predicted numbers in the form of `decode_predictions`, without ranking."""
    import keras

    rows = keras.ops.convert_to_numpy(predicted)
    names = names or [str(place) for place in range(rows.shape[1])]
    return [[(str(place), name, float(row[place])) for place, name in enumerate(names)] for row in rows]


def _batches(
    results: list[Result], processor: "BitImageProcessor", num_channels: int
) -> Iterator[tuple[list[Result], "np.ndarray"]]:
    """Yields batches of preprocessed images of one size with their `results`; unreadable ones get an `error`."""
    import numpy as np

    from keras_bit.network.model import check_input_shape

    asked: list[Result] = []
    waiting: list[np.ndarray] = []
    for result in _progress(results):
        try:
            pixels = processor(images_named.opened(result["file"], processor.orientation))
            # Here and not in the model, which TensorFlow traces for unknown sizes after it has seen two.
            check_input_shape(pixels.shape[1:], num_channels, "pixel_values")
        except (OSError, ValueError, MemoryError) as error:
            result["error"] = _about(result["file"], error)
            continue
        if waiting and (len(waiting) == BATCH_SIZE or waiting[0].shape != pixels.shape):
            yield asked, np.concatenate(waiting)
            asked, waiting = [], []
        asked.append(result)
        waiting.append(pixels)
    if waiting:
        yield asked, np.concatenate(waiting)


def _by_server(results: list[Result], server: str, server_model: str, top: int) -> bool:
    """Does the same with the answers of a server. It does not say what its scores are, so their range decides."""
    from keras_bit.exporters.serving_client import classify_each, connect

    ask = connect(server, server_model)
    most = 0  # labels in an answer
    for asked, batch in _requests(results):
        for result, answer in zip(asked, classify_each(ask, batch), strict=True):
            if isinstance(answer, str):
                result["error"] = f"{result['file']} {answer}"
                continue
            most = max(most, len(answer))
            result["predictions"] = [{"label": label, "score": score} for label, score in answer[:top]]
    if most and top > max(most, DEFAULT_TOP):
        note(f"the server returns {most} labels, fewer than --top {top}")
    scores = [prediction["score"] for result in results for prediction in result.get("predictions", ())]
    return any(not 0 <= score <= 1 for score in scores)


def _requests(results: list[Result]) -> Iterator[tuple[list[Result], list[bytes]]]:
    """Yields encoded images per request with their `results`; unreadable images get an `error` there."""
    shown = iter(_progress(results))
    while chunk := list(itertools.islice(shown, BATCH_SIZE)):
        asked, batch = [], []
        for result in chunk:
            try:
                batch.append(images_named.encoded(result["file"]))
                asked.append(result)
            except (OSError, ValueError, MemoryError) as error:
                result["error"] = _about(result["file"], error)
        if asked:
            yield asked, batch


def _progress(results: list[Result]) -> Iterator[Result]:
    from tqdm import tqdm

    found = [result for result in results if "error" not in result]
    yield from tqdm(found, desc="classify", unit="image", delay=2, leave=False)


def _about(name: str, error: Exception) -> str:
    from keras_bit.wording import shortened

    name = images_named.shown(name)
    named = name in str(error) or shortened(name) in str(error)
    return str(error) if named else f"{shortened(name)}: {error or type(error).__name__}"


def _print_table(results: Sequence[Result], are_numbers: bool) -> None:
    from rich.table import Table

    from keras_bit.wording import number

    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column("label")
    table.add_column("number" if are_numbers else "score", justify="right")
    for result in results:
        for rank, prediction in enumerate(result.get("predictions", ())):
            name, score = "" if rank else printable(result["file"]), prediction["score"]
            table.add_row(name, printable(prediction["label"]), number(score) if are_numbers else f"{score:.4f}")
        table.add_section()
    if table.row_count:
        console().print(table)


def _print_csv(results: Sequence[Result]) -> None:
    """Prints a row for each label, with unchanged names, for programs."""
    writer = csv.DictWriter(sys.stdout, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for result in results:
        for rank, prediction in enumerate(result.get("predictions", ()), start=1):
            writer.writerow({"file": result["file"], "rank": rank, "id": "", **prediction})
