"""`keras-bit finetune`: a checkpoint, trained on images."""

import argparse
import dataclasses
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from rich.table import Table

from keras_bit.cli.arguments import (
    DEFAULT_WEIGHTS,
    add_hub_arguments,
    class_names_of,
    hub_arguments,
    image_size,
    positive,
    positive_number,
    share,
)
from keras_bit.cli.terminal import console, printable


def add(commands: Any) -> None:
    command = commands.add_parser(
        "finetune",
        help="train a checkpoint on images of yours",
        description="Fine-tunes a checkpoint by the BiT-HyperRule, which chooses size, number of steps, learning rate "
        "and MixUp from the number and the size of the images. DIR then holds the model (model.keras, and "
        "transformers' config.json and model.safetensors), its processor, log.csv, report.json, and curves, confusion "
        "matrix and worst mistakes as PNG. Interrupted or killed, the same "
        "command goes on from the last evaluation and ends with the same losses.",
        epilog="Examples: keras-bit finetune flowers --out flowers-bit; five images of each class on a laptop: "
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
    recipe.add_argument("--batch-size", type=positive, default=512, metavar="N", help="images per step (default: 512)")
    recipe.add_argument(
        "--gradient-accumulation-steps",
        type=positive,
        metavar="N",
        help="divide a step into N batches for less memory (default: as few as hold 32 images of 480 px each, or 512 "
        "of 128)",
    )
    recipe.add_argument(
        "--steps", type=positive, metavar="N", help="number of steps (default: the rule's 500 to 20,000)"
    )
    recipe.add_argument(
        "--base-learning-rate", type=positive_number, default=0.003, metavar="R", help="for 512 (default: 0.003)"
    )
    recipe.add_argument(
        "--scaling",
        choices=["linear"],
        help="for another batch size: multiply the learning rate by it / 512, and the steps by 512 / it",
    )
    recipe.add_argument(
        "--image-size",
        type=image_size,
        metavar="HxW",
        help="the images' size for the rule (default: their median); "
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
    recipe.add_argument(
        "--rematerialize",
        action="store_true",
        help="keep of each block its input alone and compute it again for its gradient: less memory, more time",
    )
    data = command.add_argument_group("data")
    data.add_argument("--examples-per-class", type=positive, metavar="N", help="train on N images of each class")
    data.add_argument(
        "--validation-share",
        type=share,
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
        help="raise: end at an image that cannot be read (default); skip: read all first, and leave such ones out",
    )
    job = command.add_argument_group("run")
    job.add_argument("--seed", type=int, default=0, metavar="N", help="of the division, order and crops (default: 0)")
    job.add_argument(
        "--evaluate-every",
        type=positive,
        metavar="N",
        help="steps between evaluations, at which the run is saved (default: a twentieth of all)",
    )
    job.add_argument(
        "--strategy",
        choices=["mirrored", "multi_worker"],
        help="mirrored: all GPUs of this machine; multi_worker: start the same command on every machine, with "
        "TF_CONFIG (TensorFlow) or KERAS_DISTRIBUTION_... (JAX) set as the README says, and DIR shared by all",
    )
    job.add_argument("--tensorboard", action="store_true", help="also write DIR/tensorboard")
    add_hub_arguments(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from keras_bit.training import distribution, run_directory

    workers = distribution.start(options.strategy)
    out = Path(os.path.expanduser(options.out))
    try:
        with run_directory.writable(out, os.path.expanduser(options.data), is_chief=workers.is_chief):
            return _fine_tune(options, out, workers)
    except FloatingPointError:
        raise  # by all workers at once
    except Exception as error:
        if workers.count == 1:
            raise
        _leave(error, workers.lost(error))


def _leave(error: Exception, another_is_lost: bool) -> NoReturn:
    """Ends one of several workers, and the others by that: on its way out, Python would wait for them for minutes."""
    told = printable(" ".join(str(error).split()))
    if another_is_lost:
        told = (
            f"another worker has ended, or cannot be reached ({told[:300]} ...). Start the command again on all of "
            "them: it goes on from the last evaluation."
        )
    elif not isinstance(error, OSError | ValueError | ImportError):
        traceback.print_exc()
    print(f"keras-bit finetune: {told}", file=sys.stderr, flush=True)
    os._exit(1)


def _fine_tune(options: argparse.Namespace, out: Path, workers: Any) -> int:
    import keras

    from keras_bit.drawing import charts
    from keras_bit.hub import HubOptions
    from keras_bit.training import planning, run

    callbacks = ()
    if options.tensorboard:
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError("`--tensorboard` needs TensorBoard: pip install 'keras_bit[tensorboard]'.")
        callbacks = (keras.callbacks.TensorBoard(out / "tensorboard"),)
    chosen = planning.Options(
        data=os.path.normpath(os.path.expanduser(options.data)),
        class_names=class_names_of(options.class_names),
        hub=HubOptions(**hub_arguments(options)),
        **{
            field.name: getattr(options, field.name)
            for field in dataclasses.fields(planning.Options)
            if field.name not in ("data", "hub", "class_names")
        },
    )
    plan = planning.plan(chosen, workers)

    def say(line: str) -> None:
        if workers.is_chief:
            print(printable(line), flush=True)

    if workers.is_chief:
        console().print(_plan_table(plan))
        if not charts.available():
            print(f"keras-bit finetune: without matplotlib there are no charts: {charts.INSTALL}", file=sys.stderr)
    for note in plan.notes:
        say(note)
    run.run(plan, out, workers=workers, say=say, callbacks=callbacks)
    say(f"{out}: keras-bit classify IMAGE --weights {out}")
    return 0


def _plan_table(plan: Any) -> Table:
    """What is about to happen, so that a person can stop it."""
    rule, found = plan.rule, plan.splits
    table = Table(title="BiT-HyperRule", title_justify="left", show_header=False)
    shown = ", ".join(found.class_names[:5]) + ", ..." * (len(found.class_names) > 5)
    table.add_row("classes", f"{len(found.class_names)} ({printable(shown)})")
    table.add_row("training images", f"{len(found.train):,}, typically {rule.image_size[0]}x{rule.image_size[1]} px")
    table.add_row("validation images", f"{len(found.validation):,}" if found.validation else "none")
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
