"""Runs short fine-tunings of one small network, several at a time, and notes each in a file when it ends.

All fine-tunings begin with the same network, the start. It is trained here, from random weights, on the first half of
the classes by name. Every run fine-tunes it on the other half, with a head of zeros, so it knows none of these classes.
"""

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_bit.files import writing

if TYPE_CHECKING:
    from keras_bit.images.processor import BitImageProcessor
    from keras_bit.network.model import BiTModel

IMAGE_SIZE = 32  # px, of CIFAR-10's images
NETWORK: dict[str, Any] = {
    "embedding_size": 32,
    "hidden_sizes": (64, 128, 256),
    "depths": (1, 1, 1),
    "num_groups": 8,
}
START_RATE = 2e-3  # for AdamW, which needs fewer steps from random weights than SGD
START_BATCH_SIZE = 64
HELD_BACK = 5  # in runs with a validation, every fifth image of a class is for it
MEASURED, OTHERS = "measured", "others"  # two disjoint parts of the test images


@dataclasses.dataclass(frozen=True)
class Setting:
    """The sizes that all runs share: steps, batch size, steps of the start, and test images of each class."""

    steps: int = 40
    batch_size: int = 16
    start_steps: int = 600
    test_images: int = 200


@dataclasses.dataclass(frozen=True)
class Run:
    """One fine-tuning.

    Args:
        name: name of the run, in the file and in the progress bar.
        counts: number of training images of each class.
        seed: chooses the images, their order and their augmentation.
        rate: the rule's `base_learning_rate`.
        choices: further arguments of `Recipe`.
        validates: whether a fifth of the training images is held back for a validation.
        part: which test images are used, `MEASURED` or `OTHERS`.
    """

    name: str
    counts: tuple[int, ...]
    seed: int
    rate: float
    choices: Mapping[str, Any]
    validates: bool = False
    part: str = MEASURED


def halves(data: Path) -> tuple[list[str], list[str]]:
    """Returns the classes of the start, and the classes of the fine-tunings.

    Raises:
        ValueError: the data set lacks training or test images, or has fewer than four classes.
    """
    parts = [data / part for part in ("train", "test")]
    if not all(part.is_dir() for part in parts):
        raise ValueError(f"`data` {str(data)!r} must hold the folders train and test, each with a folder per class.")
    names = sorted(path.name for path in parts[0].iterdir() if path.is_dir())
    if len(names) < 4:
        raise ValueError(
            f"`data` {str(data)!r} must have at least 4 classes, got {len(names)}: half are for the start."
        )
    return names[: len(names) // 2], names[len(names) // 2 :]


def start(data: Path, folder: Path, setting: Setting) -> float:
    """Trains the start unless `folder` holds it, and tests it.

    Returns:
        The accuracy of the start on test images of its own classes.
    """
    import keras

    from keras_bit import BiT, BitConfig, HyperRule, Recipe, fine_tune, from_pretrained, image_dataset, save_pretrained

    classes = halves(data)[0]
    if not folder.exists():
        keras.utils.set_random_seed(0)
        model = BiT(BitConfig(**NETWORK, id2label=dict(enumerate(classes))))
        images = sum(len(_files(data / "train", name)) for name in classes)
        rule = HyperRule(images, IMAGE_SIZE, batch_size=START_BATCH_SIZE, steps=setting.start_steps)
        recipe = Recipe(rule, optimizer="adamw", learning_rate=START_RATE)
        train = image_dataset(
            data / "train",
            processor=_processor(rule.crop_size),
            batch_size=rule.batch_size,
            class_names=classes,
            training=True,
            recipe=recipe,
            seed=0,
            repeat=True,
        )
        print(f"trains the start on {images:,} images of {', '.join(classes)}", file=sys.stderr, flush=True)
        progress = _Lines()
        fine_tune(
            model, train, recipe=recipe, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=progress)], verbose=0
        )
        save_pretrained(model, folder)
    images, labels = _test(data, tuple(classes), setting.test_images, MEASURED)
    return _share_right(from_pretrained(folder), images, labels)


