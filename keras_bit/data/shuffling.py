"""Random orders and numbers in `tf.data` that a seed decides alone, new in every epoch.

`Dataset.shuffle` and `Dataset.random` mix the seed that they are given with the process's, that of `tf.random.set_seed`
and `keras.utils.set_random_seed`. Here are the same operations without it.

Imports TensorFlow, and is imported by functions only.
"""

from typing import Any

import tensorflow as tf

PROCESS_SEED = 87654321  # what TensorFlow takes where none was set


def shuffled(data: tf.data.Dataset, size: int, seed: int) -> tf.data.Dataset:
    """`data.shuffle(size, seed)`: `size` elements are held, and which one comes next is random."""
    spec = data.element_spec
    variant = tf.raw_ops.ShuffleDatasetV3(
        input_dataset=tf.data.experimental.to_variant(data),
        buffer_size=tf.constant(size, tf.int64),
        reshuffle_each_iteration=True,
        output_types=[part.dtype for part in tf.nest.flatten(spec)],
        output_shapes=[part.shape for part in tf.nest.flatten(spec)],
        **_seeds(seed),
    )
    result = tf.data.experimental.from_variant(variant, spec)
    result.shuffled_from = data  # the functions in it live as long as the Python object does
    return result


def numbers(seed: int) -> tf.data.Dataset:
    """`Dataset.random(seed, rerandomize_each_iteration=True)`: int64 without end."""
    variant = tf.raw_ops.RandomDatasetV2(
        rerandomize_each_iteration=True, output_types=[tf.int64], output_shapes=[[]], **_seeds(seed)
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.int64))


def _seeds(seed: int) -> dict[str, Any]:
    return {
        "seed": tf.constant(PROCESS_SEED, tf.int64),
        "seed2": tf.constant(seed, tf.int64),
        "seed_generator": tf.raw_ops.DummySeedGenerator(),
    }
