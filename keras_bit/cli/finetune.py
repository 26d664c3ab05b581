"""`keras-bit finetune`: trains a checkpoint on images."""

import functools
import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import click

from keras_bit.cli import options, recipe_options
from keras_bit.cli.command import Command, Option
from keras_bit.cli.found_rate import show
from keras_bit.cli.terminal import console, note, printable, sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from rich.table import Table

    from keras_bit.hub.finding import HubOptions
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
        (
            "a small model learns from a large one, of images without labels too",
            "keras-bit finetune flowers --weights small --teacher flowers-bit --unlabeled photos --out student",
        ),
        (
            "without the images that an audit excluded",
            "keras-bit finetune flowers --out flowers-bit --exclude audited/audit.csv",
        ),
        ("then", "keras-bit classify rose.jpg --weights flowers-bit"),
        ("several labels per image, or numbers: a CSV file with the column path", "keras-bit finetune a.csv --out run"),
    ],
)
@options.data(
    "Directory with a folder per class; or one with such directories named train and val or test; or TFRecord files "
    "(a directory of them, or a pattern in quotes); or a CSV file of paths and labels: a class, several labels or "
    "numbers to predict."
)
@options.out("Directory for the run and its result.", "DIR")
@options.weights(f"{options.SOURCE}, to start from.")
@click.option("--examples-per-class", type=options.POSITIVE, metavar="N", help="Train on N images of each class.")
@click.option(
    "--validation-share",
    type=options.SHARE,
    default=0.2,
    show_default=True,
    metavar="S",
    help="Share of each class for validation, if DATA has no val or test; 0 for none.",
)
@options.class_names(
    "Names of the classes, in the order of the model's outputs: between commas, or one in each line of a file. For "
    "TFRecord files: the name of each number, from 0 on."
)
@options.on_error(
    "For images that cannot be read: raise ends the run; skip reads all images first and leaves such ones out, with a "
    "line for each and exit code 1."
)
@click.option(
    "--teacher",
    metavar="SOURCE",
    help=f"{options.SOURCE}, with the same classes and normalization: learn its answers instead of the labels.",
)
@click.option(
    "--unlabeled",
    type=options.PATH,
    metavar="DIR",
    help="Images without labels, at any depth, to train on too: the teacher answers for them.",
)
@click.option(
    "--exclude",
    type=options.PATH,
    metavar="CSV",
    help="Leave out the images whose column exclude is yes in this audit.csv of `keras-bit audit`.",
)
@options.seed("Seed of the random division, order and crops of the images.", default=0)
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
    help="mirrored: all GPUs of this machine; multi_worker: start the same command on every machine, with "
    "TF_CONFIG (TensorFlow) or KERAS_DISTRIBUTION_... (JAX) set (see docs/how-to/machines.md), and with a "
    "shared DIR.",
)
@click.option(
    "--track",
    multiple=True,
    type=click.Choice(["tensorboard", "wandb", "mlflow"]),
    help="Also send losses and accuracies to this tracker: tensorboard writes to DIR/tensorboard, wandb with "
    "WANDB_MODE=offline to DIR/wandb, mlflow to MLFLOW_TRACKING_URI. May be repeated.",
)
@click.option(
    "--find-lr",
    is_flag=True,
    help="Do not train: try rising learning rates for a hundred steps, and suggest one.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Calibrate the result's probabilities with a temperature that is fitted to the validation images. It "
    "works for a finished run too.",
)
@options.table
@click.option(
    "--problem-type",
    cls=Option,
    group=options.TABLE,
    type=click.Choice(["single_label_classification", "multi_label_classification", "regression"]),
    help="Kind of the labels, if the file does not show it: whole numbers can be classes or numbers to predict.",
)
@options.batch_size(512, "Images per step.", group=RECIPE)
@recipe(
    "--gradient-accumulation-steps",
    type=options.POSITIVE,
    metavar="N",
    show_default="as few as possible, each with at most 32 images of 480 px or 512 of 128 px",
    help="Divide a step into N batches, to save memory.",
)
@recipe("--steps", type=options.POSITIVE, show_default="the rule's 500 to 20,000", metavar="N", help="Number of steps.")
@recipe(
    "--base-learning-rate",
    type=options.ABOVE_ZERO,
    default=0.003,
    show_default=True,
    metavar="R",
    help="Learning rate for batches of 512.",
)
@recipe(
    "--scaling",
    type=click.Choice(["linear"]),
    help="For another batch size N: multiply the learning rate by N / 512, and the steps by 512 / N.",
)
@options.image_size(
    "The images' typical size. Below 96x96 px the rule trains on crops of 128 px, and otherwise of 480 px",
    "their median",
    group=RECIPE,
)
@recipe("--freeze-up-to", metavar="STAGE", help="Freeze the network up to here: stem, stage1 ... or all.")
@recipe("--random-resized-crop", is_flag=True, help="Use the Inception networks' crop instead of the rule's.")
@recipe(
    "--mixed-precision",
    is_flag=False,
    flag_value="float16",
    type=click.Choice(["float16", "bfloat16"]),
    help="Compute in half precision, float16 by default; weights stay float32.",
)
@recipe(
    "--rematerialize",
    is_flag=True,
    help="Save memory: keep only the input of each block, and compute the block again for its gradient.",
)
@recipe_options.choices
@options.hub
def finetune(
    data: str,
    out: str,
    unlabeled: str | None,
    strategy: str | None,
    track: "Sequence[str]",
    find_lr: bool,
    hub: "HubOptions",
    **chosen: Any,
) -> int:
    """Fine-tunes a checkpoint by the BiT-HyperRule.

    The rule chooses size, number of steps, learning rate and MixUp from the number and the size of the images. The
    command writes the model to DIR (model.keras, and transformers' config.json and model.safetensors), with its
    processor, log.csv, report.json, and curves, confusion matrix and worst mistakes as PNG. If it is interrupted, the
    same command continues from the last evaluation and ends with the same losses.
    """
    recipe_options.check(chosen)
    from keras_bit.training import distribution, planning, run_directory

    workers = distribution.start(strategy)
    directory = Path(os.path.expanduser(out))
    path = os.path.normpath(os.path.expanduser(data))
    beside = None if unlabeled is None else os.path.normpath(os.path.expanduser(unlabeled))
    settings = planning.Options(data=path, unlabeled=beside, hub=hub, **chosen)
    try:
        with run_directory.writable(directory, *settings.images, is_chief=workers.is_chief):
            if find_lr:
                return _find_rate(settings, directory, workers)
            skipped = _fine_tune(settings, directory, workers, track)
    except FloatingPointError:
        raise  # on all workers at once
    except Exception as error:
        if workers.count == 1:
            raise
        _leave(error, workers.lost(error))
    return int(skipped)


