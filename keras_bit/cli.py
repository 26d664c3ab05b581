"""The commands `keras-bit classify`, `keras-bit info`, `keras-bit plot` and `keras-bit evaluate`."""

import argparse
import dataclasses
import json
import os
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
PER_CLASS, WORST_CLASSES = 20, 10  # of more classes than that, so many are printed
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
    source = {"source": options.data, "seed": options.seed, "batch_size": options.batch_size, "on_error": "skip"}
    if options.evaluation:
        applied = [f"Evaluation: the processor's pictures, {_input_size(processor)}"]
        batches = keras_bit.image_dataset(**source, processor=processor)
    else:
        rule = _rule(options, processor)
        crop = f"{rule.crop_size}x{rule.crop_size}"
        how = f"resize to {rule.resize_size}x{rule.resize_size}, random crop of {crop}"
        if options.random_resized_crop:
            how = f"random part resized to {crop}"
        mixup = f"MixUp with alpha {rule.mixup_alpha}" if rule.mixup_alpha else "no MixUp"
        applied = [
            f"Training: {how}, half flipped, {mixup}",
            f"BiT-HyperRule for {rule.num_examples:,} pictures of {rule.image_size[0]}x{rule.image_size[1]}",
        ]
        batches = keras_bit.image_dataset(
            **source, processor=processor, training=True, rule=rule, random_resized_crop=options.random_resized_crop
        )
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


def evaluate(options: argparse.Namespace) -> int:
    import keras_bit
    from keras_bit import charts, evaluation

    if options.out is not None:
        # Before the pictures are read, which may take hours.
        if Path(options.out).is_file():
            raise NotADirectoryError(f"`--out` must be a directory, got the file {options.out!r}.")
        Path(options.out).mkdir(parents=True, exist_ok=True)
        if not charts.available():
            left_out = f"{evaluation.CONFUSION} and {evaluation.CALIBRATION}"
            print(f"keras-bit evaluate: without matplotlib {left_out} are left out: {charts.INSTALL}", file=sys.stderr)
    model = keras_bit.from_pretrained(options.source, **_hub(options))
    evaluation.check_model(model)
    if options.write_class_map is not None:
        return _write_class_map(options, model.config)
    processor = keras_bit.BitImageProcessor.from_pretrained(options.source, **_hub(options))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"[\d,]+ of [\d,]+ pictures were left out")  # they get their lines below
        if Path(options.data).is_dir():
            found, skipped = _evaluate_folders(options, model, processor)
        else:
            found, skipped = _evaluate_records(options, model, processor)

    if options.json:
        print(json.dumps(found.report, indent=2))
    else:
        _print_report(found.report, options)
    if options.out is not None:
        title = (f"The worst mistakes of {options.source}", options.data)
        for file in evaluation.write(found, options.out, processor=processor, title=title):
            print(_printable(str(file)), file=sys.stderr if options.json else sys.stdout)
    for line in skipped:
        print(f"keras-bit evaluate: {_printable(line)}", file=sys.stderr)
    return int(bool(skipped))


def _evaluate_folders(options: argparse.Namespace, model: Any, processor: Any) -> tuple[Any, list[str]]:
    """What was found, and a line for each picture that was left out."""
    from keras_bit import class_map
    from keras_bit.evaluation import evaluate
    from keras_bit.labelled_pictures import FolderPictures, folder_names

    said = None if options.class_map is None else class_map.read(options.class_map)
    folders = folder_names(options.data)
    matched = dict(zip(folders, class_map.match(folders, model.config, said), strict=True))
    used = {folder: right for folder, right in matched.items() if right is not None}
    batches = FolderPictures(
        options.data, list(used), processor=processor, batch_size=options.batch_size, on_error=options.on_error
    )
    left_out = [folder for folder in folders if folder not in used]
    for what, why in ((left_out, "left out, as the class map says"), (batches.empty, "without a picture")):
        if what:
            some = ", ".join(what[:10]) + ", ..." * (len(what) > 10)
            print(f"keras-bit evaluate: folders {why}: {_printable(some)}", file=sys.stderr)
    names = class_map.shown_names(used, model.config)
    return evaluate(model, batches, class_names=names, label_map=list(used.values())), batches.skipped


def _evaluate_records(options: argparse.Namespace, model: Any, processor: Any) -> tuple[Any, list[str]]:
    import keras_bit
    from keras_bit.evaluation import evaluate
    from keras_bit.labelled_pictures import batches_of

    if options.class_map is not None:
        raise ValueError(
            f"`--class-map` is for the folders of a directory, got {options.data!r}, which is none. The labels in "
            "TFRecord files are numbers of the model's classes."
        )
    numbers = [str(number) for number in range(model.config.num_labels)]  # names may stand twice among the labels
    data = keras_bit.image_dataset(
        options.data, processor=processor, batch_size=options.batch_size, on_error="skip", class_names=numbers
    )
    return evaluate(model, batches_of(data, options.on_error)), data.skipped


