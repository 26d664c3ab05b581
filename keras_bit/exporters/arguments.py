"""Checks and normalizes the arguments of `export`."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit import wording
from keras_bit.classifier import BiTClassifier
from keras_bit.counts import check_whole, is_whole
from keras_bit.exporters.job import input_dtype
from keras_bit.images.processor import BitImageProcessor
from keras_bit.labels import Labels, imagenet_labels, labels_of_checkpoint, names_of
from keras_bit.network import plain_weights, transforms
from keras_bit.network.model import MIN_SIZE, BiTModel


def taken_apart(
    model: keras.Model, processor: BitImageProcessor | None
) -> tuple[keras.Model, BitImageProcessor | None]:
    """Returns the model and the processor; a `BiTClassifier` has its own."""
    if not isinstance(model, BiTClassifier):
        return model, processor
    if processor is not None:
        raise ValueError(
            "`processor` must be None for a BiTClassifier, which has its own. To use another, export "
            "`classifier.model`."
        )
    return model.model, model.processor


def checked_model(model: keras.Model) -> keras.Model:
    """Checks that `model` takes one batch of images and returns one tensor or a dict of them."""
    transforms.check_graph(model)
    if isinstance(model, keras.Sequential) and len(model.inputs) == len(model.outputs) == 1:
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    _check_ends(model)
    if quantized := plain_weights.quantized_layers(model):
        raise ValueError(
            f"`model` is quantized: {wording.some(quantized)}. Not all engines support Keras' quantized operations. "
            "Export the model before `quantize`, and pass `quantize='int8'` here for 8 bits."
        )
    return model


def _check_ends(model: keras.Model) -> None:
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ValueError(
            f"`model` must take one batch of images, (batch, height, width, channels), got inputs of {shapes}."
        )
    outputs = model.output.values() if isinstance(model.output, Mapping) else [model.output]
    if not all(isinstance(output, keras.KerasTensor) for output in outputs):
        raise ValueError(
            f"`model` must give one tensor or a dict of them, got a {type(model.output).__name__}. Name them: "
            "`keras.Model(model.input, {'first': ..., 'second': ...})`."
        )


def checked_labels(model: keras.Model, labels: Labels | None) -> tuple[str, ...] | None:
    """Returns a name for each output of the head; `None` without a head or without names."""
    classes = _classes(model)
    if labels is not None:
        return _names(labels, classes)
    if classes is None or not isinstance(model, BiTModel) or model.config.num_labels != classes:
        return None
    known = labels_of_checkpoint(model.config.id2label or {})
    if known is not None:
        return names_of([name for _, name in sorted(known.items())], classes)
    return tuple(names for _, names in imagenet_labels(classes))


def _classes(model: keras.Model) -> int | None:
    """Returns the number of the head's outputs; `None` without a head."""
    if isinstance(model.output, Mapping | Sequence) or len(model.output_shape) != 2:
        return None
    return model.output_shape[-1]


def _names(labels: Labels, classes: int | None) -> tuple[str, ...]:
    if classes is None:
        raise ValueError("`labels` must be None for a `model` without a head. Leave them out.")
    if isinstance(labels, Sequence) and not isinstance(labels, str | bytes) and len(labels) != classes:
        raise ValueError(
            f"`labels` must have a name for each of the {classes} classes of `model`, in the order of its outputs, "
            f"got {len(labels)}."
        )
    names = names_of(labels, classes)
    for index, one in enumerate(names):
        if not one.isprintable() and any("\ud800" <= character <= "\udfff" for character in one):
            raise ValueError(
                f"`labels` must be text that UTF-8 can hold, got {one!r} for class {index}. Correct this label."
            )
    return names


def checked_batch_size(model: keras.Model, batch_size: int | None) -> int | None:
    if batch_size is None:
        return None
    check_whole("batch_size", batch_size)
    fixed = model.input_shape[0]
    if fixed not in (None, batch_size):
        raise ValueError(f"`batch_size` must be the {fixed} of the model's input, got {batch_size!r}.")
    return int(batch_size)


def checked_image_size(
    model: keras.Model, image_size: int | tuple[int | None, int | None] | None, of_any_images: bool = False
) -> tuple[int | None, int | None] | None:
    """Returns height and width; `of_any_images` says that images are resized before the model gets them."""
    if image_size is None:
        return None
    sides = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    whole = all(side is None or is_whole(side) for side in sides)
    if len(sides) != 2 or not whole or any(side is not None and side < MIN_SIZE for side in sides):
        raise ValueError(
            f"`image_size` must be a whole number of pixels, at least {MIN_SIZE}, or (height, width), got "
            f"{image_size!r}."
        )
    fixed = (None, None) if of_any_images else model.input_shape[1:3]
    if any(own is not None and own != side for own, side in zip(fixed, sides, strict=True)):
        raise ValueError(
            f"`image_size` must be the {fixed[0]}x{fixed[1]} px of the model's input, got {image_size!r}. Build the "
            "model with `input_shape=(None, None, 3)` for other sizes."
        )
    height, width = (None if side is None else int(side) for side in sides)
    return height, width


def expanded(path: str | Path, name: str = "path") -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"`{name}` must be in a known home directory, got {str(path)!r}: {error} Write the whole path."
        ) from None


def check_processor(model: keras.Model, processor: BitImageProcessor | None) -> None:
    """Refuses a processor that gives fractions if the model takes whole numbers."""
    if processor is None or input_dtype(model) == np.float32:
        return
    if processor.do_rescale or processor.do_normalize:
        raise ValueError(
            "`processor` must have `do_rescale=False` and `do_normalize=False` for a model that takes "
            f"{input_dtype(model)}, got one whose results are fractions. The model itself does these steps. "
            "Turn them off."
        )


def warn_of_one_class(model: keras.Model) -> None:
    """Warns about a score that is always 1."""
    activation = getattr(model.layers[-1], "activation", None)
    if activation is keras.activations.softmax and model.layers[-1].output.shape[-1] == 1:
        warnings.warn(
            "`model` ends in a softmax over one class, whose score is always 1. Build it with "
            "`classifier_activation='sigmoid'`, or with one more class.",
            stacklevel=3,
        )


def checked_data(model: keras.Model, data: Iterable[Any] | None) -> list[np.ndarray] | None:
    """Converts the batches to arrays of the model's type, and holds them, because a generator can be read only once."""
    if data is None:
        return None
    if not isinstance(data, Iterable):
        raise ValueError(f"`representative_data` must be an iterable of batches, got {type(data).__name__}.")
    dtype = input_dtype(model)
    batches = []
    for batch in data:
        array = np.asarray(batch[0] if isinstance(batch, tuple) else batch)
        if array.ndim != 4 or array.dtype != dtype or array.shape[-1] != model.input_shape[-1] or not array.size:
            raise ValueError(
                f"`representative_data` must give {dtype} batches (batch, height, width, {model.input_shape[-1]}) as "
                f"the model takes them, got {array.dtype} {array.shape}. Use the batches of `image_dataset(..., "
                "batch_size=8)`, or one of `processor(images)`."
            )
        if not np.isfinite(array).all():
            raise ValueError("`representative_data` must be finite, got NaN or infinity.")
        batches.append(array)
    if not batches:
        raise ValueError("`representative_data` must give at least one batch, got none.")
    return batches
