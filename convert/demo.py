"""Runs the main job step by step, with the time of each step: `make demo`.

It converts a PyTorch checkpoint and proves its numbers, classifies photographs, and exports the model as a SavedModel,
which a process without Keras loads and runs. By default it uses the photographs in scikit-image's wheel.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from convert import parity, photographs
from convert.__main__ import MODEL_NAME, convert
from keras_bit import BitImageProcessor, decode_predictions, export, from_pretrained
from keras_bit.hub.finding import HubOptions
from keras_bit.labels import labels_of_checkpoint

RESULTS = {"keras", "saved_model"}
RUN_WITHOUT_KERAS = Path(__file__).with_name("run_saved_model.py")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console(markup=False, emoji=False, highlight=False)  # a path like out[1] is printed as it is
    try:
        return demo(options.source, options.images, options.reference, options.out, console)
    except (OSError, ValueError, ImportError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def demo(source: str, images: Sequence[Path], golden: Path | None, out: Path, console: Console) -> int:
    """Runs every step, prints the summary and returns the exit code; the arguments are those of the command."""
    files = photographs.find(images)
    _remove_earlier_results(out)
    steps: list[tuple[str, str, float]] = []

    with _timed(steps, "convert and prove") as result:
        rows = convert(source, out / "keras", golden, files, HubOptions(), console)
        worst = max(row.relative for row in rows)
        result.append(
            f"{len(rows)} outputs compared, largest relative difference {worst:.1e} (limit {parity.LIMIT:.0e})"
        )
    if not all(row.passed for row in rows):
        return 1

    with _timed(steps, "load the Keras model") as result:
        model = from_pretrained(out / "keras" / MODEL_NAME)
        processor = BitImageProcessor.from_pretrained(out / "keras")
        result.append(
            f"{model.count_params():,} parameters, {(out / 'keras' / MODEL_NAME).stat().st_size / 1e6:.1f} MB"
        )

    with _timed(steps, "classify photographs") as result:
        pixels = processor(files)
        scores = model.predict(pixels, verbose=0)
        result.append(f"{len(files)} photographs at {pixels.shape[1]}x{pixels.shape[2]} px")
    console.print(_predictions(files, scores, labels_of_checkpoint(model.config.id2label)))

    with _timed(steps, "export a SavedModel") as result:
        report = export(model, out / "saved_model", processor=processor)
        result.append(f"{report.path}, {report.bytes / 1e6:.1f} MB")

    with _timed(steps, "run it without Keras") as result:
        difference = _difference_without_keras(report.path, files, scores)
        result.append(f"TensorFlow alone, from the files' bytes: largest difference {difference:.1e}")

    console.print(_summary(steps))
    if not difference <= parity.LIMIT:
        print(f"demo: the SavedModel differs from the model by {difference:.1e}", file=sys.stderr)
        return 1
    return 0


def _remove_earlier_results(out: Path) -> None:
    """Empties `out` if it only holds results of an earlier demo; otherwise raises a `FileExistsError`."""
    found = {entry.name for entry in out.iterdir()} if out.exists() else set()
    if strange := sorted(found - RESULTS):
        raise FileExistsError(f"`--out` {out} holds {strange[0]}, which no demo wrote. Choose another directory.")
    if found:
        shutil.rmtree(out)


@contextmanager
def _timed(steps: list[tuple[str, str, float]], name: str) -> Iterator[list[str]]:
    result: list[str] = []
    started = time.perf_counter()
    yield result
    steps.append((name, " ".join(result), time.perf_counter() - started))


def _difference_without_keras(saved_model: Path, files: Sequence[Path], scores: np.ndarray) -> float:
    """Runs the SavedModel in a new process without Keras; returns the largest difference from `scores`."""
    command = [sys.executable, str(RUN_WITHOUT_KERAS), str(saved_model), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"})
    if done.returncode:
        raise ValueError(f"the SavedModel does not run: {done.stderr.strip().splitlines()[-1]}")
    return float(np.abs(np.array(json.loads(done.stdout)) - scores).max())


def _predictions(files: Sequence[Path], scores: np.ndarray, labels: Mapping[int, str] | None) -> Table:
    table = Table(title="what the Keras model sees", title_justify="left")
    table.add_column("photograph")
    for place in ("first", "second", "third"):
        table.add_column(place)
    for file, found in zip(files, decode_predictions(scores, 3, labels=labels), strict=True):
        table.add_row(file.name, *(f"{label} {score:.2f}" for _, label, score in found))
    return table


def _summary(steps: Sequence[tuple[str, str, float]]) -> Table:
    table = Table(title="what was done", title_justify="left")
    table.add_column("step", no_wrap=True)
    table.add_column("result")
    table.add_column("seconds", justify="right")
    for name, result, seconds in steps:
        table.add_row(name, result, f"{seconds:.1f}")
    table.add_section()
    table.add_row("all of it", "", f"{sum(seconds for _, _, seconds in steps):.1f}")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convert.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE", help="Hub id or directory of a PyTorch checkpoint")
    parser.add_argument("images", nargs="*", type=Path, metavar="PHOTOGRAPHS", help="files, or a folder of them")
    parser.add_argument(
        "--reference", type=Path, metavar="GOLDEN.npz", help="compare with this golden file, without torch"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        metavar="DIR",
        help="directory for the results; replaces those of an earlier demo (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
