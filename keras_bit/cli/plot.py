"""`keras-bit plot`: an image of what a model is trained on."""

import argparse
import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Any

from keras_bit.cli.arguments import add_hub_arguments, class_names_of, hub_arguments, image_size, positive
from keras_bit.cli.terminal import input_size, printable


def add(commands: Any) -> None:
    command = commands.add_parser(
        "plot",
        help="an image of what the model is trained on",
        description="Draws a training batch of a data set with its labels, as fine-tuning feeds it to the model: "
        "resized, cropped, flipped and mixed by the BiT-HyperRule. Images that cannot be read get a line on standard "
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
    command.add_argument("--batch-size", type=positive, default=24, metavar="N", help="images (default: 24)")
    command.add_argument("--seed", type=int, metavar="N", help="for the same sheet again (default: another every time)")
    command.add_argument(
        "--num-examples", type=positive, metavar="N", help="for the rule; from 20000 on there is MixUp (default: all)"
    )
    command.add_argument(
        "--image-size",
        type=image_size,
        metavar="HxW",
        help="for the rule: the images' typical size, as 375x500 (default: the first one's)",
    )
    command.add_argument(
        "--random-resized-crop", action="store_true", help="the Inception networks' crop instead of the rule's"
    )
    command.add_argument("--evaluation", action="store_true", help="draw what evaluation sees instead")
    add_hub_arguments(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with warnings.catch_warnings():
        # They get their lines; and one class is drawn as well as several.
        warnings.filterwarnings("ignore", r"[\d,]+ of [\d,]+ images were left out|.* has one class, ")
        return _draw(options)


def _draw(options: argparse.Namespace) -> int:
    import numpy as np

    import keras_bit
    from keras_bit import files
    from keras_bit.drawing import contact_sheet
    from keras_bit.images import processor

    out = Path(options.out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"`--out` must be a file name that ends in .png, got {options.out!r}.")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"`--out`: there is no directory {str(out.absolute().parent)!r}.")
    processor = keras_bit.BitImageProcessor(**processor.BIT_50)
    if options.weights is not None:
        processor = keras_bit.BitImageProcessor.from_pretrained(options.weights, **hub_arguments(options))
    class_names = class_names_of(options.class_names)
    source = {
        "source": options.data,
        "class_names": class_names,
        "seed": options.seed,
        "batch_size": options.batch_size,
        "on_error": "skip",
        "random_resized_crop": options.random_resized_crop,
    }
    if options.evaluation:
        applied = [f"Evaluation: the processor's images, {input_size(processor)}"]
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
            f"BiT-HyperRule for {rule.num_examples:,} images of {rule.image_size[0]}x{rule.image_size[1]}",
        ]
        batches = keras_bit.image_dataset(**source, processor=processor, training=True, rule=rule)
    images, labels = next(batches.as_numpy_iterator())
    text = [contact_sheet.label_text(label, batches.class_names) for label in labels]
    sheet = contact_sheet.draw(contact_sheet.denormalize(images, processor), text, [options.data, *applied])
    with files.replacing(out) as beside:
        sheet.save(beside, "PNG")
    print(f"{printable(str(out))}: {len(np.atleast_1d(labels))} images, {sheet.width}x{sheet.height} px")
    for line in batches.skipped:
        print(f"keras-bit plot: {printable(line)}", file=sys.stderr)
    return int(bool(batches.skipped))


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
