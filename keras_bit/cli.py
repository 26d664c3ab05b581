"""The commands `keras-bit classify` and `keras-bit info`."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

DEFAULT_WEIGHTS = "google/bit-50"
_CONFIG_NAMES = ("config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors.index.json")
BATCH_SIZE = 8  # pictures classified at a time; bounds the memory that many large ones take


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 is success, 1 an error or an unreadable file, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # File names may hold bytes that are no UTF-8, and a terminal may be ASCII: they are escaped, not an error.
        stream.reconfigure(errors="backslashreplace")
    try:
        return options.run(options)
    except (OSError, ValueError, ImportError) as error:
        print(f"keras-bit {options.command}: {_printable(str(error))}", file=sys.stderr)
        return 1


def classify(options: argparse.Namespace) -> int:
    import keras

    import keras_bit
    from keras_bit.labels import labels_of_checkpoint

    model = keras_bit.from_pretrained(options.weights, **_hub(options))
    processor = keras_bit.BitImageProcessor.from_pretrained(options.weights, **_hub(options))
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
            print(f"keras-bit classify: {_printable(result['error'])}", file=sys.stderr)
    return int(any("error" in result for result in results))


def info(options: argparse.Namespace) -> int:
    from keras_bit import hub
    from keras_bit.config import BitConfig
    from keras_bit.preprocessing import BitImageProcessor
    from keras_bit.weights import open_checkpoint

    checkpoint = open_checkpoint(options.source, **_hub(options))
    config = checkpoint.config or BitConfig.from_pretrained(options.source, **_hub(options))
    try:
        input_size = _input_size(BitImageProcessor.from_pretrained(options.source, **_hub(options)))
    except FileNotFoundError:
        input_size = "not stated: no preprocessor_config.json"

    classes = checkpoint.head_classes
    names = ""
    if config.has_named_labels and classes:
        names = f" ({', '.join(map(_printable, list(config.id2label.values())[:2]))}{', ...' * (classes > 2)})"
    table = Table(title=_printable(options.source), title_justify="left", show_header=False)
    table.add_row("architecture", f"{config.layer_type}, depths {config.depths}, width x{config.width_factor}")
    table.add_row("widths", f"stem {config.stem_width}, stages {config.stage_widths}, {config.num_groups} groups")
    table.add_row("parameters", f"{checkpoint.parameters:,} in {len(checkpoint.tensors)} tensors")
    table.add_row("classes", f"{classes}{names}" if classes else "none: no head")
    table.add_row("input size", input_size)
    others = [hub.find_file(options.source, (name,), **_hub(options)) for name in _CONFIG_NAMES]
    for file in dict.fromkeys([*checkpoint.files, *filter(None, others)]):
        table.add_row("file", f"{file.name}, {_size(file.stat().st_size)}")
    _console().print(table)
    return 0


def _input_size(processor: Any) -> str:
    """What the processor makes of a picture, in words."""
    if processor.do_center_crop:
        return f"{processor.crop_size['height']}x{processor.crop_size['width']} px"
    if not processor.do_resize:
        return "the picture's own"
    if "shortest_edge" in processor.size:
        return f"short edge {processor.size['shortest_edge']} px"
    return f"{processor.size['height']}x{processor.size['width']} px"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def _batches(results: list[dict[str, Any]], processor: Any, num_channels: int) -> Iterator[tuple[list[int], Any]]:
    """Preprocessed pictures of one size, with their places in `results`; what cannot be read gets an `error` there."""
    import numpy as np
    from tqdm import tqdm

    from keras_bit.model import check_input_shape

    places: list[int] = []
    waiting: list[Any] = []
    for place, result in enumerate(tqdm(results, desc="classify", unit="picture", delay=2, leave=False)):
        try:
            pixels = processor(_upright(result["file"]))
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


def _upright(name: str) -> Image.Image:
    """The picture as a person sees it: cameras store the orientation beside the pixels."""
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name} is a directory; name the pictures in it, {name}/*")
    try:
        with Image.open(name) as image:
            return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"{name!r} does not exist") from None
    except MemoryError:
        raise
    except Exception as error:
        # On damaged files Pillow's decoders raise OSError, SyntaxError, RuntimeError, NotImplementedError and others.
        raise ValueError(f"{name} cannot be read as a picture: {error}") from error


def _print_predictions(results: Sequence[dict[str, Any]]) -> None:
    table = Table()
    table.add_column("picture", overflow="fold")
    table.add_column("label")
    table.add_column("score", justify="right")
    for result in results:
        for rank, prediction in enumerate(result.get("predictions", ())):
            name = "" if rank else _printable(result["file"])
            table.add_row(name, _printable(prediction["label"]), f"{prediction['score']:.4f}")
        table.add_section()
    if table.row_count:
        _console().print(table)


def _console() -> Console:
    # File names and labels are printed as they are: `[cat]` is no markup in them and `:dog:` no emoji.
    return Console(markup=False, emoji=False, highlight=False)


def _printable(text: str) -> str:
    """`text` as one line without control characters: names and labels must not drive the terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _hub(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "revision": options.revision,
        "cache_dir": options.cache_dir,
        "local_files_only": options.local_files_only,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-bit",
        description="BiT (Big Transfer) image classification in Keras.",
        epilog="Exit codes: 0 success, 1 an error or a file that could not be read, 2 wrong usage.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

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
    command.add_argument("--top", type=_positive, default=5, metavar="N", help="labels per picture (default: 5)")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _add_hub_arguments(command)
    command.set_defaults(run=classify)

    command = commands.add_parser(
        "info",
        help="what a checkpoint holds",
        description="Prints architecture, parameters, classes, input size and files of a checkpoint. Reads the names "
        "and shapes of its tensors, not the numbers.",
    )
    command.add_argument("source", metavar="SOURCE", help="Hub id, directory or file")
    _add_hub_arguments(command)
    command.set_defaults(run=info)
    return parser


def _add_hub_arguments(command: argparse.ArgumentParser) -> None:
    hub = command.add_argument_group("for a Hub id")
    hub.add_argument("--revision", help="branch, tag or commit")
    hub.add_argument("--cache-dir", metavar="DIR", help="cache of huggingface_hub")
    hub.add_argument("--local-files-only", action="store_true", help="use the cache, do not ask the Hub")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
