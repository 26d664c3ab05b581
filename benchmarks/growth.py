"""Measures how the time of a call grows: as the slope of log(time) over log(floating-point operations).

With a slope of 1, the time grows as fast as the operations; below 1, it grows more slowly. There are three series:

network       R50x1 to R152x4, one image of 224 px
batch         R50x1 at 224 px, 1 to 32 images
image         R50x1, one image of 128 to 512 px

keras_bit is a `tf.function` of the model that is loaded with `fused=True`. The other column is transformers with
channels_last. The rows "time of the first point" and "time of the last point" give the times for the smallest and the
largest case of a series.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import inference
from benchmarks.engines import available
from benchmarks.flops import flops
from benchmarks.inference import NETWORKS
from benchmarks.processes import rounds_of
from benchmarks.report import Report, Row

if TYPE_CHECKING:
    from keras_bit.network.config import BitConfig

OURS, THEIRS = "compiled, fused", "transformers, channels_last"
BATCHES = (1, 2, 4, 8, 16, 32)
SIZES = (128, 192, 256, 384, 512)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="processes of each case (default: 1)")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="calls in each process (default: 5)")
    parser.add_argument(
        "--largest",
        default=NETWORKS[-1],
        choices=NETWORKS,
        metavar="NAME",
        help="last network of its series; BiT152x4 takes 3.75 GB in TMPDIR and 8 GB of memory (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> Report:
    from keras_bit.network.config import PUBLISHED

    chosen = NETWORKS[: NETWORKS.index(options.largest) + 1]
    small = PUBLISHED[NETWORKS[0]]
    series = {
        "network": [(PUBLISHED[name], 1, 224) for name in chosen],
        "batch": [(small, batch, 224) for batch in BATCHES],
        "image": [(small, 1, size) for size in SIZES],
    }
    return measure(series, rounds=options.rounds, runs=options.runs)


def measure(series: "Mapping[str, Sequence[tuple[BitConfig, int, int]]]", *, rounds: int, runs: int) -> Report:
    """Measures every series, which is a list of config, batch size and image size."""
    engines, missing = available([OURS, THEIRS])
    found: dict[str, list[dict[str, Any]]] = {}
    rows = []
    for name, points in series.items():
        work = [flops(config, size) * batch for config, batch, size in points]
        times: dict[str, list[float]] = {engine: [] for engine in engines}
        for (config, batch, size), amount in zip(points, work, strict=True):
            with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
                taken = inference.cases(config, Path(scratch), batch, size, engines, runs)
                taken.pop(inference.PEAK)
                measured = rounds_of(taken, rounds)
            for engine, each in measured.items():
                times[engine].append(statistics.median(one["median"] for one in each))
                for one in each:
                    del one["logits"]
                found[f"{engine}, {name}, {amount / 1e9:.1f} GFLOP, {batch} x {size} px"] = each
        slopes = [slope(work, times[engine]) if engine in times else None for engine in (OURS, THEIRS)]
        last = f"{work[0] / 1e9:.1f} to {work[-1] / 1e9:.1f} GFLOP"
        rows.append(Row(f"{name}: slope", "", *slopes, details=last))
        for at, place in (("first", 0), ("last", -1)):
            values = [1e3 * times[engine][place] if engine in times else None for engine in (OURS, THEIRS)]
            rows.append(Row(f"{name}: time of the {at} point", "ms", *values))
    notes = [f"Not installed: {', '.join(missing)}."] if missing else []
    return Report("Growth", THEIRS, rows, found, inference.PACKAGES, notes)


def slope(work: Sequence[float], times: Sequence[float]) -> float:
    """Returns the slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(work), np.log(times), 1)[0])
