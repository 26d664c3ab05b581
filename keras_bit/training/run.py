"""The job of `keras-bit finetune`: from a data set and a checkpoint to a directory with a trained model."""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from keras_bit import files
from keras_bit.applications import from_pretrained
from keras_bit.checkpoints import loading
from keras_bit.checkpoints.building import build_model
from keras_bit.checkpoints.saving import refuse_contradictions, save_pretrained
from keras_bit.data import splits
from keras_bit.data.dataset import image_dataset, indexed_dataset
from keras_bit.data.named_batches import batches_of
from keras_bit.drawing import charts
from keras_bit.evaluation import evaluating, report
from keras_bit.hub import HubOptions
from keras_bit.hyperrule import HyperRule
from keras_bit.images.processor import BIT_50, BitImageProcessor
from keras_bit.network.model import BiTModel, Ends
from keras_bit.network.transforms import freeze, rematerialize
from keras_bit.training import run_directory
from keras_bit.training.distribution import Workers
from keras_bit.training.fine_tuning import EVALUATIONS, fine_tune
from keras_bit.training.progress import Progress
from keras_bit.training.state import TrainingState

# Pixels of a batch that a machine is trusted with; more are accumulated: 512 images of 128 px, 36 of 480 px.
PIXELS_AT_ONCE = 512 * 128 * 128


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides about the result; a run goes on only with the same.

    Args:
        data, weights: as `keras-bit finetune` has them.
        batch_size: images per step.
        gradient_accumulation_steps: batches that make up a step; `None` as many as `PIXELS_AT_ONCE` asks for.
        steps, base_learning_rate, scaling, image_size: of the `HyperRule`; `None` leaves them to it and to the data.
        evaluate_every: steps between two rows of the log, and two states to go on from.
        examples_per_class, validation_share, class_names: of `splits.open_splits`.
        freeze_up_to: of `keras_bit.freeze`.
        mixed_precision: `"float16"` or `"bfloat16"`, or `None`.
        rematerialize: whether `keras_bit.rematerialize` makes the steps keep less.
        random_resized_crop: of `image_dataset`.
        on_error: `"skip"` reads every image once beforehand and leaves out those that cannot be read.
        seed: of the division of the data, the order and the augmentation.
        hub: `revision`, `cache_dir` and `local_files_only` of `weights`.
    """

    data: str
    weights: str
    batch_size: int = 512
    gradient_accumulation_steps: int | None = None
    steps: int | None = None
    base_learning_rate: float = 0.003
    scaling: str | None = None
    image_size: tuple[int, int] | None = None
    evaluate_every: int | None = None
    examples_per_class: int | None = None
    validation_share: float = 0.2
    class_names: Sequence[str] | None = None
    freeze_up_to: str | None = None
    mixed_precision: str | None = None
    rematerialize: bool = False
    random_resized_crop: bool = False
    on_error: str = "raise"
    seed: int = 0
    hub: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the options come to, for this data set and checkpoint."""

    splits: splits.Splits
    notes: tuple[str, ...]
    rule: HyperRule
    processor: BitImageProcessor
    accumulation: int
    evaluate_every: int

    @property
    def described(self) -> dict[str, Any]:
        parts = {"train": self.splits.train, "validation": self.splits.validation}
        return {
            "rule": dataclasses.asdict(self.rule),
            "gradient_accumulation_steps": self.accumulation,
            "evaluate_every": self.evaluate_every,
            "class_names": list(self.splits.class_names),
            **{f"{name}_pictures": 0 if part is None else len(part) for name, part in parts.items()},
            **{f"{name}_digest": None if part is None else part.digest for name, part in parts.items()},
        }


