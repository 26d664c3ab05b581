"""The commands `keras-bit classify`, `keras-bit finetune` and so on."""

import argparse
import dataclasses
import importlib.util
import json
import os
import re
import secrets
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

DEFAULT_WEIGHTS = "google/bit-50"
_CONFIG_NAMES = ("config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors.index.json")
# What google/bit-50 has in its preprocessor_config.json.
BIT_PROCESSOR = {"size": 448, "crop_size": 448, "resample": 2, "image_mean": 0.5, "image_std": 0.5}
BATCH_SIZE = 8  # pictures classified at a time; bounds the memory that many large ones take


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 is success, 1 an error or an unreadable file, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # File names may hold bytes that are no UTF-8, and a terminal may be ASCII: they are escaped, not an error.
        stream.reconfigure(errors="backslashreplace")
    try:
        return options.run(options)
    except _told_errors() as error:
        print(f"keras-bit {options.command}: {_printable(_sentence(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"keras-bit {options.command}: interrupted", file=sys.stderr)
        return 130


def _told_errors() -> tuple[type[Exception], ...]:
    """Errors that get a line and no traceback; TensorFlow's where it is imported, as some commands do without."""
    tensorflow = sys.modules.get("tensorflow")
    return (OSError, ValueError, ImportError, ArithmeticError) + ((tensorflow.errors.OpError,) if tensorflow else ())


def _sentence(error: Exception) -> str:
    """What an error says; of one from a graph without the graph's nodes around it."""
    if isinstance(error, (OSError, ValueError, ImportError, ArithmeticError)):
        return str(error)
    text = re.sub(r"^(\{\{[^}]*\}\} ?)+", "", str(error))
    text = re.split(r"\n\t \[\[| \[Op:", text)[0]
    if asserted := re.search(r"assertion failed: \[(.*)\]", text, re.DOTALL):
        # It has C's escapes for quotes, among others.
        text = asserted[1].encode("ascii", "backslashreplace").decode("unicode_escape")
    return " ".join(text.split())


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


def plot(options: argparse.Namespace) -> int:
    import numpy as np

    import keras_bit
    from keras_bit import contact_sheet

    out = Path(options.out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"`--out` must be a file name that ends in .png, got {options.out!r}.")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"`--out`: there is no directory {str(out.absolute().parent)!r}.")
    processor = keras_bit.BitImageProcessor(**BIT_PROCESSOR)
    if options.weights is not None:
        processor = keras_bit.BitImageProcessor.from_pretrained(options.weights, **_hub(options))
    class_names = _class_names(options.class_names)
    source = {
        "source": options.data,
        "class_names": class_names,
        "seed": options.seed,
        "batch_size": options.batch_size,
        "on_error": "skip",
        "random_resized_crop": options.random_resized_crop,
    }
    if options.evaluation:
        applied = [f"Evaluation: the processor's pictures, {_input_size(processor)}"]
        batches = keras_bit.image_dataset(**source, processor=processor)
    else:
        rule = _rule(options, processor, class_names)
        crop = f"{rule.crop_size}x{rule.crop_size}"
        how = f"resize to {rule.resize_size}x{rule.resize_size}, random crop of {crop}"
        if options.random_resized_crop:
            how = f"random part resized to {crop}"
        mixup = f"MixUp with alpha {rule.mixup_alpha}" if rule.mixup_alpha else "no MixUp"
        applied = [
            f"Training: {how}, half flipped, {mixup}",
            f"BiT-HyperRule for {rule.num_examples:,} pictures of {rule.image_size[0]}x{rule.image_size[1]}",
        ]
        batches = keras_bit.image_dataset(**source, processor=processor, training=True, rule=rule)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"[\d,]+ of [\d,]+ pictures were left out")  # they get their lines below
        images, labels = next(batches.as_numpy_iterator())
    text = [contact_sheet.label_text(label, batches.class_names) for label in labels]
    sheet = contact_sheet.draw(contact_sheet.denormalize(images, processor), text, [options.data, *applied])
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        sheet.save(beside, "PNG")
        os.replace(beside, out)
    finally:
        beside.unlink(missing_ok=True)
    print(f"{_printable(str(out))}: {len(np.atleast_1d(labels))} pictures, {sheet.width}x{sheet.height} px")
    for line in batches.skipped:
        print(f"keras-bit plot: {_printable(line)}", file=sys.stderr)
    return int(bool(batches.skipped))