def _leave(error: Exception, another_is_lost: bool) -> NoReturn:
    """Ends one of several workers, and so the others. Python's own exit would wait for them for minutes."""
    told = " ".join(sentence(error, click.get_current_context().command).split())
    if another_is_lost:
        told = (
            f"another worker has ended, or cannot be reached ({told[:300]} ...). Start the command again on all of "
            "them to continue from the last evaluation."
        )
    elif not isinstance(error, OSError | ValueError | ImportError):
        traceback.print_exc()
    note(told)
    os._exit(1)


def _fine_tune(settings: "Options", out: Path, workers: "Workers", track: "Sequence[str]") -> bool:
    """Returns whether images were left out because they cannot be read."""
    from keras_bit.drawing import charts
    from keras_bit.training import planning, run, tracking

    tracking.check(track)
    plan = planning.plan(settings, workers, out)

    def say(line: str) -> None:
        if workers.is_chief:
            print(printable(line), flush=True)

    if workers.is_chief:
        console().print(_plan_table(plan))
        if not charts.available():
            note(f"no charts are drawn: matplotlib is not installed. Install it with {charts.INSTALL}.")
    for line in plan.notes:
        say(line)
    with tracking.tracked(track if workers.is_chief else (), out, plan.described) as callbacks:
        run.run(plan, out, workers=workers, say=say, callbacks=callbacks)
    say(f"{out}: keras-bit classify IMAGE --weights {out}")
    if workers.is_chief:
        for line in plan.skipped:
            note(line)
    return bool(plan.skipped)


def _find_rate(settings: "Options", out: Path, workers: "Workers") -> int:
    from keras_bit.training import find_rate, planning

    if workers.count > 1:
        raise ValueError("--find-lr runs on one machine, got --strategy multi_worker. Leave --strategy out.")
    plan = planning.plan(settings, workers)
    show(find_rate.find_rate(plan, note), plan, out)
    return 0


