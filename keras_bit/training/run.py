"""Carries out a fine-tuning run: from a plan to a directory with a trained model."""

import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit import wording
from keras_bit.applications import from_pretrained
from keras_bit.checkpoints import loading
from keras_bit.checkpoints.building import NewHead, build_model
from keras_bit.checkpoints.saving import CARD_NAME, refuse_contradictions, save_pretrained
from keras_bit.data.dataset import image_dataset
from keras_bit.data.named_batches import UnreadableImageError
from keras_bit.data.parts import Part
from keras_bit.drawing import charts
from keras_bit.evaluation import evaluating, report
from keras_bit.files import writing
from keras_bit.images.processor import BitImageProcessor
from keras_bit.network.model import BiTModel, Ends
from keras_bit.network.transforms import freeze, rematerialize
from keras_bit.recipes.optimizers import optimizer, schedule
from keras_bit.training import run_directory, teaching
from keras_bit.training.adapting import adapt
from keras_bit.training.calibration import NotCalibratedWarning, TemperatureScaling, calibrate
from keras_bit.training.card import model_card
from keras_bit.training.choices import check_model
from keras_bit.training.distribution import Workers
from keras_bit.training.fine_tuning import fine_tune
from keras_bit.training.objective import ACTIVATIONS, NUMBER, SEVERAL, problem_type
from keras_bit.training.planning import Options, Plan, image_names
from keras_bit.training.progress import Progress
from keras_bit.training.state import TrainingState
from keras_bit.training.watch import Watch, assign, best_place, give_result, watch_of, weights_of

Say = Callable[[str], None]  # shows a line to a person


