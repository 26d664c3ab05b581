"""`keras-bit embed`: pooled features of many images, as Parquet."""

from typing import TYPE_CHECKING

import click

from keras_bit.cli import options
from keras_bit.cli.command import Command
from keras_bit.cli.terminal import note, noting, printable

if TYPE_CHECKING:
    from keras_bit.hub.finding import HubOptions


@click.command(
    cls=Command,
    examples=[
        ("every image below a folder", "keras-bit embed flowers --out features"),
        (
            "a list, into one file, without those that cannot be read",
            "find /disk -name '*.jpg' | keras-bit embed - --out all.parquet --on-error skip 2> skipped.txt",
        ),
    ],
)
@options.data(
    "Directory with images at any depth, text file with a path in each line, or - for such lines on standard input."
)
@options.out(
    "Directory of the shards part-00000-of-00012.parquet ...; or a name that ends in .parquet, for one file; its "
    "shards are in OUT.shards until they are joined.",
    "OUT",
)
@options.weights()
@options.batch_size(32)
@click.option(
    "--shard-size",
    type=options.POSITIVE,
    default=10_000,
    show_default=True,
    metavar="N",
    help="Images in a shard; memory holds their features.",
)
@options.on_error(options.ON_ERROR)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: workers of Ray Data write the same shards.",
)
@click.option(
    "--workers",
    type=options.POSITIVE,
    metavar="N",
    show_default="2",
    help="Number of Ray workers, each with the model.",
)
@options.hub
def embed(
    data: str,
    out: str,
    weights: str,
    batch_size: int,
    shard_size: int,
    on_error: str,
    engine: str,
    workers: int | None,
    hub: "HubOptions",
) -> int:
    """Writes the pooled features of each image as a row of a Parquet file.

    A row has path, label (the first folder below DATA, or null) and features. Every shard is complete or absent, so if
    it is interrupted, the same command continues with the missing ones. Images are turned upright by their orientation
    tag.
    """
    from keras_bit.data.walk import DirectoryWarning
    from keras_bit.embedding import shards

    with noting(DirectoryWarning):
        report = shards.embed(
            data,
            out,
            weights=weights,
            batch_size=batch_size,
            shard_size=shard_size,
            on_error=on_error,
            engine=engine,
            workers=workers,
            **hub.arguments,
        )
    files = "1 file" if len(report.files) == 1 else f"{len(report.files):,} files"
    earlier = f", {report.found:,} images by an earlier run" if report.found else ""
    print(f"{printable(out)}: {files}, {report.rows:,} rows of {report.width:,} features{earlier}")
    for line in report.skipped:
        note(line)
    return int(bool(report.skipped))
