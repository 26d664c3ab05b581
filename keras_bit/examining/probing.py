"""Few-shot probes: measures how well simple classifiers work on a network's features."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_bit import packages
from keras_bit.counts import check_whole
from keras_bit.examining.features import Features

SHOTS = (1, 5, 10)  # images of each class
SEEDS = 3
NEIGHBORS = 20
# google-research/big_vision `evaluators/fewshot_lsr.py` and the configurations that use it.
L2 = 2.0**10
BIAS = 100.0  # the constant feature; it is large, so that the bias is hardly regularized
SMALLEST_DEVIATION = 1e-5

Classifier = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of one probe.

    Args:
        method: `"ridge"` or `"k-NN"`.
        shots: training images of each class; `None` is all.
        accuracies: shares of right answers on the test images, one for each seed, in [0, 1].
    """

    method: str
    shots: int | None
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float:
        """The standard deviation over the seeds; 0 for one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


@packages.needing("examine", "A probe")
def probe(
    train: Features,
    test: Features,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: int = SEEDS,
    advance: Callable[[], object] = lambda: None,
) -> list[Result]:
    """Trains each classifier on a few images of each class, and on all, and tests it.

    The classifiers are a ridge regression to rows of -1 and 1, in closed form, on features with mean 0 and deviation 1;
    and the `NEIGHBORS` nearest neighbors by cosine, weighted by nearness. `shots` that exceed the largest class are
    left out; a smaller class contributes all of its images.

    Args:
        train: features to learn from; every class has at least one.
        test: features of other images of the same classes.
        shots: numbers of images of each class.
        seeds: number of random choices of these images.
        advance: a function that is called after each classifier.

    Raises:
        ValueError: an argument is not as described above.
        ImportError: scikit-learn is not installed.

    The ridge regression was checked against google-research/big_vision `fewshot_lsr.py`.
    """
    check_whole("seeds", seeds)
    for asked in shots:
        check_whole("shots", asked)
    packages.require("sklearn", "examine", "A probe")
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    largest = np.bincount(train.labels).max()
    results = []
    counts: list[int | None] = [*sorted({count for count in shots if count < largest}), None]
    for count in counts:
        chosen = [_some(train.labels, count, seed) for seed in range(1 if count is None else seeds)]
        for method, classify in METHODS.items():
            accuracies = []
            for places in chosen:
                answers = classify(train.values[places], train.labels[places], test.values, classes)
                accuracies.append(float((answers == test.labels).mean()))
                advance()
            results.append(Result(method, count, tuple(accuracies)))
    return results


def runs(labels: np.ndarray, shots: Sequence[int], seeds: int) -> int:
    """Returns the number of classifiers that `probe` trains on images with these labels."""
    return len(METHODS) * (1 + seeds * len({count for count in shots if count < np.bincount(labels).max()}))


def _some(labels: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """Returns the places of `count` images of each class, drawn as in `fewshot_lsr.py`; `None` is all."""
    if count is None:
        return np.arange(len(labels))
    generator = np.random.default_rng(seed)
    by_class = [generator.permutation(np.flatnonzero(labels == label)) for label in range(labels.max() + 1)]
    return np.concatenate([places[:count] for places in by_class])


def ridge(features: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Returns the class of each row of `test`, by a ridge regression to rows of -1 and 1."""
    from sklearn.linear_model import Ridge

    mean, deviation = features.mean(axis=0), features.std(axis=0) + SMALLEST_DEVIATION

    def prepared(values: np.ndarray) -> np.ndarray:
        return np.pad((values - mean) / deviation, ((0, 0), (0, 1)), constant_values=BIAS).astype(np.float64)

    targets = 2.0 * np.eye(classes)[labels] - 1.0
    # The Cholesky method solves for images or for features, whichever are fewer.
    model = Ridge(alpha=L2, fit_intercept=False, solver="cholesky").fit(prepared(features), targets)
    return np.concatenate([model.predict(prepared(rows)).argmax(axis=1) for rows in _slices(test)])


def nearest_neighbors(features: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Returns the class of each row of `test`, by the nearest rows of `features`."""
    from sklearn.neighbors import KNeighborsClassifier

    count = min(NEIGHBORS, int(np.bincount(labels).max()))
    model = KNeighborsClassifier(count, metric="cosine", weights="distance", algorithm="brute").fit(features, labels)
    return np.concatenate([model.predict(rows) for rows in _slices(test)])


METHODS: Mapping[str, Classifier] = {"ridge": ridge, "k-NN": nearest_neighbors}
ROWS = 4096  # test images at a time, to bound memory


def _slices(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
