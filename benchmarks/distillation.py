"""A small student of a teacher, by labels alone and by the teacher's answers; CIFAR-10 and bit-tiny-cifar10.

The student has a quarter of the teacher's widths and begins with random weights. It is trained for as many steps

labels            on some training images by their labels
teacher           on the same images by the teacher's answers
and unlabeled     by the teacher's answers on these images and on others, whose labels nobody looks at

and is tested on images that none was trained on, how often it is right and how often it answers as the teacher does.
All get images of the teacher's size, shifted by up to an eighth, half of them flipped, and mixed by BiT's MixUp; the
optimizer is AdamW. Nothing was chosen by the test images. Another seed has other images and other weights.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.report import Report, Row

if TYPE_CHECKING:
    from keras_bit.data.parts import Part
    from keras_bit.images.processor import BitImageProcessor
    from keras_bit.network.config import BitConfig
    from keras_bit.network.model import BiTModel

WAYS = ("labels", "teacher", "and unlabeled")
NARROWER = 4  # times, than the teacher
MIXUP_ALPHA = 0.1  # of the BiT-HyperRule
SHIFT = 8  # a share of the image of one in this many, to each side
AT_ONCE = 100  # images that are tested
SEEDS = 3
PACKAGES = ("keras_bit", "tensorflow", "keras", "numpy")
CHECKPOINT = Path(__file__).resolve().parent.parent / "tests" / "checkpoints" / "bit-tiny-cifar10"


@dataclasses.dataclass(frozen=True)
class Setting:
    """How much is trained and tested: numbers of images, steps and images in a step."""

    labeled: int = 1000
    unlabeled: int = 4000
    test_images: int = 2000
    steps: int = 600
    batch_size: int = 64
    learning_rate: float = 2e-3
    temperature: float = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="holds train/<class>/ and test/<class>/, as CIFAR-10's"
    )
    parser.add_argument("--weights", default=str(CHECKPOINT), metavar="SOURCE", help="default: bit-tiny-cifar10")
    for field in dataclasses.fields(Setting):
        kind = type(field.default)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            default=field.default,
            metavar="N",
            help="default: %(default)s",
        )
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="default: %(default)s")


def run(options: argparse.Namespace) -> Report:
    chosen = {field.name: getattr(options, field.name) for field in dataclasses.fields(Setting)}
    return measure(options.data, options.weights, Setting(**chosen), seeds=range(options.seeds))


def measure(data: Path, weights: str, setting: Setting, *, seeds: Sequence[int]) -> Report:
    """Trains a student in each way with each seed.

    Args:
        data: holds train/ and test/ with a folder per class.
        weights: the teacher.
        setting: how much.
        seeds: of the images and of the student's first weights.

    Raises:
        ValueError: there are too few images.
    """
    from tqdm import tqdm

    from keras_bit import from_pretrained
    from keras_bit.data import splits
    from keras_bit.images.processor import BitImageProcessor

    found = splits.open_splits(data, validation_share=0.0, seed=0)
    wanted = setting.labeled + setting.unlabeled
    if found.test is None or len(found.train) < wanted:
        raise ValueError(
            f"`data` {str(data)!r} must hold a folder named test, and {wanted:,} images in train beside it."
        )
    teacher, processor = from_pretrained(weights), BitImageProcessor.from_pretrained(weights)
    names = list((teacher.config.id2label or {}).values())
    if teacher.config.has_named_labels and names != list(found.class_names):
        raise ValueError(f"`weights` {weights!r} must have the classes of the data in their order, got {names}.")
    test = found.test.some(np.random.default_rng(0).permutation(len(found.test))[: setting.test_images])
    images = _read(test, processor)
    answers = _answers(teacher, images)
    results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(found.train))[:wanted]
        labeled, others = (found.train.some(chosen) for chosen in np.split(order, [setting.labeled]))
        pixels = [_read(part, processor) for part in (labeled, others)]
        for way in tqdm(WAYS, desc=f"students of seed {seed}", delay=2, leave=False):
            taught = None if way == "labels" else teacher
            given = np.concatenate(pixels) if way == "and unlabeled" else pixels[0]
            labels = None if way == "and unlabeled" else labeled.labels
            student = _trained(given, labels, narrower(teacher.config), taught, setting, seed)
            told = _answers(student, images)
            right, agrees = float((told == test.labels).mean()), float((told == answers).mean())
            results[way].append({"seed": seed, "accuracy": right, "agreement": agrees})
    own = float((answers == test.labels).mean())
    return Report(
        f"Distillation: {teacher.config.num_parameters:,} parameters teach {narrower(teacher.config).num_parameters:,}",
        "",
        _rows(results, own),
        {**results, "teacher itself": [{"accuracy": own}]},
        PACKAGES,
        [
            f"{setting.labeled:,} labeled and {setting.unlabeled:,} unlabeled images, {len(test):,} test images, "
            f"{len(seeds)} seeds, {setting.steps:,} steps of {setting.batch_size}, temperature "
            f"{setting.temperature:g}. Spread: the standard deviation over the seeds."
        ],
    )


def narrower(config: "BitConfig") -> "BitConfig":
    """A network with a quarter of the widths."""
    sizes = tuple(size // NARROWER for size in config.hidden_sizes)
    return dataclasses.replace(config, embedding_size=config.embedding_size // NARROWER, hidden_sizes=sizes)


def _rows(results: dict[str, list[dict[str, float]]], own: float) -> list[Row]:
    rows = [Row("the teacher itself: accuracy", "%", 100 * own)]
    for name in ("accuracy", "agreement"):
        rows += [_row(f"{way}: {name}", [100 * one[name] for one in results[way]]) for way in WAYS]
    for way in WAYS[1:]:
        pairs = zip(results[way], results["labels"], strict=True)
        gained = [100 * (taught["agreement"] - plain["agreement"]) for taught, plain in pairs]
        # Of the seed in which it is least: closer to the teacher in every one.
        rows.append(
            Row(f"{way}: agreement above that of labels, least of the seeds", "%", min(gained), None, 0.0, True)
        )
    return rows


def _row(name: str, values: Sequence[float]) -> Row:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    details = f"spread {spread:.2f}, {min(values):.2f} to {max(values):.2f}"
    return Row(name, "%", statistics.mean(values), details=details)


def _read(part: "Part", processor: "BitImageProcessor") -> np.ndarray:
    """All images of a part, as for evaluation."""
    from keras_bit import image_dataset

    batches = image_dataset(list(part.names), processor=processor, batch_size=AT_ONCE, label_mode="unlabeled")
    return np.concatenate(list(batches.as_numpy_iterator()))


def _answers(model: "BiTModel", images: np.ndarray) -> np.ndarray:
    return model.predict(images, batch_size=AT_ONCE, verbose=0).argmax(axis=1)


def _trained(
    images: np.ndarray,
    labels: np.ndarray | None,
    config: "BitConfig",
    teacher: "BiTModel | None",
    setting: Setting,
    seed: int,
) -> "BiTModel":
    import keras

    from keras_bit import BiT, HyperRule, Recipe, fine_tune

    keras.utils.set_random_seed(seed)
    student = BiT(config)
    rule = HyperRule(len(images), images.shape[1:3], batch_size=setting.batch_size, steps=setting.steps)
    temperature = setting.temperature if teacher is not None else 1.0
    recipe = Recipe(rule, optimizer="adamw", learning_rate=setting.learning_rate, temperature=temperature)
    batches = _batches(images, labels, config.num_labels, setting.batch_size, seed)
    fine_tune(student, batches, recipe=recipe, teacher=teacher, steps_per_epoch=setting.steps, verbose=0)
    return student


def _batches(images: np.ndarray, labels: np.ndarray | None, classes: int, batch_size: int, seed: int) -> Any:
    """Batches without end: shifted, flipped, mixed; of images alone, or with rows of labels."""
    import tensorflow as tf

    from keras_bit.data import mixing

    rows = np.zeros((len(images), 1), np.float32) if labels is None else np.eye(classes, dtype=np.float32)[labels]
    shift = images.shape[1] // SHIFT
    around = [[shift, shift], [shift, shift], [0, 0]]

    def moved(image: Any, row: Any, number: Any) -> Any:
        seeds = tf.random.split(tf.stack([tf.constant(seed, tf.int64), number]))
        cropped = tf.image.stateless_random_crop(tf.pad(image, around, "REFLECT"), images.shape[1:], seeds[0])
        return tf.image.stateless_random_flip_left_right(cropped, seeds[1]), row

    def mixed(taken: tuple[Any, Any], number: Any) -> Any:
        found = mixing.mix_up(*taken, tf.stack([tf.constant(seed + 2**32, tf.int64), number]), MIXUP_ALPHA)
        return found[0] if labels is None else found

    data = tf.data.Dataset.from_tensor_slices((images, rows)).shuffle(len(images), seed=seed).repeat()
    data = tf.data.Dataset.zip(data, tf.data.Dataset.counter())
    data = data.map(lambda pair, number: moved(*pair, number), tf.data.AUTOTUNE).batch(batch_size, drop_remainder=True)
    return tf.data.Dataset.zip(data, tf.data.Dataset.counter()).map(mixed).prefetch(tf.data.AUTOTUNE)
