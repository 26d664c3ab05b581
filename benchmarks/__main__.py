"""Measures keras_bit beside its peers and prints a table of medians.

    python -m benchmarks loading                        every part has its own --help
    python -m benchmarks loading --out loading.json     and every single number as JSON
    python -m benchmarks loading --chart loading.png    and the table as bars
    python -m benchmarks loading --markdown docs/explanation/performance.md    and into the page that shows it

The peers are optional (`pip install -e '.[reference]'` brings torch and transformers); without them their column stays
empty. Exit codes: 0 measured and every target met, 1 a target missed or an error, 2 wrong usage.
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
    """A row of the table of parts: its name on the command line, which is its module's, and what it measures."""

    name: str
    help: str


PARTS = (
    Part("audit", "what an audit of a data set finds of planted errors, and its time"),
    Part("distillation", "a small student of a teacher: by labels, by the teacher, and with unlabeled images"),
    Part("loading", "time and memory that loading takes, and the time from process start to the first label"),
    Part("finetuning", "losses and accuracies of fine-tuning beside transformers, and few-shot learning"),
    Part("gpu", "inference and a training step on a GPU, by JAX, beside transformers and timm"),
    Part("growth", "how the time grows with the network, the batch and the image, as log-log slopes"),
    Part("inference", "time and memory of Keras, SavedModel and TFLite beside PyTorch, onnxruntime and OpenVINO"),
    Part("preprocessing", "images per second from JPEG files to normalized batches"),
    Part("processors", "TensorFlow's oneDNN kernels off and on, on this processor and on one without AVX-512"),
    Part("recipes", "each option of Recipe against the rule alone, on small sets of CIFAR-10"),
    Part("serving", "an exported SavedModel under load: right answers, named faults, flat memory"),
    Part("tflite", "accuracy, size and latency of TFLite's modes, of a trained network and of BiT-50"),
    Part("training", "time and memory of a training step beside transformers, and the wait for the first"),
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
        command.add_argument("--out", type=Path, metavar="FILE", help="write every measurement as JSON")
        command.add_argument("--chart", type=Path, metavar="FILE", help="draw the table as a PNG (needs matplotlib)")
        command.add_argument(
            "--markdown", type=Path, metavar="PAGE", help="write the table into a page, in place of the last one"
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
    """The arguments without those that name files to be written."""
    writes = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--out", "--chart", "--markdown"):
        writes.add_argument(name)
    return writes.parse_known_args(arguments)[1]


if __name__ == "__main__":
    sys.exit(main())
