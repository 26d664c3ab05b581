"""Measures one call of each way to run a BiT with keras_bit, and of its peers: R50x1 or `--network`, random weights.

The engines are listed in benchmarks/engines.py. Three of keras_bit's run in Keras: "compiled" is a `tf.function` of the
model, "compiled, fused" one of the model that is loaded with `fused=True`, and "predict" is `model.predict`. Files in
int8 are calibrated on the batch that is measured. Every process measures one engine, and the engines take turns. The
logits in float32 are compared first: an engine that is fast but wrong is an error.

Each time comes with three more figures: the duration of the first call, which compiles; the peak memory of the process,
with imports and weights; and the number of operations, with the share of the machine's peak that they reach. The peak
is the speed of numpy's product of two large matrices. A row "A / B" is the time of A divided by that of B.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.engines import ENGINES, PREPARATIONS, available
from benchmarks.flops import PEAK, PROCESS, flops, share, weights_bytes
from benchmarks.processes import peak_memory, rounds_of
from benchmarks.report import Report, Row

if TYPE_CHECKING:
    from keras_bit.network.config import BitConfig

PACKAGES = (
    *("keras_bit", "tensorflow", "keras", "ai-edge-litert", "torch", "transformers", "timm", "onnxruntime"),
    "openvino",
)
NETWORKS = ("BiT50", "BiT101", "BiT50x3", "BiT152x2", "BiT101x3", "BiT152x4")
EAGER = ("transformers", "transformers, channels_last")
# Each target, for R50x1 at 224 px: batch size (None: any), our engine, peers, and the largest ratio of our time to that
# of the fastest peer.
TARGETS = (
    (1, "compiled, fused", EAGER, 0.45),
    (8, "compiled, fused", EAGER, 0.75),
    (1, "compiled", EAGER, 0.75),
    (8, "compiled", EAGER, 0.85),
    (1, "SavedModel", EAGER, 0.5),
    (1, "SavedModel", ("torch.compile",), 0.8),
    (1, "TFLite float32", ("onnxruntime",), 0.95),
    (1, "TFLite float32", ("openvino",), 0.85),
    (1, "TFLite int8", ("TFLite float32",), 0.45),
    (None, "ONNX", ("onnxruntime",), 0.95),
    (None, "OpenVINO", ("openvino",), 0.9),
    (None, "OpenVINO, any size", ("openvino, any size",), 0.75),
)
WITH_TARGET = {engine for _, ours, peers, _ in TARGETS for engine in (ours, *peers)}
LIMIT = 1e-3  # largest difference in float32, as a share of the largest logit
WARM_UP = 2  # calls after the first
SECONDS = 30  # a process stops after this time, even if some of its runs are left


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size",
        type=int,
        action="append",
        metavar="N",
        help="batch size; repeat the option for several (default: 1, 8)",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        action="append",
        metavar="PX",
        help="image size; repeat the option for several (default: 224)",
    )
    parser.add_argument(
        "--engine",
        action="append",
        choices=ENGINES,
        metavar="NAME",
        help=f"engine; repeat the option for several: {'; '.join(ENGINES)} (default: those in float32 or with a "
        "target)",
    )
    parser.add_argument(
        "--network",
        default="BiT50",
        choices=NETWORKS,
        metavar="NAME",
        help=f"network: {', '.join(NETWORKS)} (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="processes of each case (default: 3)")
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="calls in each process (default: 30)")
    parser.add_argument(
        "--timm-python", metavar="FILE", help="Python interpreter of an environment with timm (default: this one)"
    )


def run(options: argparse.Namespace) -> Report:
    from keras_bit.network.config import PUBLISHED

    return measure(
        PUBLISHED[options.network],
        options.batch_size or [1, 8],
        options.image_size or [224],
        engines=options.engine or [name for name in ENGINES if ENGINES[name].exact or name in WITH_TARGET],
        rounds=options.rounds,
        runs=options.runs,
        timm_python=options.timm_python,
        targets=TARGETS if options.network == NETWORKS[0] else (),
    )


def measure(
    config: "BitConfig",
    batch_sizes: Sequence[int],
    image_sizes: Sequence[int],
    *,
    engines: Sequence[str],
    rounds: int,
    runs: int,
    timm_python: str | None = None,
    targets: Sequence[Any] = TARGETS,
) -> Report:
    """Measures every engine whose packages are installed, for every batch size and image size."""
    if rounds < 1 or runs < 1 or min(batch_sizes) < 1:
        raise ValueError(
            f"`rounds`, `runs` and `batch_sizes` must be at least 1, got {rounds}, {runs} and {list(batch_sizes)}."
        )
    elsewhere = [name for name in engines if timm_python and "timm" in ENGINES[name].packages]
    here, missing = available([name for name in engines if name not in elsewhere])
    measured = [name for name in engines if name in (*here, *elsewhere)]
    found: dict[str, list[dict[str, Any]]] = {}
    shown: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        for image_size in image_sizes:
            for batch_size in batch_sizes:
                taken = cases(config, Path(scratch), batch_size, image_size, measured, runs)
                pythons = dict.fromkeys(elsewhere, timm_python)
                one = rounds_of(taken, rounds, pythons)
                _compare(one)
                work = flops(config, image_size) * batch_size
                shown += rows(one, work, batch_size, image_size, targets)
                found |= {f"{name}, {batch_size} x {image_size} px": values for name, values in one.items()}
    notes = [f"Not installed: {', '.join(missing)}."] if missing else []
    peaks = [each["flops_per_second"] for name, one in found.items() if name.startswith(PEAK) for each in one]
    notes.append(
        f"Medians of {rounds} processes with up to {runs} calls each; {weights_bytes(config) / 1e9:.2f} GB of weights; "
        f"matrix peak {max(peaks) / 1e9:.0f} GFLOP/s."
    )
    return Report("Inference", "peer", shown, found, PACKAGES, notes)


def cases(
    config: "BitConfig", scratch: Path, batch_size: int, image_size: int, engines: Sequence[str], runs: int
) -> dict[str, list[str]]:
    """Writes the files that the engines need; returns the processes that measure the engines and the machine's peak."""
    from benchmarks import checkpoints

    checkpoint = scratch / "checkpoint"
    if not checkpoint.exists():
        checkpoints.write(checkpoint, config, image_size)
    folder = scratch / f"{batch_size}x{image_size}"
    folder.mkdir()
    (folder / "checkpoint").symlink_to(checkpoint)
    batch = np.random.default_rng(0).uniform(-1, 1, (batch_size, image_size, image_size, 3)).astype(np.float32)
    np.save(folder / "batch.npy", batch)
    needed = dict.fromkeys(ENGINES[name].preparation for name in engines if ENGINES[name].preparation)
    rounds_of({f"prepare {one}": ["benchmarks.inference", "prepare", one, str(folder)] for one in needed}, 1)
    taken = {name: ["benchmarks.inference", "measure", name, str(folder), str(runs)] for name in engines}
    return {**taken, PEAK: [*PROCESS]}


