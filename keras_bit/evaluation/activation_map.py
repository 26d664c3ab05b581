"""Class activation maps: how much each place of an image adds to the logit of a class.

BiT's head is linear and comes after a mean over positions, so the two can be exchanged: the head's kernel, applied to
every position of the last feature map, gives a map whose mean plus the bias is the logit. No gradient is needed, and
the map is exact.

Source: Zhou et al., "Learning Deep Features for Discriminative Localization" (arXiv:1512.04150).
"""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from keras_bit.network.config import BitConfig
from keras_bit.network.model import BiTModel
from keras_bit.network.positions import of_last_map


class ActivationMaps(NamedTuple):
    """The result of `activation_maps`.

    Args:
        maps: float32 `(batch, height, width, chosen)`, contributions to the logits: the mean of a map over height and
            width, plus its bias, is the class's logit.
        classes: int64 `(batch, chosen)`, the classes of the maps.
        biases: float32 `(batch, chosen)`, of the head.
        scores: float32 `(batch, classes)`, the model's output: probabilities, or logits if it has no activation.
    """

    maps: np.ndarray
    classes: np.ndarray
    biases: np.ndarray
    scores: np.ndarray

    @property
    def logits(self) -> np.ndarray:
        """`(batch, chosen)`, from the maps."""
        return self.maps.mean(axis=(1, 2)) + self.biases


def check_model(model: keras.Model) -> None:
    """Refuses a model whose output is not BiT's head.

    Raises:
        ValueError: `model` has no head or another one, or is not a model of keras_bit.
    """
    if not isinstance(model, BiTModel):
        raise ValueError(
            "`model` must be a model of keras_bit, as `keras_bit.from_pretrained` gives it, got "
            f"{type(model).__name__}. For your own model, pass the BiT inside it."
        )
    found = {layer.name: layer for layer in model.layers}
    pool, head = found.get("avg_pool"), found.get("predictions")
    linear = isinstance(pool, layers.GlobalAveragePooling2D) and isinstance(head, layers.Dense)
    if not linear or [id(output) for output in model.outputs] != [id(found["predictions"].output)]:
        outputs = ", ".join(str(tuple(output.shape)) for output in model.outputs)
        raise ValueError(
            "`model` must end in its classification head, the layer 'predictions' over 'avg_pool': got a model with "
            f"the output {outputs}. Load a checkpoint with a head, and pass `include_top=True`."
        )


def activation_maps(model: BiTModel, pixel_values: Any, classes: Sequence[int] | None = None) -> ActivationMaps:
    """Computes `maps[b, y, x, c] = sum over channels k of features[b, y, x, k] * kernel[k, c]`, for some classes `c`.

    `features` is the last feature map, after the final norm and activation (transformers' `last_hidden_state`). The
    bias is not part of the maps, because it has no place.

    Args:
        model: a BiT with its head, fused or not, with any activation.
        pixel_values: float32 `(batch, height, width, channels)`, as the model takes them.
        classes: numbers of classes, for all images; `None` is the predicted class of each image.

    Raises:
        ValueError: the model has no head, `pixel_values` do not fit it, or a class number is out of range.

    Checked against transformers 5.23 `BitModel`, with numpy for the head.
    """
    check_model(model)
    pool, head = model.get_layer("avg_pool"), model.get_layer("predictions")
    count = head.units
    if classes is not None:
        classes = [operator.index(number) for number in classes]
        if not classes or not all(0 <= number < count for number in classes):
            raise ValueError(f"`classes` must be numbers from 0 to {count - 1}, at least one, got {classes}.")
    both = keras.Model(model.input, [pool.input, model.output])
    if keras.backend.backend() == "jax":
        # Plain JAX would compile every operation separately. Not `predict_on_batch`, which would take the variables'
        # arrays away from the model that shares them.
        outputs = both.predict(pixel_values, batch_size=len(pixel_values), verbose=0)
    else:
        outputs = both(pixel_values)
    features, scores = map(ops.convert_to_numpy, outputs)
    chosen = np.argmax(scores, axis=-1)[:, None] if classes is None else np.tile(classes, (len(scores), 1))
    # In float64, so that only the model itself rounds.
    kernel, bias = (ops.convert_to_numpy(variable).astype(np.float64) for variable in (head.kernel, head.bias))
    maps = np.einsum("byxk,kbc->byxc", features.astype(np.float64), kernel[:, chosen], optimize=True)
    return ActivationMaps(
        maps.astype(np.float32), chosen, bias[chosen].astype(np.float32), np.asarray(scores, np.float32)
    )


def centers(config: BitConfig, positions: int) -> np.ndarray:
    """Returns the places of a map's rows or columns in the model's input, in pixels from the first one's center."""
    stride, first = of_last_map(config)
    return stride * np.arange(positions) + first


def interpolated(heat: np.ndarray, rows: np.ndarray, columns: np.ndarray, config: BitConfig) -> np.ndarray:
    """Interpolates a map `(height, width)` at other places: linear between its positions, constant outside.

    Args:
        rows, columns: places in the model's input, in pixels from the center of the first pixel.

    Returns:
        `(len(rows), len(columns))`; never above the map's maximum or below its minimum.
    """
    down, across = (
        np.stack([np.interp(places, centers(config, count), weight) for weight in np.eye(count)], axis=1)
        for places, count in zip((rows, columns), heat.shape, strict=True)
    )
    return down @ heat @ across.T
