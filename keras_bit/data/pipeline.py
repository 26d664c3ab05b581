"""What happens to a source's images, in order: shuffle, read, preprocess or augment, check, batch, MixUp.

Imports TensorFlow, and is imported by functions only.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bit.data import augmentation, faults
from keras_bit.data.source import Example, Source, random_numbers
from keras_bit.hyperrule import HyperRule
from keras_bit.images import graph_faults, graph_preprocessing
from keras_bit.images.processor import BitImageProcessor


@dataclasses.dataclass(frozen=True)
class Options:
    """The arguments of `keras_bit.image_dataset` that concern every source, checked.

    Args:
        rule: of the training; `None` for evaluation.
        skip: whether to leave out images that cannot be read.
        indexed: whether the place of each image in the source comes as a third part of a batch; for evaluation.
    """

    processor: BitImageProcessor
    batch_size: int
    rule: HyperRule | None = None
    seed: int | None = None
    skip: bool = False
    random_resized_crop: bool = False
    max_pixels: int | None = None
    drop_remainder: bool = False
    num_parallel_calls: int | None = None
    repeat: bool = False
    initial_step: int = 0
    shard: tuple[int, int] = (0, 1)
    label_mode: str | None = None
    indexed: bool = False

    @property
    def mixup_alpha(self) -> float:
        return 0.0 if self.rule is None else self.rule.mixup_alpha

    @property
    def mixes(self) -> bool:
        return self.mixup_alpha > 0

    @property
    def one_hot(self) -> bool:
        return self.label_mode == "categorical" or (self.mixes and self.label_mode is None)

    @property
    def parallel(self) -> int:
        return tf.data.AUTOTUNE if self.num_parallel_calls is None else self.num_parallel_calls


def build(source: Source, options: Options) -> tf.data.Dataset:
    """The data set of `keras_bit.image_dataset`."""
    _check_labels(source, options)
    skipped = faults.Skipped()
    examples = faults.read_or_name(
        _elements(source, options),
        _reader(source, options),
        _describer(source, options),
        _nothing(source, options),
        skipped if options.skip else None,
        options.parallel,
    )
    data = _batched(examples, source, options).prefetch(tf.data.AUTOTUNE)
    # As on the data sets of keras.utils.image_dataset_from_directory.
    data.class_names = None if source.class_names is None else list(source.class_names)
    data.skipped = skipped.files
    data.faults = skipped  # ours, for `named_batches`
    if (batches := _batches(source, options)) is not None:
        # Not by `assert_cardinality`, which fails in the workers of tf.data service: each gets a part of the elements.
        data.cardinality = lambda: tf.constant(batches, tf.int64)
    return data


def _check_labels(source: Source, options: Options) -> None:
    if options.mixes and not options.one_hot:
        raise ValueError("`label_mode` must be None or 'categorical' for MixUp, which mixes labels, got 'int'.")
    if source.numbers and options.label_mode is not None:
        raise ValueError(
            f"`label_mode` must be None for labels that are numbers to be predicted, got {options.label_mode!r}."
        )
    if options.one_hot and source.class_names is None and not source.numbers:
        raise ValueError(
            "`class_names` must be given for MixUp and label_mode='categorical', which need one-hot labels, got None "
            "for a `source` that does not tell how many classes there are."
        )


def _elements(source: Source, options: Options) -> tf.data.Dataset:
    """Tuples of an element and what goes with it: its augmentation's seed in training, its index where that is asked.

    The seeds are drawn before the images are read, in their order: the same numbers, whichever thread reads which
    image. The index counts before any image is left out.
    """
    if options.rule is None:
        parts = (source.elements, tf.data.Dataset.counter()) if options.indexed else (source.elements,)
        return tf.data.Dataset.zip(parts)
    seed = int(np.random.default_rng().integers(2**31)) if options.seed is None else options.seed
    if options.repeat:
        start = options.initial_step * options.batch_size
        return _endless(source, seed, start, options.batch_size, options.shard)
    return tf.data.Dataset.zip(source.shuffled(seed), random_numbers(seed).batch(2, drop_remainder=True))


def _reader(source: Source, options: Options) -> Callable[..., tuple[Any, ...]]:
    """What makes (image, label, what went with the element) of an element; fails where it cannot be read."""

    def image_of(example: Example, beside: tuple[Any, ...]) -> Any:
        if options.rule is None:
            return graph_preprocessing.preprocess(example.load(), options.processor, options.max_pixels)
        (seed,) = beside
        return augmentation.augment(
            example.load(), seed, options.processor, options.rule, options.random_resized_crop, options.max_pixels
        )

    def read(element: Any, *beside: Any) -> tuple[Any, ...]:
        example = source.open(element)
        image = image_of(example, beside)
        wrong = _problem(example, source.class_names)
        with tf.control_dependencies([tf.debugging.Assert(wrong == "", [wrong])]):
            return tf.identity(image), example.label, *beside

    return read


def _describer(source: Source, options: Options) -> Callable[..., tuple[Any, Any, Any]]:
    """What tells of an element that could not be read: its name, what is wrong, and whether that is certain."""

    def describe(element: Any, *beside: Any) -> tuple[Any, Any, Any]:
        del beside
        example = (source.look or source.open)(element)
        wrong = _problem(example, source.class_names)
        resizes = options.processor if options.rule is None else None
        why, certain = graph_faults.problem(example.load, options.max_pixels, source.encoded, resizes)
        own = wrong != ""
        return example.name, tf.where(own, wrong, why), own | certain

    return describe


def _nothing(source: Source, options: Options) -> tuple[np.ndarray, ...]:
    """Of the types and ranks of what is read of an element."""
    label = tf.data.Dataset.zip((source.elements,)).map(lambda element: source.open(element).label).element_spec
    image_and_label = (np.zeros([0, 0, 3], np.float32), np.zeros(label.shape, label.dtype.as_numpy_dtype))
    if options.rule is not None:
        return *image_and_label, np.zeros([2], np.int64)
    return (*image_and_label, np.zeros([], np.int64)) if options.indexed else image_and_label


def _batched(examples: tf.data.Dataset, source: Source, options: Options) -> tf.data.Dataset:
    height, width = _size(source, options)
    classes = len(source.class_names or ())

    def finish(image: Any, label: Any, *beside: Any) -> tuple[Any, ...]:
        image = tf.ensure_shape(image, [height, width, 3])
        return (image, label, *beside) if options.mixes or options.indexed else (image, label)

    def mix(images: Any, labels: Any, seeds: Any) -> tuple[Any, Any]:
        return augmentation.mix_up(images, labels, seeds[0], options.mixup_alpha)

    # An endless one has no rest: its batches have a known size.
    drop_remainder = options.drop_remainder or options.repeat
    data = examples.map(finish).batch(options.batch_size // options.shard[1], drop_remainder=drop_remainder)
    if options.one_hot:
        data = data.map(lambda images, labels, *beside: (images, _rows(labels, classes), *beside))
    return data.map(mix, options.parallel, deterministic=True) if options.mixes else data


def _batches(source: Source, options: Options) -> int | None:
    """How many there will be, if that is known."""
    if options.repeat:
        return tf.data.INFINITE_CARDINALITY
    if options.skip or source.count < 0:
        return None
    return source.count // options.batch_size if options.drop_remainder else -(-source.count // options.batch_size)


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


def _problem(example: Example, class_names: tuple[str, ...] | None) -> Any:
    """What is wrong with an example before its image is looked at: a scalar string, empty for nothing."""
    label, classes = example.label, len(class_names or ())
    if label.dtype.is_floating and class_names is None:
        fits = tf.reduce_all(tf.math.is_finite(label))
        wrong = tf.strings.format("has the label {}, which is not a finite number.", label)
    elif label.dtype.is_floating:
        fits = tf.reduce_all((label >= 0) & (label <= 1))
        wrong = tf.strings.format("has the label {}, which is not a row of numbers in [0, 1].", label)
    elif class_names is None:
        fits = label >= 0
        wrong = tf.strings.format("has the label {}, which is below 0, where labels begin.", label)
    else:
        fits = (label >= 0) & (label < classes)
        wrong = tf.strings.format(
            f"has the label {{}}, which is not one of the {classes} classes, [0, {classes}).", label
        )
    return tf.where((example.problem == "") & ~fits, wrong, example.problem)


def _size(source: Source, options: Options) -> tuple[int | None, int | None]:
    """Height and width of the images that come out, where they are known."""
    if options.rule is not None:
        return options.rule.crop_size, options.rule.crop_size
    unchanged = not (options.processor.do_resize or options.processor.do_center_crop)
    return (source.size if unchanged else options.processor.fixed_size) or (None, None)