def _compare(found: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Raises a `ValueError` if logits differ; otherwise replaces them by the largest difference."""
    expected = None
    # The others are compared with an exact engine, so these come first.
    for name, measured in sorted(found.items(), key=lambda one: one[0] in ENGINES and not ENGINES[one[0]].exact):
        for one in measured:
            if "logits" not in one:
                continue
            logits = np.array(one.pop("logits"))
            expected = logits if expected is None else expected
            one["difference"] = float(np.abs(logits - expected).max() / np.abs(expected).max())
            if ENGINES[name].exact and one["difference"] > LIMIT:
                raise ValueError(
                    f"The logits of {name} differ from the first engine's, by {one['difference']:.1e} of the largest."
                )


def rows(
    found: Mapping[str, Sequence[Mapping[str, Any]]],
    work: float,
    batch_size: int,
    image_size: int,
    targets: Sequence[Any] = TARGETS,
) -> list[Row]:
    """Returns a row for each engine, and one for each target whose times were measured."""
    at = f"{batch_size} x {image_size} px"
    peak = max((one["flops_per_second"] for one in found.get(PEAK, ())), default=None)
    medians = {
        name: statistics.median(1e3 * one["median"] for one in measured)
        for name, measured in found.items()
        if name != PEAK
    }
    shown = []
    for name, milliseconds in medians.items():
        first, memory = (statistics.median(one[key] for one in found[name]) for key in ("first", "peak"))
        details = f"first {first:.1f} s, {memory / 1e9:.2f} GB"
        if ENGINES[name].exact and "64" not in name:
            details += f", {share(work, milliseconds / 1e3, peak)}"
        if not ENGINES[name].exact and any(ENGINES[other].exact for other in medians):
            details += f", logits differ by {max(one['difference'] for one in found[name]):.1e} of the largest"
        ours, theirs = (milliseconds, None) if ENGINES[name].ours else (None, milliseconds)
        shown.append(Row(f"{at}: {name}", "ms", ours, theirs, details=details))
    for size, ours, peers, limit in targets:
        times = [medians[peer] for peer in peers if peer in medians]
        if size in (None, batch_size) and image_size == 224 and ours in medians and times:
            name = "transformers, the faster one" if len(peers) > 1 else peers[0]
            shown.append(Row(f"{at}: {ours} / {name}", "", medians[ours] / min(times), None, limit))
    return shown


# What a process of its own runs: `python -m benchmarks.inference measure ENGINE FOLDER RUNS`, or `prepare WHAT FOLDER`.


def measured(name: str, folder: Path, runs: int) -> dict[str, Any]:
    batch = np.load(folder / "batch.npy")
    start = time.perf_counter()
    call = ENGINES[name].load(folder)
    loaded = time.perf_counter()
    logits = call(batch)
    first = time.perf_counter() - loaded
    for _ in range(WARM_UP):
        call(batch)
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < runs and (not times or time.perf_counter() < end):
        begin = time.perf_counter()
        call(batch)
        times.append(time.perf_counter() - begin)
    return {
        "load": loaded - start,
        "first": first,
        "median": statistics.median(times),
        "minimum": min(times),
        "peak": peak_memory(),
        "logits": logits[: len(batch)].tolist(),
    }


def main(arguments: Sequence[str]) -> None:
    what, *rest = arguments
    if what == "prepare":
        PREPARATIONS[rest[0]](Path(rest[1]))
        result = {}
    else:
        result = measured(rest[0], Path(rest[1]), int(rest[2]))
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
