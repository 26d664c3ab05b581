"""`keras-bit finetune`: a checkpoint, trained on images."""

import functools
import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import click

from keras_bit.cli import options
from keras_bit.cli.command import Command, Option
from keras_bit.cli.terminal import console, note, printable, sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from rich.table import Table

    from keras_bit.hub import HubOptions
    from keras_bit.training.distribution import Workers
    from keras_bit.training.planning import Options, Plan

RECIPE = "Recipe"
recipe = functools.partial(click.option, cls=Option, group=RECIPE)


@click.command(
    cls=Command,
    examples=[
        ("a folder per class, also below train/ and val/ or test/", "keras-bit finetune flowers --out flowers-bit"),
        (
            "five images of each class, on a laptop",
            "keras-bit finetune flowers --out few --examples-per-class 5 --batch-size 64 --image-size 64",
        ),
        ("then", "keras-bit classify rose.jpg --weights flowers-bit"),
    ],
)
@options.data(
    "Directory with a folder per class; or one with such directories named train and val or test; or TFRecord files (a "
    "directory of them, or a pattern in quotes)."
)
@options.out("Directory of the run and its result.", "DIR")
@options.weights("Hub id, directory or file of the checkpoint to start from.")
@click.option("--examples-per-class", type=options.POSITIVE, metavar="N", help="Train on N images of each class.")
@click.option(
    "--validation-share",
    type=options.SHARE,
    default=0.2,
    show_default=True,
    metavar="S",
    help="Of each class, where DATA has no val or test; 0 for none.",
)
@options.class_names("Order of the classes, or names for records: between commas, or one in each line of a file.")
@options.on_error("At an image that cannot be read: end; or read all first, and leave such ones out.")
@options.seed("Of the division, order and crops.", default=0)
@click.option(
    "--evaluate-every",
    type=options.POSITIVE,
    metavar="N",
    show_default="a twentieth of all",
    help="Steps between evaluations, at which the run is saved.",
)
@click.option(
    "--strategy",
    type=click.Choice(["mirrored", "multi_worker"]),
    help="mirrored: all GPUs of this machine; multi_worker: start the same command on every machine, with TF_CONFIG "
    "(TensorFlow) or KERAS_DISTRIBUTION_... (JAX) set as the README says, and DIR shared by all.",
)
@click.option("--tensorboard", is_flag=True, help="Also write DIR/tensorboard.")
@options.batch_size(512, "Images per step.", group=RECIPE)
@recipe(
    "--gradient-accumulation-steps",
    type=options.POSITIVE,
    metavar="N",
    show_default="as few as hold 32 images of 480 px each, or 512 of 128",
    help="Divide a step into N batches for less memory.",
)
@recipe("--steps", type=options.POSITIVE, show_default="the rule's 500 to 20,000", metavar="N", help="Number of steps.")
@recipe(
    "--base-learning-rate",
    type=options.ABOVE_ZERO,
    default=0.003,
    show_default=True,
    metavar="R",
    help="For batches of 512.",
)
@recipe(
    "--scaling",
    type=click.Choice(["linear"]),
    help="For another batch size: multiply the learning rate by it / 512, and the steps by 512 / it.",
)
@options.image_size(
    "The images' typical size, for the rule, which trains on crops of 128 px below 96x96, else of 480",
    "their median",
    group=RECIPE,
)
@recipe("--freeze-up-to", metavar="STAGE", help="Keep the network as it is: stem, stage1 ... or all.")
@recipe("--random-resized-crop", is_flag=True, help="The Inception networks' crop instead of the rule's.")
@recipe(
    "--mixed-precision",
    is_flag=False,
    flag_value="float16",
    type=click.Choice(["float16", "bfloat16"]),
    help="Compute in half precision, by default float16; weights stay float32.",
)
@recipe(
    "--rematerialize",
    is_flag=True,
    help="Keep of each block its input alone and compute it again for its gradient: less memory, more time.",
)
@options.hub
def finetune(data: str, out: str, strategy: str | None, tensorboard: bool, hub: "HubOptions", **chosen: Any) -> int:
    """Fine-tunes a checkpoint by the BiT-HyperRule.

    The rule chooses size, number of steps, learning rate and MixUp from the number and the size of the images. Into DIR
    it writes the model (model.keras, and transformers' config.json and model.safetensors), its processor, log.csv,
    report.json, and curves, confusion matrix and worst mistakes as PNG. Interrupted or killed, the same command goes on
    from the last evaluation and ends with the same losses.
    """
    from keras_bit.training import distribution, planning, run_directory

    workers = distribution.start(strategy)
    directory = Path(os.path.expanduser(out))
    path = os.path.normpath(os.path.expanduser(data))
    settings = planning.Options(data=path, hub=hub, **chosen)
    try:
        with run_directory.writable(directory, settings.data, is_chief=workers.is_chief):
            skipped = _fine_tune(settings, directory, workers, tensorboard)
    except FloatingPointError:
        raise  # by all workers at once
    except Exception as error:
        if workers.count == 1:
            raise
        _leave(error, workers.lost(error))
    return int(skipped)


