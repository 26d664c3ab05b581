"""A layer's weights as a plain layer would have them, whatever Keras has made of the layer since it was built."""

from typing import Any

import keras
from keras import ops

LOW_RANK = ("lora_kernel_a", "lora_kernel_b")  # what `enable_lora` adds to a layer


def plain_weights(layer: keras.layers.Layer) -> dict[str, Any]:
    """The weights of a layer by their names; `kernel` includes what `enable_lora` has made it learn.

    `kernel + lora_alpha / rank * (lora_kernel_a @ lora_kernel_b)`, in the kernel's own dtype. Keras casts the same sum
    to the compute dtype, in which half of the digits would be lost under mixed precision.

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
    """What `quantize` has made of a layer, such as `"int8"`; `None` if its weights are floats that are used as such."""
    return getattr(layer.dtype_policy, "quantization_mode", None)


def quantized_layers(model: keras.Model) -> list[str]:
    """The layers of a model, and of the models in it, that `quantize` has changed, as `"predictions (int8)"`."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += quantized_layers(layer)
        elif mode := quantization_of(layer):
            found.append(f"{layer.name} ({mode})")
    return found
