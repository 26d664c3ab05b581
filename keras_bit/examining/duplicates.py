"""Finds images that occur more than once, in one part or in several."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from keras_bit.examining.collecting import Collection
from keras_bit.examining.findings import Finding

TRAIN = "train"


def groups_of(count: int, pairs: np.ndarray) -> np.ndarray:
    """Groups images that look the same, also indirectly: returns int64 `(count,)`, the first image of each group.

    Args:
        count: images.
        pairs: int64 `(pairs, 2)`.
    """
    first = np.arange(count)

    def root(image: int) -> int:
        while first[image] != image:
            first[image] = first[first[image]]
            image = first[image]
        return image

    for one, other in pairs.tolist():
        low, high = sorted((root(one), root(other)))
        first[high] = low
    return np.array([root(image) for image in range(count)], np.int64)


def exact_pairs(collection: Collection) -> np.ndarray:
    """Returns int64 `(pairs, 2)`: each image with the first one that has the same bytes or pixels."""
    pairs = []
    for kind in ("file_sha256", "pixels_sha256"):
        seen: dict[str, int] = {}
        for image, facts in enumerate(collection.facts):
            # An unreadable file has no pixels, and is reported as such.
            if not facts.problem and (first := seen.setdefault(getattr(facts, kind), image)) != image:
                pairs.append((first, image))
    return np.array(sorted(set(pairs)), np.int64).reshape(-1, 2)


def duplicates(
    collection: Collection,
    groups: np.ndarray,
    correlations: Mapping[tuple[int, int], float],
    quality: np.ndarray,
    class_names: Sequence[str],
) -> list[Finding]:
    """Returns the findings about images that look the same.

    A training image that is also in another part is a leak. Among equal images in one part, one is kept: the first or,
    if their labels differ, the one with the most probable label. The others are duplicates.

    Args:
        collection: all images.
        groups: int64 `(images,)`, from `groups_of` for all pairs, exact and similar.
        correlations: pair of numbers of images, the lower first, to the correlation of their thumbnails.
        quality: float64 `(images,)`, the probability of each label; NaN if unknown.
        class_names: the names of the classes, in the order of the labels.
    """
    found = []
    for members in _several(groups):
        labels = sorted({int(label) for label in collection.labels[members]})
        differing = f"; labels differ: {', '.join(class_names[label] for label in labels)}" if len(labels) > 1 else ""
        outside = [image for image in members if collection.parts[image] != TRAIN]
        inside = [image for image in members if collection.parts[image] == TRAIN]
        for part in dict.fromkeys(collection.parts[image] for image in members):
            same = [image for image in members if collection.parts[image] == part]
            kept = _kept(same, quality, differs=len({int(collection.labels[image]) for image in same}) > 1)
            for image in same:
                if image != kept and not (part == TRAIN and outside):
                    found.append(_finding(collection, image, same, kept, correlations, differing, part == TRAIN))
        if outside:
            found += [
                _finding(collection, image, outside, outside[0], correlations, differing, True) for image in inside
            ]
    return found


def _finding(
    collection: Collection,
    image: int,
    others: Sequence[int],
    kept: int,
    correlations: Mapping[tuple[int, int], float],
    differing: str,
    is_training: bool,
) -> Finding:
    """Returns the finding about `image`, which looks the same as one of `others`; `kept` stays."""
    facts = collection.facts
    # If two equal images look the same as a third, only one of them is a copy.
    ordered = list(dict.fromkeys((kept, *others)))
    before = ordered[: ordered.index(image)] if image in ordered else ordered

    def same(kind: str) -> list[int]:
        return [other for other in before if getattr(facts[other], kind) == getattr(facts[image], kind)]

    leaks = collection.parts[kept] != collection.parts[image]
    for kind, words in (("file_sha256", "same file"), ("pixels_sha256", "same pixels")):
        if exact := same(kind):
            name = "leak" if leaks else "exact_duplicate"
            return Finding(image, name, 1.0, other=exact[0], detail=words + differing, exclude=is_training)
    direct = {other: value for other in others if (value := correlations.get((min(image, other), max(image, other))))}
    other = max(direct, key=lambda one: (one == kept, direct[one])) if direct else kept
    # Frames of a video look the same without being a mistake, so a person decides, unless they are test images.
    exclude = is_training and (leaks or bool(differing))
    name = "leak" if leaks else "near_duplicate"
    return Finding(image, name, direct.get(other), other=other, detail="looks the same" + differing, exclude=exclude)


def _kept(images: Sequence[int], quality: np.ndarray, differs: bool) -> int:
    return max(images, key=lambda image: np.nan_to_num(quality[image], nan=-1.0)) if differs else images[0]


def _several(groups: np.ndarray) -> Iterator[list[int]]:
    """Returns the members of each group with more than one."""
    order = np.argsort(groups, kind="stable")
    bounds = np.flatnonzero(np.diff(groups[order])) + 1
    for members in np.split(order, bounds):
        if len(members) > 1:
            yield members.tolist()
