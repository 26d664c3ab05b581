"""Changes of a finished model: `fuse` for inference, `freeze` a part of it, `rematerialize` its blocks."""

import functools
import itertools
import re
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_bit import versions
from keras_bit.network.layers import Conv2D, StdConv2D
from keras_bit.network.model import BiTModel, last_of_block, network_layers
from keras_bit.network.normalization import standardize_kernel
from keras_bit.network.plain_weights import plain_weights, quantization_of

EVERYTHING = "all"  # of `freeze`: all but the head


def fuse(model: keras.Model) -> keras.Model:
    """Returns the same model with every `StdConv2D` replaced by a `Conv2D` that holds the standardized kernel.

    `kernel = (kernel - mean) / sqrt(variance + epsilon)` is computed once, in float32, instead of in every call. Names,
    dtype policies and all other layers stay. Weights are copied, so training one of the two models does not change the
    other. Train and save the model that is not fused: a fused kernel cannot be turned back into the raw one, and
    `save_pretrained` refuses a fused model.

    Args:
        model: a functional (or sequential) model, of keras_bit or around one; models inside it are fused too.

    Returns:
        A new model of the same class, with the same inputs, outputs and, for a BiT, `config`. A model without
        `StdConv2D` is copied unchanged.

    Raises:
        ValueError: `model` is not a functional or sequential Keras model, has not been built, or has a layer that
            cannot be built again, such as a `Lambda` around a Python function.

    Checked against the original model: the outputs are equal except for rounding.
    """
    check_graph(model)
    return keras.models.clone_model(model, clone_function=_fused, recursive=True)


def fuse_in_float32(model: keras.Model, convolution: type[keras.layers.Layer] = keras.layers.Conv2D) -> keras.Model:
    """Fuses, and turns half-precision layers into float32 ones, for engines without mixed precision.

    Convolutions become Keras' own, because other engines have their own code for 1x1 kernels.
    """
    check_graph(model)
    fused = functools.partial(_fused, dtype="float32", convolution=convolution)
    return keras.models.clone_model(model, clone_function=fused, recursive=True)


def check_graph(model: keras.Model) -> None:
    # Keras has no public name for the class of functional models; only they hold a graph of `operations`.
    graph = isinstance(model, keras.Sequential) or hasattr(model, "operations")
    if not isinstance(model, keras.Model) or not graph:
        raise ValueError(
            f"`model` must be a functional or sequential Keras model, got {type(model).__name__}. If it is a class of "
            "your own, pass the BiT inside it."
        )
    if not model.built:
        raise ValueError("`model` must be built, got one without weights. Call it on a batch of images first.")


def _fused(
    layer: keras.Operation, dtype: str | None = None, convolution: type[keras.layers.Layer] = Conv2D
) -> keras.Operation:
    """Copies `layer` with its weights. A `StdConv2D` becomes a `convolution`; `dtype` replaces the layer's policy."""
    config = layer.get_config()
    if not isinstance(layer, keras.layers.Layer):  # an operation such as `x * 2`
        return _rebuilt(layer, config)
    quantized = quantization_of(layer) is not None
    if not quantized:
        for argument in ("lora_rank", "lora_alpha"):  # the copied kernel includes the LoRA weights
            config.pop(argument, None)
    whole_numbers = isinstance(layer, keras.layers.InputLayer) and "int" in layer.dtype
    if dtype is not None and "dtype" in config and not quantized and not whole_numbers:
        config["dtype"] = dtype
    if not isinstance(layer, StdConv2D):
        copy = convolution.from_config(config) if type(layer) is Conv2D else _rebuilt(layer, config)
        if layer.built:
            copy.build_from_config(layer.get_build_config())
            if quantized and layer.lora_enabled:
                copy.lora_alpha = layer.lora_alpha  # Keras 3.15 builds a Dense layer without it
            for variable, value in zip(copy.variables, _values(layer, copy), strict=True):
                # The value is copied. JAX would share the array between both models, and training or `predict` of one
                # would delete it in both.
                variable.assign(ops.copy(value))
        if hasattr(copy, "finalize_state"):  # Keras' preprocessing layers compute with values derived from them
            copy.finalize_state()
        return copy

    epsilon = config.pop("epsilon")
    copy = convolution.from_config(config)
    # The kernel is overwritten at once, and drawing random numbers for it would take seconds for R152x4.
    copy.kernel_initializer = keras.initializers.Zeros()
    copy.build_from_config(layer.get_build_config())
    copy.kernel_initializer = keras.initializers.get(config["kernel_initializer"])
    copy.kernel.assign(standardize_kernel(ops.convert_to_tensor(layer.kernel), epsilon))
    if layer.use_bias:
        copy.bias.assign(ops.copy(layer.bias))
    return copy


def _values(layer: keras.layers.Layer, copy: keras.layers.Layer) -> list[Any]:
    """Returns the values for the variables of `copy`, in their order."""
    if quantization_of(layer) is None and not getattr(layer, "lora_enabled", False):
        return list(layer.variables)
    # LoRA and quantization change the order of the variables. The names are Keras' own.
    named = {variable.name: variable for variable in layer.variables}
    if quantization_of(layer) is None:
        named = plain_weights(layer)
    return [named[variable.name] for variable in copy.variables]


def _rebuilt(layer: keras.Operation, config: dict[str, Any]) -> keras.Operation:
    try:
        return type(layer).from_config(config)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"`model` has the layer {layer.name!r}, a {type(layer).__name__}, which Keras cannot build again from its "
            "config, such as a Lambda around a Python function. Use a layer class with `get_config`, or move the "
            f"computation out of the model. Keras says: {error}"
        ) from error


