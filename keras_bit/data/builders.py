"""TensorFlow Datasets' builders as sources.

Imports TensorFlow, so only functions import this module.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bit.data import streams, targets
from keras_bit.data.items import Item
from keras_bit.data.source import Example, Source


def builder(
    prepared: Any,
    split: str,
    class_names: tuple[str, ...] | None,
    image_column: str,
    label_column: str,
    shuffle_buffer: int,
) -> Source:
    """Opens a prepared builder, with a split or a part of one in its own notation."""
    import tensorflow_datasets as tfds

    features = prepared.info.features
    if image_column not in features or label_column not in features:
        raise ValueError(
            f"`source` has no column {image_column!r} or {label_column!r} among {', '.join(map(repr, features))}. Pass "
            "`image_column` and `label_column`."
        )
    # Undecoded, because its decoder's pixels differ from Pillow's.
    data = prepared.as_dataset(split=split, decoders={image_column: tfds.decode.SkipDecoding()})
    names = getattr(features[label_column], "names", None)
    opened = streams.stream(data, None, image_column, label_column, shuffle_buffer)
    if names is None:
        return dataclasses.replace(opened, class_names=class_names)
    return _with_names(opened, tuple(names), class_names)


def _with_names(stream: Source, names: tuple[str, ...], wanted: tuple[str, ...] | None) -> Source:
    """Renumbers the labels in the order of `wanted`; those of other classes become -1."""
    places = targets.renumbered(names, wanted)
    in_graph = stream.open
    assert in_graph is not None

    # Unlabeled images have -1 there.
    def item(element: Any) -> Item:
        found = stream.item(element)
        inside = 0 <= found.label < len(names)
        return found._replace(label=np.int32(places[found.label] if inside else -1))

    def open_example(element: Any) -> Example:
        example = in_graph(element)
        inside = (example.label >= 0) & (example.label < len(names))
        label = tf.where(inside, tf.constant(places)[tf.clip_by_value(example.label, 0, len(names) - 1)], -1)
        return example._replace(label=label)

    return dataclasses.replace(stream, item=item, open=open_example, class_names=wanted or names)
