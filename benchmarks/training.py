"""Measures a training step of R50x1 with random weights and SGD with momentum, compared with transformers.

keras_bit             `model.train_on_batch`; and the same with `jit_compile=True` (XLA)
textbook              the same network with group normalization as in Keras and weight standardization as plain
                      operations, whose gradients TensorFlow derives; the optimizer builds itself in the first step
transformers          forward, backward and optimizer step, eager, in both memory formats

Every process measures one of them, and they take turns. All start from the same weights, and the first two losses are
compared. Each time comes with further figures: the duration of the first step, which traces and compiles; the peak
memory of the process, and its memory before the first step; and three times the operations of a call, with the share
of the machine's peak that they reach. A row such as "step / transformers" is keras_bit's figure divided by the peer's.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.flops import PEAK, PROCESS, flops, share
from benchmarks.processes import memory, peak_memory, rounds_of
from benchmarks.report import Report, Row

if TYPE_CHECKING:
    from keras_bit.network.config import BitConfig

PACKAGES = ("keras_bit", "tensorflow", "keras", "torch", "transformers")
OURS = ("keras_bit", "keras_bit, XLA", "textbook")
PEERS = ("transformers", "transformers, channels_last")
LEARNING_RATE, MOMENTUM = 0.003, 0.9
# Relative limits for the first and the second loss. A step from random weights amplifies rounding: signs flip at 0.
LIMITS = (1e-4, 1e-2)
STEP_LIMIT, MEMORY_LIMIT, FIRST_LIMIT = 1.0, 1.0, 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="images in a step (default: %(default)s)"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        action="append",
        metavar="PX",
        help="image size; repeat the option for several (default: 128)",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="processes of each case (default: 3)")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="measured steps in each process (default: 8)")
    parser.add_argument(
        "--case",
        action="append",
        choices=(*OURS, *PEERS),
        metavar="NAME",
        help=f"case; repeat the option for several: {'; '.join((*OURS, *PEERS))} (default: all)",
    )


def run(options: argparse.Namespace) -> Report:
    from keras_bit.network.config import PUBLISHED

    config = PUBLISHED["BiT50"]
    return measure(
        config,
        options.image_size or [128],
        batch_size=options.batch_size,
        rounds=options.rounds,
        steps=options.steps,
        cases=options.case or (*OURS, *PEERS),
    )


def measure(
    config: "BitConfig",
    image_sizes: Sequence[int],
    *,
    batch_size: int,
    rounds: int,
    steps: int,
    cases: Sequence[str] = (*OURS, *PEERS),
) -> Report:
    """Measures those of `cases` whose packages are installed; the targets are for R50x1, batches of 16, 128 px."""
    from benchmarks import checkpoints

    if min(rounds, steps, batch_size) < 1:
        raise ValueError(
            f"`rounds`, `steps` and `batch_size` must be at least 1, got {rounds}, {steps} and {batch_size}."
        )
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    taken = [name for name in cases if name in OURS or not missing]
    found, shown = {}, []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        folder = checkpoints.write(Path(scratch, "checkpoint"), config, image_sizes[0])
        for size in image_sizes:
            arguments = {
                name: ["benchmarks.training", name, str(folder), *map(str, (batch_size, size, steps))] for name in taken
            }
            one = rounds_of({**arguments, PEAK: [*PROCESS]}, rounds)
            peaks = [each["flops_per_second"] for each in one.pop(PEAK)]
            first = np.array(one[taken[0]][0]["losses"])
            for name, measured in one.items():
                differences = np.abs(np.array(measured[0]["losses"]) / first - 1)
                if (differences > LIMITS).any():
                    raise ValueError(
                        f"The losses of {name} differ from {taken[0]}'s, by {differences.tolist()} of these."
                    )
            shown += rows(one, f"{batch_size} x {size} px", 3 * flops(config, size) * batch_size, max(peaks))
            found |= {f"{name}, {size} px": measured for name, measured in one.items()}
            found[f"{PEAK}, {size} px"] = [{"flops_per_second": peak} for peak in peaks]
    notes = [f"Not installed: {', '.join(missing)}."] if missing else []
    notes.append(f"Medians of {rounds} processes with {steps} steps each.")
    return Report("Training", "transformers", shown, found, PACKAGES, notes)


def rows(found: Mapping[str, Sequence[Mapping[str, Any]]], at: str, work: float, peak: float | None) -> list[Row]:
    def median(name: str, key: str) -> float:
        return statistics.median(one[key] for one in found[name])

    shown = []
    for name in found:
        seconds = median(name, "median")
        details = (
            f"first {median(name, 'first'):.1f} s, {median(name, 'peak') / 1e9:.2f} GB of which "
            f"{median(name, 'before') / 1e9:.2f} before, {share(work, seconds, peak)}"
        )
        ours, theirs = (1e3 * seconds, None) if name in OURS else (None, 1e3 * seconds)
        shown.append(Row(f"{at}: {name}", "ms", ours, theirs, details=details))
    peers = [name for name in PEERS if name in found]
    if "keras_bit" in found and peers:
        best = min(peers, key=lambda name: median(name, "median"))
        for key, what, limit in (("median", "step", STEP_LIMIT), ("peak", "peak memory", MEMORY_LIMIT)):
            shown.append(Row(f"{at}: {what} / {best}", "", median("keras_bit", key) / median(best, key), None, limit))
    if {"keras_bit", "textbook"} <= set(found):
        ratio = median("keras_bit", "first") / median("textbook", "first")
        shown.append(Row(f"{at}: first step / textbook", "", ratio, None, FIRST_LIMIT))
    return shown


# What a process of its own runs: `python -m benchmarks.training CASE FOLDER BATCH_SIZE IMAGE_SIZE STEPS`.


def keras_step(folder: Path, images: np.ndarray, labels: np.ndarray, jit_compile: bool) -> Callable[[], float]:
    import keras

    import keras_bit

    model = keras_bit.from_pretrained(folder, classifier_activation=None)
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return lambda: float(model.train_on_batch(images, labels))


def textbook_step(folder: Path, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """Builds the textbook form of the network, which reshapes to five dimensions and computes moments."""
    import keras
    import tensorflow as tf

    from keras_bit.network import model as network
    from keras_bit.network import normalization

    def normalize(x: Any, gamma: Any, beta: Any, groups: int, epsilon: float) -> Any:
        shape = tf.shape(x)
        grouped = tf.reshape(x, [shape[0], shape[1], shape[2], groups, x.shape[-1] // groups])
        mean, variance = tf.nn.moments(grouped, [1, 2, 4], keepdims=True)
        return tf.reshape((grouped - mean) * tf.math.rsqrt(variance + epsilon), shape) * gamma + beta

    def standardize(kernel: Any, epsilon: float) -> Any:
        mean, variance = tf.nn.moments(kernel, [0, 1, 2], keepdims=True)
        return (kernel - mean) * tf.math.rsqrt(variance + epsilon)

    normalization.normalize_groups_in_training = normalize
    normalization.standardize_kernel_in_training = standardize
    network.BiTModel.make_train_function = keras.Model.make_train_function
    return keras_step(folder, images, labels, jit_compile=False)


def transformers_step(folder: Path, images: np.ndarray, labels: np.ndarray, channels_last: bool) -> Callable[[], float]:
    import torch
    from transformers import BitForImageClassification

    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = BitForImageClassification.from_pretrained(folder).train().to(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous(memory_format=memory_format)
    classes = torch.from_numpy(labels)

    def step() -> float:
        loss = model(pixel_values=pixels, labels=classes).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


STEPS = {
    "keras_bit": lambda *given: keras_step(*given, jit_compile=False),
    "keras_bit, XLA": lambda *given: keras_step(*given, jit_compile=True),
    "textbook": textbook_step,
    "transformers": lambda *given: transformers_step(*given, channels_last=False),
    "transformers, channels_last": lambda *given: transformers_step(*given, channels_last=True),
}


def main(arguments: Sequence[str]) -> None:
    name, folder, *numbers = arguments
    batch_size, image_size, steps = map(int, numbers)
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (batch_size, image_size, image_size, 3)).astype(np.float32)
    labels = generator.integers(0, 10, batch_size)
    step = STEPS[name](Path(folder), images, labels)
    before = memory()
    start = time.perf_counter()
    losses = [step()]
    first = time.perf_counter() - start
    losses.append(step())
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(
        json.dumps(
            {
                "first": first,
                "median": statistics.median(times),
                "minimum": min(times),
                "before": before,
                "peak": peak_memory(),
                "losses": losses,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
