"""A fine-tuning run: from a plan to a directory with a trained model."""

import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit import files
from keras_bit.applications import from_pretrained
from keras_bit.checkpoints import loading
from keras_bit.checkpoints.building import NewHead, build_model
from keras_bit.checkpoints.saving import refuse_contradictions, save_pretrained
from keras_bit.data.dataset import image_dataset
from keras_bit.data.named_batches import UnreadableImageError
from keras_bit.data.parts import Part
from keras_bit.drawing import charts
from keras_bit.evaluation import evaluating, report
from keras_bit.images.processor import BitImageProcessor
from keras_bit.network.model import BiTModel, Ends
from keras_bit.network.transforms import freeze, rematerialize
from keras_bit.training import run_directory
from keras_bit.training.distribution import Workers
from keras_bit.training.fine_tuning import fine_tune
from keras_bit.training.planning import Options, Plan, image_names
from keras_bit.training.progress import Progress
from keras_bit.training.state import TrainingState

Say = Callable[[str], None]  # shows a line to a person


def run(
    plan: Plan,
    out: Path,
    *,
    workers: Workers,
    say: Say,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Fine-tunes, or goes on with it, and writes the model. Within `run_directory.writable`.

    Args:
        plan: what to do.
        out: the directory of the run and of its result.
        workers: the processes that train together.
        say: gets a line for each evaluation, and for what was found in the checkpoint and in `out`.
        callbacks: of Keras, for the process that writes.

    Raises:
        ValueError: `out` holds a run with other options or another data set.
        FloatingPointError: the loss became NaN; `out` then has the model of the last good state, if there is one.
        OSError: nothing can be written.
    """
    options = plan.options
    keras.utils.set_random_seed(options.seed)  # drop path draws from it
    with _policy(f"mixed_{options.mixed_precision}" if options.mixed_precision else keras.config.dtype_policy()):
        with workers.scope():
            model = _model(options, plan.splits.class_names, say)
        if workers.is_chief:
            run_directory.check_space(model, out)
            refuse_contradictions(out, plan.processor)
            run_directory.check_same_run(plan.described, out)
            run_directory.remove_unfinished(out)
            remember_images(plan, out, say)
        state = TrainingState(
            out / run_directory.STATE_FOLDER / run_directory.STATE_NAME,
            plan.evaluate_every,
            plan.rule.total_steps,
            rate_of=plan.rule.schedule(),
            writes=workers.is_chief,
        )
        if state.epoch:
            say(f"Going on after step {state.step} of {plan.rule.total_steps}.")
        if state.step < plan.rule.total_steps:
            _train(model, plan, state, out, workers, say, callbacks)
        else:
            with workers.scope():
                model.compile(plan.rule.optimizer(plan.accumulation))
                state.set_model(model)
                state.restore()
    if workers.is_chief:
        with workers.alone():
            _write(model, plan.processor, out)
            _report(plan, state, out, say)
    workers.wait()


def remember_images(plan: Plan, out: Path, say: Say) -> None:
    """Notes the images, and says which of those that the run has used it goes on without."""
    before = run_directory.remembered_images(out)
    if before is not None:
        lost = sorted(set(plan.skipped) - set(before.left_out))
        back = sorted(set(before.left_out) - set(plan.skipped))
        for lines, what in ((lost, "without"), (back, "again with")):
            if lines:
                say(
                    f"Going on {what} {files.some(lines, 3, ' ')} The recipe stays; from here on the steps get the "
                    "images in another order."
                )
    if plan.whole.train.in_files:
        names = before.names if before is not None else image_names(plan.whole)
        run_directory.remember_images(out, run_directory.Images(names, list(plan.skipped)))


def _model(options: Options, class_names: tuple[str, ...], say: Say) -> BiTModel:
    """The checkpoint with a head for these classes: its own, where it has them already, else one of zeros."""
    count, names = len(class_names), dict(enumerate(class_names))
    checkpoint = loading.find(options.weights, options.hub).open()
    held = checkpoint.head_classes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NewHead)  # said below
        model = build_model(checkpoint, Ends(classifier_activation="softmax"), classes=count)
    if held == count and model.config.id2label == names:
        say("The checkpoint's head has these classes, and is trained on.")
    else:
        say(f"A new head of zeros for {count} classes.")
        for variable in model.get_layer("predictions").weights:
            variable.assign(np.zeros(variable.shape, "float32"))
    model.config = dataclasses.replace(
        model.config,
        id2label=names,
        label2id={name: number for number, name in names.items()},
        problem_type="single_label_classification",
    )
    if options.rematerialize:
        rematerialize(model)
    if options.freeze_up_to:
        frozen = freeze(model, up_to=options.freeze_up_to)
        say(f"{len(frozen)} layers, up to {options.freeze_up_to}, stay as they are.")
    return model


def _train(
    model: BiTModel,
    plan: Plan,
    state: TrainingState,
    out: Path,
    workers: Workers,
    say: Say,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains from where `state` is to the end."""
    validation = plan.splits.validation
    log = out / run_directory.LOG_NAME
    progress = Progress(plan.rule, plan.accumulation, state, log, say) if workers.is_chief else None
    try:
        fine_tune(
            model,
            _training_data(plan, state.step, workers),
            None if validation is None else _evaluation_data(plan, validation),
            rule=plan.rule,
            steps_per_epoch=plan.evaluate_every,
            gradient_accumulation_steps=plan.accumulation,
            initial_epoch=state.epoch,
            callbacks=[state, progress, *callbacks] if progress else [state],
            verbose=0,
        )
    except FloatingPointError as error:
        if not state.epoch:
            raise
        state.restore()  # on every worker: under JAX a variable is given its value by all of them together
        if workers.is_chief:
            with workers.alone():
                _write(model, plan.processor, out)
        workers.wait()
        raise FloatingPointError(
            f"{error} {str(out)!r} has the model of the last good state, after step {state.step}."
        ) from None
    except Exception as error:
        if (unreadable := _unreadable(error, state)) is not None:
            raise unreadable from None
        raise
    finally:
        if progress:
            progress.close()


def _unreadable(error: Exception, state: TrainingState) -> UnreadableImageError | None:
    """What is raised for an image that turned out to be damaged while it was trained on; `None` for other errors."""
    problem = error.problem if isinstance(error, UnreadableImageError) else _told_by_tensorflow(error)
    if not problem:
        return None
    if state.epoch:
        problem += f" The run is kept as it was after step {state.step}: the next start goes on from there."
    return UnreadableImageError(problem)


def _told_by_tensorflow(error: Exception) -> str:
    """Which image could not be read and why, where an error of TensorFlow tells of one; else nothing."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
        return ""
    from keras_bit.images.graph_faults import sentence_of

    said = sentence_of(str(error))
    return said.partition(" To leave")[0] if "on_error='skip'" in said else ""


def _training_data(plan: Plan, step: int, workers: Workers) -> Any:
    """This worker's part of every batch, from a step of the recipe on."""
    return image_dataset(
        plan.splits.train.everything,
        processor=plan.processor,
        batch_size=plan.rule.batch_size // plan.accumulation,
        training=True,
        rule=plan.rule,
        seed=plan.options.seed,
        class_names=plan.splits.class_names,
        random_resized_crop=plan.options.random_resized_crop,
        repeat=True,
        initial_step=step * plan.accumulation,
        shard=(workers.index, workers.count),
    )


def _evaluation_data(plan: Plan, part: Part) -> Any:
    """Every image of a part, once."""
    return image_dataset(
        part.everything,
        processor=plan.processor,
        batch_size=min(plan.rule.batch_size // plan.accumulation, 32),
        class_names=plan.splits.class_names,
    )


def _write(model: BiTModel, processor: BitImageProcessor, out: Path) -> None:
    """The model in transformers' layout and as a `.keras` file, in float32."""
    save_pretrained(model, out, processor)
    if any(layer.dtype_policy.name != "float32" for layer in model.layers):
        # Mixed precision is for training; whoever serves the model chooses again.
        with _policy("float32"):
            model = from_pretrained(out)
    with files.replacing(out / run_directory.MODEL_NAME) as beside:
        model.save(beside)


def _report(plan: Plan, state: TrainingState, out: Path, say: Say) -> None:
    """How good the model is, as numbers and as images."""
    if charts.available():
        charts.curves(state.rows, out / run_directory.CURVES_NAME)
    name, part = ("test", plan.splits.test) if plan.splits.test is not None else ("validation", plan.splits.validation)
    if part is None:
        return
    # As it was written, and outside of any strategy.
    found = evaluating.evaluate(from_pretrained(out), _evaluation_data(plan, part), names=part.names)
    title = (f"The worst mistakes on {len(part):,} {name} images", out.name)
    report.write(found, out, processor=plan.processor, title=title)
    say(f"accuracy {found.report['top_1_accuracy']:.2%} on {len(part):,} {name} images")


@contextlib.contextmanager
def _policy(policy: Any) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
