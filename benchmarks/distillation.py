"""Compares a small student that learns from labels with one that learns from a teacher (CIFAR-10, bit-tiny-cifar10).

The student has a quarter of the teacher's widths and begins with random weights. It is trained in three ways, for as
many steps each:

labels            on some training images, with their labels
teacher           on the same images, with the teacher's answers
and unlabeled     with the teacher's answers on these images and on further ones, whose labels are not used

It is tested on images that it was not trained on. "accuracy" is the share of these that it answers correctly, and
"agreement" is the share on which it gives the same answer as the teacher. The last rows show how much the agreement
exceeds that of the student that learned from labels, for the seed where this is least.
In all three ways, images have the teacher's size, are shifted by up to an eighth, flipped half of the time, and mixed
by BiT's MixUp. The optimizer is AdamW. Each seed draws other images and other weights. The rate of 0.008 was chosen
from 0.002, 0.008 and 0.03 with a seed and with test images that are not used here.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import arguments
from benchmarks.report import Report, Row

if TYPE_CHECKING:
    from keras_bit.data.parts import Part
    from keras_bit.images.processor import BitImageProcessor
    from keras_bit.network.config import BitConfig
    from keras_bit.network.model import BiTModel

WAYS = ("labels", "teacher", "and unlabeled")
NARROWER = 4  # times narrower than the teacher
MIXUP_ALPHA = 0.1  # as in the BiT-HyperRule
SHIFT = 8  # an image is shifted by up to 1/8 of its side, in each direction
AT_ONCE = 100  # images in a batch of the test
SEEDS = 3
PACKAGES = ("keras_bit", "tensorflow", "keras", "numpy")


@dataclasses.dataclass(frozen=True)
class Setting:
    """How much is trained and tested: numbers of images, number of steps, batch size."""

    labeled: int = 500
    unlabeled: int = 9500
    test_images: int = 2000
    steps: int = 600
    batch_size: int = 64
    learning_rate: float = 8e-3
    temperature: float = 2.0


DESCRIBED = {
    "labeled": "training images with labels",
    "unlabeled": "further training images, without labels",
    "test_images": "number of test images",
    "steps": "training steps of each student",
    "batch_size": "images in a step",
    "learning_rate": "peak learning rate of AdamW",
    "temperature": "divides the logits of teacher and student",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_data(parser)
    arguments.add_weights(parser, "checkpoint of the teacher")
    for field in dataclasses.fields(Setting):
        kind = type(field.default)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            default=field.default,
            metavar="N",
            help=f"{DESCRIBED[field.name]} (default: %(default)s)",
        )
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="number of seeds (default: %(default)s)")


def run(options: argparse.Namespace) -> Report:
    chosen = {field.name: getattr(options, field.name) for field in dataclasses.fields(Setting)}
    return measure(options.data, options.weights, Setting(**chosen), seeds=range(options.seeds))


def measure(data: Path, weights: str, setting: Setting, *, seeds: Sequence[int]) -> Report:
    """Trains a student in each way with each seed.

    Args:
        data: folder with train/ and test/, each with a folder for each class.
        weights: checkpoint of the teacher.
        setting: how much is trained and tested.
        seeds: each seed draws the images and the student's first weights.

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
        raise ValueError(f"`data` {str(data)!r} must hold a folder named test, and {wanted:,} images in train.")
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
    """Returns the config of a network with a quarter of the widths."""
    sizes = tuple(size // NARROWER for size in config.hidden_sizes)
    return dataclasses.replace(config, embedding_size=config.embedding_size // NARROWER, hidden_sizes=sizes)


def _rows(results: dict[str, list[dict[str, float]]], own: float) -> list[Row]:
    rows = [Row("accuracy of the teacher", "%", 100 * own)]
    for name in ("accuracy", "agreement"):
        rows += [_row(f"{way}: {name}", [100 * one[name] for one in results[way]]) for way in WAYS]
    for way in WAYS[1:]:
        pairs = zip(results[way], results["labels"], strict=True)
        gained = [100 * (taught["agreement"] - plain["agreement"]) for taught, plain in pairs]
        # The least over the seeds: if it is above 0, the student is closer to the teacher with every seed.
        rows.append(
            Row(f"{way}: smallest gain in agreement over labels, of all seeds", "%", min(gained), None, 0.0, True)
        )
    return rows


def _row(name: str, values: Sequence[float]) -> Row:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    details = f"spread {spread:.2f}, {min(values):.2f} to {max(values):.2f}"
    return Row(name, "%", statistics.mean(values), details=details)


def _read(part: "Part", processor: "BitImageProcessor") -> np.ndarray:
    """Reads all images of a part, preprocessed as for evaluation."""
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
    """Returns endless batches of shifted, flipped and mixed images; with one-hot labels, unless `labels` is `None`."""
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
