"""`keras-bit plot`: draws a training batch."""

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any, cast

import click

from keras_bit.cli import options
from keras_bit.cli.command import Command
from keras_bit.cli.terminal import input_size, note, noting, printable, processor_or_bits, working

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from keras_bit.hub.finding import HubOptions
    from keras_bit.images.processor import BitImageProcessor
    from keras_bit.recipes.hyperrule import HyperRule


@click.command(
    cls=Command,
    examples=[
        ("24 training images of a folder per class", "keras-bit plot flowers/train --out sheet.png"),
        (
            "with MixUp, which the rule uses for large data sets only",
            "keras-bit plot flowers/train --out sheet.png --num-examples 50000",
        ),
        (
            "TFRecord files, with the same sheet every time",
            "keras-bit plot 'flowers/*.tfrecord' --out sheet.png --num-examples 3000 --seed 0",
        ),
    ],
)
@options.data("Directory with a folder per class, or TFRecord files (a pattern in quotes).")
@options.out("PNG file to write.", "FILE.png", options.PngFile())
@options.weights(f"{options.SOURCE}, for its preprocessor_config.json; the default's is built in.")
@options.class_names(
    "Names of the classes in the order of their numbers, between commas or one in each line of a file. TFRecord files "
    "need them for MixUp; in a directory only these folders are used."
)
@options.batch_size(24, "Images in the batch.")
@options.seed("Seed, to get the same sheet again.", None, "another one every time")
@click.option(
    "--num-examples",
    type=options.POSITIVE,
    metavar="N",
    show_default="all",
    help="Number of images for the rule; from 20000 on it uses MixUp.",
)
@options.image_size("The images' typical size, for the rule", "the first one's")
@click.option("--random-resized-crop", is_flag=True, help="Use the Inception networks' crop instead of the rule's.")
@click.option("--evaluation", is_flag=True, help="Draw evaluation images instead.")
@options.hub
def plot(
    data: str,
    out: str,
    weights: str,
    class_names: list[str] | None,
    batch_size: int,
    seed: int | None,
    num_examples: int | None,
    image_size: tuple[int, int] | None,
    random_resized_crop: bool,
    evaluation: bool,
    hub: "HubOptions",
) -> int:
    """Draws a training batch of a data set with its labels, as in fine-tuning.

    The images are resized, cropped, flipped and mixed by the BiT-HyperRule. An image that cannot be read gets a line on
    standard error, and the exit code is then 1; the others are drawn. It writes one PNG file.
    """
    options.check_out(out)
    from keras_bit.data.walk import DirectoryWarning

    with working(f"reading {data}"), warnings.catch_warnings(), noting(DirectoryWarning):
        import numpy as np

        import keras_bit
        from keras_bit.data.folders import OneClass
        from keras_bit.data.skipped import ImagesLeftOut

        warnings.simplefilter("ignore", ImagesLeftOut)  # they get their own lines
        warnings.simplefilter("ignore", OneClass)  # a single one is drawn too

        processor = _processor(weights, hub)
        source: dict[str, Any] = {"source": data, "class_names": class_names, "processor": processor}
        read: dict[str, Any] = {
            "batch_size": batch_size,
            "seed": seed,
            "on_error": "skip",
            "random_resized_crop": random_resized_crop,
        }
        if evaluation:
            applied = [f"Evaluation: the processor's images, {input_size(processor)}"]
        else:
            rule = _rule(source, num_examples, image_size)
            applied = _steps(rule, random_resized_crop)
            read |= {"training": True, "rule": rule}
        batches = keras_bit.image_dataset(**source, **read)
        images, labels = map(np.asarray, next(iter(batches)))
        drawn = _draw(images, labels, batches.class_names, processor, out, [data, *applied])
    print(f"{printable(out)}: {drawn}")
    for line in batches.skipped:
        note(line)
    return int(bool(batches.skipped))


def _processor(weights: str, hub: "HubOptions") -> "BitImageProcessor":
    from keras_bit.images.processor import BIT_50, BitImageProcessor

    # The default's processor is built in.
    if weights == options.DEFAULT_WEIGHTS and hub.revision is None:
        return BitImageProcessor(**BIT_50)
    return processor_or_bits(weights, hub)


def _rule(source: dict[str, Any], count: int | None, size: tuple[int, int] | None) -> "HyperRule":
    """Returns the rule for the data; by default the number and the size of images are read from it."""
    import keras_bit

    untouched = dataclasses.replace(source["processor"], do_resize=False, do_center_crop=False)
    plain = source | {"processor": untouched, "batch_size": 1}
    if count is None:
        try:
            count = len(keras_bit.image_dataset(**plain))
        except TypeError:
            raise click.UsageError(
                "--num-examples must be given for TFRecord files, whose number of images is unknown."
            ) from None
    if size is None:
        # The first readable one.
        image, _ = next(iter(keras_bit.image_dataset(**plain, on_error="skip")))
        size = int(image.shape[1]), int(image.shape[2])
    return keras_bit.HyperRule(count, size)


def _steps(rule: "HyperRule", random_resized_crop: bool) -> list[str]:
    """Describes the steps of the rule."""
    crop = f"{rule.crop_size}x{rule.crop_size}"
    how = f"resize to {rule.resize_size}x{rule.resize_size}, random crop of {crop}"
    if random_resized_crop:
        how = f"random part resized to {crop}"
    mixup = f"MixUp with alpha {rule.mixup_alpha}" if rule.mixup_alpha else "no MixUp"
    height, width = cast(tuple[int, int], rule.image_size)  # it converts a number to a pair
    return [
        f"Training: {how}, half flipped, {mixup}",
        f"BiT-HyperRule for {rule.num_examples:,} images of {height}x{width}",
    ]


def _draw(
    images: "np.ndarray",
    labels: "np.ndarray",
    class_names: "Sequence[str] | None",
    processor: "BitImageProcessor",
    out: str,
    title: list[str],
) -> str:
    """Writes a batch as a file. Returns a description."""
    from keras_bit.drawing import contact_sheet
    from keras_bit.files import writing

    text = [contact_sheet.label_text(label, class_names) for label in labels]
    sheet = contact_sheet.draw(contact_sheet.denormalize(images, processor), text, title)
    with writing.replacing(out) as beside:
        sheet.save(beside, "PNG")
    return f"{len(images)} images, {sheet.width}x{sheet.height} px"
