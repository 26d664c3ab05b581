"""What a fine-tuning run will do, known before anything is computed: its data, its recipe and its preprocessing."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
from keras_bit.training import run_directory
from keras_bit.training.distribution import Workers
from keras_bit.training.fine_tuning import EVALUATIONS
from keras_bit.training.units import Units, units_of
from keras_bit.training.weighting import class_weights
from keras_bit.wording import some

# Pixels of a batch that a machine is trusted with; more are accumulated: 512 images of 128 px, 36 of 480 px.
PIXELS_AT_ONCE = 512 * 128 * 128
SHOWN = 5  # images that an error lists
# Options that runs of earlier versions do not know.
LATER = ("image_folder", "image_column", "label_columns", "label_separator", "problem_type", "calibrate", "exclude")


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides about the result; a run goes on only with the same.

    Args:
        data: a directory with a folder per class, TFRecord files or a CSV file, as `splits.open_splits` takes them.
        weights: the checkpoint to start from: a Hub id, a directory or a file.
        batch_size: images per step.
        gradient_accumulation_steps: batches that make up a step; `None` is as many as `PIXELS_AT_ONCE` asks for.
        steps, base_learning_rate, scaling, image_size: of the `HyperRule`; `None` leaves them to it and to the data.
        evaluate_every: steps between two rows of the log, and two states to go on from.
        examples_per_class, validation_share, class_names: of `splits.open_splits`.
        freeze_up_to: of `keras_bit.freeze`.
        choices: what else the `Recipe` has beside its rule, by name.
        mixed_precision: `"float16"` or `"bfloat16"`, or `None`.
        rematerialize: whether `keras_bit.rematerialize` makes the steps keep less.
        random_resized_crop: of `image_dataset`.
        on_error: `"raise"` reads every image's header beforehand, and fails if it cannot; `"skip"` decodes every image
            beforehand, and leaves out those that cannot be read. A run may go on with the other.
        exclude: of `splits.open_splits`. A run may go on with a file of another name, if it leaves the same images.
        seed: of the division of the data, the order and the augmentation.
        hub: how `weights` are fetched, if they are a Hub id.
        image_folder, image_column, label_columns, label_separator, problem_type: of `TableOptions`, for a CSV file.
        calibrate: whether the result gets a temperature, fitted on the validation images. A run may go on with or
            without.
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

    @property
    def table(self) -> TableOptions | None:
        """How a CSV file is read; `None` where nothing is said about one."""
        found = TableOptions(
            self.image_folder, self.image_column, self.label_columns, self.label_separator, self.problem_type
        )
        return None if found == TableOptions() else found

    @property
    def described(self) -> dict[str, Any]:
        """The options as JSON holds them, without the token and what else is a secret.

        Those that earlier versions did not have are there only if they say something.
        """
        cache = self.hub.cache_dir
        fetched = {
            "revision": self.hub.revision,
            "cache_dir": None if cache is None else str(cache),
            "local_files_only": self.hub.local_files_only,
        }
        found = dataclasses.asdict(self) | {"weights": shown(self.weights), "hub": fetched}
        del found["choices"]  # the plan has what they come to
        return {name: value for name, value in found.items() if value or name not in LATER}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the options come to, for this data set and checkpoint.

    Args:
        recipe: all choices, class weights as numbers.
        splits: the images that are used.
        whole: the same with those that cannot be read.
        notes: sentences that a person should read.
        skipped: why images were left out, a line each.
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

    @property
    def rule(self) -> HyperRule:
        return self.recipe.rule

    @property
    def units(self) -> Units | None:
        """What numbers to be predicted are counted in: those of all images, also where a run goes on without some."""
        return units_of(self.whole.train.labels) if self.splits.problem_type == NUMBER else None

    @property
    def described(self) -> dict[str, dict[str, Any]]:
        """The options and what they come to, as JSON holds them."""
        parts = {"train": self.whole.train, "validation": self.whole.validation}
        found = {
            "rule": dataclasses.asdict(self.rule),
            # `None`, as in runs of versions without recipes; `options` have what is frozen, as these did.
            "recipe": {name: value for name, value in self.recipe.choices.items() if name != "freeze_up_to"} or None,
            "gradient_accumulation_steps": self.accumulation,
            "evaluate_every": self.evaluate_every,
            "class_names": list(self.splits.class_names),
            **{f"{name}_pictures": 0 if part is None else len(part) for name, part in parts.items()},
            **{f"{name}_digest": None if part is None else part.digest for name, part in parts.items()},
        }
        return {"options": self.options.described, "plan": found}


def plan(options: Options, workers: Workers, out: Path | None = None) -> Plan:
    """Reads the data set's labels and its images' headers, and the checkpoint's processor, and chooses the recipe.

    Args:
        out: the directory of the run, which may hold its beginning.

    Raises:
        UnreadableImageError: an image cannot be read, with `on_error="raise"`.
        ValueError: the options contradict each other, the data or the checkpoint.
        OSError: the data or the checkpoint cannot be read.
    """
    whole = _opened(options, out)
    notes_of_calibration = _about_calibration(options, whole)
    noted = None if out is None else out / run_directory.STATE_FOLDER / run_directory.READABLE_NAME
    found, left_out, skipped = _without_unreadable(whole, options.on_error, noted)
    # The recipe is that of all images: a run that goes on without some goes on with the same.
    rule = HyperRule(
        len(whole.train),
        options.image_size or found.train.typical_size(),
        batch_size=options.batch_size,
        base_learning_rate=options.base_learning_rate,
        scaling=options.scaling,
        steps=options.steps,
    )
    notes = [*found.notes, *left_out, *notes_of_calibration]
    if whole.problem_type == NUMBER:
        notes.append(units_of(whole.train.labels).about(whole.class_names))
    if rule.batch_size > len(found.train):
        notes.append(
            f"A step takes {rule.batch_size} images, more than there are: each comes several times, cropped anew. "
            "With a smaller batch size it takes less time."
        )
    processor, its_own = processor_of(options.weights, options.hub)
    if not its_own:
        notes.append("The checkpoint has no processor: pixels are scaled to [-1, 1], as for BiT's own.")
    size = {"height": rule.crop_size, "width": rule.crop_size}
    return Plan(
        options=options,
        splits=found,
        whole=whole,
        notes=tuple(notes),
        recipe=_recipe(options, rule, whole),
        processor=dataclasses.replace(processor, do_resize=True, size=size, do_center_crop=False, do_convert_rgb=True),
        accumulation=_accumulation(options, rule, workers),
        evaluate_every=min(options.evaluate_every or max(rule.total_steps // EVALUATIONS, 1), rule.total_steps),
        skipped=skipped,
    )


def _recipe(options: Options, rule: HyperRule, whole: Splits) -> Recipe:
    """The recipe of all images, class weights as numbers: a run that goes on without some goes on with the same.

    Raises:
        ValueError: a choice contradicts another one or the data.
    """
    recipe = Recipe(rule, freeze_up_to=options.freeze_up_to, **options.choices)
    if recipe.watched is not None and whole.validation is None:
        asked = "keep_best" if recipe.keep_best else "early_stopping"
        raise ValueError(f"`{asked}` needs a validation, and this data set has none. Leave it out, or give it a share.")
    if recipe.sampling is not None and not whole.train.in_files:
        raise ValueError(
            f"`sampling` must be None for records, which are read from their beginning, got {recipe.sampling!r}."
        )
    if recipe.class_weight is None:
        return recipe
    if whole.train.labels.ndim != 1 or whole.train.labels.dtype.kind != "i":
        raise ValueError(
            f"`class_weight` must be None where an image has not one class, got {recipe.class_weight!r}. Leave it out."
        )
    names = whole.class_names
    numbers = {name: number for number, name in enumerate(names)}
    counts = np.bincount(whole.train.labels, minlength=len(names))
    weights = class_weights(recipe.class_weight, len(names), numbers, counts).tolist()
    return dataclasses.replace(recipe, class_weight=dict(zip(names, weights, strict=True)))


def _accumulation(options: Options, rule: HyperRule, workers: Workers) -> int:
    """How many batches make up a step; by default the fewest of which none is larger than a machine is trusted with."""
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
    """The data set, divided as a run in `out` divided it, also where images have gone since."""

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

    found = opened()
    before = None if out is None else run_directory.remembered_images(out)
    if before is None or not found.train.in_files:
        return found
    there = set(image_names(found))
    gone = [name for name in before.names if name not in there and not os.path.lexists(name)]
    return opened(gone) if gone else found


def _about_calibration(options: Options, found: Splits) -> list[str]:
    """Refuses a calibration that will not be possible; a note of one that flatters itself."""
    if not options.calibrate:
        return []
    if found.problem_type == NUMBER:
        raise ValueError("`calibrate` is for probabilities, and this model will predict numbers (regression).")
    if found.validation is None:
        raise ValueError(
            "`calibrate` needs images to validate with, and there are none. Pass a `validation_share` above 0, or add "
            "such images."
        )
    if found.validation is found.test:
        return ["The temperature is fitted to the test images, as there are no others to validate with."]
    return []


def image_names(found: Splits) -> list[str]:
    """The names of all images of a data set, each once."""
    parts = (found.train, found.validation, found.test)
    return list(dict.fromkeys(name for part in parts if part is not None for name in part.names))


def _without_unreadable(
    found: Splits, on_error: str, noted: Path | None
) -> tuple[Splits, tuple[str, ...], tuple[str, ...]]:
    """Which images a step gets must not depend on what a run comes across, so they are looked for beforehand.

    Returns:
        The data set without the images that cannot be read, a note for each part of it that lacks some, and a line for
        each of them.

    Raises:
        UnreadableImageError: with `on_error="raise"`, for an image in a file without a readable header. To look into
            records takes as long as to read them: they are left to the training.
    """
    skips = on_error == "skip"
    notes: list[str] = []
    lines: dict[str, str] = {}  # by name: a part for testing may also be the one for validation

    def readable(part: Part, name: str) -> Part:
        if not (skips or part.in_files):
            return part
        shown = f"{'read' if skips else 'check'} {name}"
        wrong = unreadable(part, whole=skips, shown=shown, noted=noted)
        lines.update({part.names[number]: line for number, line in wrong.items()})
        if not wrong or not skips:
            return part
        if len(wrong) == len(part):
            raise NoImageError(f"No image of {name} can be read. The first: {next(iter(wrong.values()))}")
        notes.append(f"{len(wrong):,} of {len(part):,} images cannot be read and are left out ({name}).")
        return part.some(np.setdiff1d(np.arange(len(part)), list(wrong)))

    train = readable(found.train, "train")
    validation = None if found.validation is None else readable(found.validation, "validation")
    test = validation
    if found.test is not found.validation:
        test = None if found.test is None else readable(found.test, "test")
    if lines and not skips:
        count = len(image_names(found))
        raise UnreadableImageError(
            f"{len(lines):,} of {count:,} images cannot be read: {some(lines.values(), SHOWN, ' ')}"
        )
    return dataclasses.replace(found, train=train, validation=validation, test=test), (*notes,), (*lines.values(),)
