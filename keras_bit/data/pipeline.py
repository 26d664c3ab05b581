"""What happens to a source's images, in order: shuffle, read, preprocess or augment, check, batch, MixUp.

Imports TensorFlow, and is imported by functions only.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_bit.data import augmentation, faults
from keras_bit.data.source import Example, Source, random_numbers
from keras_bit.images import graph_faults, graph_preprocessing


def build(
    source: Source,
    *,
    processor: Any,
    batch_size: int,
    rule: Any,
    seed: int | None,
    skip: bool,
    random_resized_crop: bool,
    max_pixels: int | None,
    drop_remainder: bool,
    num_parallel_calls: int | None,
    repeat: bool,
    initial_step: int,
    shard: tuple[int, int],
    label_mode: str | None,
) -> tf.data.Dataset:
    """The data set of `keras_bit.image_dataset`; `rule` is `None` for evaluation."""
    mixes = rule is not None and rule.mixup_alpha > 0
    one_hot = label_mode == "categorical" or (mixes and label_mode is None)
    if mixes and not one_hot:
        raise ValueError("`label_mode` must be None or 'categorical' for MixUp, which mixes labels, got 'int'.")
    classes = None if source.class_names is None else len(source.class_names)
    if one_hot and classes is None:
        raise ValueError(
            "`class_names` must be given for MixUp and label_mode='categorical', which need one-hot labels, got None "
            "for a `source` that does not tell how many classes there are."
        )
    parallel = tf.data.AUTOTUNE if num_parallel_calls is None else num_parallel_calls

    height, width = _size(source, processor, rule)

    def read(element: Any, *picture_seed: Any) -> tuple[Any, ...]:
        example = source.open(element)
        if rule is None:
            image = graph_preprocessing.preprocess(example.load(), processor, max_pixels)
        else:
            image = augmentation.augment(
                example.load(), *picture_seed, processor, rule, random_resized_crop, max_pixels
            )
        wrong = _problem(example, classes)
        with tf.control_dependencies([tf.debugging.Assert(wrong == "", [wrong])]):
            return tf.identity(image), example.label, *picture_seed

    def describe(element: Any, *picture_seed: Any) -> tuple[Any, Any, Any]:
        del picture_seed
        example = (source.look or source.open)(element)
        wrong = _problem(example, classes)
        resizes = processor if rule is None else None
        why, certain = graph_faults.problem(example.load, max_pixels, source.encoded, resizes)
        own = wrong != ""
        return example.name, tf.where(own, wrong, why), own | certain

    if seed is None:
        seed = int(np.random.default_rng().integers(2**31))
    if rule is None:
        elements = tf.data.Dataset.zip((source.elements,))
    elif repeat:
        elements = _endless(source, seed, initial_step * batch_size, batch_size, shard)
        batch_size //= shard[1]
    else:
        # Drawn before the images are read, in their order: the same numbers, whichever thread reads which image.
        seeds = random_numbers(seed).batch(2, drop_remainder=True)
        elements = tf.data.Dataset.zip(source.shuffled(seed), seeds)
    label = tf.data.Dataset.zip((source.elements,)).map(lambda element: source.open(element).label).element_spec
    nothing = (np.zeros([0, 0, 3], np.float32), np.zeros(label.shape, label.dtype.as_numpy_dtype))
    if rule is not None:
        nothing += (np.zeros([2], np.int64),)
    skipped = faults.Skipped()
    examples = faults.read_or_name(elements, read, describe, nothing, skipped if skip else None, parallel)

    def finish(image: Any, label: Any, *picture_seed: Any) -> tuple[Any, ...]:
        image = tf.ensure_shape(image, [height, width, 3])
        return (image, label, *picture_seed) if mixes else (image, label)

    # An endless one has no rest: its batches have a known size.
    data = examples.map(finish).batch(batch_size, drop_remainder=drop_remainder or repeat)
    if one_hot:
        data = data.map(lambda images, labels, *seeds: (images, _rows(labels, classes), *seeds))
    if mixes:

        def mix(images: Any, labels: Any, seeds: Any) -> tuple[Any, Any]:
            return augmentation.mix_up(images, labels, seeds[0], rule.mixup_alpha)

        data = data.map(mix, parallel, deterministic=True)
    data = data.prefetch(tf.data.AUTOTUNE)
    # As on the data sets of keras.utils.image_dataset_from_directory.
    data.class_names = None if source.class_names is None else list(source.class_names)
    data.skipped = skipped.files
    count = source.count
    if repeat:
        data.cardinality = lambda: tf.constant(tf.data.INFINITE_CARDINALITY, tf.int64)
    elif not skip and count >= 0:
        # Not by `assert_cardinality`, which fails in the workers of tf.data service: each gets a part of the elements.
        batches = count // batch_size if drop_remainder else -(-count // batch_size)
        data.cardinality = lambda: tf.constant(batches, tf.int64)
    return data


def _endless(source: Source, seed: int, start: int, batch_size: int, shard: tuple[int, int]) -> tf.data.Dataset:
    """(element, its augmentation's seed) without end, from the example with the number `start` on.

    What is at a place is decided by the place and the seed alone, not by what was read before: a run that goes on from
    a step, or reads a part of every batch, sees what the whole run in one process sees.
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


def _rows(labels: Any, classes: int) -> Any:
    return tf.one_hot(labels, classes) if labels.dtype.is_integer else labels


def _problem(example: Example, classes: int | None) -> Any:
    """What is wrong with an example before its image is looked at: a scalar string, empty for nothing."""
    label = example.label
    if label.dtype.is_floating:
        fits = tf.reduce_all((label >= 0) & (label <= 1))
        wrong = tf.strings.format("has the label {}, which is no row of numbers in [0, 1].", label)
    elif classes is None:
        fits = label >= 0
        wrong = tf.strings.format("has the label {}, which is below 0, where labels begin.", label)
    else:
        fits = (label >= 0) & (label < classes)
        wrong = tf.strings.format(f"has the label {{}}, which is none of the {classes} classes, [0, {classes}).", label)
    return tf.where((example.problem == "") & ~fits, wrong, example.problem)


def _size(source: Source, processor: Any, rule: Any) -> tuple[int | None, int | None]:
    """Height and width of the images that come out, where they are known."""
    if rule is not None:
        return rule.crop_size, rule.crop_size
    if processor.do_center_crop:
        return processor.crop_size["height"], processor.crop_size["width"]
    if not processor.do_resize:
        return source.size or (None, None)
    return processor.size.get("height"), processor.size.get("width")
