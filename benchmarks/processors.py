"""Measures TensorFlow with oneDNN kernels off and on, with and without AVX-512, compared with transformers: R50x1.

TensorFlow turns these kernels on by itself only if the processor has AVX-512 or better. Every process measures one case
with the kernels off (`TF_ENABLE_ONEDNN_OPTS=0`) or on (`1`), and the cases take turns. To imitate a processor without
AVX-512, oneDNN, PyTorch's own kernels, MKL and XLA are limited to AVX2. TensorFlow's other kernels use no more anyway.
A row "the faster setting / transformers" is the time with the faster setting divided by that of transformers.

The commands of keras_bit choose by this table: see `keras_bit/cli/kernels.py`.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import rounds_of
from benchmarks.report import Report, Row

PACKAGES = ("keras_bit", "tensorflow", "keras", "torch", "transformers")
HERE, AVX2 = "this processor", "AVX2"
ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {
    HERE: {},
    AVX2: {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    },
}
SWITCH = "TF_ENABLE_ONEDNN_OPTS"
# What is measured: images in a batch, the engine of keras_bit, and the peers, of which the faster one is compared.
EAGER = ("transformers", "transformers, channels_last")
CALLS = (
    (1, "direct call, fused", EAGER),
    (1, "compiled, fused", EAGER),
    (1, "compiled", EAGER),
    (1, "predict", EAGER),
    (8, "compiled, fused", EAGER),
    (8, "compiled", EAGER),
    (32, "predict", EAGER),
    (1, "SavedModel", EAGER),
)
STEP = "training step"
STEP_PEER = "transformers, channels_last"
STEP_LIMIT = 0.95  # our step divided by transformers', on both kinds of processor
CALL_LIMIT = 1.0  # our call divided by the faster eager one of transformers
IMAGE_SIZE = 224  # px, of calls
STEP_BATCH, STEP_SIZE = 16, 128  # images, px


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="processes of each case (default: 3)")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="calls in each process (default: 20)")
    parser.add_argument("--steps", type=int, default=6, metavar="N", help="training steps in each process (default: 6)")
    parser.add_argument(
        "--processor",
        action="append",
        choices=ENVIRONMENTS,
        metavar="NAME",
        help=f"{HERE!r} or {AVX2!r} (default: both)",
    )


def run(options: argparse.Namespace) -> Report:
    from keras_bit.network.config import PUBLISHED

    return measure(
        PUBLISHED["BiT50"],
        options.processor or list(ENVIRONMENTS),
        rounds=options.rounds,
        runs=options.runs,
        steps=options.steps,
    )


def measure(
    config: Any, processors: Sequence[str], *, rounds: int, runs: int, steps: int, calls: Sequence[Any] = CALLS
) -> Report:
    """Measures `calls` and a training step on each of `processors`, with the kernels off and on.

    The targets are for R50x1.
    """
    from benchmarks import checkpoints, inference

    if min(rounds, runs, steps) < 1:
        raise ValueError(f"`rounds`, `runs` and `steps` must be at least 1, got {rounds}, {runs} and {steps}.")
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        folder = Path(scratch)
        checkpoints.write(folder / "checkpoint", config, IMAGE_SIZE)
        arguments: dict[str, list[str]] = {}
        for batch_size in dict.fromkeys(size for size, *_ in calls):
            engines = [name for size, name, _ in calls if size == batch_size]
            peers = dict.fromkeys(peer for size, _, peers in calls if size == batch_size for peer in peers)
            taken = inference.cases(
                config, folder, batch_size, IMAGE_SIZE, [*engines, *([] if missing else peers)], runs
            )
            taken.pop(inference.PEAK)
            arguments |= {f"{batch_size} x {name}": case for name, case in taken.items()}
        numbers = [str(number) for number in (STEP_BATCH, STEP_SIZE, steps)]
        for name in ("keras_bit", *([] if missing else [STEP_PEER])):
            arguments[f"{STEP} x {name}"] = ["benchmarks.training", name, str(folder / "checkpoint"), *numbers]
        cases, environments = {}, {}
        for processor in processors:
            for name, case in arguments.items():
                theirs = name.split(" x ")[1].startswith("transformers")
                for switch in ("-",) if theirs else ("off", "on"):
                    key = f"{processor}: {name}: {switch}"
                    cases[key] = case
                    given = {} if theirs else {SWITCH: str(int(switch == "on"))}
                    environments[key] = {**ENVIRONMENTS[processor], **given}
        found = rounds_of(cases, rounds, environments=environments)
    for measured in found.values():
        for one in measured:
            one.pop("logits", None)
    notes = [f"Not installed: {', '.join(missing)}."] if missing else []
    notes.append(f"Fastest of {rounds} processes with up to {runs} calls or {steps} steps each, of medians.")
    return Report(
        "TensorFlow's oneDNN kernels: on, and off", "off", rows(found, processors, calls), found, PACKAGES, notes
    )


def rows(
    found: Mapping[str, Sequence[Mapping[str, Any]]], processors: Sequence[str], calls: Sequence[Any]
) -> list[Row]:
    """Returns a row for each call and for the step, and one for each target whose times were measured."""

    def milliseconds(key: str) -> float | None:
        return min((1e3 * one["median"] for one in found.get(key, ())), default=None)

    shown, targets = [], []
    for processor in processors:
        for name, peers, limit in [
            *(
                (f"{size} x {engine}", [f"{size} x {peer}" for peer in peers], CALL_LIMIT)
                for size, engine, peers in calls
            ),
            (f"{STEP} x keras_bit", [f"{STEP} x {STEP_PEER}"], STEP_LIMIT),
        ]:
            on, off = (milliseconds(f"{processor}: {name}: {switch}") for switch in ("on", "off"))
            times = [time for peer in peers if (time := milliseconds(f"{processor}: {peer}: -")) is not None]
            details = f"transformers {min(times):.0f} ms" if times else ""
            shown.append(Row(f"{processor}: {name}", "ms", on, off, details=details))
            if times and on is not None and off is not None:
                ratio = min(on, off) / min(times)
                targets.append(Row(f"{processor}: {name}, the faster setting / transformers", "", ratio, None, limit))
    return [*shown, *targets]