def _counts(counts: "np.ndarray", names: "Sequence[str]") -> str:
    """Describes how many images the classes have, in a line."""
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[least] == counts[most]:
        return f"{counts[least]:,}"
    return f"{counts[least]:,} ({names[least]}) to {counts[most]:,} ({names[most]})"


def _shown(value: Any) -> str:
    """Describes a choice of the recipe in a line; class weights are pairs."""
    if not isinstance(value, list):
        return str(value)
    from keras_bit.wording import some

    return some((str(one) if isinstance(one, str) else f"{one[0]} {one[1]:.3g}" for one in value), most=5)


def _about_labels(plan: "Plan") -> list[tuple[str, str]]:
    """Describes the labels, as rows of the table."""
    from keras_bit.data.label_table import NUMBER, SEVERAL
    from keras_bit.wording import number, some

    found, labels = plan.splits, plan.splits.train.labels
    names = printable(some(found.class_names, most=5))
    if found.problem_type == NUMBER:
        columns = zip(found.class_names, labels.reshape(len(labels), -1).T, strict=True)
        ranges = (f"{name} {number(column.min())} to {number(column.max())}" for name, column in columns)
        return [("numbers to predict", printable(some(ranges, most=5)))]
    if found.problem_type == SEVERAL:
        per_image = labels.sum(axis=1)
        counts = _counts(labels.sum(axis=0).astype(int), found.class_names)
        of_each = f"{per_image.mean():.1f} on average, {per_image.min():.0f} to {per_image.max():.0f}"
        return [
            ("labels", f"{len(found.class_names)} ({names})"),
            ("images of each label", printable(counts)),
            ("labels of each image", of_each),
        ]
    import numpy as np

    counted = _counts(np.bincount(labels, minlength=len(found.class_names)), found.class_names)
    return [("classes", f"{len(found.class_names)} ({names})"), ("images of each class", printable(counted))]


def _plan_table(plan: "Plan") -> "Table":
    """Prints the plan, so that a person can stop it."""
    from rich.table import Table

    from keras_bit.hub.finding import shown
    from keras_bit.recipes.optimizers import highest_rate
    from keras_bit.wording import count

    rule, found = plan.rule, plan.splits
    height, width = cast(tuple[int, int], rule.image_size)  # it converts a number to a pair
    table = Table(title="BiT-HyperRule", title_justify="left", show_header=False)
    labels, *more = _about_labels(plan)
    table.add_row(*labels)
    size = "typically" if plan.options.image_size is None else "taken as"
    table.add_row("training images", f"{len(found.train):,}, {size} {height}x{width} px")
    for row in more:
        table.add_row(*row)
    if plan.options.unlabeled is not None:
        table.add_row("unlabeled images", f"{len(found.unlabeled or ()):,}, trained on too")
    if plan.options.teacher is not None:
        name = printable(shown(plan.options.teacher))
        table.add_row("teacher", f"{name}; labels of training images are not looked at")
    table.add_row("validation images", f"{len(found.validation):,}" if found.validation else "none")
    if found.test is not None and found.test is not found.validation:
        table.add_row("test images", f"{len(found.test):,}")
    table.add_row("resize, random crop", f"{rule.resize_size} px, {rule.crop_size} px")
    table.add_row("MixUp", f"alpha {rule.mixup_alpha}" if rule.mixup_alpha else "none")
    parts = f" in {plan.accumulation} parts, gradients accumulated" if plan.accumulation > 1 else ""
    table.add_row("batch", f"{rule.batch_size}{parts}")
    table.add_row("steps", f"{rule.total_steps:,}, evaluated and saved every {plan.evaluate_every:,}")
    # A very short run can fall twice at one step.
    falls = "falling at " + ", ".join(f"{step:,}" for step in dict.fromkeys(rule.boundaries[1:-1]))
    if plan.recipe.optimizer != "sgd":
        falls = "a cosine to 0"
    warmup = count(rule.warmup_steps, "step")
    table.add_row("learning rate", f"{highest_rate(plan.recipe):g} after {warmup}, then {falls}")
    for name, value in plan.recipe.choices.items():
        table.add_row(name.replace("_", " "), printable(_shown(value)))
    return table