def _leave(error: Exception, another_is_lost: bool) -> NoReturn:
    """Ends one of several workers, and the others by that: on its way out, Python would wait for them for minutes."""
    told = " ".join(sentence(error).split())
    if another_is_lost:
        told = (
            f"another worker has ended, or cannot be reached ({told[:300]} ...). Start the command again on all of "
            "them: it goes on from the last evaluation."
        )
    elif not isinstance(error, OSError | ValueError | ImportError):
        traceback.print_exc()
    note(told)
    os._exit(1)


def _fine_tune(settings: "Options", out: Path, workers: "Workers", tensorboard: bool) -> bool:
    """Whether images were left out because they cannot be read."""
    from keras_bit.drawing import charts
    from keras_bit.training import planning, run

    callbacks = _tensorboard(out / "tensorboard") if tensorboard else ()
    plan = planning.plan(settings, workers, out)

    def say(line: str) -> None:
        if workers.is_chief:
            print(printable(line), flush=True)

    if workers.is_chief:
        console().print(_plan_table(plan))
        if not charts.available():
            note(f"without matplotlib there are no charts: {charts.INSTALL}")
    for line in plan.notes:
        say(line)
    run.run(plan, out, workers=workers, say=say, callbacks=callbacks)
    say(f"{out}: keras-bit classify IMAGE --weights {out}")
    if workers.is_chief:
        for line in plan.skipped:
            note(line)
    return bool(plan.skipped)


def _tensorboard(directory: Path) -> tuple[Any, ...]:
    import keras

    from keras_bit import packages

    with packages.needing("tensorboard", "--tensorboard"):
        # TensorFlow only warns if it is missing, and then has no `tf.summary`, which Keras writes with.
        import tensorboard.summary  # noqa: F401
    return (keras.callbacks.TensorBoard(directory),)


def _counts(labels: "np.ndarray", names: "Sequence[str]") -> str:
    """How many images the classes have, in a line."""
    import numpy as np

    counts = np.bincount(labels, minlength=len(names))
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[least] == counts[most]:
        return f"{counts[least]:,}"
    return f"{counts[least]:,} ({names[least]}) to {counts[most]:,} ({names[most]})"


def _plan_table(plan: "Plan") -> "Table":
    """What is about to happen, so that a person can stop it."""
    from rich.table import Table

    from keras_bit.files import some

    rule, found = plan.rule, plan.splits
    height, width = cast(tuple[int, int], rule.image_size)  # it makes one of a number
    table = Table(title="BiT-HyperRule", title_justify="left", show_header=False)
    table.add_row("classes", f"{len(found.class_names)} ({printable(some(found.class_names, most=5))})")
    table.add_row("training images", f"{len(found.train):,}, typically {height}x{width} px")
    table.add_row("of each class", printable(_counts(found.train.labels, found.class_names)))
    table.add_row("validation images", f"{len(found.validation):,}" if found.validation else "none")
    if found.test is not None and found.test is not found.validation:
        table.add_row("test images", f"{len(found.test):,}")
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