def _folders_to_evaluate(options: argparse.Namespace, config: Any, reading: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The batches of a directory, the model's classes for each of its folders, and what the folders are called."""
    from keras_bit import class_map
    from keras_bit.labelled_pictures import FolderPictures, folder_names

    said = None if options.class_map is None else class_map.read(options.class_map)
    folders = folder_names(options.data)
    label_map = dict(zip(folders, class_map.match(folders, config, said), strict=True))
    left_out = [folder for folder, right in label_map.items() if right is None]
    used = {folder: right for folder, right in label_map.items() if right is not None}
    batches = FolderPictures(options.data, list(used), **reading)
    for folders, why in ((left_out, "left out, as the class map says"), (batches.empty, "without a picture")):
        if folders:
            names = ", ".join(folders[:10]) + ", ..." * (len(folders) > 10)
            print(f"keras-bit evaluate: {len(folders)} folders {why}: {_printable(names)}", file=sys.stderr)
    return batches, list(used.values()), class_map.shown_names(used, config)


def _write_class_map(options: argparse.Namespace, config: Any) -> int:
    from keras_bit import class_map
    from keras_bit.atomic import replacing
    from keras_bit.labelled_pictures import folder_names

    file = Path(options.write_class_map)
    if file.exists():
        raise FileExistsError(f"`--write-class-map`: {str(file)!r} exists, and may have been edited. Name a new file.")
    found = class_map.template(folder_names(options.data), config)
    with replacing(file) as beside:
        beside.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    unknown = sum(label.startswith(class_map.UNKNOWN) for label in found.values())
    rest = f"complete the {unknown} that begin with {class_map.UNKNOWN.strip()!r}" if unknown else "all have a label"
    print(f"{_printable(str(file))}: {len(found)} folders; {rest}")
    return 0


def _print_report(report: dict[str, Any], options: argparse.Namespace) -> None:
    low, high = report["top_1_interval"]
    calibration = report["calibration"]
    table = Table(
        title=f"{_printable(options.source)} on {_printable(options.data)}", title_justify="left", show_header=False
    )
    table.add_row("pictures", f"{report['pictures']:,}")
    table.add_row("classes", f"{report['classes']:,} of the model, {report['classes_that_occur']:,} of the data")
    table.add_row("top-1", f"{report['top_1_accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%})")
    table.add_row(f"top-{report['top_k']}", f"{report['top_k_accuracy']:.2%}")
    table.add_row("mean recall", f"{report['mean_recall']:.2%}")
    table.add_row("log loss", f"{report['log_loss']:.4f}")
    table.add_row("mean confidence", f"{calibration['mean_confidence']:.2%}")
    table.add_row("calibration error", f"{calibration['expected_calibration_error']:.2%}")
    _console().print(table)

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
            _printable(row["class"]), f"{row['examples']:,}", *shares, _printable(mixed_up.get(row["class"], ""))
        )
    _console().print(table)


def _rule(options: argparse.Namespace, processor: Any) -> Any:
    """The rule for the data, whose number and size are looked up where they are not given."""
    import keras_bit

    count, size = options.num_examples, options.image_size
    if count is None or size is None:
        untouched = dataclasses.replace(processor, do_resize=False, do_center_crop=False)
        if count is None:
            count = int(keras_bit.image_dataset(options.data, processor=untouched, batch_size=1).cardinality())
            if count < 0:
                raise ValueError("`--num-examples` must be given for TFRecord files, which do not tell their number.")
        if size is None:
            # The first that can be read.
            pictures = keras_bit.image_dataset(options.data, processor=untouched, batch_size=1, on_error="skip")
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

    command = commands.add_parser(
        "evaluate",
        help="how good a checkpoint is on pictures with labels",
        description="Prints how many pictures of a data set the checkpoint answers correctly, overall and per class, "
        "and how far it can be trusted when it is sure (expected calibration error). With --out also a JSON report, a "
        "confusion matrix, a reliability diagram and a sheet of the worst mistakes. A folder is a class of the model "
        "if its name is exactly the label or, for ImageNet, its wordnet id; others are named in a class map. Pictures "
        "are read as they are stored: orientation tags are ignored.",
        epilog="Examples: keras-bit evaluate google/bit-50 imagenette2/val --out report; where the folders have other "
        "names than the model's labels: keras-bit evaluate google/bit-50 pets --write-class-map map.json, complete "
        'map.json, as {"kitten": ["tabby, tabby cat", "Egyptian cat"], "hamster": "hamster", "unsorted": null} (any of '
        "several labels counts as right, null leaves a folder out), and: keras-bit evaluate google/bit-50 pets "
        "--class-map map.json",
    )
    command.add_argument(
        "source", metavar="SOURCE", help="Hub id, directory or file of a checkpoint with its preprocessor_config.json"
    )
    command.add_argument(
        "data",
        metavar="DATA",
        help="directory with a folder per class, or TFRecord files whose labels are numbers of the model's classes",
    )
    command.add_argument("--out", metavar="DIR", help="where report.json and the pictures are written")
    command.add_argument("--json", action="store_true", help="print the report as JSON instead of tables")
    command.add_argument("--per-class", action="store_true", help="print every class, however many there are")
    command.add_argument(
        "--class-map", metavar="FILE.json", help="folder to label, to a list of labels, or to null, as in the example"
    )
    command.add_argument(
        "--write-class-map", metavar="FILE.json", help="write a class map to be completed, and evaluate nothing"
    )
    command.add_argument(
        "--batch-size", type=_positive, default=32, metavar="N", help="pictures at a time (default: 32)"
    )
    command.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="at a picture that cannot be read: end (default), or leave it out, with a line for each and exit code 1",
    )
    _add_hub_arguments(command)
    command.set_defaults(run=evaluate)
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


def _image_size(text: str) -> tuple[int, int]:
    height, times, width = text.partition("x")
    if not times:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, as 375x500, got {text!r}")
    return _positive(height), _positive(width)


if __name__ == "__main__":
    sys.exit(main())
