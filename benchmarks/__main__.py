"""Compares keras_bit with other libraries (its peers) and prints a table of medians.

    python -m benchmarks loading                        every part has its own --help
    python -m benchmarks loading --out loading.json     also writes every single measurement as JSON
    python -m benchmarks loading --chart loading.png    also draws the table as bars
    python -m benchmarks loading --markdown docs/explanation/performance.md    also writes the table into that page

The peers are optional (`pip install -e '.[reference]'` installs torch and transformers). The column of a missing peer
stays empty. Exit codes: 0 if it measured and met every target, 1 for a missed target or an error, 2 for wrong usage.
"""

import argparse
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import chart, markdown, report
from keras_bit.files import writing


@dataclasses.dataclass(frozen=True)
class Part:
    """One part: what it measures, and its name on the command line, which is also the name of its module."""

    name: str
    help: str


PARTS = (
    Part("audit", "how many planted errors an audit of a data set finds, and how long it takes"),
    Part("distillation", "a small student that learns from labels, from a teacher, and from unlabeled images"),
    Part("loading", "time and memory of loading a model, and the time from process start to the first label"),
    Part("finetuning", "losses and accuracies of fine-tuning compared with transformers, and few-shot learning"),
    Part("gpu", "inference and a training step with JAX on a GPU, compared with transformers and timm"),
    Part("growth", "how the time of a call grows with the network, the batch and the image, as log-log slopes"),
    Part("inference", "time and memory of Keras and exports, compared with PyTorch, onnxruntime and OpenVINO"),
    Part("preprocessing", "images per second from JPEG files to normalized batches"),
    Part("processors", "TensorFlow with oneDNN kernels off and on, on this processor and as if it had no AVX-512"),
    Part("recipes", "each option of Recipe compared with the BiT-HyperRule, on small sets of CIFAR-10"),
    Part("serving", "an exported SavedModel under load: whether answers and refusals are right and memory is stable"),
    Part("tflite", "accuracy, size and latency of each TFLite mode, for a small trained network and BiT-50"),
    Part("training", "time and memory of a training step compared with transformers, and the wait for the first step"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__.split("\n\n")[0],
        epilog=__doc__.split("\n\n")[-1],
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for part in PARTS:
        module = importlib.import_module(f"benchmarks.{part.name}")
        command = parts.add_parser(
            part.name, help=part.help, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(command)
        command.add_argument("--out", type=Path, metavar="FILE", help="write every single measurement to FILE, as JSON")
        command.add_argument(
            "--chart", type=Path, metavar="FILE", help="draw the table to FILE, as PNG (needs matplotlib)"
        )
        command.add_argument(
            "--markdown", type=Path, metavar="PAGE", help="write the table into PAGE, replacing the last one"
        )
        command.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    console = Console(markup=False, emoji=False, highlight=False)
    try:
        for name, file in (("out", options.out), ("chart", options.chart), ("markdown", options.markdown)):
            if file is not None and not file.absolute().parent.is_dir():
                raise FileNotFoundError(f"`--{name}` {file} is in no directory. Make {file.parent} first.")
            if file is not None:
                writing.check_writable(file)
        found = options.run(options)
        console.print(report.table(found))
        for note in found.notes:
            console.print(note, soft_wrap=True)
        if options.out is not None:
            with writing.replacing(options.out) as beside:
                beside.write_text(json.dumps(report.to_dict(found), indent=2) + "\n", encoding="utf-8")
            console.print(f"wrote {options.out}", soft_wrap=True)
        if options.chart is not None:
            chart.draw(found, options.chart)
            console.print(f"wrote {options.chart}", soft_wrap=True)
        if options.markdown is not None:
            markdown.insert(found, _measured(sys.argv[1:] if arguments is None else arguments), options.markdown)
            console.print(f"wrote {options.markdown}", soft_wrap=True)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        print(f"benchmarks {options.part}: {error}", file=sys.stderr)
        return 1
    return 0 if all(row.met for row in found.rows) else 1


def _measured(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments without those that name files to write."""
    writes = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--out", "--chart", "--markdown"):
        writes.add_argument(name)
    return writes.parse_known_args(arguments)[1]


if __name__ == "__main__":
    sys.exit(main())
