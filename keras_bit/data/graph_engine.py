"""Reads images with TensorFlow's operations only: for tf.data service, saved graphs and checkpoints of iterators.

Imports TensorFlow, so only functions import this module.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_bit.data import geometry
from keras_bit.data.graph_augmentation import augment, uniform_numbers
from keras_bit.data.options import Options
from keras_bit.data.source import Example, Source
from keras_bit.images import graph_preprocessing


def read(elements: tf.data.Dataset, source: Source, options: Options) -> tuple[tf.data.Dataset, list[str]]:
    """Does the same as `host_engine.read`, in a graph. The list stays empty, because this engine leaves no images out.

    Raises:
        tf.errors.InvalidArgumentError: during iteration: an image cannot be read. The error names it if its header or
            label is the reason; a decoder's own error has no name, unlike with `engine="host"`.
    """
    if source.open is None:
        raise ValueError(
            "`engine` must be 'host' for a `source` whose rows Python reads, such as a Hugging Face data set, got "
            "'graph'."
        )
    parallel = tf.data.AUTOTUNE if options.num_parallel_calls is None else options.num_parallel_calls
    images = elements.map(_reader(source.open, source, options), parallel, deterministic=True)
    # An endless data set has no last batch, so the size of its batches is known.
    drop_remainder = options.drop_remainder or options.repeat
    return images.batch(options.batch_size // options.shard[1], drop_remainder=drop_remainder), []


def _reader(open_example: Callable[[Any], Example], source: Source, options: Options) -> Callable[..., tuple[Any, ...]]:
    """Returns a function from an element to (image, label, seed)."""
    height, width = options.size(source.size) or (None, None)

    def image_of(example: Example, seeds: tuple[Any, ...]) -> Any:
        image = example.load()
        if options.rule is None:
            return graph_preprocessing.preprocess(image, options.processor, options.max_pixels, example.name)
        crop = options.random_resized_crop
        numbers = uniform_numbers(seeds[0], geometry.numbers_needed(crop))
        return augment(image, numbers, options.processor, options.rule, crop, options.max_pixels, example.name)

    # Autograph rewrites a function before it is traced, which takes longer than that; here is nothing to rewrite.
    @tf.autograph.experimental.do_not_convert
    def read_element(element: Any, *seeds: Any) -> tuple[Any, ...]:
        example = open_example(element)
        wrong = _problem(example, source.class_names)
        text = tf.strings.unicode_transcode(tf.strings.join([example.name, " ", wrong]), "UTF-8", "UTF-8")
        with tf.control_dependencies([tf.debugging.Assert(wrong == "", [text])]):
            return tf.ensure_shape(image_of(example, seeds), [height, width, 3]), tf.identity(example.label), *seeds

    return read_element


def _problem(example: Example, class_names: tuple[str, ...] | None) -> Any:
    """Computes `targets.problem` in the graph, or the source's own problem: a scalar string, empty for none."""
    label, classes = example.label, len(class_names or ())
    if label.dtype.is_floating and class_names is None:
        fits = tf.reduce_all(tf.math.is_finite(label))
        wrong = tf.strings.format("has the label {}, which is not a finite number.", label)
    elif label.dtype.is_floating:
        fits = tf.reduce_all((label >= 0) & (label <= 1))
        wrong = tf.strings.format("has the label {}, which is not a row of numbers in [0, 1].", label)
    elif class_names is None:
        fits = label >= 0
        wrong = tf.strings.format("has the label {}, but labels begin at 0.", label)
    else:
        fits = (label >= 0) & (label < classes)
        wrong = tf.strings.format(
            f"has the label {{}}, which is not one of the {classes} classes, [0, {classes}).", label
        )
    return tf.where((example.problem == "") & ~fits, wrong, example.problem)
