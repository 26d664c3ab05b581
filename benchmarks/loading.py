"""Measures how long loading a BiT takes and how much memory, compared with transformers on the same checkpoint.

The checkpoint is made here, with random weights. Every measurement has a process of its own. Files come from the page
cache, because they have just been written.

imports       `import tensorflow, keras` for keras_bit, `import torch, transformers` for transformers
load          from a directory to a model, after the imports. transformers maps its file into memory and reads a weight
              only when it is used. So another row gives the time until every weight was read once
new memory    the time to write as many bytes as the file has to memory that the process has not used before. This
              memory is then given back, and the model is loaded into it. In a virtual machine whose host hands out
              memory page by page, this can take longer than everything else, whichever library loads. A user of such
              a machine waits for the load and for this
peak          the most memory that the process used from the start of the loading (VmHWM of /proc/self/status), until
              every weight was read once. It includes the imports and the pages of mapped files. Another row gives what
              was added after the imports
first label   from the start of the process until it prints the label of one image: by `keras-bit classify` for
              keras_bit, by AutoImageProcessor and BitForImageClassification for transformers
"""

import argparse
import importlib.util
import json
import mmap
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.processes import memory, peak_memory, rounds_of, since_start
from benchmarks.report import Report, Row

if TYPE_CHECKING:
    from keras_bit.network.config import BitConfig

LOAD_LIMIT = 0.4  # time of loading R50, divided by that of `import tensorflow, keras` in the same process
PEAK_LIMIT = 1.25  # peak memory of R152x4, divided by the size of its file
SMALL_LIMIT, LARGE_LIMIT = 0.5, 6.0  # s from a directory to a model, for R50 and R152x4, on two cores
GROWTH_LIMIT = 1.2  # peak memory of R152x4 without the imports, divided by the size of its file
LABEL_LIMIT = 1.0  # time to the first label, divided by transformers'
PACKAGES = ("keras_bit", "tensorflow", "keras", "numpy", "safetensors", "torch", "transformers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=_count, default=5, metavar="N", help="processes of each case for R50 (default: 5)"
    )
    parser.add_argument(
        "--large-rounds",
        type=_count,
        default=1,
        metavar="N",
        help="the same for R152x4, which takes 3.75 GB in TMPDIR and 5 GB of memory; 0 leaves it out (default: 1)",
    )
    parser.add_argument("--photo", type=Path, metavar="FILE", help="image to classify (default: a generated one)")
    parser.add_argument(
        "--peer-python",
        metavar="FILE",
        help="Python interpreter of an environment with torch and transformers (default: this one). Keep it separate: "
        "TensorFlow and Keras also import JAX, pandas, matplotlib and scikit-learn if these are installed",
    )


def run(options: argparse.Namespace) -> Report:
    from keras_bit.network.config import PUBLISHED

    return measure(
        PUBLISHED["BiT50"],
        PUBLISHED["BiT152x4"],
        rounds=options.rounds,
        large_rounds=options.large_rounds,
        photo=options.photo,
        peer_python=options.peer_python,
    )


def measure(
    small: "BitConfig",
    large: "BitConfig",
    *,
    rounds: int,
    large_rounds: int,
    photo: Path | None = None,
    image_size: int = 448,
    peer_python: str | None = None,
) -> Report:
    """Measures the loading of two networks; the limits are for R50 and R152x4.

    Args:
        small: config of the network whose times are measured.
        large: config of the network whose memory is measured.
        rounds: how many processes measure each case of `small`.
        large_rounds: the same for `large`; 0 leaves it out.
        photo: image to classify; `None` generates one.
        image_size: size of the processor, in px.
        peer_python: Python interpreter that has the peer; `None` is this one.
    """
    from benchmarks import checkpoints

    if rounds < 1:
        raise ValueError(f"`rounds` must be at least 1, got {rounds}.")
    if photo is not None and not photo.is_file():
        raise FileNotFoundError(f"`photo` {photo} is not a file.")
    peers = ["keras_bit"]
    if peer_python or all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        peers.append("transformers")
    measured = ("load small", "first label", "load large")
    pythons = {f"{case}, transformers": peer_python for case in measured} if peer_python else {}
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        folder = checkpoints.write(Path(scratch, "small"), small, image_size)
        image = photo or checkpoints.write_image(Path(scratch, "image.jpg"))
        cases = {f"load small, {peer}": _case("load", peer, folder) for peer in peers}
        cases |= {f"first label, {peer}": _case("label", peer, folder, image.resolve()) for peer in peers}
        found = rounds_of(cases, rounds, pythons)
        if large_rounds:
            folder = checkpoints.write(Path(scratch, "large"), large, image_size)
            cases = {f"load large, {peer}": _case("load", peer, folder) for peer in peers}
            found |= rounds_of(cases, large_rounds, pythons)
    notes = [] if len(peers) == 2 else ["torch and transformers are not installed: pip install -e '.[reference]'"]
    return Report("Loading", "transformers", rows(found), found, PACKAGES, notes)


