"""The weights that a plain layer would have, after `enable_lora` or `quantize` changed the layer."""

from typing import Any

import keras
from keras import ops

LOW_RANK = ("lora_kernel_a", "lora_kernel_b")  # what `enable_lora` adds to a layer


def plain_weights(layer: keras.layers.Layer) -> dict[str, Any]:
    """Returns a layer's weights by name; `kernel` includes what was learned with `enable_lora`.

    `kernel + lora_alpha / rank * (lora_kernel_a @ lora_kernel_b)`, in the kernel's own dtype. Keras casts the sum to
    the compute dtype, which loses half of the digits under mixed precision.

    Returns:
        Variables, and a tensor for a kernel with such a product in it.

    Checked against the outputs of Keras 3.15's layers.
    """
    weights: dict[str, Any] = {variable.name: variable for variable in layer.weights}
    if not getattr(layer, "lora_enabled", False):
        return weights
    first, second = (ops.convert_to_tensor(weights.pop(name)) for name in LOW_RANK)
    kernel = ops.convert_to_tensor(weights["kernel"])
    learned = layer.lora_alpha / layer.lora_rank * ops.matmul(first, second)
    weights["kernel"] = kernel + ops.cast(learned, kernel.dtype)
    return weights


def quantization_of(layer: keras.layers.Layer) -> str | None:
    """Returns the mode in which a layer was quantized, such as `"int8"`; `None` if its weights are plain floats."""
    return getattr(layer.dtype_policy, "quantization_mode", None)


def quantized_layers(model: keras.Model) -> list[str]:
    """Lists the quantized layers of a model and of the models inside it, such as `"predictions (int8)"`."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += quantized_layers(layer)
        elif mode := quantization_of(layer):
            found.append(f"{layer.name} ({mode})")
    return found
