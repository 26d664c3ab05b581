"""Measures accuracy, size and latency of TFLite's modes, with LiteRT on all cores of this machine.

accuracy      The accuracy on the test images, of the files that `keras_bit.export` writes from the checkpoint (default:
              the small one trained on CIFAR-10). It is compared with that of the Keras model on the same batches of
              `image_dataset`. int8 and int8_full are calibrated on some of the training images
size          The size of the file, compared with float32
latency       The time for one image, compared with float32. In every round all files take turns. Keras is the fused
              model in a `tf.function`
BiT-50        Sizes and latencies of R50x1 at 224 px with random weights, which affect neither. int8 must take at most
              0.45 of float32's time
"""

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import arguments
from benchmarks.report import Report, Row

if TYPE_CHECKING:
    from keras_bit.data.splits import Part
    from keras_bit.exporters.job import ExportReport
    from keras_bit.images.processor import BitImageProcessor
    from keras_bit.network.model import BiTModel

MODES = {"float32": None, "float16": "float16", "dynamic": "dynamic", "int8": "int8", "int8_full": "int8_full"}
CALIBRATED = ("int8", "int8_full")
POINTS = {"float16": 0.1, "int8": 1.0}  # percentage points of accuracy that may be lost; float32 may lose one image
INT8_LIMIT = 0.45  # time of int8 divided by that of float32, for R50x1 at 224 px
LARGE_SIZE = 224  # px, of the images for BiT-50
LARGE_CALIBRATION = 32  # images that calibrate BiT-50, at most
PACKAGES = ("keras_bit", "tensorflow", "keras", "numpy", "ai-edge-litert")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_data(parser)
    arguments.add_weights(parser, "trained checkpoint to export")
    parser.add_argument(
        "--rounds", type=int, default=50, metavar="N", help="rounds of the latency (default: %(default)s)"
    )
    parser.add_argument(
        "--large-rounds",
        type=int,
        default=20,
        metavar="N",
        help="the same for BiT-50, whose conversions take a minute; 0 leaves it out (default: %(default)s)",
    )
    parser.add_argument(
        "--calibration",
        type=int,
        default=200,
        metavar="N",
        help="training images that calibrate int8 (default: %(default)s)",
    )
    parser.add_argument("--test-images", type=int, metavar="N", help="number of test images (default: all)")


def run(options: argparse.Namespace) -> Report:
    from keras_bit import BiT50

    return measure(
        options.data,
        options.weights,
        rounds=options.rounds,
        large_rounds=options.large_rounds,
        calibration=options.calibration,
        test_images=options.test_images,
        large=lambda: BiT50(weights=None, classifier_activation=None),
    )


def measure(
    data: Path,
    weights: str,
    *,
    rounds: int,
    large_rounds: int,
    large: Callable[[], Any],
    calibration: int = 200,
    test_images: int | None = None,
) -> Report:
    """Exports the models, classifies the test images, and measures the latency.

    Args:
        data: folder with train/<class>/ and test/<class>/.
        weights: trained checkpoint, with its processor.
        rounds: rounds of the latency of its files.
        large_rounds: the same for the large network; 0 leaves it out.
        large: function that builds the large network.
        calibration: number of training images that calibrate int8 and int8_full.
        test_images: number of test images; `None` is all.
    """
    import keras

    from keras_bit import BitImageProcessor, from_pretrained
    from keras_bit.data import splits

    for name, value, least in (
        ("rounds", rounds, 1),
        ("large_rounds", large_rounds, 0),
        ("calibration", calibration, 1),
    ):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    found = splits.open_splits(data, validation_share=0.0, seed=0)
    if found.test is None:
        raise ValueError(f"`data` {str(data)!r} must hold the folders train and test.")
    test, seen = _some(found.test, test_images), _some(found.train, calibration)
    processor = BitImageProcessor.from_pretrained(weights)
    model = from_pretrained(weights)
    size = processor.crop_size if processor.do_center_crop else processor.size

    rows, measurements = [], {}
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        images = [batch for batch, _ in _batches(seen, processor, found.class_names)]
        files = _export(model, Path(folder), processor, images)
        right = _right(model, files, _batches(test, processor, found.class_names))
        rows += accuracy_rows(right, len(test))
        measurements["accuracy"] = [{"images": len(test), **right}]
        found_costs = _costs(model, files, images[0][:1], rounds)
        rows += cost_rows(Path(weights).name, files, found_costs)
        measurements |= {"files": _differences(files), "latency": found_costs}
    notes = [
        f"{Path(weights).name} at {size['height']}x{size['width']} px; {len(test):,} test images, calibrated on "
        f"{len(seen)} training images; {os.cpu_count()} cores."
    ]
    if large_rounds:
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            keras.utils.set_random_seed(0)
            model = large()
            size = {"height": LARGE_SIZE, "width": LARGE_SIZE}
            processor = dataclasses.replace(processor, size=size, do_center_crop=False)
            part = _some(found.train, min(calibration, LARGE_CALIBRATION))
            images = [batch for batch, _ in _batches(part, processor, found.class_names)]
            files = _export(model, Path(folder), processor, images)
            found_costs = _costs(model, files, images[0][:1], large_rounds)
            rows += cost_rows("BiT-50", files, found_costs, INT8_LIMIT)
            measurements |= {"files, BiT-50": _differences(files), "latency, BiT-50": found_costs}
    return Report("TFLite", "Keras, or float32", rows, measurements, PACKAGES, notes)


