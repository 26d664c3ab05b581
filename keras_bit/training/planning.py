"""Plans a fine-tuning run before anything is computed: its data, its recipe and its preprocessing."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit.checkpoints import loading
from keras_bit.data import splits
from keras_bit.data.label_table import NUMBER, PROBLEM_TYPES, TableOptions
from keras_bit.data.named_batches import NoImageError, UnreadableImageError
from keras_bit.data.parts import Part
from keras_bit.data.readable import unreadable
from keras_bit.data.splits import Splits
from keras_bit.hub.finding import HubOptions, shown
from keras_bit.images.processor import BitImageProcessor, processor_of
from keras_bit.recipes.hyperrule import HyperRule
from keras_bit.recipes.recipe import Recipe
from keras_bit.training import choices, distilling, run_directory, teaching
from keras_bit.training.distribution import Workers
from keras_bit.training.fine_tuning import EVALUATIONS
from keras_bit.training.objective import metric_names
from keras_bit.training.units import Units, units_of
from keras_bit.training.weighting import class_weights
from keras_bit.wording import some

# Pixels of a batch that fit most machines: 512 images of 128 px, 36 of 480 px. Larger batches are accumulated.
PIXELS_AT_ONCE = 512 * 128 * 128
SHOWN = 5  # images that a message lists
# Options that runs of earlier versions lack.
LATER = (
    "image_folder",
    "image_column",
    "label_columns",
    "label_separator",
    "problem_type",
    "calibrate",
    "exclude",
    "teacher",
    "unlabeled",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """The options that decide the result. A run can only continue with the same options.

    Args:
        data: a directory with a folder per class, TFRecord files or a CSV file, as `splits.open_splits` takes them.
        weights: the checkpoint to start from: a Hub id, a directory or a file.
        batch_size: images per step.
        gradient_accumulation_steps: batches per step; `None` follows from `PIXELS_AT_ONCE`.
        steps, base_learning_rate, scaling, image_size: arguments of the `HyperRule`; `None` is its own choice.
        evaluate_every: steps between two evaluations and saved states.
        examples_per_class: the number of training images of each class; `None` takes all.
        validation_share: the share of each class for validation, if the data set is not divided.
        class_names: the order of the classes, or the names of the labels of TFRecord files; `None` is the data's own.
        freeze_up_to: the last frozen stage, such as `"stage2"`, or `"all"`: `up_to` of `keras_bit.freeze`.
        choices: the choices of the `Recipe` besides its rule, by name.
        mixed_precision: `"float16"` or `"bfloat16"`, or `None`.
        rematerialize: whether to save memory with `keras_bit.rematerialize`.
        random_resized_crop: whether training uses the Inception networks' crop: the argument of `image_dataset`.
        on_error: `"raise"` reads every image's header beforehand, and fails if it cannot. `"skip"` decodes every image
            beforehand, and leaves out unreadable ones. A run may continue with the other value.
        exclude: a CSV file of `keras-bit audit` that names images to leave out. A run may continue with another file
            that excludes the same images.
        seed: the seed of the division of the data, the order and the augmentation.
        hub: how to download `weights` from the Hub.
        image_folder, image_column, label_columns, label_separator, problem_type: `TableOptions` for a CSV file.
        calibrate: whether to calibrate the result on the validation images. A run may continue with or without it.
        teacher: the checkpoint whose answers are learned instead of the labels: a Hub id, a directory or a file.
        unlabeled: a directory of images at any depth to train on too, if there is a teacher.
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
    choices: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mixed_precision: str | None = None
    rematerialize: bool = False
    random_resized_crop: bool = False
    on_error: str = "raise"
    exclude: str | None = None
    seed: int = 0
    hub: HubOptions = dataclasses.field(default_factory=HubOptions)
    image_folder: str | None = None
    image_column: str | None = None
    label_columns: Sequence[str] | None = None
    label_separator: str | None = None
    problem_type: str | None = None
    calibrate: bool = False
    teacher: str | None = None
    unlabeled: str | None = None

    @property
    def images(self) -> tuple[str, ...]:
        """Where the images are."""
        return (self.data,) if self.unlabeled is None else (self.data, self.unlabeled)

    @property
    def table(self) -> TableOptions | None:
        """How to read a CSV file; `None` without options for it."""
        found = TableOptions(
            self.image_folder, self.image_column, self.label_columns, self.label_separator, self.problem_type
        )
        return None if found == TableOptions() else found

    @property
    def described(self) -> dict[str, Any]:
        """The options for JSON, without the token and other secrets.

        Options that earlier versions lack are left out if they have no effect.
        """
        cache = self.hub.cache_dir
        fetched = {
            "revision": self.hub.revision,
            "cache_dir": None if cache is None else str(cache),
            "local_files_only": self.hub.local_files_only,
        }
        found = dataclasses.asdict(self) | {"weights": shown(self.weights), "hub": fetched}
        found["teacher"] = None if self.teacher is None else shown(self.teacher)
        del found["choices"]  # the plan has them
        return {name: value for name, value in found.items() if value or name not in LATER}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run's choices for this data set and checkpoint.

    Args:
        recipe: all choices, class weights as numbers.
        splits: the images that are used.
        whole: the data set including unreadable images.
        notes: sentences for a person.
        skipped: why images were left out, a line each.
        teacher_digest: the hash of the teacher's files.
    """

    options: Options
    splits: Splits
    whole: Splits
    notes: tuple[str, ...]
    recipe: Recipe
    processor: BitImageProcessor
    accumulation: int
    evaluate_every: int
    skipped: tuple[str, ...] = ()
    teacher_digest: str | None = None

    @property
    def rule(self) -> HyperRule:
        return self.recipe.rule

    @property
    def units(self) -> Units | None:
        """The units of numbers to predict: those of all images, even if a run continues without some."""
        return units_of(self.whole.train.labels) if self.splits.problem_type == NUMBER else None

    @property
    def described(self) -> dict[str, dict[str, Any]]:
        """The options, the plan and the recipe for `Recipe.from_dict`, for JSON."""
        parts = {"train": self.whole.train, "validation": self.whole.validation}
        parts |= {} if self.whole.unlabeled is None else {"unlabeled": self.whole.unlabeled}
        found = {
            "rule": dataclasses.asdict(self.rule),
            # Runs of versions without recipes have `None` here and the frozen layers in `options`, so new runs do too.
            "recipe": {name: value for name, value in self.recipe.choices.items() if name != "freeze_up_to"} or None,
            "gradient_accumulation_steps": self.accumulation,
            "evaluate_every": self.evaluate_every,
            "class_names": list(self.splits.class_names),
            **{f"{name}_images": 0 if part is None else len(part) for name, part in parts.items()},
            **{f"{name}_digest": None if part is None else part.digest for name, part in parts.items()},
        }
        if self.teacher_digest is not None:
            found["teacher_digest"] = self.teacher_digest
        return {"options": self.options.described, "plan": found, "recipe": self.recipe.to_dict()}


def plan(options: Options, workers: Workers, out: Path | None = None) -> Plan:
    """Reads the data set's labels and its images' headers, and the checkpoint's processor, and chooses the recipe.

    Args:
        out: the directory of the run, which may hold an unfinished run.

    Raises:
        UnreadableImageError: an image cannot be read, with `on_error="raise"`.
        ValueError: the options contradict each other, the data or the checkpoint.
        OSError: the data or the checkpoint cannot be read.
    """
    whole = _opened(options, out)
    notes_of_calibration = _about_calibration(options, whole)
    noted = None if out is None else out / run_directory.STATE_FOLDER / run_directory.READABLE_NAME
    found, left_out, skipped = _without_unreadable(whole, options.on_error, noted)
    # The recipe is based on all images, so that a run that continues without some keeps it.
    rule = HyperRule(
        len(whole.train) + len(whole.unlabeled or ()),
        options.image_size or found.train.typical_size(),
        batch_size=options.batch_size,
        base_learning_rate=options.base_learning_rate,
        scaling=options.scaling,
        steps=options.steps,
    )
    recipe, digest = _recipe(options, rule, whole), None
    notes = [*found.notes, *left_out, *notes_of_calibration]
    if recipe.watched is not None and whole.validation is whole.test:
        notes.append(
            "The best evaluation is chosen on the test images, because the data set has no validation images. Their "
            "final accuracy looks better than that on new images."
        )
    if whole.problem_type == NUMBER:
        notes.append(units_of(whole.train.labels).about(whole.class_names))
    if rule.batch_size > len(found.train) + len(found.unlabeled or ()):
        notes.append(
            f"The batch size ({rule.batch_size}) exceeds the number of training images, so images repeat within a step "
            "with different crops. A smaller batch size takes less time."
        )
    processor, its_own = processor_of(options.weights, options.hub)
    if not its_own:
        notes.append("The checkpoint has no processor, so pixels are scaled to [-1, 1], as for BiT's own checkpoints.")
    size = {"height": rule.crop_size, "width": rule.crop_size}
    processor = dataclasses.replace(processor, do_resize=True, size=size, do_center_crop=False, do_convert_rgb=True)
    if recipe.freeze_up_to is not None:
        choices.check_stage(recipe, loading.find(options.weights, options.hub).open().known_config())
    if options.teacher is not None:
        digest, about = teaching.checked(options.teacher, options.hub, whole, processor, workers)
        notes += about
    return Plan(
        options=options,
        splits=found,
        whole=whole,
        notes=tuple(notes),
        recipe=recipe,
        processor=processor,
        accumulation=_accumulation(options, rule, workers),
        evaluate_every=min(options.evaluate_every or max(rule.total_steps // EVALUATIONS, 1), rule.total_steps),
        skipped=skipped,
        teacher_digest=digest,
    )


def _recipe(options: Options, rule: HyperRule, whole: Splits) -> Recipe:
    """Returns the recipe for all images, with class weights as numbers; a run without some images keeps it.

    Raises:
        ValueError: a choice contradicts another one or the data.
    """
    recipe = Recipe(rule, freeze_up_to=options.freeze_up_to, **options.choices)
    choices.check_temperature(recipe, options.teacher is not None)
    if options.teacher is not None:
        distilling.check_recipe(recipe)
    if recipe.sampling is not None and whole.unlabeled is not None:
        raise ValueError(f"`sampling` must be None with unlabeled images, got {recipe.sampling!r}. Leave it out.")
    if recipe.watched is not None and whole.validation is None:
        asked = "keep_best" if recipe.keep_best else "early_stopping"
        raise ValueError(
            f"`{asked}` needs validation images, but this data set has none. Leave it out, or pass a "
            "`validation_share`."
        )
    computed = keras.config.dtype_policy().compute_dtype
    choices.check_watched(recipe, metric_names(whole.problem_type, len(whole.class_names), computed))
    if recipe.sampling is not None and not whole.train.in_files:
        raise ValueError(
            f"`sampling` must be None for TFRecord files, which are read from their beginning, got {recipe.sampling!r}."
        )
    if recipe.class_weight is None:
        return recipe
    if whole.train.labels.ndim != 1 or whole.train.labels.dtype.kind != "i":
        raise ValueError(
            f"`class_weight` must be None if images do not have exactly one class, got {recipe.class_weight!r}. Leave "
            "it out."
        )
    names = whole.class_names
    numbers = {name: number for number, name in enumerate(names)}
    counts = np.bincount(whole.train.labels, minlength=len(names))
    chosen = recipe.class_weight
    if isinstance(chosen, Mapping):  # the command gives each class as text, by its name or its number
        chosen = {numbers.get(str(key), int(key)) if str(key).isdecimal() else key: one for key, one in chosen.items()}
    weights = class_weights(chosen, len(names), numbers, counts).tolist()
    return dataclasses.replace(recipe, class_weight=dict(zip(names, weights, strict=True)))


def _accumulation(options: Options, rule: HyperRule, workers: Workers) -> int:
    """Returns the number of batches per step; by default the fewest that stay within `PIXELS_AT_ONCE`."""
    asked = options.gradient_accumulation_steps
    if asked is not None:
        if rule.batch_size % asked:
            raise ValueError(
                f"`gradient_accumulation_steps` must divide the batch size {rule.batch_size}, got {asked}."
            )
        return asked
    if not workers.accumulates:
        return 1
    most = max(PIXELS_AT_ONCE // rule.crop_size**2, 1) * workers.count
    possible = range(1, rule.batch_size + 1)
    return next(parts for parts in possible if rule.batch_size % parts == 0 and rule.batch_size // parts <= most)


def _opened(options: Options, out: Path | None) -> Splits:
    """Opens the data set, divided as by the run in `out`, even if images are gone since."""

    def opened(gone: Sequence[str] = ()) -> Splits:
        return splits.open_splits(
            options.data,
            validation_share=options.validation_share,
            seed=options.seed,
            examples_per_class=options.examples_per_class,
            class_names=options.class_names,
            gone=gone,
            table=options.table,
            problem_types=PROBLEM_TYPES,
            check_files=options.on_error == "raise",
            exclude=options.exclude,
        )

    found = teaching.with_unlabeled(opened(), options.unlabeled, options.teacher)
    before = None if out is None else run_directory.remembered_images(out)
    if before is None or not found.train.in_files:
        return found
    there = set(image_names(found))
    gone = [name for name in before.names if name not in there and not os.path.lexists(name)]
    return teaching.with_unlabeled(opened(gone), options.unlabeled, options.teacher, gone) if gone else found


def _about_calibration(options: Options, found: Splits) -> list[str]:
    """Refuses a calibration that is not possible; notes one that is measured on its own images."""
    if not options.calibrate:
        return []
    if found.problem_type == NUMBER:
        raise ValueError(
            "`calibrate` is for probabilities, but this model will predict numbers (regression). Leave it out."
        )
    if found.validation is None:
        raise ValueError(
            "`calibrate` needs validation images, but the data set has none. Pass a `validation_share` above 0, or add "
            "such images."
        )
    if found.validation is found.test:
        return ["The temperature is fitted to the test images, because the data set has no validation images."]
    return []


def image_names(found: Splits) -> list[str]:
    """Returns the names of all images of a data set, each once."""
    parts = (found.train, found.validation, found.test, found.unlabeled)
    return list(dict.fromkeys(name for part in parts if part is not None for name in part.names))


def _without_unreadable(
    found: Splits, on_error: str, noted: Path | None
) -> tuple[Splits, tuple[str, ...], tuple[str, ...]]:
    """Finds unreadable images beforehand, because the images of a step must not depend on earlier failures.

    Returns:
        The data set without unreadable images, a note for each part that lacks some, and a line for each image.

    Raises:
        UnreadableImageError: with `on_error="raise"`, if an image file has no readable header. Records are only checked
            by the training, because checking takes as long as reading them.
    """
    skips = on_error == "skip"
    notes: list[str] = []
    lines: dict[str, str] = {}  # by name, because the test part may also be the validation part

    def readable(part: Part, name: str) -> Part:
        if not (skips or part.in_files):
            return part
        shown = f"{'read' if skips else 'check'} {name}"
        wrong = unreadable(part, whole=skips, shown=shown, noted=noted)
        lines.update({part.names[number]: line for number, line in wrong.items()})
        if not wrong or not skips:
            return part
        if len(wrong) == len(part):
            raise NoImageError(f"None of the images for {name} can be read. The first: {next(iter(wrong.values()))}")
        notes.append(f"{len(wrong):,} of {len(part):,} images cannot be read and are left out ({name}).")
        return part.some(np.setdiff1d(np.arange(len(part)), list(wrong)))

    train = readable(found.train, "train")
    validation = None if found.validation is None else readable(found.validation, "validation")
    test = validation
    if found.test is not found.validation:
        test = None if found.test is None else readable(found.test, "test")
    unlabeled = None if found.unlabeled is None else readable(found.unlabeled, "unlabeled")
    if lines and not skips:
        count = len(image_names(found))
        raise UnreadableImageError(
            f"{len(lines):,} of {count:,} images cannot be read: {some(lines.values(), SHOWN, ' ')} Replace or remove "
            "them, or train without them: on_error='skip'."
        )
    left = dataclasses.replace(found, train=train, validation=validation, test=test, unlabeled=unlabeled)
    return left, (*notes,), (*lines.values(),)
