"""The pipeline of a source's images: shuffle, read in batches with one of the engines, MixUp.

Imports TensorFlow, so only functions import this module.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bit.data import graph_engine, host_engine, mixing
from keras_bit.data.options import UNLABELED, Options
from keras_bit.data.source import Source, balanced, random_numbers


def build(source: Source, options: Options) -> tf.data.Dataset:
    """Builds the data set of `keras_bit.image_dataset`."""
    options.check_labels(source.class_names, source.numbers)
    if options.sampling is not None:
        source = balanced(source)
    engine = {"host": host_engine, "graph": graph_engine}[options.engine]
    batches, skipped = engine.read(_elements(source, options), source, options)
    data = _finished(batches, source, options)
    if (count := _batches(source, options)) is not None and options.engine == "host":
        # Not for the graph engine: a worker of tf.data service gets a part only, and the check would fail.
        data = data.apply(tf.data.experimental.assert_cardinality(count))
    elif options.repeat:
        data = data.repeat()  # which is known to be endless
    data = data.prefetch(tf.data.AUTOTUNE)
    # As in keras.utils.image_dataset_from_directory.
    nameless = source.class_names is None or options.label_mode == UNLABELED
    data.class_names = None if nameless else list(source.class_names or ())
    data.class_counts = None if nameless or source.labels is None else source.labels.class_counts
    data.number_units = None if source.labels is None else source.labels.number_units
    data.skipped = skipped
    return data


def _elements(source: Source, options: Options) -> tf.data.Dataset:
    """Returns tuples of an element and, in training, its augmentation's seed.

    The seeds are drawn in order before the images are read, so they do not depend on which thread reads which image.
    """
    if options.rule is None:
        return tf.data.Dataset.zip((source.elements,))
    seed = int(np.random.default_rng().integers(2**31)) if options.seed is None else options.seed
    if options.repeat:
        start = options.initial_step * options.batch_size
        return _endless(source, seed, start, options.batch_size, options.shard)
    return tf.data.Dataset.zip(source.shuffled(seed), random_numbers(seed).batch(2, drop_remainder=True))


def _finished(batches: tf.data.Dataset, source: Source, options: Options) -> tf.data.Dataset:
    """Returns batches of (images, labels) in the chosen form, mixed if the rule says so."""
    classes = len(source.class_names or ())
    if options.one_hot and source.label_spec.dtype.is_integer:
        batches = batches.map(lambda images, labels, *seeds: (images, tf.one_hot(labels, classes), *seeds))
    if options.augment:
        batches = batches.map(_augmentation(options), tf.data.AUTOTUNE, deterministic=True)
    if not options.mixes:
        return batches.map(lambda images, labels, *seeds: _given(images, labels, options))

    def mix(images: Any, labels: Any, seeds: Any) -> Any:
        return _given(*mixing.mix_up(images, labels, seeds[0], options.mixup_alpha), options)

    return batches.map(mix, tf.data.AUTOTUNE, deterministic=True)


def _given(images: Any, labels: Any, options: Options) -> Any:
    return images if options.label_mode == UNLABELED else (images, labels)


def _augmentation(options: Options) -> Callable[..., tuple[Any, ...]]:
    """Returns a Python function that calls Keras' layers, because their random state cannot be in a tf.data graph."""
    from keras_bit.data.keras_augmentation import augmented, seed_of

    def call(images: np.ndarray, labels: np.ndarray, seed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = augmented(options.augment, options.processor, images, labels, seed_of(seed))
        return found[0], found[1].astype(labels.dtype)

    def changed(images: Any, labels: Any, seeds: Any) -> tuple[Any, ...]:
        found = tf.numpy_function(call, [images, labels, seeds[0]], [tf.float32, labels.dtype])
        parts = zip(found, (images, labels), strict=True)
        return *(tf.ensure_shape(part, before.shape) for part, before in parts), seeds

    return changed


def _batches(source: Source, options: Options) -> int | None:
    """Returns the number of batches, if known."""
    if options.repeat:
        return tf.data.INFINITE_CARDINALITY
    if options.skip or source.count < 0:
        return None
    return source.count // options.batch_size if options.drop_remainder else -(-source.count // options.batch_size)


def _endless(source: Source, seed: int, start: int, batch_size: int, shard: tuple[int, int]) -> tf.data.Dataset:
    """Returns endless tuples of (element, its augmentation's seed), from the example with the number `start`.

    The element at a place depends only on the place and the seed, not on what was read before. So a resumed run, or one
    that reads a part of every batch, sees the same images as a whole run in one process.
    """
    numbers = tf.data.Dataset.counter
    first = 0 if source.count < 0 else start // source.count
    order = numbers(first).flat_map(lambda epoch: source.shuffled_once(tf.stack([tf.constant(seed, tf.int64), epoch])))
    order = order.skip(start if source.count < 0 else start % source.count)
    elements = tf.data.Dataset.zip(order, numbers(start))
    index, parts = shard
    if parts > 1:
        size = batch_size // parts
        elements = elements.filter(lambda element, number: number % batch_size // size == index)
    return elements.map(lambda element, number: (element, tf.stack([tf.constant(seed, tf.int64), number])))