def run(
    plan: Plan,
    out: Path,
    *,
    workers: Workers,
    say: Say,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Fine-tunes, or continues a run, and writes the model. Call it within `run_directory.writable`.

    Args:
        plan: the plan of the run.
        out: the directory of the run and of its result.
        workers: the processes that train together.
        say: receives a line for each evaluation, and notes about the checkpoint and `out`.
        callbacks: Keras callbacks, for the process that writes.

    Raises:
        ValueError: `out` holds a run with other options or another data set.
        FloatingPointError: the loss became NaN; `out` then has the model of the last good state, if any.
        OSError: nothing can be written.
    """
    options = plan.options
    keras.utils.set_random_seed(options.seed)  # for drop path
    with precision(options):
        with workers.scope():
            model = new_model(plan, say)
        check_model(plan.recipe, model, validates=plan.splits.validation is not None)
        if workers.is_chief:
            run_directory.check_space(model, plan.recipe, out)
            refuse_contradictions(out, plan.processor)
            run_directory.check_same_run(plan.described, out)
            run_directory.remove_unfinished(out)
            remember_images(plan, out, say)
        watch = watch_of(plan.recipe)
        state = TrainingState(
            out / run_directory.STATE_FOLDER / run_directory.STATE_NAME,
            plan.evaluate_every,
            plan.rule.total_steps,
            rate_of=schedule(plan.recipe),
            writes=workers.is_chief,
            watch=watch,
        )
        if state.epoch:
            say(f"Continuing after step {state.step} of {plan.rule.total_steps}.")
            if state.step == plan.rule.total_steps:
                say("Nothing is left to train. The results are written again.")
        if state.step < plan.rule.total_steps and not (watch is not None and watch.is_over):
            _train(model, plan, state, out, workers, say, callbacks)
        else:
            with workers.scope():
                adapt(model, plan.recipe)
                model.compile(optimizer(plan.recipe, model.config.stage_names, plan.accumulation))
                state.set_model(model)
                _restore(model, plan, state)
    if watch is not None:
        _say_best(watch, state, plan, say)
        _write_last(model, plan, watch, out, workers)
    if workers.is_chief:
        with workers.alone():
            _write(model, plan.processor, out)
            scaling = _calibrated(plan, out, say) if options.calibrate else None
            # The written model belongs to no distribution strategy.
            written = from_pretrained(out)
            _report(written, plan, state, out, say, scaling)
            _write_card(written, plan, out)
    workers.wait()


def remember_images(plan: Plan, out: Path, say: Say) -> None:
    """Notes the images, and reports which ones the run continues without."""
    before = run_directory.remembered_images(out)
    if before is not None:
        lost = sorted(set(plan.skipped) - set(before.left_out))
        back = sorted(set(before.left_out) - set(plan.skipped))
        for lines, what in ((lost, "without"), (back, "again with")):
            if lines:
                say(
                    f"Continuing {what} {wording.some(lines, 3, ' ')} The recipe stays the same; the order of images "
                    "changes from here on."
                )
    if plan.whole.train.in_files:
        names = before.names if before is not None else image_names(plan.whole)
        run_directory.remember_images(out, run_directory.Images(names, list(plan.skipped)))


def new_model(plan: Plan, say: Say) -> BiTModel:
    """Loads the checkpoint with a head for the data's labels.

    It is the checkpoint's own head if its labels are the same, and otherwise a new head of zeros.
    """
    options, found = plan.options, plan.splits
    count, names, kind = len(found.class_names), dict(enumerate(found.class_names)), found.problem_type
    checkpoint = loading.find(options.weights, options.hub).open()
    checkpoint = dataclasses.replace(checkpoint, frozen=())  # the run's options decide what is frozen
    held = checkpoint.head_classes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NewHead)  # reported below
        model = build_model(checkpoint, Ends(classifier_activation=ACTIVATIONS[kind]), classes=count)
    one, many = {NUMBER: ("number", "numbers"), SEVERAL: ("label", "labels")}.get(kind, ("class", "classes"))
    if held == count and model.config.id2label == names and problem_type(model) == kind:
        say(f"The checkpoint's head has these {many}, and training continues with it.")
    else:
        say(f"The model gets a new head of zeros for {count} {one if count == 1 else many}.")
        for variable in model.get_layer("predictions").weights:
            variable.assign(np.zeros(variable.shape, "float32"))
    model.config = dataclasses.replace(
        model.config,
        id2label=names,
        label2id={name: number for number, name in names.items()},
        problem_type=kind,
    )
    if options.rematerialize:
        rematerialize(model)
    if options.freeze_up_to:
        frozen = freeze(model, up_to=options.freeze_up_to)
        say(f"{len(frozen)} layers, up to {options.freeze_up_to}, are frozen.")
    return model


def _say_best(watch: Watch, state: TrainingState, plan: Plan, say: Say) -> None:
    """Reports whether training ended early, and which weights are the result."""
    if not watch.values:
        return
    best = state.rows[best_place(watch.values, watch.metric)]
    if watch.is_over and state.step < plan.rule.total_steps:
        say(f"Ended after step {state.step} of {plan.rule.total_steps}: {watch.metric} did not improve.")
    if watch.keeps:
        say(
            f"The result is the model after step {best['step']}, with {watch.metric} {best[watch.metric]:.4f}. The "
            f"directory {run_directory.LAST_FOLDER} has the model after step {state.step}."
        )


def _train(
    model: BiTModel,
    plan: Plan,
    state: TrainingState,
    out: Path,
    workers: Workers,
    say: Say,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains from `state` to the end."""
    validation = None if plan.splits.validation is None else _evaluation_data(plan, plan.splits.validation)
    batches = 0 if validation is None else len(validation)
    log = out / run_directory.LOG_NAME
    progress = Progress(plan.rule, plan.accumulation, state, log, say, batches) if workers.is_chief else None
    try:
        fine_tune(
            model,
            training_data(plan, state.step, workers),
            validation,
            recipe=plan.recipe,
            teacher=teaching.load(plan.options.teacher, plan.options.hub),
            steps_per_epoch=plan.evaluate_every,
            gradient_accumulation_steps=plan.accumulation,
            initial_epoch=state.epoch,
            # The watch comes first, because the state stores its values.
            callbacks=[*([state.watch] if state.watch else []), state, *([progress, *callbacks] if progress else [])],
            verbose=0,
        )
    except FloatingPointError as error:
        if not state.epoch:
            raise
        _restore(state.model, plan, state)
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


def _restore(model: BiTModel, plan: Plan, state: TrainingState) -> None:
    """Gives a model the result of the last saved state. Every worker does it: under JAX all of them set a variable."""
    state.restore()
    give_result(model, state.watch)
    if plan.units is not None:
        plan.units.leave(model)


def _unreadable(error: Exception, state: TrainingState) -> UnreadableImageError | None:
    """Returns the error for an image that turned out to be damaged during training; `None` for other errors."""
    problem = error.problem if isinstance(error, UnreadableImageError) else _told_by_tensorflow(error)
    if not problem:
        return None
    if state.epoch:
        problem += f" The run is saved up to step {state.step}; the next start continues from there."
    return UnreadableImageError(problem)


def _told_by_tensorflow(error: Exception) -> str:
    """Returns which image could not be read and why, from an error of TensorFlow; an empty text for other errors."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
        return ""
    from keras_bit.images.graph_faults import sentence_of

    said = sentence_of(str(error))
    return said.partition(" To leave")[0] if "on_error='skip'" in said else ""


def training_data(plan: Plan, step: int, workers: Workers) -> Any:
    """Returns this worker's part of every batch, from a step of the recipe on."""
    source: Any = plan.splits.train.everything
    labels: dict[str, Any] = {"class_names": _class_names(plan)}
    if plan.splits.unlabeled is not None:
        source = [*plan.splits.train.names, *plan.splits.unlabeled.names]
        labels = {"label_mode": "unlabeled"}
    data = image_dataset(
        source,
        processor=plan.processor,
        batch_size=plan.rule.batch_size // plan.accumulation,
        training=True,
        recipe=plan.recipe,
        seed=plan.options.seed,
        random_resized_crop=plan.options.random_resized_crop,
        repeat=True,
        initial_step=step * plan.accumulation,
        shard=(workers.index, workers.count),
        **labels,
    )
    if plan.units is not None:
        data.number_units = plan.units  # those of all images: the part may lack some that cannot be read
    return data


def _class_names(plan: Plan) -> tuple[str, ...] | None:
    return None if plan.splits.problem_type == NUMBER else plan.splits.class_names


def _evaluation_data(plan: Plan, part: Part) -> Any:
    """Returns every image of a part, once."""
    return image_dataset(
        part.everything,
        processor=plan.processor,
        batch_size=min(plan.rule.batch_size // plan.accumulation, 32),
        class_names=_class_names(plan),
    )


def _write(model: BiTModel, processor: BitImageProcessor, out: Path) -> None:
    """Writes the model in transformers' layout and as a `.keras` file, in float32."""
    save_pretrained(model, out, processor)
    half = any(layer.dtype_policy.name != "float32" for layer in model.layers)
    if half or any(getattr(layer, "lora_enabled", False) for layer in model.layers):
        # Mixed precision and LoRA are for training only.
        with _policy("float32"):
            model = from_pretrained(out)
    with writing.replacing(out / run_directory.MODEL_NAME) as beside:
        model.save(beside)


def _write_last(model: BiTModel, plan: Plan, watch: Watch, out: Path, workers: Workers) -> None:
    """Writes the model of the last step beside the best one. Every worker calls it, as it does `_restore`."""
    if watch.last is None:
        return
    result = weights_of(model)
    assign(model, watch.last)
    if plan.units is not None:
        plan.units.leave(model)
    if workers.is_chief:
        with workers.alone():
            save_pretrained(model, out / run_directory.LAST_FOLDER, plan.processor)
    assign(model, result)


def _calibrated(plan: Plan, out: Path, say: Say) -> TemperatureScaling:
    """Calibrates the written model, and writes it again.

    It starts from the trained weights every time, because a restarted run writes them first.
    """
    part = plan.splits.validation
    assert part is not None  # `planning.plan` refuses it
    with _policy("float32"), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", NotCalibratedWarning)
        model = from_pretrained(out)  # the written model, outside of any strategy
        found = calibrate(model, _evaluation_data(plan, part))
        if found.temperature != 1:
            _write(model, plan.processor, out)
    for warning in told:
        if issubclass(warning.category, NotCalibratedWarning):
            say(str(warning.message))
    before, after = found.before, found.after
    say(
        f"temperature {found.temperature:.4f}: calibration error {before.expected_calibration_error:.2%} before, "
        f"{after.expected_calibration_error:.2%} after, log loss {before.log_loss:.4f} before, {after.log_loss:.4f} "
        f"after, on the {found.examples:,} images that the temperature was fitted to"
    )
    if after.expected_calibration_error > before.expected_calibration_error:
        say(
            "The calibration error is larger than before, because the temperature lowers only the log loss. If you "
            f"want the model without calibration, continue the finished run without it: that writes {out} again."
        )
    return found


def _report(
    model: BiTModel, plan: Plan, state: TrainingState, out: Path, say: Say, scaling: TemperatureScaling | None
) -> None:
    """Evaluates the model, and writes numbers and images."""
    if charts.available():
        charts.curves(state.rows, out / run_directory.CURVES_NAME)
    name, part = ("test", plan.splits.test) if plan.splits.test is not None else ("validation", plan.splits.validation)
    if part is None:
        return
    found = evaluating.evaluate(model, _evaluation_data(plan, part), names=part.names)
    if scaling is not None:
        found = dataclasses.replace(found, report=found.report | {"temperature_scaling": scaling.to_dict()})
    title = (f"The worst mistakes on {len(part):,} {name} images", out.name)
    report.write(found, out, processor=plan.processor, title=title)
    say(f"{_in_short(found.report)} on {len(part):,} {name} images")


def _write_card(model: BiTModel, plan: Plan, out: Path) -> None:
    """Writes the model card, for publishing; one that is there stays, because its owner may have changed it."""
    file = out / CARD_NAME
    if file.exists():
        return
    text = str(model_card(model, out.resolve().name, processor=plan.processor, run=out))
    with writing.replacing(file) as beside:
        beside.write_text(text, encoding="utf-8")


def _in_short(found: dict[str, Any]) -> str:
    """Returns the most important numbers about a model."""
    if "top_1_accuracy" in found:
        return f"accuracy {found['top_1_accuracy']:.2%}"
    if "mean_average_precision" in found:
        shown = "-" if found["mean_average_precision"] is None else f"{found['mean_average_precision']:.2%}"
        return f"mean average precision {shown}, all labels right {found['exact_match']:.2%}"
    shown = "-" if found["r2"] is None else f"{found['r2']:.3f}"
    return f"mean absolute error {wording.number(found['mean_absolute_error'])}, R² {shown}"


def precision(options: Options) -> contextlib.AbstractContextManager:
    """Returns a context in which models compute in the precision of the options."""
    return _policy(f"mixed_{options.mixed_precision}" if options.mixed_precision else keras.config.dtype_policy())


@contextlib.contextmanager
def _policy(policy: Any) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