def plan(options: Options, workers: Workers) -> Plan:
    found = splits.open_splits(
        options.data,
        validation_share=options.validation_share,
        seed=options.seed,
        examples_per_class=options.examples_per_class,
        class_names=options.class_names,
    )
    if options.on_error == "skip":
        found = _without_unreadable(found)
    rule = HyperRule(
        len(found.train),
        options.image_size or found.train.typical_size(),
        batch_size=options.batch_size,
        base_learning_rate=options.base_learning_rate,
        scaling=options.scaling,
        steps=options.steps,
    )
    notes = list(found.notes)
    if rule.batch_size > len(found.train):
        notes.append(
            f"A step takes {rule.batch_size} images, more than there are: each comes several times, cropped anew. "
            "With a smaller --batch-size it takes less time."
        )
    try:
        processor = BitImageProcessor.from_pretrained(options.weights, **options.hub)
    except FileNotFoundError:
        processor = BitImageProcessor(**BIT_50)
        notes.append("The checkpoint has no processor: pixels are scaled to [-1, 1], as for BiT's own.")
    size = {"height": rule.crop_size, "width": rule.crop_size}
    processor = dataclasses.replace(processor, do_resize=True, size=size, do_center_crop=False, do_convert_rgb=True)
    accumulation = options.gradient_accumulation_steps or (
        _accumulation(rule, workers.count) if workers.accumulates else 1
    )
    every = min(options.evaluate_every or max(rule.total_steps // EVALUATIONS, 1), rule.total_steps)
    if rule.batch_size % accumulation:
        raise ValueError(
            f"`--gradient-accumulation-steps` must divide the batch size {rule.batch_size}, got {accumulation}."
        )
    return Plan(found, tuple(notes), rule, processor, accumulation, every)


def _without_unreadable(found: splits.Splits) -> splits.Splits:
    """Which images a step gets must not depend on what a run comes across, so they are looked for beforehand."""
    processor = BitImageProcessor(size=(32, 32), do_center_crop=False)
    notes = list(found.notes)
    parts: dict[str, splits.Part | None] = {"train": found.train, "validation": found.validation, "test": found.test}
    for name, part in parts.items():
        if part is None or (name == "test" and part is found.validation):
            continue
        data = indexed_dataset(part.everything, processor=processor, batch_size=64)
        readable = []
        with warnings.catch_warnings(), tqdm(total=len(part), desc=f"read {name}", delay=2, leave=False) as bar:
            warnings.filterwarnings("ignore", ".*were left out")  # they get their notes
            for *_, index in batches_of(data, "skip"):
                readable.append(index)
                bar.update(len(index))
        if skipped := data.skipped:
            parts[name] = part.some(np.concatenate(readable))
            notes.append(f"{len(skipped)} images cannot be read and are left out ({name}):")
            notes += [f"  {line}" for line in skipped[:20]]
            notes += [f"  and {len(skipped) - 20} more"] if len(skipped) > 20 else []
    if found.test is found.validation:
        parts["test"] = parts["validation"]
    return dataclasses.replace(found, **parts, notes=tuple(notes))


def _accumulation(rule: HyperRule, processes: int) -> int:
    """The fewest batches that make up a step of the rule's, each no larger than a machine is trusted with."""
    most = max(PIXELS_AT_ONCE // rule.crop_size**2, 1) * processes
    possible = range(1, rule.batch_size + 1)
    return next(parts for parts in possible if rule.batch_size % parts == 0 and rule.batch_size // parts <= most)


def run(
    options: Options,
    plan: Plan,
    out: Path,
    *,
    workers: Workers,
    say: Callable[[str], None],
    callbacks: tuple[Any, ...] = (),
) -> None:
    """Fine-tunes, or goes on with it, and writes the model. Within `run_directory.writable`.

    Raises:
        ValueError: `out` holds a run with other options or another data set.
        FloatingPointError: the loss became NaN; `out` then has the model of the last good state, if there is one.
        OSError: nothing can be written.
    """
    keras.utils.set_random_seed(options.seed)  # drop path draws from it
    with _policy(f"mixed_{options.mixed_precision}" if options.mixed_precision else keras.config.dtype_policy()):
        with workers.scope():
            model = _model(options, plan.splits.class_names, say)
        if workers.is_chief:
            run_directory.check_space(model, out)
            refuse_contradictions(out, plan.processor)
            run_directory.check_same_run({"options": dataclasses.asdict(options), "plan": plan.described}, out)
            run_directory.remove_unfinished(out)
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
            _train(model, plan, options, state, out, workers, say, callbacks)
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


@contextlib.contextmanager
def _policy(policy: Any) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _train(
    model: BiTModel,
    plan: Plan,
    options: Options,
    state: TrainingState,
    out: Path,
    workers: Workers,
    say: Callable[[str], None],
    callbacks: tuple[Any, ...],
) -> None:
    rule = plan.rule
    micro = rule.batch_size // plan.accumulation
    train = image_dataset(
        plan.splits.train.everything,
        processor=plan.processor,
        batch_size=micro,
        training=True,
        rule=rule,
        seed=options.seed,
        class_names=plan.splits.class_names,
        random_resized_crop=options.random_resized_crop,
        repeat=True,
        initial_step=state.step * plan.accumulation,
        shard=(workers.index, workers.count),
    )
    validation = None
    if plan.splits.validation is not None:
        validation = evaluation_data(plan, plan.splits.validation)
    log = out / run_directory.LOG_NAME
    progress = Progress(rule, plan.accumulation, state, log, say) if workers.is_chief else None
    shown = [progress, *callbacks] if progress else []
    try:
        fine_tune(
            model,
            train,
            validation,
            rule=rule,
            steps_per_epoch=plan.evaluate_every,
            gradient_accumulation_steps=plan.accumulation,
            initial_epoch=state.epoch,
            callbacks=[state, *shown],
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
    finally:
        if progress:
            progress.close()


def evaluation_data(plan: Plan, part: splits.Part) -> Any:
    return image_dataset(
        part.everything,
        processor=plan.processor,
        batch_size=min(plan.rule.batch_size // plan.accumulation, 32),
        class_names=plan.splits.class_names,
    )


def _model(options: Options, class_names: tuple[str, ...], say: Callable[[str], None]) -> BiTModel:
    """The checkpoint with a head for these classes: its own, where it has them already, else one of zeros."""
    count, names = len(class_names), dict(enumerate(class_names))
    checkpoint = loading.find(options.weights, HubOptions(**options.hub)).open()
    held = checkpoint.head_classes
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gives the model a new head of zeros")  # said below
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


def _write(model: BiTModel, processor: BitImageProcessor, out: Path) -> None:
    """The model in transformers' layout and as a `.keras` file, in float32."""
    save_pretrained(model, out, processor)
    if any(layer.dtype_policy.name != "float32" for layer in model.layers):
        # Mixed precision is for training; whoever serves the model chooses again.
        with _policy("float32"):
            model = from_pretrained(out)
    with files.replacing(out / run_directory.MODEL_NAME) as beside:
        model.save(beside)


def _report(plan: Plan, state: TrainingState, out: Path, say: Callable[[str], None]) -> None:
    """How good the model is, as numbers and as images."""
    if charts.available():
        charts.curves(state.rows, out / run_directory.CURVES_NAME)
    name, part = ("test", plan.splits.test) if plan.splits.test is not None else ("validation", plan.splits.validation)
    if part is None:
        return
    # As it was written, and outside of any strategy.
    found = evaluating.evaluate(from_pretrained(out), evaluation_data(plan, part), names=part.names)
    title = (f"The worst mistakes on {len(part):,} {name} images", out.name)
    report.write(found, out, processor=plan.processor, title=title)
    say(f"accuracy {found.report['top_1_accuracy']:.2%} on {len(part):,} {name} images")
