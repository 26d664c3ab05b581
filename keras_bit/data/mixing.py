"""MixUp of a batch, in a TensorFlow graph. It depends only on a seed.

Imports TensorFlow, so only functions import this module.

Source: google-research/big_transfer, `bit_pytorch/train.py`.
"""

from typing import Any

import tensorflow as tf


def mix_up(images: Any, labels: Any, seed: Any, alpha: float) -> tuple[Any, Any]:
    """Mixes each image with another one of the batch, `weight * x + (1 - weight) * x[order]`, and the labels likewise.

    The whole batch has one weight from the beta distribution (alpha, alpha) and one random order, as in Google's code.
    Keras' `MixUp` draws a weight per image, from a generator whose state depends on earlier batches.

    Args:
        images: float32 `(batch, height, width, 3)`.
        labels: float32 `(batch, classes)`.
        seed: int64 `(2,)`.
        alpha: above 0.
    """
    weight_seed, order_seed = tf.unstack(tf.random.split(seed))
    weight = beta(weight_seed, alpha)
    order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(images)[0]), order_seed)

    def mixed(values: Any) -> Any:
        return weight * values + (1 - weight) * tf.gather(values, order)

    return mixed(images), mixed(labels)


def beta(seed: Any, alpha: float) -> Any:
    """Draws a float32 from the beta distribution (alpha, alpha), as the share of one of two gamma variates."""
    # In float32 one gamma variate in some thousands is 0 if alpha is 0.1.
    first, second = (
        tf.random.stateless_gamma([], part, tf.constant(alpha, tf.float64), dtype=tf.float64)
        for part in tf.unstack(tf.random.split(seed))
    )
    return tf.cast(first / (first + second), tf.float32)
