"""From weight standardization to plain convolutions, for inference."""

import functools
from typing import Any

import keras
from keras import ops

from keras_bit.network.layers import Conv2D, StdConv2D
from keras_bit.network.normalization import standardize_kernel


def fuse(model: keras.Model) -> keras.Model:
    """The same model with every `StdConv2D` replaced by a `Conv2D` that holds the standardised kernel.

    `kernel = (kernel - mean) / sqrt(variance + epsilon)` is computed once, in float32, instead of in every call, where
    it costs a BiT-50 as much as its convolutions do for one picture. Names, dtype policies and all other layers stay;
    their weights are copies, so that training one of the two models does not touch the other. Train and save the model
    that is not fused: what a fused one has learned cannot be standardised again, and `save_pretrained` refuses it.

    Args:
        model: a functional (or sequential) model, of keras_bit or around one; models inside it are fused, too.

    Returns:
        A new model of the same class, with the same inputs and outputs; of a BiT it has the same `config`. A model
        without `StdConv2D` gives a plain copy.

    Raises:
        ValueError: `model` is no functional or sequential Keras model, has not been built, or has a layer that cannot
            be built again, as a `Lambda` around a Python function.

    Checked against the model that was given: the outputs are equal but for rounding.
    """
    check_graph(model)
    return keras.models.clone_model(model, clone_function=_fused, recursive=True)


def fuse_in_float32(model: keras.Model, convolution: type = keras.layers.Conv2D) -> keras.Model:
    """`fuse`, where layers of half precision become those of float32: for engines that know no mixed precision.

    Convolutions become Keras' own: other engines have their own ways with kernels of 1x1.
    """
    check_graph(model)
    fused = functools.partial(_fused, dtype="float32", convolution=convolution)
    return keras.models.clone_model(model, clone_function=fused, recursive=True)


def check_graph(model: keras.Model) -> None:
    # Keras has no public name for the class of functional models; only they hold a graph of `operations`.
    graph = isinstance(model, keras.Sequential) or hasattr(model, "operations")
    if not isinstance(model, keras.Model) or not graph:
        raise ValueError(
            f"`model` must be a functional or sequential Keras model, got {type(model).__name__}. In a model of your "
            "own class, fuse or export the BiT inside."
        )
    if not model.built:
        raise ValueError("`model` must be built, got one without weights. Call it on a batch of pictures first.")


def _fused(layer: keras.Operation, dtype: str | None = None, convolution: type = Conv2D) -> keras.Operation:
    """A copy of `layer` with its weights; a `convolution` for a `StdConv2D`. `dtype` replaces the layer's policy."""
    config = layer.get_config()
    if not isinstance(layer, keras.layers.Layer):  # an operation, as `x * 2` puts one into the graph
        return _rebuilt(layer, config)
    if dtype is not None and "dtype" in config:
        config["dtype"] = dtype
    if not isinstance(layer, StdConv2D):
        copy = convolution.from_config(config) if type(layer) is Conv2D else _rebuilt(layer, config)
        if layer.built:
            copy.build_from_config(layer.get_build_config())
            for variable, value in zip(copy.variables, layer.variables, strict=True):
                # A copy: in JAX the two would share an array, which training and `predict` take away from both.
                variable.assign(ops.copy(value))
        if hasattr(copy, "finalize_state"):  # Keras' preprocessing layers derive what they compute with from them
            copy.finalize_state()
        return copy

    epsilon = config.pop("epsilon")
    config.pop("lora_rank", None)  # `layer.kernel` has the product of the two small matrices in it
    copy = convolution.from_config(config)
    # What is overwritten at once is not drawn at random: R152x4 has 936 million numbers.
    copy.kernel_initializer = keras.initializers.Zeros()
    copy.build_from_config(layer.get_build_config())
    copy.kernel_initializer = keras.initializers.get(config["kernel_initializer"])
    copy.kernel.assign(standardize_kernel(ops.convert_to_tensor(layer.kernel), epsilon))
    if layer.use_bias:
        copy.bias.assign(ops.copy(layer.bias))
    return copy


def _rebuilt(layer: keras.Operation, config: dict[str, Any]) -> keras.Operation:
    try:
        return type(layer).from_config(config)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"`model` has the layer {layer.name!r}, a {type(layer).__name__}, which Keras cannot build again from what "
            "it says of itself, as a Lambda around a Python function. Use a layer class with `get_config`, or leave it "
            f"out and compute it outside of the model. Keras says: {error}"
        ) from error
