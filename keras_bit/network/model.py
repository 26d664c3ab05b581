"""The BiT network as a functional graph, read top-down: stem, stages of blocks, final norm, head.

Stages count from 1 and blocks from 0. A layer's name says where it is (`stage1_block2_conv1`). Channels are last.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_bit import versions
from keras_bit.network import calls, pretrained_arguments, raw_pixels
from keras_bit.network.calls import PIXEL_VALUES
from keras_bit.network.config import BitConfig, block_width
from keras_bit.network.layers import WEIGHT_STANDARDIZATION_EPSILON, Activation, Conv2D, GroupNormalization, StdConv2D
from keras_bit.network.normalization import standardize_kernel
from keras_bit.network.steps import QuickSteps

MIN_SIZE = 32  # px; smaller images would leave less than one pixel at the last stage
POOLINGS = (None, "avg", "max")
CHECKED = "checked_pixel_values"  # the first layer of BiT itself
CALL_ARGUMENTS = ("inputs", PIXEL_VALUES, "training", "mask")

Values = dict[tuple[str, str], Any]  # layer and variable name to a tensor


# transformers' initialization. Each layer needs its own object, because one object draws the same numbers on every
# call.
def kernel_initializer() -> keras.initializers.Initializer:
    """Returns the convolutions' initializer: Kaiming normal over the fan out."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def head_initializer() -> keras.initializers.Initializer:
    """Returns the head's initializer, that of `torch.nn.Linear`."""
    return keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


@keras.saving.register_keras_serializable(package="keras_bit")
class PixelValues(layers.Layer):
    """Checks that the network can take the images and returns them unchanged; it also holds the `BitConfig`.

    Keras rebuilds a functional model only from its layers (`.keras` files, `clone_model`), so one of them must hold the
    configuration.

    Args:
        config: the dictionary of a `BitConfig`.

    Input and output: `(batch, height, width, channels)`.

    Raises:
        ValueError: wrong number of channels, or a known height or width below 32 px.
    """

    def __init__(self, config: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bit_config = dataclasses.replace(
            BitConfig.from_dict(config), pretrained_arguments=pretrained_arguments.kept(config)
        )

    def call(self, inputs: Any) -> Any:
        # The layer has no `compute_output_shape`, so Keras calls this for symbolic inputs too. Under JAX unknown sizes
        # are symbols.
        shape = tuple(size if isinstance(size, int) else None for size in inputs.shape[1:])
        check_input_shape(shape, self.bit_config.num_channels, "pixel_values")
        return inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.bit_config.to_dict()}


@keras.saving.register_keras_serializable(package="keras_bit")
class ZeroPaddedToSame(layers.Layer):
    """Pads for a 3x3 pool of stride 2 with zeros by TensorFlow's SAME rule, from sizes known only at run time.

    An even size gets one row at the end, an odd size one row on both sides. Keras' own SAME pool would pad with minus
    infinity, which differs if the feature map is negative.

    Input: `(batch, height, width, channels)`. Checked against transformers 5.23 `DynamicPad2d`.
    """

    def call(self, inputs: Any) -> Any:
        padded = ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
        _, height, width, _ = ops.shape(inputs)
        return padded[:, 1 - height % 2 :, 1 - width % 2 :, :]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        return (batch, *(None if size is None else size + 1 + size % 2 for size in (height, width)), channels)


