"""The names of a model's outputs in files, the same in every format with names."""

from collections.abc import Mapping

import keras

from keras_bit.exporters.job import OUTPUT
from keras_bit.network.model import BiTModel
from keras_bit.network.weights import HEAD


def has_head(model: keras.Model) -> bool:
    """Returns whether it is a keras_bit model with a head."""
    return isinstance(model, BiTModel) and any(layer.name == HEAD for layer in model.layers)


def clash(model: keras.Model, input: str, format: str) -> str:
    """Returns a refusal if an output has the name of the input in files of a format; else nothing."""
    if input not in output_names(model):
        return ""
    return (
        f"`model` must have no output named {input!r} for the format {format!r}, whose input has this name. Rename it: "
        "`keras.Model(model.input, {'another_name': ...})`."
    )


def output_names(model: keras.Model) -> tuple[str, ...]:
    """Returns the names of the outputs, in the model's order.

    A dict, such as that of a `BiTBackbone`, has its keys. A single output is "probabilities" after a softmax or
    sigmoid, "logits" after a dense layer without one, for a BiT without a head "features" if it is pooled, else
    "last_hidden_state", and "output" for everything else.
    """
    if isinstance(model.output, Mapping):
        return tuple(model.output)
    layer = model
    while isinstance(layer, keras.Model):  # the last layer may be a model itself
        if isinstance(layer, BiTModel) and not has_head(layer):
            return ("features" if len(layer.output.shape) == 2 else "last_hidden_state",)
        last = layer.output_names[0] if hasattr(layer, "output_names") else layer.layers[-1].name
        layer = next((inner for inner in layer.layers if inner.name == last), None)  # or an operation such as `x * 2`
    activation = getattr(layer, "activation", None)
    if activation in (keras.activations.softmax, keras.activations.sigmoid) or isinstance(layer, keras.layers.Softmax):
        return ("probabilities",)
    if isinstance(layer, keras.layers.Dense) and activation is keras.activations.linear:
        return ("logits",)
    return (OUTPUT,)