class _Lines:
    """Prints a line after each epoch of the start."""

    def __call__(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        print(f"start, epoch {epoch + 1}: loss {(logs or {})['loss']:.3f}", file=sys.stderr, flush=True)


def done(runs: Sequence[Run], data: Path, work: Path, setting: Setting, processes: int) -> dict[str, float]:
    """Returns the accuracy of each run by its name; skips runs whose accuracy is in the file in `work`.

    Args:
        runs: the runs, in the order in which they begin.
        data: folder with train/<class>/ and test/<class>/.
        work: folder with the start, and with `runs.json` as soon as a run has ended.
        setting: the setting of all runs.
        processes: how many runs go on at a time, each on one thread.

    Raises:
        ValueError: the runs in the file had another setting.
    """
    from tqdm import tqdm

    file = work / "runs.json"
    kept: dict[str, Any] = {"setting": dataclasses.asdict(setting), "accuracy": {}}
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["setting"] != dataclasses.asdict(setting):
            raise ValueError(f"`work` {str(work)!r} has runs of the setting {kept['setting']}. Name another directory.")
    left = [run for run in runs if run.name not in kept["accuracy"]]
    if not left:
        return {run.name: kept["accuracy"][run.name] for run in runs}
    context = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(processes, mp_context=context, initializer=_one_thread) as pool,
        tqdm(total=len(runs), initial=len(runs) - len(left), unit="run", file=sys.stderr) as bar,
    ):
        begun = {pool.submit(accuracy, run, data, work / "start", setting): run for run in left}
        try:
            for ended in concurrent.futures.as_completed(begun):
                run = begun[ended]
                kept["accuracy"][run.name] = ended.result()
                with writing.replacing(file) as beside:
                    beside.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
                bar.set_description(run.name)
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return {run.name: kept["accuracy"][run.name] for run in runs}


def accuracy(run: Run, data: Path, folder: Path, setting: Setting) -> float:
    """Fine-tunes the start in `folder`, and returns the share of test images that it then answers correctly."""
    import keras

    from keras_bit import HyperRule, Recipe, fine_tune, image_dataset

    keras.utils.clear_session()
    keras.utils.set_random_seed(run.seed)
    classes = halves(data)[1]
    train, held_back = drawn(data, classes, run)
    rule = HyperRule(len(train[0]), IMAGE_SIZE, setting.batch_size, base_learning_rate=run.rate, steps=setting.steps)
    recipe = Recipe(rule, **run.choices)
    processor = _processor(rule.crop_size)
    shared: dict[str, Any] = {"processor": processor, "class_names": classes, "recipe": recipe}
    training = image_dataset(train, batch_size=rule.batch_size, training=True, seed=run.seed, repeat=True, **shared)
    validation = image_dataset(held_back, batch_size=rule.batch_size, **shared) if run.validates else None
    model = _with_new_head(folder, classes)
    epoch = None if run.validates else rule.total_steps
    fine_tune(model, training, validation, recipe=recipe, steps_per_epoch=epoch, verbose=0)
    return _share_right(model, *_test(data, tuple(classes), setting.test_images, run.part))


Images = tuple[list[str], list[int]]


def drawn(data: Path, classes: Sequence[str], run: Run) -> tuple[Images, Images]:
    """Draws images of each class by the run's seed; returns paths and labels for training, and those held back."""
    generator = np.random.default_rng(run.seed)
    train: Images = ([], [])
    held_back: Images = ([], [])
    for label, (name, count) in enumerate(zip(classes, run.counts, strict=True)):
        files = _files(data / "train", name)
        for place, number in enumerate(generator.permutation(len(files))[:count]):
            paths, labels = held_back if run.validates and place % HELD_BACK == HELD_BACK - 1 else train
            paths.append(str(files[number]))
            labels.append(label)
    return train, held_back


def _with_new_head(folder: Path, classes: Sequence[str]) -> "BiTModel":
    from keras_bit import BiT, BitConfig, from_pretrained

    known = from_pretrained(folder)
    model = BiT(BitConfig(**NETWORK, id2label=dict(enumerate(classes))))
    for layer in model.layers:
        if layer.name != "predictions":
            layer.set_weights(known.get_layer(layer.name).get_weights())
        else:
            layer.set_weights([np.zeros(variable.shape, "float32") for variable in layer.weights])
    return model


@functools.cache
def _test(data: Path, classes: tuple[str, ...], count: int, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns `count` preprocessed test images of each class and their labels; for `OTHERS` the next `count`."""
    from keras_bit import HyperRule, image_dataset

    generator = np.random.default_rng(0)
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = _files(data / "test", name)
        order = generator.permutation(len(files))
        order = order[:count] if part == MEASURED else order[count : 2 * count]
        paths += [str(files[number]) for number in order]
        labels += [label] * len(order)
    processor = _processor(HyperRule(1, IMAGE_SIZE).crop_size)
    batches = image_dataset((paths, labels), processor=processor, batch_size=100, class_names=classes)
    return np.concatenate([images for images, _ in batches.as_numpy_iterator()]), np.array(labels)


def _share_right(model: "BiTModel", images: np.ndarray, labels: np.ndarray) -> float:
    return float((model.predict(images, batch_size=100, verbose=0).argmax(-1) == labels).mean())


def _processor(size: int) -> "BitImageProcessor":
    from keras_bit import BitImageProcessor

    return BitImageProcessor(size=(size, size), do_center_crop=False, resample=2, image_mean=0.5, image_std=0.5)


@functools.cache
def _files(part: Path, name: str) -> list[Path]:
    return sorted((part / name).iterdir())


def _one_thread() -> None:
    """Limits this process to one thread: a second run at the same time gains more than a second thread."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
