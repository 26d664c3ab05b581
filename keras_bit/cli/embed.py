"""`keras-bit embed`: pooled features of many images, as Parquet."""

import argparse
import sys
from typing import Any

from keras_bit.cli.arguments import DEFAULT_WEIGHTS, add_hub_arguments, hub_arguments, positive
from keras_bit.cli.terminal import printable


def add(commands: Any) -> None:
    command = commands.add_parser(
        "embed",
        help="pooled features of many images, as Parquet",
        description="Writes a row for each image: path, label (the first folder below DATA, or null) and features, "
        "what the network sees in it before its head. In shards, which are there whole or not at all: interrupted or "
        "killed, the same command goes on with those that are missing, however many images there are. Images are "
        "read as they are stored: orientation tags are ignored.",
        epilog="Examples: keras-bit embed flowers --out features; find /disk -name '*.jpg' | keras-bit embed - --out "
        "features.parquet --on-error skip 2> skipped.txt",
    )
    command.add_argument(
        "data",
        metavar="DATA",
        help="directory with images at any depth, or text file with a path in each line, or - for such lines on "
        "standard input",
    )
    command.add_argument(
        "--out",
        required=True,
        metavar="OUT",
        help="directory of the shards part-00000-of-00012.parquet ...; a name that ends in .parquet is one file, whose "
        "shards are in OUT.shards until they are joined",
    )
    command.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        metavar="SOURCE",
        help="Hub id, directory or file of a checkpoint with its preprocessor_config.json (default: %(default)s)",
    )
    command.add_argument("--batch-size", type=positive, default=32, metavar="N", help="images at a time (default: 32)")
    command.add_argument(
        "--shard-size",
        type=positive,
        default=10_000,
        metavar="N",
        help="images in a shard, whose features are in memory (default: 10000)",
    )
    command.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="at an image that cannot be read: end (default), or leave it out, with a line for each and exit code 1",
    )
    command.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: workers of Ray Data write the shards, the same ones (default: local)",
    )
    command.add_argument("--workers", type=positive, metavar="N", help="of Ray, each with the model (default: 2)")
    add_hub_arguments(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from keras_bit.embedding.shards import embed

    report = embed(
        options.data,
        options.out,
        weights=options.weights,
        batch_size=options.batch_size,
        shard_size=options.shard_size,
        on_error=options.on_error,
        engine=options.engine,
        workers=options.workers,
        **hub_arguments(options),
    )
    files = "1 file" if len(report.files) == 1 else f"{len(report.files):,} files"
    earlier = f", {report.found:,} images by an earlier run" if report.found else ""
    print(f"{printable(options.out)}: {files}, {report.rows:,} rows of {report.width:,} features{earlier}")
    for line in report.skipped:
        print(f"keras-bit embed: {printable(line)}", file=sys.stderr)
    return int(bool(report.skipped))
