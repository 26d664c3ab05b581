"""Audits a data set: labels that are probably wrong, duplicate images, and odd files."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_bit import packages
from keras_bit.examining.collecting import Collection
from keras_bit.examining.duplicates import duplicates, exact_pairs, groups_of
from keras_bit.examining.findings import KINDS, Finding
from keras_bit.examining.label_errors import ALMOST_CERTAIN, LabelQuality, label_quality
from keras_bit.examining.neighbors import neighbors
from keras_bit.examining.oddities import about_balance, class_counts, oddities, outliers


@dataclasses.dataclass(frozen=True)
class Audit:
    """The findings in a data set.

    Args:
        collection: its images.
        class_names: the names of the classes, in the order of the labels.
        findings: the findings, in the order of `KINDS`, and the worst first within a kind.
        notes: sentences about the data set as a whole.
        counts: the number of images of each class, for each part.
        quality: a classifier's judgment of each label.
        distances: float32 `(images,)`, the mean distance to the nearest neighbors; NaN for unreadable images.
    """

    collection: Collection
    class_names: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    counts: dict[str, list[int]]
    quality: LabelQuality
    distances: np.ndarray


@packages.needing("audit", "An audit")
def audit(collection: Collection, class_names: Sequence[str], *, seed: int = 0) -> Audit:
    """Examines the images of a data set, with a progress bar.

    Args:
        collection: the images, at least one of them readable.
        class_names: the names of the classes, in the order of the labels.
        seed: the seed of the division into folds; the classifier that judges a fold learns from the other folds.

    Raises:
        ImportError: cleanlab or scikit-learn is not installed.
    """
    from tqdm import tqdm

    readable = np.flatnonzero(collection.readable)
    features, thumbnails = collection.features[readable], collection.thumbnails[readable]
    with tqdm(total=len(readable), desc="compare", unit=" images", delay=2, leave=False) as progress:
        near = neighbors(features, thumbnails, advance=progress.update)
    pairs = readable[near.pairs]
    correlations = dict(zip(map(tuple, pairs.tolist()), near.correlations.tolist(), strict=True))
    groups = groups_of(len(collection.paths), np.concatenate([exact_pairs(collection), pairs]))
    with tqdm(total=len(readable), desc="judge", unit=" labels", delay=2, leave=False) as progress:
        judged = label_quality(
            features, collection.labels[readable], groups[readable], seed=seed, advance=progress.update
        )
    quality = _of_all(judged, readable, collection)
    found, notes = oddities(collection)
    found += _label_errors(collection, quality)
    found += duplicates(collection, groups, correlations, quality.quality, class_names)
    found += outliers(readable, near.distances)
    order = list(KINDS)
    distances = np.full(len(collection.paths), np.nan, np.float32)
    distances[readable] = near.distances
    counts = class_counts(collection, class_names)
    return Audit(
        collection,
        tuple(class_names),
        tuple(sorted(found, key=lambda finding: order.index(finding.kind))),  # a stable sort keeps the worst first
        (*_about_labels(quality, collection), *notes, *about_balance(counts, class_names)),
        counts,
        quality,
        distances,
    )


def _of_all(quality: LabelQuality, readable: np.ndarray, collection: Collection) -> LabelQuality:
    """Extends the result from the readable images to all."""
    values = np.full(len(collection.paths), np.nan)
    suggested = collection.labels.astype(np.int64)
    values[readable], suggested[readable] = quality.quality, quality.suggested
    return LabelQuality(values, suggested, readable[quality.wrong])


def _label_errors(collection: Collection, quality: LabelQuality) -> list[Finding]:
    return [
        Finding(
            image,
            "label_error",
            float(quality.quality[image]),
            suggested=int(quality.suggested[image]),
            exclude=collection.parts[image] == "train" and bool(quality.quality[image] < ALMOST_CERTAIN),
        )
        for image in quality.wrong.tolist()
    ]


def _about_labels(quality: LabelQuality, collection: Collection) -> list[str]:
    unknown = int((np.isnan(quality.quality) & collection.readable).sum())
    if not unknown:
        return []
    subject, owner = (
        ("1 label is", "its class has") if unknown == 1 else (f"{unknown:,} labels are", "their classes have")
    )
    return [f"{subject} not judged, because {owner} no other image to learn from."]