def freeze(model: BiTModel, up_to: str | None = None) -> tuple[str, ...]:
    """Freezes the beginning of a network, and makes the rest trainable.

    The last call counts: everything after `up_to` becomes trainable. Your own layers in front of the network
    (`input_tensor`) are not changed. Compile the model afterwards. Group norms have no statistics that would need
    freezing. The kernel of a layer with `enable_lora` stays frozen in both parts.

    Args:
        model: a model that keras_bit built.
        up_to: the last stage that is frozen: `"stem"`, `"stage1"` ... `"all"` or `None` freezes everything but the head
            `predictions`. Only `"all"` and `None` freeze the final norm.

    Returns:
        The names of the frozen layers that have weights, in the network's order.

    Raises:
        ValueError: `up_to` is not a stage of the model, or the model is not keras_bit's.

    Checked against Keras 3.15 `Layer.trainable`.
    """
    if not isinstance(model, BiTModel):
        raise ValueError(
            f"`model` must be one that keras_bit built, got {type(model).__name__}. If it is a part of your model, "
            "freeze that part."
        )
    stages = {layer: stage_of(layer.name) for layer in network_layers(model)}
    present = [stage for stage in model.config.stage_names if stage in stages.values()]
    if up_to not in (None, EVERYTHING, *present):
        allowed = ", ".join(map(repr, (*present, EVERYTHING)))
        raise ValueError(f"`up_to` must be None or one of {allowed} for this model, got {up_to!r}.")
    if not model.trainable:
        # If the model is not trainable, none of its layers is. Making it trainable also makes every layer trainable, so
        # the caller's own layers are set back to the state that they have now.
        in_front = {layer: layer.trainable for layer in model.layers if layer not in stages}
        model.trainable = True
        for layer, trainable in in_front.items():
            layer.trainable = trainable
    if up_to is None or up_to == EVERYTHING:
        for layer in stages:
            layer.trainable = layer.name == "predictions"
    else:
        frozen = present[: present.index(up_to) + 1]
        for layer, stage in stages.items():
            layer.trainable = stage not in frozen
    for layer in stages:
        if getattr(layer, "lora_enabled", False):  # `layer.trainable = True` would make the kernel trainable too
            next(weight for weight in layer.weights if weight.name == "kernel").trainable = False
    return tuple(layer.name for layer in stages if layer.weights and not layer.trainable)


def stage_of(layer_name: str) -> str | None:
    """Returns the stage in a layer's name; `None` if the layer is before or after all stages."""
    match = re.match(r"(stem|stage\d+)_", layer_name)
    return match.group(1) if match else None


def rematerialize(model: BiTModel) -> None:
    """Saves memory in training: steps keep only the inputs of the blocks, and compute each block twice.

    `keras.RematScope` wraps single layers. That saves nothing here, because a layer keeps little more than its input,
    and under TensorFlow it refuses every layer with an argument `training`.

    Use it for images or batches that do not fit otherwise, because steps take longer. Gradients are the same
    except for the order of sums, and inference does not change. Call it before `fit`. Saved and cloned models lose it:
    call it again.

    Args:
        model: a model or backbone that keras_bit built; changed in place.

    Raises:
        ValueError: `model` is not keras_bit's, or has a `drop_path_rate`: the second computation would drop other
            paths.
        ImportError: Keras is older than 3.14.

    Checked against the same model's gradients without it.
    """
    if not isinstance(model, BiTModel):
        raise ValueError(
            f"`model` must be one that keras_bit built, got {type(model).__name__}. If it is a part of your model, "
            "rematerialize that part."
        )
    if model.config.drop_path_rate:
        raise ValueError(
            f"`model` has a drop_path_rate of {model.config.drop_path_rate}: the second computation of a block would "
            "drop other paths than the first. Build it with `drop_path_rate=0`."
        )
    versions.require("Keras", keras.__version__, versions.CUTS_GRAPHS, "`rematerialize`")
    ends = _block_ends(model)
    parts = [keras.Function(start, end) for start, end in itertools.pairwise(ends)]
    blocks = [RematerializedBlock(part, model.dtype_policy) for part in parts]
    stem = keras.Function(model.input, ends[0])
    rest = keras.Function(ends, model.output)

    def forward(inputs: Any) -> Any:
        maps = [stem(inputs)]
        for block in blocks:
            maps.append(keras.remat(_in_training(block))(maps[-1]))
        return rest(maps)

    model.training_forward = forward
    model.train_function = None  # traces the step again


def _block_ends(model: BiTModel) -> list[Any]:
    """Returns the symbolic maps before the first block and after each block."""
    last = last_of_block(model.config)
    ends = [model.get_layer("stem_pool").output]
    names = {layer.name for layer in model.layers}
    for stage, depth in enumerate(model.config.depths, start=1):
        blocks = [f"stage{stage}_block{index}_{last}" for index in range(depth)]
        ends += [model.get_layer(name).output for name in blocks if name in names]
    return ends


class RematerializedBlock(keras.layers.Layer):
    """A part of the graph as a layer, which can be called with `training=True` again for the gradient."""

    def __init__(self, function: keras.Function, dtype: Any) -> None:
        super().__init__(dtype=dtype)
        self._function = function

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self._function(inputs)


def _in_training(block: RematerializedBlock) -> Callable[[Any], Any]:
    return lambda inputs: block(inputs, training=True)
