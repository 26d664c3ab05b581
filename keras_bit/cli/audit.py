"""`keras-bit audit`: labels that are probably wrong, duplicate images, and odd files."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_bit.cli import options
from keras_bit.cli.command import Command
from keras_bit.cli.terminal import console, note, printable, processor_or_bits, shown, working

if TYPE_CHECKING:
    from keras_bit.hub.finding import HubOptions

SHARDS = "features"  # in --out: the state of an interrupted audit


@click.command(
    cls=Command,
    examples=[
        ("look at audited/audit.html in a browser", "keras-bit audit flowers --out audited"),
        (
            "then edit the column exclude of audited/audit.csv, and train without these images",
            "keras-bit finetune flowers --out flowers-bit --exclude audited/audit.csv",
        ),
        (
            "with a checkpoint that was trained on such images",
            "keras-bit audit flowers --out audited --weights flowers-bit",
        ),
    ],
)
@options.data("Directory with a folder per class, also below train/ and val/ or test/.")
@options.out(
    "Directory for audit.html, audit.csv and audit.json, and for the state of an interrupted audit.",
    "DIR",
)
@options.weights(f"{options.SOURCE}; without a preprocessor_config.json, images are prepared as for google/bit-50.")
@options.batch_size(32)
@options.seed("Seed of the random division of the images for the label check.", default=0)
@options.json()
@options.hub
def audit(data: str, out: str, weights: str, batch_size: int, seed: int, as_json: bool, hub: "HubOptions") -> int:
    """Finds mistakes in a data set, by the network's features and by the files.

    It finds labels that are probably wrong, exact and near duplicates, training images that are also in the test data,
    outliers, files that cannot be read or are odd (stored turned, tiny, gray, CMYK, transparent, animated, of unusual
    shape, blank), and classes with few images. It changes and removes nothing.

    It writes audit.html, which shows the findings with their images, audit.csv, with a row for each, and audit.json.
    `keras-bit finetune --exclude audit.csv` leaves out the images whose column "exclude" is yes. You may edit this
    column. At first it is yes for unreadable files, and for training images that are in the test data, are exact
    duplicates, look the same as one with another label, or have a label that is less than 1 % probable.

    If it is interrupted, the same command continues with the missing images. Needs cleanlab and scikit-learn.
    """
    from keras_bit import packages
    from keras_bit.data import splits
    from keras_bit.examining import audit_report, auditing
    from keras_bit.examining.collecting import collect
    from keras_bit.examining.features import Network, check_in_files
    from keras_bit.files.claims import claimed

    for package in ("sklearn", "cleanlab"):
        packages.require(package, "audit", "An audit")
    options.check_out_directory(out, audit_report.REPORT)
    if Path(data).is_dir() and Path(out).resolve().is_relative_to(Path(data).resolve()):
        raise ValueError(
            f"--out must not be inside the data, where it would become a class, got {out!r} in {data!r}. Choose "
            "another directory."
        )
    found = splits.open_splits(data, validation_share=0.0, seed=0)
    check_in_files(found.train)
    for line in found.notes:
        note(line)
    parts = [("train", found.train)]
    parts += [(name, part) for name, part in (("validation", found.validation), ("test", found.test)) if part]
    if found.validation is found.test:  # the same part if there is only one
        parts = [(name, part) for name, part in parts if name != "validation"]
    with claimed(Path(out) / SHARDS, argument="out"):
        with working(f"loading {weights}"):
            import keras_bit

            model = keras_bit.from_pretrained(weights, include_top=False, pooling="avg", fused=True, **hub.arguments)
        processor = processor_or_bits(weights, hub)
        images = collect(parts, Network(model, processor, batch_size), Path(out) / SHARDS)
        audited = auditing.audit(images, found.class_names, seed=seed)
        rows = audit_report.rows(audited, data)
        report = {
            "weights": shown(weights),
            "data": os.path.normpath(data),
            **audit_report.described(audited, rows),
        }
        files = audit_report.write(report, audited, out, processor.orientation)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _print_table(report, f"{shown(weights)} on {data}")
    for file in files:
        print(printable(str(file)), file=sys.stderr if as_json else sys.stdout)
    for row in rows:
        if row["kind"] == "unreadable":
            note(row["detail"])
    return int(report["kinds"]["unreadable"] > 0)


def _print_table(report: dict[str, Any], title: str) -> None:
    from rich.table import Table

    from keras_bit.examining.findings import KINDS

    table = Table(title=printable(title), title_justify="left")
    table.add_column("finding")
    table.add_column("images", justify="right")
    table.add_column("excluded", justify="right")
    for kind, number in report["kinds"].items():
        if number:
            excluded = sum(row["exclude"] for row in report["findings"] if row["kind"] == kind)
            table.add_row(KINDS[kind].heading, f"{number:,}", f"{excluded:,}")
    if table.row_count:
        console().print(table)
    else:
        console().print("The audit found no mistakes.")
    for line in report["notes"]:
        console().print(printable(line), soft_wrap=True)
    count = sum(report["images"].values())
    console().print(
        f"audit.csv excludes {report['excluded']:,} of {count:,} images. Edit its column exclude to change that."
    )