@keras.saving.register_keras_serializable(package="keras_bit")
class BiTModel(QuickSteps, keras.Model):
    """The functional model that every function of keras_bit returns; `config` is its `BitConfig`."""

    # How a training step computes the outputs after `rematerialize`.
    training_forward: Callable[[Any], Any] | None = None
    # Whether the warning about pixels in [0, 255] has been given.
    warned_of_raw_pixels = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and PIXEL_VALUES in kwargs:
            raise TypeError(
                f"A call of the model {self.name!r} was given images twice: at first, and as {PIXEL_VALUES!r}. "
                "Leave one out."
            )
        if PIXEL_VALUES in kwargs:  # `model(**inputs)`
            args = (kwargs.pop(PIXEL_VALUES),)
        # A functional model would ignore any other argument silently.
        calls.refuse_unknown(f"the model {self.name!r}", kwargs, CALL_ARGUMENTS)
        if args:
            args = (self._look_at(args[0]), *args[1:])
        return super().__call__(*args, **kwargs)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(validation := kwargs.get("validation_data"), tuple | list) and validation:
            kwargs["validation_data"] = (self._look_at(validation[0]), *validation[1:])
        return super().fit(self._look_at(x), *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().evaluate(self._look_at(x), *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return super().predict(self._look_at(x), *args, **kwargs)

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return super().train_on_batch(self._look_at(x), *args, **kwargs)

    def test_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return super().test_on_batch(self._look_at(x), *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        return super().predict_on_batch(self._look_at(x))

    def _look_at(self, inputs: Any, above: int = 0) -> Any:
        """Takes the images out of the processor's dictionary, and checks them.

        It warns once about images that were not preprocessed, unless layers in front of the network may do that. The
        warning points to the line that called the model's method; `above` is the number of further calls in between.
        """
        images = calls.images_in(inputs) if len(self.inputs) == 1 else inputs
        if len(self.inputs) == 1:
            calls.refuse_lists(images)
        if not self.warned_of_raw_pixels and raw_pixels.are_raw(images) and not layers_in_front(self):
            self.warned_of_raw_pixels = True
            raw_pixels.warn(images, above)
        return images

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None, **kwargs: Any) -> Any:
        # `stateless_call`, for loops under JAX, does not go through `__call__`.
        title = f"`{type(self).__name__}.call`, which `stateless_call` calls,"
        calls.refuse_unknown(title, kwargs, ("inputs", "training", "mask"))
        if training and self.training_forward is not None:
            return self.training_forward(inputs)
        return super().call(inputs, training=training, mask=mask)

    @property
    def config(self) -> BitConfig:
        config = self._pixel_values.bit_config
        # If the head was replaced, by `clone_model` or `type(model)(model.input, head)`, the new one counts.
        head = next((layer for layer in self.layers if layer.name == "predictions"), None)
        return config.with_num_labels(getattr(head, "units", config.num_labels))

    @config.setter
    def config(self, config: BitConfig) -> None:
        """Sets other label names, another `problem_type` or kind of output. The architecture must stay the same."""
        changed = {
            field.name
            for field in dataclasses.fields(BitConfig)
            if getattr(config, field.name) != getattr(self.config, field.name)
        } - {"id2label", "label2id", "problem_type", "output_hidden_states", "return_dict"}
        if changed:
            raise ValueError(
                f"`config` may change label names and problem type only, got another {', '.join(sorted(changed))}. "
                "Build another model with `BiT(config)`."
            )
        self._pixel_values.bit_config = config

    def get_config(self) -> dict[str, Any]:
        return versions.portable(super().get_config())  # this covers Keras' own layers too

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "BiTModel":
        # Files of earlier versions of keras_bit may hold arguments that this Keras does not know.
        return super().from_config(versions.portable(config), custom_objects)

    @property
    def _pixel_values(self) -> PixelValues:
        found = next((layer for layer in self.layers if isinstance(layer, PixelValues)), None)
        if found is None:  # a user built a model of this class from other layers
            raise AttributeError(
                "This model has no `config`: it is built around one of keras_bit. Use that one's `config`."
            )
        return found


def network_layers(model: keras.Model) -> list[layers.Layer]:
    """Returns BiT's own layers, without those of an `input_tensor`."""
    return list(itertools.dropwhile(lambda layer: not isinstance(layer, PixelValues), model.layers))


def layers_in_front(model: keras.Model) -> list[str]:
    """Returns the names of the layers of an `input_tensor`, without inputs."""
    brought = itertools.takewhile(lambda layer: not isinstance(layer, PixelValues), model.layers)
    return [layer.name for layer in brought if not isinstance(layer, layers.InputLayer)]


def check_input_shape(shape: object, num_channels: int, argument: str) -> None:
    """Refuses `(height, width, channels)` that the network cannot take; unknown sizes pass."""
    sizes = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else ()
    if len(sizes) != 3 or sizes[-1] != num_channels or not all(isinstance(size, int | None) for size in sizes):
        raise ValueError(
            f"`{argument}` must be channels-last with {num_channels} channels, (height, width, {num_channels}) per "
            f"image, got {sizes or shape}."
        )
    if any(size is not None and size < MIN_SIZE for size in sizes[:2]):
        raise ValueError(
            f"`{argument}` must be at least {MIN_SIZE} px high and wide, got {sizes[0]}x{sizes[1]}. Enlarge the "
            "images first, as `BitImageProcessor` does."
        )


@dataclasses.dataclass(frozen=True)
class Ends:
    """The beginning and the end of a model; the fields are arguments of `keras_bit.BiT`."""

    include_top: bool = True
    input_tensor: keras.KerasTensor | None = None
    input_shape: tuple[int | None, ...] | None = None
    pooling: str | None = None
    classifier_activation: Activation | None = "auto"
    name: str = "bit"


def build(config: BitConfig, ends: Ends, values: Values | None = None, fused: bool = False) -> BiTModel:
    """Builds the network of `config`.

    Args:
        values: layer and variable name to the backend's tensor for that weight. Each is removed when it is used, so
            that no second copy is kept. Missing kernels become zeros. `None` draws random numbers, which takes seconds
            for R152x4.
        fused: whether the convolutions are plain ones that hold the standardized kernels of `values`.
    """
    if ends.pooling not in POOLINGS:
        raise ValueError(f"`pooling` must be one of {', '.join(map(repr, POOLINGS))}, got {ends.pooling!r}.")
    inputs, x = _inputs(config, ends)
    return BiTModel(inputs, Graph(config, values, fused).whole(x, ends), name=ends.name)


def build_backbone(
    config: BitConfig, out_features: Sequence[str], ends: Ends, values: Values | None = None
) -> BiTModel:
    """Builds the network of `config` up to the last of `out_features`; it returns a dict of these maps."""
    inputs, x = _inputs(config, ends)
    graph = Graph(config, values)
    x = graph.stem(x)
    maps = {"stem": x}
    for stage in range(1, config.stage_names.index(out_features[-1]) + 1):
        x = graph.stage(x, stage)
        maps[f"stage{stage}"] = x
    return BiTModel(inputs, {feature: maps[feature] for feature in out_features}, name=ends.name)


def _inputs(config: BitConfig, ends: Ends) -> tuple[Any, Any]:
    """Returns the model's input, and the checked images that the stem reads."""
    input_tensor, input_shape = ends.input_tensor, ends.input_shape
    if input_shape is not None:
        check_input_shape(input_shape, config.num_channels, "input_shape")
    if input_tensor is None:
        shape = (None, None, config.num_channels) if input_shape is None else tuple(input_shape)
        pixel_values = keras.Input(shape=shape, name=PIXEL_VALUES)
    elif isinstance(input_tensor, keras.KerasTensor):
        check_input_shape(tuple(input_tensor.shape[1:]), config.num_channels, "input_tensor")
        pixel_values = input_tensor
    else:
        raise ValueError(
            "`input_tensor` must be a symbolic Keras tensor, as `keras.Input` and layers called on it give, got "
            f"{type(input_tensor).__name__}. Call the model on values instead."
        )
    sources = [pixel_values] if input_tensor is None else keras.utils.get_source_inputs(pixel_values)
    x = PixelValues(config.to_dict(), name=CHECKED)(pixel_values)
    return sources[0] if len(sources) == 1 else sources, x


def last_of_block(config: BitConfig) -> str:
    """Returns the ending of the name of a block's last layer."""
    return "add" if config.layer_type == "preactivation" else "out"


def stage_outputs(model: BiTModel) -> dict[str, Any]:
    """Returns the symbolic maps `stem` (pooled), `stage1` ... (before the final norm): transformers' `hidden_states`.

    A backbone has them only up to its last output. `keras.Model(model.input, stage_outputs(model))` computes them.
    """
    last = last_of_block(model.config)
    outputs = {"stem": model.get_layer("stem_pool").output}
    layers_by_name = {layer.name: layer for layer in model.layers}
    for stage, depth in enumerate(model.config.depths, start=1):
        # No `:=` here: TensorFlow's AutoGraph warns about it if the first call for hidden states is in a `tf.function`.
        name = f"stage{stage}_block{depth - 1}_{last}"
        if name in layers_by_name:
            outputs[f"stage{stage}"] = layers_by_name[name].output
    return outputs


class Graph:
    """Builds the functional graph, part by part; only `call` adds a layer to it.

    The fields hold the data that every part needs. Only `values` changes: each tensor is removed when it is used.
    """

    def __init__(self, config: BitConfig, values: Values | None, fused: bool = False) -> None:
        self.config = config
        self.values = values
        self.convolution: Callable[..., Conv2D] = StdConv2D
        if fused and values is not None:
            self.convolution = functools.partial(Conv2D, use_bias=False)
            _standardize(values)
        rates = np.linspace(0.0, config.drop_path_rate, sum(config.depths))
        ends = [0, *itertools.accumulate(config.depths)]
        self.drop_path_rates = [rates[start:end].tolist() for start, end in itertools.pairwise(ends)]

    def whole(self, x: Any, ends: Ends) -> Any:
        """Builds from the checked images to the head, the last feature map, or its `pooling`."""
        x = self.stem(x)
        for stage in range(1, len(self.config.depths) + 1):
            x = self.stage(x, stage)
        if self.config.layer_type == "preactivation":
            x = self.norm(x, "norm")
        if ends.include_top or ends.pooling == "avg":
            x = self.call(layers.GlobalAveragePooling2D(data_format="channels_last", name="avg_pool"), x)
        elif ends.pooling == "max":
            x = self.call(layers.GlobalMaxPooling2D(data_format="channels_last", name="max_pool"), x)
        if ends.include_top and self.config.num_labels:
            x = self.head(x, ends.classifier_activation)
        return x

    def stem(self, x: Any) -> Any:
        x = self.conv(x, "stem_conv", self.config.stem_width, 7, strides=2)
        # The pad is zeros, not the pool's own minus infinity, because BiT has no activation before the pool and
        # negative values reach it. In the bottleneck form the norm comes between, and its statistics include the pad.
        if self.config.global_padding is None:
            x = self.call(layers.ZeroPadding2D(1, data_format="channels_last", name="stem_pad"), x)
        if self.config.layer_type == "bottleneck":
            x = self.norm(x, "stem_norm")
        if self.config.embedding_dynamic_padding:
            x = self.call(ZeroPaddedToSame(name="stem_dynamic_pad"), x)
        pool = layers.MaxPooling2D(3, strides=2, padding="valid", data_format="channels_last", name="stem_pool")
        return self.call(pool, x)

    def stage(self, x: Any, stage: int) -> Any:
        stride, dilation, first_dilation = _stride_and_dilations(stage, self.config.output_stride)
        block = self.preactivation_block if self.config.layer_type == "preactivation" else self.bottleneck_block
        for index in range(self.config.depths[stage - 1]):
            first = index == 0
            x = block(
                x,
                f"stage{stage}_block{index}",
                width=self.config.stage_widths[stage - 1],
                stride=stride if first else 1,
                dilation=first_dilation if first else dilation,
                drop_path_rate=self.drop_path_rates[stage - 1][index],
                project=first,
            )
        return x

    def preactivation_block(
        self, x: Any, name: str, *, width: int, stride: int, dilation: int, drop_path_rate: float, project: bool
    ) -> Any:
        """Builds BiT's own block: norm and activation come before each convolution and before the projection."""
        shortcut = x
        x = self.norm(x, f"{name}_norm1")
        if project:
            shortcut = self.conv(x, f"{name}_shortcut_conv", width, 1, strides=stride)
        x = self.conv(x, f"{name}_conv1", block_width(width), 1)
        x = self.norm(x, f"{name}_norm2")
        x = self.conv(x, f"{name}_conv2", block_width(width), 3, strides=stride, dilation_rate=dilation)
        x = self.norm(x, f"{name}_norm3")
        x = self.conv(x, f"{name}_conv3", width, 1)
        x = self.drop_path(x, f"{name}_drop_path", drop_path_rate)
        return self.call(layers.Add(name=f"{name}_add"), [x, shortcut])

    def bottleneck_block(
        self, x: Any, name: str, *, width: int, stride: int, dilation: int, drop_path_rate: float, project: bool
    ) -> Any:
        """Builds the block of hybrid ViT and DPT: norms follow the convolutions, the activation follows the sum."""
        shortcut = x
        if project:
            shortcut = self.conv(x, f"{name}_shortcut_conv", width, 1, strides=stride)
            shortcut = self.norm(shortcut, f"{name}_shortcut_norm", activate=False)
        x = self.conv(x, f"{name}_conv1", block_width(width), 1)
        x = self.norm(x, f"{name}_norm1")
        x = self.conv(x, f"{name}_conv2", block_width(width), 3, strides=stride, dilation_rate=dilation)
        x = self.norm(x, f"{name}_norm2")
        x = self.conv(x, f"{name}_conv3", width, 1)
        x = self.norm(x, f"{name}_norm3", activate=False)
        x = self.drop_path(x, f"{name}_drop_path", drop_path_rate)
        x = self.call(layers.Add(name=f"{name}_add"), [x, shortcut])
        return self.call(layers.Activation(_activation(self.config.hidden_act), name=f"{name}_out"), x)

    def conv(self, x: Any, name: str, filters: int, kernel_size: int, strides: int = 1, dilation_rate: int = 1) -> Any:
        padding = "same"
        if self.config.global_padding is None and strides > 1:
            # PyTorch pads both sides equally; SAME puts an odd pixel at the end. At stride 1 the two are equal.
            padding = "valid"
            if kernel_size > 1:
                pad = dilation_rate * (kernel_size // 2)
                x = self.call(layers.ZeroPadding2D(pad, data_format="channels_last", name=f"{name}_pad"), x)
        layer = self.convolution(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            dilation_rate=dilation_rate,
            kernel_initializer=kernel_initializer(),
            data_format="channels_last",
            name=name,
        )
        return self.call(layer, x)

    def norm(self, x: Any, name: str, activate: bool = True) -> Any:
        activation = _activation(self.config.hidden_act) if activate else None
        return self.call(GroupNormalization(self.config.num_groups, activation=activation, name=name), x)

    def head(self, x: Any, classifier_activation: Activation | None) -> Any:
        # In half precision the probabilities of many classes underflow, and the loss's gradient with them.
        mixed = keras.config.dtype_policy().name.startswith("mixed_")
        layer = layers.Dense(
            self.config.num_labels,
            activation=_head_activation(self.config, classifier_activation),
            kernel_initializer=head_initializer(),
            dtype="float32" if mixed else None,
            name="predictions",
        )
        return self.call(layer, x)

    def call(self, layer: layers.Layer, x: Any) -> Any:
        """Calls a new layer for the first time, which builds it. All layers are called here.

        A clone or a saved copy of the layer has the usual initializer, whatever its first values were.
        """
        if self.values is None:
            return layer(x)
        initializer = getattr(layer, "kernel_initializer", None)
        if initializer is not None:
            # The variable is created from its tensor. If it were created from zeros and then assigned, memory would
            # hold it twice for a moment, and all zeros of the network at once.
            kernel = self.values.pop((layer.name, "kernel"), None)
            layer.kernel_initializer = (
                keras.initializers.Zeros() if kernel is None else lambda shape, dtype=None: kernel
            )
        x = layer(x)
        if initializer is not None:
            layer.kernel_initializer = initializer
        for variable in layer.weights:
            if (layer.name, variable.name) in self.values:
                variable.assign(self.values.pop((layer.name, variable.name)))
        return x

    def drop_path(self, x: Any, name: str, rate: float) -> Any:
        # With one draw per sample, dropout is stochastic depth.
        return self.call(layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=name), x) if rate else x


def _standardize(values: Values) -> None:
    """Replaces the convolutions' kernels by standardized ones, one at a time, so that memory holds no second copy."""
    for layer, variable in [address for address in values if address[1] == "kernel" and address[0] != "predictions"]:
        kernel = values.pop((layer, variable))
        standardized = standardize_kernel(kernel, WEIGHT_STANDARDIZATION_EPSILON)
        values[layer, variable] = ops.cast(standardized, kernel.dtype)


def _stride_and_dilations(stage: int, output_stride: int) -> tuple[int, int, int]:
    """Returns the stride of a stage, the dilation of its blocks, and that of its first block.

    Once `output_stride` is reached, dilation replaces the stride. The first block still has the dilation of the stage
    before. Checked against timm 1.0 `resnetv2.py` (transformers drops the dilation of pre-activation blocks).
    """
    stride_so_far, dilation = 4, 1
    for current in range(1, stage + 1):
        stride = 1 if current == 1 else 2
        if stride_so_far >= output_stride:
            dilation *= stride
            stride = 1
        stride_so_far *= stride
    return stride, dilation, 1 if dilation in (1, 2) else 2


@keras.saving.register_keras_serializable(package="keras_bit")
def gelu_new(x: Any) -> Any:
    """The tanh form of GELU, under transformers' name."""
    return ops.gelu(x, approximate=True)


def _activation(hidden_act: str) -> Activation:
    return gelu_new if hidden_act == "gelu_new" else hidden_act


def _head_activation(config: BitConfig, classifier_activation: Activation | None) -> Activation | None:
    if classifier_activation != "auto":
        try:
            keras.activations.get(classifier_activation)
        except ValueError:
            known = [name for name in dir(keras.activations) if not re.match("_|deserialize|get|serialize", name)]
            raise ValueError(
                f"`classifier_activation` must be 'auto', None for logits, a function, or Keras' name of one "
                f"({', '.join(known)}), got {classifier_activation!r}."
            ) from None
        return classifier_activation
    return head_activation(config)


def head_activation(config: BitConfig) -> str | None:
    """Returns the activation that the checkpoint's `problem_type` means; `None` for a regression."""
    # In transformers a single output without a `problem_type` means regression.
    if config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1):
        return None
    return "sigmoid" if config.problem_type == "multi_label_classification" else "softmax"
