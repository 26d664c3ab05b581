"""Finds images that look the same, and each image's distance to others: all pairs, in blocks to bound memory."""

import dataclasses
from collections.abc import Callable

import numpy as np

# Chosen on CIFAR-10 with re-encoded copies. Nearly all copies are above both limits, and other pairs only if a person
# takes them for the same photograph. Features by themselves do not distinguish copies from similar images.
SAME_PIXELS = 0.95  # correlation of thumbnails
SAME_FEATURES = 0.8  # cosine
PARTNERS = 10  # per image; frames of a video may all look the same
NEIGHBORS = 10  # number of neighbors for an image's mean distance
BLOCK = 2**24  # numbers in a block: 64 MB


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """The similar pairs of some images, and their distances.

    Args:
        pairs: int64 `(count, 2)`, the images that look the same, the lower place first.
        correlations: float32 `(count,)`, of their thumbnails, in [-1, 1].
        distances: float32 `(images,)`, an image's mean distance to its nearest neighbors: 1 - cosine, in [0, 2].
    """

    pairs: np.ndarray
    correlations: np.ndarray
    distances: np.ndarray


def neighbors(
    features: np.ndarray, thumbnails: np.ndarray, *, advance: Callable[[int], object] = lambda count: None
) -> Neighbors:
    """Compares all images with each other.

    Two images look the same if the correlation of their thumbnails, each channel without its mean, and the cosine of
    their features are large enough. The time grows with the square of the number of images.

    Args:
        features: float32 `(images, width)`.
        thumbnails: uint8 `(images, height, width, 3)`.
        advance: receives the number of compared images.
    """
    count = len(features)
    units, shapes = _units(features), _units(_without_means(thumbnails))
    nearest = min(NEIGHBORS, count - 1)
    rows = max(1, BLOCK // max(count, 1))
    pairs, correlations, distances = [], [], np.zeros(count, np.float32)
    for start in range(0, count, rows):
        block = slice(start, min(start + rows, count))
        places = np.arange(block.start, block.stop)
        alike = shapes[block] @ shapes.T
        alike[np.arange(len(places)), places] = -1
        first, second = _largest_above(alike, SAME_PIXELS)
        near = np.einsum("ij,ij->i", units[start + first], units[second]) >= SAME_FEATURES
        first, second = first[near], second[near]
        pairs.append(np.stack([start + first, second], axis=1))
        correlations.append(alike[first, second])
        if nearest:
            cosines = units[block] @ units.T
            cosines[np.arange(len(places)), places] = -2
            largest = np.partition(cosines, count - nearest, axis=1)[:, count - nearest :]
            distances[block] = np.maximum(1 - largest.mean(axis=1), 0)
        advance(len(places))
    return Neighbors(*_each_once(np.concatenate(pairs), np.concatenate(correlations)), distances)


def _units(rows: np.ndarray) -> np.ndarray:
    """Scales rows to length 1; rows of zeros stay zeros."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _without_means(thumbnails: np.ndarray) -> np.ndarray:
    # Without this, two different images with the same sky would correlate by its color.
    values = thumbnails.astype(np.float32)
    return (values - values.mean(axis=(1, 2), keepdims=True)).reshape(len(values), -1)


def _largest_above(values: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows and columns of at most `PARTNERS` values per row that are at least `least`."""
    first, second = np.nonzero(values >= least)
    if len(first) <= len(values):
        return first, second
    order = np.lexsort((-values[first, second], first))
    first, second = first[order], second[order]
    rank = np.arange(len(first)) - np.searchsorted(first, first)
    return first[rank < PARTNERS], second[rank < PARTNERS]


def _each_once(pairs: np.ndarray, correlations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found, places = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)
    return found.reshape(-1, 2).astype(np.int64), correlations[places].astype(np.float32)
