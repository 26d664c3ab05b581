"""Plants errors among CIFAR-10's 10,000 test images. Measures what `keras-bit audit` finds of them, and its time.

8,000 of the images become training images and 2,000 become test images. A seed chooses the errors. 5 % of the images
get a wrong label. Copies of training images, 1 % exact and 1 % encoded again (as JPEG of quality 90, 75 or 50, or as
WebP of quality 80), are added to the training images. So are copies of test images, 1 %, half of them encoded again.

label errors  The audit ranks all images by the quality of their labels. The rows show the area under the ROC curve,
              and the share of wrong labels among the first images of this ranking, as many as were planted. They also
              show which share of the images that the audit lists or excludes for their labels has a wrong label.
duplicates    Two rows show the share of the planted copies that the audit found, and the share of planted copies
              among the pairs that it found. Pairs in `NATURAL` do not count: CIFAR-10 itself has these duplicates.
time          The time of the command, with its start and its report: by the clock, and as processor time.
"""

import argparse
import dataclasses
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import arguments
from benchmarks.processes import environment
from benchmarks.report import Report, Row

WRONG, COPIES = 0.05, 0.01  # shares of the images
TEST_SHARE = 5  # every fifth image is for testing
ENCODINGS: tuple[tuple[str, dict[str, int]], ...] = (
    ("jpeg", {"quality": 90}),
    ("jpeg", {"quality": 75}),
    ("jpeg", {"quality": 50}),
    ("webp", {"quality": 80}),
)
KINDS = ("exact_duplicate", "near_duplicate", "leak")
AUROC, PRECISION, FOUND, TRUE, MINUTES = 0.95, 0.8, 0.99, 0.99, 5.0
PACKAGES = ("keras_bit", "tensorflow", "keras", "numpy", "scikit-learn", "cleanlab")
# Each pair (class/file) is the same photograph, cropped, colored or compressed in another way: checked by eye.
NATURAL = (
    ("airplane/0164.jpg", "airplane/0505.jpg"),
    ("airplane/0511.jpg", "airplane/0955.jpg"),
    ("airplane/0635.jpg", "airplane/0957.jpg"),
    ("airplane/0734.jpg", "airplane/0981.jpg"),
    ("airplane/0782.jpg", "airplane/0840.jpg"),
    ("automobile/0293.jpg", "automobile/0598.jpg"),
    ("automobile/0363.jpg", "automobile/0472.jpg"),
    ("dog/0269.jpg", "dog/0595.jpg"),
    ("dog/0296.jpg", "dog/0415.jpg"),
    ("frog/0498.jpg", "frog/0886.jpg"),
    ("horse/0236.jpg", "horse/0547.jpg"),
    ("horse/0565.jpg", "horse/0894.jpg"),
    ("ship/0386.jpg", "ship/0496.jpg"),
)
TILE = 96  # px, the side of an image on the sheet


@dataclasses.dataclass(frozen=True)
class Planted:
    """The planted errors.

    Args:
        sources: path of each image in the data set, to the class and file name of its original.
        wrong: paths of all images, copies included, whose folder is not their class.
        copies: path of each copy, and path of the image that it is a copy of.
    """

    sources: dict[str, str]
    wrong: frozenset[str]
    copies: tuple[tuple[str, str], ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_data(parser, "folder with a folder for each class, such as test/ of CIFAR-10")
    arguments.add_weights(parser, "checkpoint that the audit uses")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the errors (default: %(default)s)")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="draw the found pairs that were not planted to FILE, as PNG"
    )


def run(options: argparse.Namespace) -> Report:
    return measure(options.data, options.weights, seed=options.seed, sheet=options.sheet)