def rows(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Row]:
    """Returns the medians of what the processes measured."""

    def median(case: str, peer: str, value: Callable[[Mapping[str, Any]], float]) -> float | None:
        measured = found.get(f"{case}, {peer}")
        return None if not measured else statistics.median(map(value, measured))

    def row(name: str, unit: str, case: str, value: Callable[[Mapping[str, Any]], float], **limit: float) -> Row:
        return Row(name, unit, median(case, "keras_bit", value), median(case, "transformers", value), **limit)

    def growth(one: Mapping[str, Any]) -> float:
        return (one["peak"] - one["before"]) / one["file"]

    def loaded(network: str, case: str, limit: float) -> list[Row]:
        return [
            row(f"{network}: build and load", "s", case, lambda one: one["load"], limit=limit),
            row(f"{network}: loading speed", "MB/s", case, lambda one: one["file"] / one["load"] / 1e6),
            row(f"{network}: build, load and read every weight", "s", case, lambda one: one["load"] + one["touch"]),
        ]

    shown = [
        row("R50: imports", "s", "load small", lambda one: one["imports"]),
        Row(
            "R50: import of keras_bit after the other imports",
            "s",
            median("load small", "keras_bit", lambda one: one["own_import"]),
        ),
        *loaded("R50", "load small", SMALL_LIMIT),
        row(
            "R50: build and load / imports",
            "",
            "load small",
            lambda one: one["load"] / one["imports"],
            limit=LOAD_LIMIT,
        ),
        row("R50: process start to first label", "s", "first label", lambda one: one["label"]),
        row("R50: imports before the first label", "s", "first label", lambda one: one["imports"]),
        row("R50: first label after the imports", "s", "first label", lambda one: one["label"] - one["imports"]),
    ]
    labeled = [median("first label", peer, lambda one: one["label"]) for peer in ("keras_bit", "transformers")]
    if all(labeled):
        ratio = labeled[0] / labeled[1]
        shown.append(Row("R50: process start to first label / transformers", "", ratio, None, LABEL_LIMIT))
    if "load large, keras_bit" in found:
        shown += [
            row("R152x4: writing the file's size to new memory", "s", "load large", lambda one: one["new_memory"]),
            *loaded("R152x4", "load large", LARGE_LIMIT),
            row("R152x4: memory after the imports", "GB", "load large", lambda one: one["before"] / 1e9),
            row("R152x4: peak memory", "GB", "load large", lambda one: one["peak"] / 1e9),
            row(
                "R152x4: peak memory / size of the file",
                "",
                "load large",
                lambda one: one["peak"] / one["file"],
                limit=PEAK_LIMIT,
            ),
            row(
                "R152x4: peak memory beyond the imports / size of the file",
                "",
                "load large",
                growth,
                limit=GROWTH_LIMIT,
            ),
        ]
    return shown


# What a process of its own runs: `python -m benchmarks.loading MEASUREMENT PEER FOLDER [IMAGE]`.


def _case(measurement: str, peer: str, *paths: Path) -> list[str]:
    return ["benchmarks.loading", measurement, peer, *map(str, paths)]


def write_new_memory(folder: str) -> float:
    """Writes as many bytes as the folder's weights have and gives them back; returns the seconds that this took.

    The peak memory does not include these bytes.
    """
    size = Path(folder, "model.safetensors").stat().st_size
    start = time.perf_counter()
    with mmap.mmap(-1, size) as new:
        for begin in range(0, size, mmap.PAGESIZE):
            new[begin] = 1
    taken = time.perf_counter() - start
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    return taken


def load_keras_bit(folder: str) -> dict[str, float]:
    start = time.perf_counter()
    import keras
    import tensorflow  # noqa: F401 - what every user of keras_bit waits for

    imported = time.perf_counter()
    import keras_bit

    own_import, new_memory = time.perf_counter() - imported, write_new_memory(folder)
    ready, before = time.perf_counter(), memory()
    model = keras_bit.from_pretrained(folder)
    loaded = time.perf_counter()
    for variable in model.weights:
        float(keras.ops.sum(variable))
    touched = time.perf_counter()
    return {
        "imports": imported - start,
        "own_import": own_import,
        "new_memory": new_memory,
        "load": loaded - ready,
        "touch": touched - loaded,
        "before": before,
    }


def load_transformers(folder: str) -> dict[str, float]:
    start = time.perf_counter()
    import torch  # noqa: F401
    from transformers import BitForImageClassification

    imports, new_memory = time.perf_counter() - start, write_new_memory(folder)
    ready, before = time.perf_counter(), memory()
    model = BitForImageClassification.from_pretrained(folder)
    loaded = time.perf_counter()
    for parameter in model.parameters():
        float(parameter.sum())
    touched = time.perf_counter()
    return {
        "imports": imports,
        "new_memory": new_memory,
        "load": loaded - ready,
        "touch": touched - loaded,
        "before": before,
    }


def label_keras_bit(folder: str, image: str) -> dict[str, float]:
    start = time.perf_counter()
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    imports = time.perf_counter() - start
    from keras_bit.cli import main

    if status := main.main(["classify", image, "--weights", folder, "--top", "1"]):
        raise SystemExit(status)
    return {"imports": imports, "label": since_start()}


def label_transformers(folder: str, image: str) -> dict[str, float]:
    start = time.perf_counter()
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, BitForImageClassification

    imports = time.perf_counter() - start
    model = BitForImageClassification.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        logits = model(**processor(Image.open(image), return_tensors="pt")).logits
    print(model.config.id2label[int(logits.argmax())])
    return {"imports": imports, "label": since_start()}


MEASUREMENTS = {
    ("load", "keras_bit"): load_keras_bit,
    ("load", "transformers"): load_transformers,
    ("label", "keras_bit"): label_keras_bit,
    ("label", "transformers"): label_transformers,
}


def main(arguments: Sequence[str]) -> None:
    measurement, peer, folder, *rest = arguments
    measured = MEASUREMENTS[measurement, peer](folder, *rest)
    measured["peak"] = peak_memory()
    measured["file"] = Path(folder, "model.safetensors").stat().st_size
    print(json.dumps(measured))


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main(sys.argv[1:])
