"""Measures inference and a training step of R50x1 with random weights on one GPU, compared with transformers and timm.

keras_bit             Keras on JAX: the fused model in `jax.jit` for inference, `model.train_on_batch` for training
transformers, timm    with channels_last and `torch.compile`

float32 leaves the engines at their defaults: both may use the GPU's 19-bit TF32 for products and convolutions.
bfloat16 is `mixed_bfloat16` in Keras and autocast in PyTorch. Inputs are on the GPU before the clock starts, and the
clock stops when the result is there. The outputs are compared first. Each time is also given as a share of the peak,
which is the speed of the product of two large matrices in the same precision, in JAX. The last row of each case is
keras_bit's time divided by that of the faster peer.

JAX and PyTorch each bring their own CUDA. To avoid conflicts, install them in two environments and name the one with
PyTorch in `--torch-python`. The authors have not run this part on a GPU yet; `--device cpu` checks on any machine that
it runs.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.engines import timm_logits, transformers_logits
from benchmarks.processes import rounds_of
from benchmarks.report import Report, Row

if TYPE_CHECKING:
    from keras_bit.network.config import BitConfig

PACKAGES = ("keras_bit", "keras", "jax", "torch", "transformers", "timm")
OURS, PEERS = "keras_bit", ("transformers", "timm")
PRECISIONS = ("float32", "bfloat16")
DEVICES = {"gpu": "cuda", "cpu": "cpu"}  # JAX's names to PyTorch's
RATIO_LIMIT = 1.0  # our time divided by the faster peer's
# Largest difference, as a share of the largest output. TF32 and bfloat16 round at 5e-4 and 4e-3; 50 layers add it up.
LIMITS = {"float32": 0.02, "bfloat16": 0.1}
MATRIX_SIZE = 8192
LEARNING_RATE, MOMENTUM = 0.003, 0.9
WARM_UP = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size",
        type=int,
        action="append",
        metavar="N",
        help="batch size for inference; repeat the option for several (default: 64, 256)",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        action="append",
        metavar="PX",
        help="image size for inference; repeat the option for several (default: 224, 448)",
    )
    parser.add_argument(
        "--training-batch-size",
        type=int,
        default=64,
        metavar="N",
        help="batch size for training, with images of 224 px (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="processes of each case (default: 3)")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="calls in each process (default: 20)")
    parser.add_argument("--device", choices=DEVICES, default="gpu", help="where to run (default: %(default)s)")
    parser.add_argument(
        "--torch-python",
        metavar="FILE",
        help="Python interpreter of an environment with keras_bit, torch, transformers and timm (default: this one)",
    )


def run(options: argparse.Namespace) -> Report:
    from keras_bit.network.config import PUBLISHED

    config = PUBLISHED["BiT50"]
    inference = [
        ("inference", batch, size)
        for size in options.image_size or [224, 448]
        for batch in options.batch_size or [64, 256]
    ]
    return measure(
        config,
        [*inference, ("training", options.training_batch_size, 224)],
        rounds=options.rounds,
        runs=options.runs,
        device=options.device,
        torch_python=options.torch_python or sys.executable,
    )


def measure(
    config: "BitConfig",
    works: Sequence[tuple[str, int, int]],
    *,
    rounds: int,
    runs: int,
    device: str,
    torch_python: str,
) -> Report:
    """Measures every work in every precision; a work is `"inference"` or `"training"`, a batch size and an image size.

    Raises:
        RuntimeError: the device is missing, so nothing was measured.
    """
    from benchmarks import checkpoints  # here: a measuring process chooses its backend before it imports keras_bit
    from benchmarks.flops import flops

    pythons = dict.fromkeys(PEERS, torch_python)
    (probe,) = rounds_of({"device": ["benchmarks.gpu", "probe"]}, 1)["device"]
    if device not in probe["platforms"]:
        raise RuntimeError(
            f"this machine has no {device}, so nothing was measured: JAX {probe['jax'] or 'is not installed and'} "
            f"finds {', '.join(probe['platforms']) or 'nothing'}. Run it on a machine with a GPU (pip install "
            "'jax[cuda13]'), or check with --device cpu that it runs."
        )
    probes = rounds_of({peer: ["benchmarks.gpu", "probe"] for peer in PEERS}, 1, pythons)
    peers = [peer for peer in PEERS if {"torch", peer} <= set(probes[peer][0]["packages"])]
    found: dict[str, list[dict[str, Any]]] = {}
    shown: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        checkpoints.write(Path(scratch, "checkpoint"), config, works[0][2])
        for precision in PRECISIONS:
            peaks = rounds_of({"peak": ["benchmarks.gpu", "peak", precision, device]}, 1)["peak"]
            for work, batch, size in works:
                sizes = (scratch, work, str(batch), str(size), precision, str(runs), device)
                one = rounds_of({name: ["benchmarks.gpu", name, *sizes] for name in (OURS, *peers)}, rounds, pythons)
                at = f"{precision}, {work}, {batch} x {size} px"
                _compare(one, at, precision)
                amount = flops(config, size) * batch * (3 if work == "training" else 1)
                shown += rows(one, at, amount, peaks[0]["flops_per_second"])
                found |= {f"{at}: {name}": measured for name, measured in one.items()}
            found[f"{precision}: matrix peak"] = peaks
    missing = [peer for peer in PEERS if peer not in peers]
    notes = [f"Not installed: {', '.join(missing)}."] if missing else []
    notes.append(f"Medians of {rounds} processes with {runs} calls each, on {probe['platforms'][device]}.")
    return Report("GPU", "peer", shown, found, PACKAGES, notes)


def _compare(found: Mapping[str, Sequence[dict[str, Any]]], at: str, precision: str) -> None:
    expected = np.array(found[OURS][0]["outputs"])
    for name, measured in found.items():
        for one in measured:
            one["difference"] = float(np.abs(np.array(one.pop("outputs")) - expected).max() / np.abs(expected).max())
            if one["difference"] > LIMITS[precision]:
                raise ValueError(f"{at}: {name} differs from {OURS} by {one['difference']:.1e} of the largest output.")


def rows(found: Mapping[str, Sequence[Mapping[str, Any]]], at: str, amount: float, peak: float) -> list[Row]:
    """Returns a row for each engine, and the ratio to the faster peer."""
    medians = {name: statistics.median(one["median"] for one in measured) for name, measured in found.items()}
    shown = []
    for name, seconds in medians.items():
        first, memory = (statistics.median(one[key] for one in found[name]) for key in ("first", "memory"))
        ours, theirs = (1e3 * seconds, None) if name == OURS else (None, 1e3 * seconds)
        details = f"first {first:.1f} s, {memory / 1e9:.2f} GB of the device, {amount / seconds / peak:.0%} of the peak"
        shown.append(Row(f"{at}: {name}", "ms", ours, theirs, details=details))
    if best := min((seconds for name, seconds in medians.items() if name != OURS), default=None):
        shown.append(Row(f"{at}: {OURS} / the faster peer", "", medians[OURS] / best, None, RATIO_LIMIT))
    return shown


# What a process of its own runs: `python -m benchmarks.gpu` with the arguments `probe`, `peak PRECISION DEVICE`, or
# `NAME FOLDER WORK BATCH_SIZE IMAGE_SIZE PRECISION RUNS DEVICE`.


def probed() -> dict[str, Any]:
    import importlib.util

    packages = [name for name in ("jax", "torch", "transformers", "timm") if importlib.util.find_spec(name)]
    platforms, version = {}, None
    if "jax" in packages:
        import jax

        version = jax.__version__
        for name in DEVICES:
            try:
                platforms[name] = jax.devices(name)[0].device_kind
            except RuntimeError:
                continue
    return {"packages": packages, "platforms": platforms, "jax": version}


def matrix_peak(precision: str, device: str) -> float:
    """Measures the operations per second of the product of two matrices: the best of ten."""
    import jax

    size = MATRIX_SIZE if device == "gpu" else MATRIX_SIZE // 16
    matrix = jax.device_put(jax.numpy.ones((size, size), precision), jax.devices(device)[0])
    product = jax.jit(jax.numpy.matmul)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def keras_work(
    folder: Path, work: str, images: np.ndarray, labels: np.ndarray, precision: str, device: str
) -> tuple[Callable[[], Any], Callable[[], int]]:
    import jax
    import keras

    import keras_bit

    place = jax.devices(device)[0]
    jax.config.update("jax_default_device", place)
    keras.config.set_dtype_policy("float32" if precision == "float32" else "mixed_bfloat16")
    training = work == "training"
    model = keras_bit.from_pretrained(folder / "checkpoint", classifier_activation=None, fused=not training)
    pixels = jax.device_put(images, place)

    def memory() -> int:
        return (place.memory_stats() or {}).get("peak_bytes_in_use", 0)

    if training:
        model.compile(
            optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        return lambda: [float(model.train_on_batch(pixels, labels))], memory
    weights = [variable.value for variable in model.trainable_variables]
    call = jax.jit(lambda weights, pixels: model.stateless_call(weights, [], pixels, training=False)[0])
    return lambda: call(weights, pixels).block_until_ready(), memory


def torch_work(
    name: str, folder: Path, work: str, images: np.ndarray, labels: np.ndarray, precision: str, device: str
) -> tuple[Callable[[], Any], Callable[[], int]]:
    import torch

    place = DEVICES[device]
    model = (transformers_logits if name == "transformers" else timm_logits)(folder)
    model = torch.compile(model.to(place, memory_format=torch.channels_last))
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2)).to(place, memory_format=torch.channels_last)
    classes = torch.from_numpy(labels).to(place)
    half = torch.autocast(place, torch.bfloat16, enabled=precision == "bfloat16")

    def memory() -> int:
        return torch.cuda.max_memory_allocated() if place == "cuda" else 0

    if work == "training":
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)

        def step() -> list[float]:
            with half:
                loss = torch.nn.functional.cross_entropy(model(pixels), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return [loss.item()]

        return step, memory

    def call() -> Any:
        with torch.inference_mode(), half:
            logits = model(pixels)
        if place == "cuda":
            torch.cuda.synchronize()
        return logits.float().cpu().numpy()

    return call, memory


def measured(name: str, folder: str, work: str, batch: str, size: str, precision: str, runs: str, device: str) -> Any:
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (int(batch), int(size), int(size), 3)).astype(np.float32)
    labels = generator.integers(0, 10, int(batch))
    given = (Path(folder), work, images, labels, precision, device)
    call, memory = keras_work(*given) if name == OURS else torch_work(name, *given)
    start = time.perf_counter()
    outputs = np.asarray(call(), np.float32)  # the loss before the first step, or logits
    first = time.perf_counter() - start
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(int(runs)):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return {"first": first, "median": statistics.median(times), "memory": memory(), "outputs": outputs.tolist()}


def main(arguments: Sequence[str]) -> None:
    os.environ["KERAS_BACKEND"] = "jax" if arguments[0] == OURS else "torch"
    what, *rest = arguments
    if what == "probe":
        result = probed()
    elif what == "peak":
        result = {"flops_per_second": matrix_peak(*rest)}
    else:
        result = measured(what, *rest)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
