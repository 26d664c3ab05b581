"""The command-line arguments that several benchmarks have: the data set and the checkpoint."""

import argparse
from pathlib import Path

CHECKPOINT = Path(__file__).resolve().parent.parent / "tests" / "checkpoints" / "bit-tiny-cifar10"
SPLIT = "data set with train/<class>/ and test/<class>/, such as CIFAR-10"


def add_data(parser: argparse.ArgumentParser, described: str = SPLIT) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help=described)


def add_weights(parser: argparse.ArgumentParser, described: str) -> None:
    parser.add_argument(
        "--weights", default=str(CHECKPOINT), metavar="SOURCE", help=f"{described} (default: bit-tiny-cifar10)"
    )