def finetune(options: argparse.Namespace) -> int:
    import keras

    from keras_bit import distribution, finetuning

    workers = distribution.start(options.strategy)
    out = Path(options.out).expanduser()
    finetuning.check_directory(out)
    callbacks = ()
    if options.tensorboard:
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError("`--tensorboard` needs TensorBoard: pip install tensorboard.")
        callbacks = (keras.callbacks.TensorBoard(out / "tensorboard"),)
    chosen = finetuning.Options(
        class_names=_class_names(options.class_names),
        hub=_hub(options),
        **{
            field.name: getattr(options, field.name)
            for field in dataclasses.fields(finetuning.Options)
            if field.name not in ("hub", "class_names")
        },
    )
    plan = finetuning.plan(chosen, workers)

    def say(line: str) -> None:
        if workers.is_chief:
            print(_printable(line), flush=True)

    if workers.is_chief:
        _console().print(_plan_table(plan))
    for note in plan.notes:
        say(note)
    try:
        finetuning.run(chosen, plan, out, workers=workers, say=say, callbacks=callbacks)
    except workers.lost as error:
        told = " ".join(str(error).split())[:300]
        print(
            f"keras-bit finetune: another worker has ended, or cannot be reached ({_printable(told)} ...). Start the "
            "command again on all of them: it goes on from the last evaluation.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # on its way out Python would wait for the lost worker, and be aborted
    say(f"{out}: keras-bit classify IMAGE --weights {out}")
    return 0


def _plan_table(plan: Any) -> Table:
    """What is about to happen, so that a person can stop it."""
    rule, found = plan.rule, plan.splits
    table = Table(title="BiT-HyperRule", title_justify="left", show_header=False)
    shown = ", ".join(found.class_names[:5]) + ", ..." * (len(found.class_names) > 5)
    table.add_row("classes", f"{len(found.class_names)} ({_printable(shown)})")
    table.add_row("training pictures", f"{len(found.train):,}, typically {rule.image_size[0]}x{rule.image_size[1]} px")
    table.add_row("validation pictures", f"{len(found.validation):,}" if found.validation else "none")
    table.add_row("resize, random crop", f"{rule.resize_size} px, {rule.crop_size} px")
    table.add_row("MixUp", f"alpha {rule.mixup_alpha}" if rule.mixup_alpha else "none")
    parts = f" in {plan.accumulation} parts, gradients accumulated" if plan.accumulation > 1 else ""
    table.add_row("batch", f"{rule.batch_size}{parts}")
    table.add_row("steps", f"{rule.total_steps:,}, evaluated and saved every {plan.evaluate_every:,}")
    table.add_row(
        "learning rate",
        f"{rule.learning_rate:g} after {rule.warmup_steps:,} steps, then falling at "
        + ", ".join(f"{step:,}" for step in rule.boundaries[1:-1]),
    )
    return table


def _class_names(text: str | None) -> list[str] | None:
    """The lines of a file of that name, or what stands between commas."""
    if text is None:
        return None
    parts = text.split(",")
    if Path(text).is_file():
        parts = Path(text).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [part.strip() for part in parts if part.strip()]


def _rule(options: argparse.Namespace, processor: Any, class_names: list[str] | None) -> Any:
    """The rule for the data, whose number and size are looked up where they are not given."""
    import keras_bit

    count, size = options.num_examples, options.image_size
    if count is None or size is None:
        untouched = dataclasses.replace(processor, do_resize=False, do_center_crop=False)
        source = {"source": options.data, "class_names": class_names, "processor": untouched, "batch_size": 1}
        if count is None:
            count = int(keras_bit.image_dataset(**source).cardinality())
            if count < 0:
                raise ValueError("`--num-examples` must be given for TFRecord files, which do not tell their number.")
        if size is None:
            # The first that can be read.
            pictures = keras_bit.image_dataset(**source, on_error="skip")
            size = next(iter(pictures))[0].shape[1:3]
    return keras_bit.HyperRule(count, tuple(map(int, size)))


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

    command = commands.add_parser(
        "plot",
        help="a picture of what the model is trained on",
        description="Draws a training batch of a data set with its labels, as fine-tuning feeds it to the model: "
        "resized, cropped, flipped and mixed by the BiT-HyperRule. Pictures that cannot be read get a line on standard "
        "error and exit code 1; the others are drawn all the same.",
        epilog="Examples: keras-bit plot flowers/train --out sheet.png; with MixUp, which the rule has for large data "
        "sets only: keras-bit plot flowers/train --out sheet.png --num-examples 50000",
    )
    command.add_argument("data", metavar="DATA", help="directory with a folder per class, or TFRecord files")
    command.add_argument("--out", required=True, metavar="FILE.png", help="where the sheet is written")
    command.add_argument(
        "--weights",
        metavar="SOURCE",
        help="Hub id, directory or file of a checkpoint whose preprocessor_config.json is used (default: that of "
        "google/bit-50, without asking the Hub)",
    )
    command.add_argument(
        "--class-names",
        metavar="A,B,...",
        help="names of the classes in the order of their numbers, or a file with one in a line; TFRecord files need "
        "them for MixUp; of a directory only these folders are taken",
    )
    command.add_argument("--batch-size", type=_positive, default=24, metavar="N", help="pictures (default: 24)")
    command.add_argument("--seed", type=int, metavar="N", help="for the same sheet again (default: another every time)")
    command.add_argument(
        "--num-examples", type=_positive, metavar="N", help="for the rule; from 20000 on there is MixUp (default: all)"
    )
    command.add_argument(
        "--image-size",
        type=_image_size,
        metavar="HxW",
        help="for the rule: the pictures' typical size, as 375x500 (default: the first one's)",
    )
    command.add_argument(
        "--random-resized-crop", action="store_true", help="the Inception networks' crop instead of the rule's"
    )
    command.add_argument("--evaluation", action="store_true", help="draw what evaluation sees instead")
    _add_hub_arguments(command)
    command.set_defaults(run=plot)

    _add_finetune(commands)
    return parser


def _add_finetune(commands: Any) -> None:
    command = commands.add_parser(
        "finetune",
        help="train a checkpoint on pictures of yours",
        description="Fine-tunes a checkpoint by the BiT-HyperRule, which chooses size, number of steps, learning rate "
        "and MixUp from the number and the size of the pictures. DIR then holds the model (model.keras, and "
        "transformers' config.json and model.safetensors), its processor, and log.csv. Interrupted or killed, the same "
        "command goes on from the last evaluation and ends with the same losses.",
        epilog="Examples: keras-bit finetune flowers --out flowers-bit; five pictures of each class on a laptop: "
        "keras-bit finetune flowers --out few --examples-per-class 5 --batch-size 64 --image-size 64x64; then: "
        "keras-bit classify rose.jpg --weights flowers-bit",
    )
    command.add_argument(
        "data",
        metavar="DATA",
        help="directory with a folder per class; or one with such directories named train and val or test; or TFRecord "
        "files (a directory of them, or a pattern in quotes)",
    )
    command.add_argument("--out", required=True, metavar="DIR", help="directory of the run and its result")
    command.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        metavar="SOURCE",
        help="Hub id, directory or file of the checkpoint to start from (default: %(default)s)",
    )
    recipe = command.add_argument_group("recipe")
    recipe.add_argument(
        "--batch-size", type=_positive, default=512, metavar="N", help="pictures per step (default: 512)"
    )
    recipe.add_argument(
        "--gradient-accumulation-steps",
        type=_positive,
        metavar="N",
        help="divide a step into N batches for less memory (default: as few as hold 32 pictures of 480 px each)",
    )
    recipe.add_argument(
        "--steps", type=_positive, metavar="N", help="number of steps (default: the rule's 500 to 20,000)"
    )
    recipe.add_argument(
        "--base-learning-rate", type=_positive_number, default=0.003, metavar="R", help="for 512 (default: 0.003)"
    )
    recipe.add_argument(
        "--scaling",
        choices=["linear"],
        help="for another batch size: multiply the learning rate by it / 512, and the steps by 512 / it",
    )
    recipe.add_argument(
        "--image-size",
        type=_image_size,
        metavar="HxW",
        help="the pictures' size for the rule (default: their median); "
        "below 96x96 it trains on crops of 128 px, else of 480",
    )
    recipe.add_argument("--freeze-up-to", metavar="STAGE", help="keep the network as it is: stem, stage1 ... or all")
    recipe.add_argument(
        "--random-resized-crop", action="store_true", help="the Inception networks' crop instead of the rule's"
    )
    recipe.add_argument(
        "--mixed-precision",
        nargs="?",
        const="float16",
        choices=["float16", "bfloat16"],
        help="compute in half precision (default where given: float16); weights stay float32",
    )
    data = command.add_argument_group("data")
    data.add_argument("--examples-per-class", type=_positive, metavar="N", help="train on N pictures of each class")
    data.add_argument(
        "--validation-share",
        type=_share,
        default=0.2,
        metavar="S",
        help="of each class, where DATA has no val or test (default: 0.2; 0 for none)",
    )
    data.add_argument(
        "--class-names",
        metavar="A,B,...",
        help="order of the classes, or names for records: between commas, or a file with one per line",
    )
    data.add_argument(
        "--on-error",
        choices=["raise", "skip"],
        default="raise",
        help="raise: end at a picture that cannot be read (default); skip: read all first, and leave such ones out",
    )
    run = command.add_argument_group("run")
    run.add_argument("--seed", type=int, default=0, metavar="N", help="of the division, order and crops (default: 0)")
    run.add_argument(
        "--evaluate-every",
        type=_positive,
        metavar="N",
        help="steps between evaluations, at which the run is saved (default: a twentieth of all)",
    )
    run.add_argument(
        "--strategy",
        choices=["mirrored", "multi_worker"],
        help="mirrored: all GPUs of this machine; multi_worker: start the same command on every machine, with "
        "TF_CONFIG (TensorFlow) or KERAS_DISTRIBUTION_... (JAX) set as the README says, and DIR shared by all",
    )
    run.add_argument("--tensorboard", action="store_true", help="also write DIR/tensorboard")
    _add_hub_arguments(command)
    command.set_defaults(run=finetune)


def _add_hub_arguments(command: argparse.ArgumentParser) -> None:
    hub = command.add_argument_group("for a Hub id")
    hub.add_argument("--revision", help="branch, tag or commit")
    hub.add_argument("--cache-dir", metavar="DIR", help="cache of huggingface_hub")
    hub.add_argument("--local-files-only", action="store_true", help="use the cache, do not ask the Hub")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {text!r}")
    return int(text)


def _positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text!r}")
    return value


def _image_size(text: str) -> tuple[int, int]:
    height, times, width = text.partition("x")
    if not times:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, as 375x500, got {text!r}")
    return _positive(height), _positive(width)


if __name__ == "__main__":
    sys.exit(main())
