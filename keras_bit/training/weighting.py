"""Class weights, and the weight of each image from its label."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_bit.recipes.recipe import BALANCED, ClassWeight
from keras_bit.training import feeding
from keras_bit.wording import some


def balanced_weights(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns `images / (classes * images of the class)` for each class, and 1 for a class without images.

    Source: King and Zeng 2001. Checked against scikit-learn's `compute_class_weight("balanced", ...)`.
    """
    counts = np.asarray(counts, np.float64)
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.where(present, counts, 1)), 1.0)


def class_weights(
    chosen: ClassWeight,
    classes: int,
    names: Mapping[str, int],
    counts: Sequence[int] | np.ndarray | None,
) -> np.ndarray:
    """Returns a weight for each class, float32 `(classes,)`.

    Args:
        chosen: the `class_weight` of a `Recipe`; `None` means 1 for all.
        classes: the number of classes.
        names: the number of each name.
        counts: the number of training images of each class, if known.

    Raises:
        ValueError: a class is unknown, or given by number and name; or the images of each class are not known.
    """
    if chosen == BALANCED:
        if counts is None or len(counts) != classes:
            raise ValueError(
                "`class_weight` must be a dict for this `train`, whose images per class are unknown; got 'balanced'. "
                "Pass the result of `image_dataset` for a directory, paths, arrays or a Hugging Face data set; or "
                "{class: images / (classes * images of the class)}."
            )
        return balanced_weights(counts).astype(np.float32)
    weights = np.ones(classes, np.float32)
    given = dict(chosen) if isinstance(chosen, Mapping) else {}
    places = [names.get(key, -1) if isinstance(key, str) else key for key in given]
    unknown = [key for key, place in zip(given, places, strict=True) if not 0 <= place < classes]
    if unknown:
        raise ValueError(
            f"`class_weight` must name classes of the model, got {some(map(repr, unknown))}. They are 0 to "
            f"{classes - 1}: {some(map(repr, names))}."
        )
    if len(set(places)) < len(places):
        raise ValueError(f"`class_weight` must name each class once, got {some(map(repr, given))}.")
    weights[places] = list(given.values())
    return weights


def weighted(data: Any, weights: np.ndarray) -> Any:
    """Adds each image's weight to a data set: the weight of its class, or the mean for mixed labels.

    A row counts `sum(row * weights)`; Keras' `class_weight` would use its largest class only. Existing weights of the
    data set are multiplied.
    """

    def in_graph(images: Any, labels: Any, *held: Any) -> tuple[Any, ...]:
        import tensorflow as tf

        values = tf.constant(weights)
        if labels.shape.rank == 2:
            found = tf.linalg.matvec(tf.cast(labels, tf.float32), values)
        else:
            found = tf.gather(values, labels)
        return images, labels, found * tf.cast(held[0], tf.float32) if held else found

    def in_numpy(images: Any, labels: Any, *held: Any) -> tuple[Any, ...]:
        labels = np.asarray(labels)
        found = labels.astype(np.float32) @ weights if labels.ndim == 2 else weights[labels]
        return images, labels, found * np.asarray(held[0], np.float32) if held else found

    return feeding.mapped(data, in_graph, in_numpy)