def measure(data: Path, weights: str, *, seed: int = 0, sheet: Path | None = None) -> Report:
    """Plants errors, audits the images, and counts what the audit found.

    Args:
        data: folder with a folder for each class.
        weights: checkpoint that the audit uses.
        seed: seed of the errors.
        sheet: PNG file in which to draw the found pairs that were not planted.
    """
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        planted = plant(data, Path(folder) / "data", seed)
        wall, processors = _command(Path(folder) / "data", Path(folder) / "out", weights)
        names, quality, rows = _audited(Path(folder) / "data", Path(folder) / "out", weights)
    ranked, auroc = ranking(names, quality, planted)
    pairs = [(row["image"], row["other_image"]) for row in rows if row["kind"] in KINDS]
    found, missed, natural, others = sorted_out(pairs, planted)
    if sheet is not None:
        _draw([*natural, *others], data, sheet)
    images = len(planted.sources)
    wrong = len(planted.wrong)
    true = len(pairs) - len(natural) - len(others)
    measurements = {"auroc": auroc, "first": ranked, "wall_s": wall, "cpu_s": processors, "natural": natural}
    measurements |= {"missed": missed, "others": others, "load": list(os.getloadavg())}
    flagged = [row for row in rows if row["kind"] == "label_error"]
    excluded = [row for row in flagged if row["exclude"]]
    return Report(
        f"{images:,} images, {wrong:,} wrong labels, {len(planted.copies):,} copies",
        "",
        [
            Row("label errors: area under the ROC curve", "", auroc, None, AUROC, True),
            Row(f"first {wrong:,} labels: share of true errors", "", ranked, None, PRECISION, True),
            Row("listed labels: share of true errors", "", _share(flagged, planted), details=f"of {len(flagged):,}"),
            Row("excluded labels: share of true errors", "", _share(excluded, planted), details=f"of {len(excluded)}"),
            Row("planted copies: share that is found", "", found, None, FOUND, True, details=f"{len(missed)} missed"),
            Row("found pairs: share that is planted", "", _ratio(true, true + len(others)), None, TRUE, True,
                details=f"{len(natural)} natural, {len(others)} others"),
            Row("elapsed time", "min", wall / 60, None, MINUTES, details=f"load {os.getloadavg()[1]:.1f}"),
            Row("processor time", "min", processors / 60),
        ],
        {"audit": [measurements]},
        PACKAGES,
        [f"Natural pairs: {', '.join(' '.join(pair) for pair in natural) or 'none'}"]
        + [f"Neither planted nor natural: {' '.join(pair)}" for pair in others],
    )  # fmt: skip


