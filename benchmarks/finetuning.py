"""Compares fine-tuning with transformers: the same weights, images and recipe, by `fine_tune` and by a loop in torch.

curves        The losses of the recipe's first steps on the same batches, without augmentation. Training starts from the
              checkpoint with a new head of zeros, and from random weights. The row "largest difference of the losses"
              compares keras_bit with torch, and in the other column torch with channels_last with torch without it.
              Random weights amplify rounding: in float32 the two columns differ as much. So both sides also train in
              float64 there.
accuracy      The accuracy on test images after the whole recipe, with its augmentation. Both sides get the same batches
              of `image_dataset`, with three seeds for weights and images. A row gives the difference in standard
              errors, from the spread of the seeds. Another one gives the share of test images that the two answer
              differently. From random weights in float32 rounding drives the two apart, and the rest is chance. So
              one seed also trains in float64 there.
few-shot      The accuracy after training on 1, 5 and 10 images of each class, with three seeds, of keras_bit only.

The recipe is that of the BiT-HyperRule for small images (resized to 160 px, cropped to 128). Its batches are smaller
and its steps fewer than the paper's, so that two cores finish in minutes: these are not the best accuracies of BiT.
"""

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import arguments
from benchmarks.report import Report, Row

if TYPE_CHECKING:
    import torch

    from keras_bit.data.splits import Part, Splits
    from keras_bit.images.processor import BitImageProcessor
    from keras_bit.network.model import BiTModel
    from keras_bit.recipes.hyperrule import HyperRule

CURVE_LIMIT = 1e-3  # largest difference of the losses of the first steps
ACCURACY_LIMIT = 1.0  # largest difference, in standard errors
CURVES = (("checkpoint", "float32"), ("random", "float64"), ("random", "float32"))
ACCURACIES = (("checkpoint", "float32"), ("random", "float64"), ("random", "float32"))
EXAMPLES = (1, 5, 10)
SEEDS = (0, 1, 2)
PACKAGES = ("keras_bit", "tensorflow", "keras", "numpy", "torch", "transformers")