def accuracy_rows(right: Mapping[str, int], images: int) -> list[Row]:
    """Returns rows with the accuracies in percent; the targets count whole images."""
    rows = []
    for mode in MODES:
        lost = 1 if mode == "float32" else POINTS[mode] * images / 100 if mode in POINTS else None
        limit = None if lost is None else 100 * (right["Keras"] - lost) / images
        rows.append(
            Row(
                f"{mode}: accuracy",
                "%",
                100 * right[mode] / images,
                100 * right["Keras"] / images,
                limit,
                more_is_better=True,
            )
        )
    return rows


def cost_rows(
    name: str, files: "Mapping[str, ExportReport]", rounds: list[Mapping[str, float]], int8_limit: float | None = None
) -> list[Row]:
    """Returns rows with sizes and median latencies; `int8_limit` is for the latency of int8 divided by float32's."""
    sizes = {mode: report.bytes / 1e6 for mode, report in files.items()}
    times = {mode: 1000 * statistics.median(one[mode] for one in rounds) for mode in rounds[0]}
    rows = [Row(f"{name}, {mode}: size", "MB", size, sizes["float32"]) for mode, size in sizes.items()]
    rows += [Row(f"{name}, {mode}: latency", "ms", value, times["float32"]) for mode, value in times.items()]
    rows.append(Row(f"{name}, int8 / float32: latency", "", times["int8"] / times["float32"], limit=int8_limit))
    return rows


def _some(part: "Part", count: int | None) -> "Part":
    return part if count is None else part.some(np.random.default_rng(0).permutation(len(part))[:count])


def _batches(part: "Part", processor: "BitImageProcessor", class_names: Sequence[str]) -> Iterator[Any]:
    from keras_bit import image_dataset

    return image_dataset(
        part.everything, processor=processor, batch_size=50, class_names=class_names
    ).as_numpy_iterator()


def _export(
    model: "BiTModel", folder: Path, processor: "BitImageProcessor", images: list[np.ndarray]
) -> "dict[str, ExportReport]":
    """Exports the model in every mode; returns the report of each file by its mode."""
    from keras_bit import export

    files = {}
    for mode, quantize in MODES.items():
        files[mode] = export(
            model,
            folder / f"{mode}.tflite",
            "tflite",
            processor=processor,
            quantize=quantize,
            representative_data=images if mode in CALIBRATED else None,
        )
    return files


def _differences(files: "Mapping[str, ExportReport]") -> list[dict[str, Any]]:
    return [
        {"mode": mode, "bytes": one.bytes, "max_abs_diff": one.max_abs_diff, "limit": one.limit, "seconds": one.seconds}
        for mode, one in files.items()
    ]


def _runner(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from one image `(1, height, width, channels)` to its scores.

    Integer scores are not scaled back to floats: their order is the same.
    """
    from keras_bit.exporters import engines, machine

    return engines.tflite(path, machine.threads()).call


def _right(model: "BiTModel", files: "Mapping[str, ExportReport]", batches: Iterator[Any]) -> dict[str, int]:
    """Counts the right answers of Keras and of each file."""
    from tqdm import tqdm

    runners = {mode: _runner(report.path) for mode, report in files.items()}
    right = dict.fromkeys(("Keras", *runners), 0)
    for images, labels in tqdm(batches, desc="classifying", unit="batch", delay=2, leave=False):
        right["Keras"] += int((model.predict_on_batch(images).argmax(1) == labels).sum())
        for mode, runner in runners.items():
            scores = np.concatenate([runner(images[place : place + 1]) for place in range(len(images))])
            right[mode] += int((scores.argmax(1) == labels).sum())
    return right


def _costs(
    model: "BiTModel", files: "Mapping[str, ExportReport]", image: np.ndarray, rounds: int
) -> list[dict[str, float]]:
    """Measures the seconds for one image, for Keras and each file, in every round."""
    import tensorflow as tf

    from keras_bit import fuse

    runners = {mode: _runner(report.path) for mode, report in files.items()}
    fused = fuse(model)
    keras_run = tf.function(lambda images: fused(images, training=False))
    runners["Keras"] = lambda images: keras_run(tf.constant(images)).numpy()
    for runner in runners.values():
        for _ in range(3):
            runner(image)
    measured = []
    for _ in range(rounds):
        one = {}
        for mode, runner in runners.items():
            start = time.perf_counter()
            runner(image)
            one[mode] = time.perf_counter() - start
        measured.append(one)
    return measured