def plant(data: Path, out: Path, seed: int) -> Planted:
    """Writes a data set with errors to `out`."""
    generator = np.random.default_rng(seed)
    classes = sorted(path.name for path in data.iterdir() if path.is_dir())
    files = [path for name in classes for path in sorted((data / name).iterdir())]
    labels = np.array([classes.index(path.parent.name) for path in files])
    wrong = generator.choice(len(files), round(WRONG * len(files)), replace=False)
    labels[wrong] = (labels[wrong] + generator.integers(1, len(classes), len(wrong))) % len(classes)
    parts = ["test" if number % TEST_SHARE == 0 else "train" for number in range(len(files))]
    sources, mislabeled, copies = {}, set(), []
    for part in ("train", "test"):
        for name in classes:
            (out / part / name).mkdir(parents=True)

    def write(number: int, part: str, name: str, contents: bytes) -> str:
        path = f"{part}/{classes[labels[number]]}/{name}"
        (out / path).write_bytes(contents)
        sources[path] = f"{files[number].parent.name}/{files[number].name}"
        if classes[labels[number]] != files[number].parent.name:
            mislabeled.add(path)
        return path

    def name_of(number: int) -> str:
        return f"{number:05d}{files[number].suffix}"

    paths = [write(number, parts[number], name_of(number), file.read_bytes()) for number, file in enumerate(files)]
    count = max(round(COPIES * len(files)), 1)
    train, test = (np.flatnonzero(np.array(parts) == part) for part in ("train", "test"))
    chosen = generator.choice(train, 2 * count, replace=False)
    exact = [*chosen[:count], *(leaked := generator.choice(test, count, replace=False))[: count // 2]]
    for number in exact:
        copies.append((write(number, "train", f"copy-{name_of(number)}", files[number].read_bytes()), paths[number]))
    for order, number in enumerate([*chosen[count:], *leaked[count // 2 :]]):
        kind, options = ENCODINGS[order % len(ENCODINGS)]
        encoded = io.BytesIO()
        with Image.open(files[number]) as image:
            image.convert("RGB").save(encoded, kind, **options)
        copies.append((write(number, "train", f"again-{number:05d}.{kind}", encoded.getvalue()), paths[number]))
    return Planted(sources, frozenset(mislabeled), tuple(copies))


def ranking(names: Sequence[str], quality: np.ndarray, planted: Planted) -> tuple[float, float]:
    """Returns the share of wrong labels among the first images, as many as are wrong, and the area under the ROC."""
    from sklearn.metrics import roc_auc_score

    wrong = np.array([name in planted.wrong for name in names])
    order = np.argsort(quality, kind="stable")
    return float(wrong[order[: wrong.sum()]].mean()), float(roc_auc_score(wrong, -quality))


Pairs = list[tuple[str, str]]


def sorted_out(pairs: Sequence[tuple[str, str]], planted: Planted) -> tuple[float, Pairs, Pairs, Pairs]:
    """Compares the pairs that the audit found with the planted ones.

    Args:
        pairs: paths of two images that look the same, as the audit reports them.
        planted: the planted errors.

    Returns:
        The share of the copies that were found; the copies that were not; the pairs that CIFAR-10 itself has; and all
        other pairs. The last two have the names of the originals.
    """
    group: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := group.get(name, name)) != name:
            name = above
        return name

    for one, other in pairs:
        group[root(one)] = root(other)
    missed = [pair for pair in planted.copies if root(pair[0]) != root(pair[1])]
    known = {frozenset(pair) for pair in NATURAL}
    between = [(planted.sources[one], planted.sources[other]) for one, other in pairs]
    foreign = [pair for pair in between if pair[0] != pair[1]]
    natural = [pair for pair in foreign if frozenset(pair) in known]
    others = [pair for pair in foreign if frozenset(pair) not in known]
    return _ratio(len(planted.copies) - len(missed), len(planted.copies)), missed, natural, others


def _share(rows: Sequence[dict[str, Any]], planted: Planted) -> float | None:
    return _ratio(sum(row["image"] in planted.wrong for row in rows), len(rows)) if rows else None


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _command(data: Path, out: Path, weights: str) -> tuple[float, float]:
    """Audits in a process of its own, and returns the seconds by the clock and those of the processors."""
    import resource  # here: Windows lacks it, and the other parts of the benchmarks run there

    arguments = ["-m", "keras_bit.cli.main", "audit", str(data), "--out", str(out), "--weights", weights]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment(), "PYTHONPATH": os.pathsep.join([environment()["PYTHONPATH"], *sys.path])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"keras-bit audit ended with {done.returncode}: {done.stderr[-2000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _audited(data: Path, out: Path, weights: str) -> tuple[list[str], np.ndarray, list[dict[str, Any]]]:
    """Returns the images, the quality of each label, and the findings; the command does not write the qualities."""
    import keras_bit
    from keras_bit.data import exclusions, splits
    from keras_bit.examining import audit_report, auditing
    from keras_bit.examining.collecting import collect
    from keras_bit.examining.features import Network

    model = keras_bit.from_pretrained(weights, include_top=False, pooling="avg", fused=True)
    network = Network(model, keras_bit.BitImageProcessor.from_pretrained(weights), 32)
    found = splits.open_splits(data, validation_share=0.0, seed=0)
    parts = [("train", found.train)] + ([] if found.test is None else [("test", found.test)])
    audit = auditing.audit(collect(parts, network, out / "features"), found.class_names)
    names = [exclusions.relative(path, data) for path in audit.collection.paths]
    return names, audit.quality.quality, audit_report.rows(audit, data)


def _draw(pairs: Iterable[tuple[str, str]], data: Path, file: Path) -> None:
    """Draws the pairs side by side, with their names."""
    from keras_bit.drawing import contact_sheet

    images, labels = [], []
    for pair in pairs:
        tiles = [np.asarray(Image.open(data / name).convert("RGB").resize((TILE, TILE))) for name in pair]
        images.append(np.concatenate(tiles, axis=1))
        labels.append(list(pair))
    if images:
        contact_sheet.draw(np.stack(images), labels, ["found, and not planted"]).save(file)