@dataclasses.dataclass(frozen=True)
class Setting:
    """How much is trained: `curve_steps` for the curves, `steps` for the accuracies, `batch_size` for both."""

    batch_size: int = 32
    curve_steps: int = 50
    steps: int = 100
    test_images: int = 1000
    image_size: int = 32  # px, of the images in the data set; the rule depends on it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Setting()
    arguments.add_data(parser)
    arguments.add_weights(parser, "checkpoint to start from")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=default.batch_size,
        metavar="N",
        help="images in a step (default: %(default)s)",
    )
    parser.add_argument(
        "--curve-steps",
        type=int,
        default=default.curve_steps,
        metavar="N",
        help="steps of the curves (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=default.steps,
        metavar="N",
        help="steps of accuracy and few-shot (default: %(default)s)",
    )
    parser.add_argument(
        "--test-images",
        type=int,
        default=default.test_images,
        metavar="N",
        help="number of test images (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=len(SEEDS),
        metavar="N",
        help="seeds of accuracy and few-shot (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> Report:
    setting = Setting(
        batch_size=options.batch_size,
        curve_steps=options.curve_steps,
        steps=options.steps,
        test_images=options.test_images,
    )
    return measure(options.data, options.weights, setting, seeds=range(options.seeds))


def measure(
    data: Path, weights: str, setting: Setting, *, seeds: Sequence[int] = SEEDS, examples: Sequence[int] = EXAMPLES
) -> Report:
    from keras_bit.data import splits
    from keras_bit.images.processor import BitImageProcessor

    found = splits.open_splits(data, validation_share=0.0, seed=0)
    if found.test is None:
        raise ValueError(f"`data` {str(data)!r} must hold the folders train and test.")
    size = _rule(setting, 1).crop_size
    processor = BitImageProcessor.from_pretrained(weights)
    processor = dataclasses.replace(processor, size={"height": size, "width": size}, do_center_crop=False)
    test = found.test.some(np.random.default_rng(0).permutation(len(found.test))[: setting.test_images])

    rows, measurements = [], {}
    for start, dtype in CURVES:
        losses = _curves(found, weights, start, dtype, processor, setting)
        name, first = f"{start}, {dtype}", losses["transformers"]
        differences = {key: float(np.abs(np.subtract(values, first)).max()) for key, values in losses.items()}
        # From random weights in float32, two runs of torch already differ as much, so a limit would be chance.
        limited = (start, dtype) != ("random", "float32")
        rows.append(Row(f"{name}: loss at step {setting.curve_steps}", "", losses["keras_bit"][-1], first[-1]))
        rows.append(
            Row(
                f"{name}: largest difference of the losses, in 1e-3",
                "",
                differences["keras_bit"] / CURVE_LIMIT,
                differences["channels_last"] / CURVE_LIMIT,
                1.0 if limited else None,
            )
        )
        measurements[f"{name} curve"] = [{"largest_differences": differences, **losses}]
    for start, dtype in ACCURACIES:
        chosen = list(seeds)[: 1 if dtype == "float64" else None]  # float64 takes ten times as long
        results = [_accuracies(found, test, weights, start, dtype, seed, processor, setting) for seed in chosen]
        ours, theirs = ([result[name] for result in results] for name in ("keras_bit", "transformers"))
        name = f"{start}, {dtype}"
        rows.append(
            Row(
                f"{name}: accuracy after {setting.steps} steps, mean over seeds: {len(results)}",
                "%",
                100 * statistics.mean(ours),
                100 * statistics.mean(theirs),
            )
        )
        apart = abs(statistics.mean(ours) - statistics.mean(theirs)) / _standard_error(ours, theirs, len(test))
        rows.append(Row(f"{name}: difference of the accuracies, in standard errors", "", apart, None, ACCURACY_LIMIT))
        unlike = 100 * statistics.mean(result["answered differently"] for result in results)
        rows.append(Row(f"{name}: images with different answers", "%", unlike))
        measurements[f"{name} accuracy"] = results
    for count in examples:
        results = [_few_shot(data, test, weights, count, seed, processor, setting) for seed in seeds]
        spread = f" (from {100 * min(results):.1f} to {100 * max(results):.1f} %)"
        rows.append(
            Row(
                f"{count} images per class, mean over {len(results)} seeds{spread}", "%", 100 * statistics.mean(results)
            )
        )
        measurements[f"few-shot {count}"] = [{"accuracies": results}]
    notes = [
        f"{Path(weights).name}; batches of {setting.batch_size}, {len(found.train):,} training images, "
        f"{len(test):,} test images."
    ]
    return Report("Fine-tuning", "transformers", rows, measurements, PACKAGES, notes)


def _standard_error(ours: Sequence[float], theirs: Sequence[float], images: int) -> float:
    """Returns the standard error of the difference of two mean accuracies, from the seeds or the images."""
    if len(ours) > 1:
        error = ((statistics.variance(ours) + statistics.variance(theirs)) / len(ours)) ** 0.5
    else:
        error = (sum(share * (1 - share) for share in (*ours, *theirs)) / images) ** 0.5
    return max(error, 1 / images)  # at least one image: the error is 0 if all accuracies are equal, or 0 or 1


def _rule(setting: Setting, count: int, steps: int | None = None) -> "HyperRule":
    from keras_bit.recipes.hyperrule import HyperRule

    return HyperRule(count, setting.image_size, batch_size=setting.batch_size, steps=steps)


def _start(weights: str, start: str, classes: int, folder: Path, seed: int = 0) -> None:
    """Writes the checkpoint that both sides start from: `weights` with a head of zeros, or random weights."""
    import keras

    from keras_bit import BiT, BitConfig, save_pretrained

    model = _new_head(weights, classes)
    if start == "random":
        keras.utils.set_random_seed(seed)
        model = BiT(BitConfig.from_pretrained(weights), classes=classes)
    save_pretrained(model, folder)


@contextlib.contextmanager
def _precision(dtype: str) -> Iterator[None]:
    """Sets the dtype of everything in Keras within the context: weights, losses, and the rates of both sides."""
    import keras

    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")


def _reference(folder: str) -> "torch.nn.Module":
    from transformers import BitForImageClassification

    return BitForImageClassification.from_pretrained(folder).train()


def _new_head(weights: str, classes: int) -> "BiTModel":
    from keras_bit import from_pretrained

    model = from_pretrained(weights, classes=classes)
    for variable in model.get_layer("predictions").weights:
        variable.assign(np.zeros(variable.shape, "float32"))
    return model


def _curves(
    found: "Splits", weights: str, start: str, dtype: str, processor: "BitImageProcessor", setting: Setting
) -> dict[str, list[float]]:
    import keras
    import tensorflow as tf
    import torch

    from keras_bit import fine_tune, from_pretrained, image_dataset

    count = min(setting.curve_steps * setting.batch_size, len(found.train))
    part = found.train.some(np.random.default_rng(1).permutation(len(found.train))[:count])
    order = np.random.default_rng(2).permutation(count)
    data = image_dataset(
        part.everything, processor=processor, batch_size=setting.batch_size, class_names=found.class_names
    )
    images, labels = (np.concatenate(parts)[order] for parts in zip(*data.as_numpy_iterator(), strict=True))
    batches = tf.data.Dataset.from_tensor_slices((images.astype(dtype), labels))
    batches = batches.batch(setting.batch_size, drop_remainder=True).repeat()
    rule = _rule(setting, count)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.model.stop_training = epoch + 1 == setting.curve_steps

    losses = {}
    with tempfile.TemporaryDirectory() as folder:
        _start(weights, start, len(found.class_names), Path(folder))
        with _precision(dtype):
            for name, form in (("transformers", torch.contiguous_format), ("channels_last", torch.channels_last)):
                reference = _reference(folder).to(dtype=getattr(torch, dtype), memory_format=form)
                losses[name] = _train_reference(reference, batches.as_numpy_iterator(), rule, setting.curve_steps, form)
            model = from_pretrained(folder)
            fitted = fine_tune(model, batches, rule=rule, steps_per_epoch=1, callbacks=[Stop()], verbose=0)
    return losses | {"keras_bit": fitted.history["loss"]}


def _train_reference(
    reference: "torch.nn.Module",
    batches: Iterator[Any],
    rule: "HyperRule",
    steps: int,
    memory_format: "torch.memory_format | None" = None,
) -> list[float]:
    """Trains with the recipe in torch, and returns the losses."""
    import torch
    from tqdm import tqdm

    optimizer = torch.optim.SGD(reference.parameters(), lr=0.0, momentum=0.9)
    schedule = rule.schedule()
    losses = []
    for step in tqdm(range(steps), desc="transformers", unit="step", delay=2, leave=False):
        images, labels = next(batches)
        optimizer.param_groups[0]["lr"] = float(schedule(step))
        pixels = torch.tensor(images.transpose(0, 3, 1, 2))  # a copy: the data set's arrays are read-only
        pixels = pixels.contiguous(memory_format=memory_format or torch.contiguous_format)
        loss = reference(pixel_values=pixels, labels=torch.from_numpy(labels.astype(np.int64))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def _accuracies(
    found: "Splits",
    test: "Part",
    weights: str,
    start: str,
    dtype: str,
    seed: int,
    processor: "BitImageProcessor",
    setting: Setting,
) -> Mapping[str, float]:
    import tensorflow as tf
    import torch

    from keras_bit import fine_tune, from_pretrained, image_dataset

    rule = _rule(
        setting, min(len(found.train), 19_999), setting.steps
    )  # so few that the rule uses no MixUp: torch gets integer labels

    def training() -> tf.data.Dataset:
        return image_dataset(
            found.train.everything,
            processor=processor,
            batch_size=setting.batch_size,
            training=True,
            rule=rule,
            seed=seed,
            repeat=True,
            class_names=found.class_names,
        )

    def as_dtype(batches: tf.data.Dataset) -> tf.data.Dataset:
        return batches.map(lambda images, labels: (tf.cast(images, dtype), labels))

    counts = {"keras_bit": 0, "transformers": 0, "answered differently": 0}
    with tempfile.TemporaryDirectory() as folder:
        _start(weights, start, len(found.class_names), Path(folder), seed)
        with _precision(dtype):
            model, reference = from_pretrained(folder), _reference(folder).to(dtype=getattr(torch, dtype))
            fine_tune(model, as_dtype(training()), rule=rule, steps_per_epoch=rule.total_steps, verbose=0)
            _train_reference(reference, as_dtype(training()).as_numpy_iterator(), rule, rule.total_steps)
            reference.eval()
            with torch.no_grad():
                for images, labels in _test_batches(test, processor, found.class_names):
                    ours = model.predict_on_batch(images.astype(dtype)).argmax(1)
                    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(dtype))
                    theirs = reference(pixels).logits.numpy().argmax(1)
                    counts["keras_bit"] += int((ours == labels).sum())
                    counts["transformers"] += int((theirs == labels).sum())
                    counts["answered differently"] += int((ours != theirs).sum())
    return {name: count / len(test) for name, count in counts.items()}


def _few_shot(
    data: Path, test: "Part", weights: str, count: int, seed: int, processor: "BitImageProcessor", setting: Setting
) -> float:
    import keras

    from keras_bit import fine_tune, image_dataset
    from keras_bit.data import splits

    keras.utils.set_random_seed(seed)
    found = splits.open_splits(data, validation_share=0.0, seed=seed, examples_per_class=count)
    rule = _rule(setting, len(found.train), setting.steps)
    train = image_dataset(
        found.train.everything,
        processor=processor,
        batch_size=setting.batch_size,
        training=True,
        rule=rule,
        seed=seed,
        repeat=True,
        class_names=found.class_names,
    )
    model = _new_head(weights, len(found.class_names))
    fine_tune(model, train, rule=rule, steps_per_epoch=rule.total_steps, verbose=0)
    batches = _test_batches(test, processor, found.class_names)
    return sum(int((model.predict_on_batch(images).argmax(1) == labels).sum()) for images, labels in batches) / len(
        test
    )


def _test_batches(test: "Part", processor: "BitImageProcessor", class_names: Sequence[str]) -> Iterator[Any]:
    from keras_bit import image_dataset

    return image_dataset(
        test.everything, processor=processor, batch_size=50, class_names=class_names
    ).as_numpy_iterator()
