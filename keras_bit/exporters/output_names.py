"""What the outputs of a model are called in the files: the same in every format that has names."""

from collections.abc import Mapping

import keras

from keras_bit.exporters.job import OUTPUT
from keras_bit.network.model import BiTModel

HEAD = "predictions"


def has_head(model: keras.Model) -> bool:
    """Whether it is a BiT with a head, as keras_bit builds it."""
    return isinstance(model, BiTModel) and any(layer.name == HEAD for layer in model.layers)


def output_names(model: keras.Model) -> tuple[str, ...]:
    """The names of the outputs, in the model's order.

    Those of a dict, as of a `BiTBackbone`, are its keys. The only output of a model is "probabilities" behind a softmax
    or sigmoid, "logits" behind a dense layer without; of a BiT without a head "features" if it is pooled, else
    "last_hidden_state"; and "output" of everything else.
    """
    if isinstance(model.output, Mapping):
        return tuple(model.output)
    layer = model
    while isinstance(layer, keras.Model):  # the last layer may be a model itself
        if isinstance(layer, BiTModel) and not has_head(layer):
            return ("features" if len(layer.output.shape) == 2 else "last_hidden_state",)
        last = layer.output_names[0] if hasattr(layer, "output_names") else layer.layers[-1].name
        layer = next((inner for inner in layer.layers if inner.name == last), None)  # or an operation, as `x * 2`
    activation = getattr(layer, "activation", None)
    if activation in (keras.activations.softmax, keras.activations.sigmoid) or isinstance(layer, keras.layers.Softmax):
        return ("probabilities",)
    if isinstance(layer, keras.layers.Dense) and activation is keras.activations.linear:
        return ("logits",)
    return (OUTPUT,)
