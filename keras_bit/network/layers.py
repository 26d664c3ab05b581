"""The layers that BiT needs and Keras lacks. They know nothing of BiT."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_bit import versions
from keras_bit.network import normalization
from keras_bit.network.plain_weights import LOW_RANK, plain_weights
from keras_bit.network.tracing import products_are_faster

WEIGHT_STANDARDIZATION_EPSILON = 1e-8  # transformers, timm; Google's big_transfer has 1e-10
GROUP_NORMALIZATION_EPSILON = 1e-5  # transformers, timm, big_transfer; Keras' own layer has 1e-3

Activation = str | Callable[[Any], Any]  # Keras' name, or a function of a tensor


@keras.saving.register_keras_serializable(package="keras_bit")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` that computes 1x1 kernels as matrix products in TensorFlow on a CPU.

    Arguments, weights and values (except for rounding) are Keras'. Two thirds of BiT's convolutions have 1x1 kernels.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        one_to_one = self.kernel_size == self.strides == (1, 1) and self.groups == 1
        if not one_to_one or self.data_format != "channels_last" or not products_are_faster():
            return super().convolution_op(inputs, kernel)
        # The kernel's shape holds the channels even if the graph does not know them.
        products = ops.matmul(ops.reshape(inputs, (-1, kernel.shape[2])), ops.reshape(kernel, kernel.shape[2:]))
        batch, height, width, _ = ops.shape(inputs)
        if isinstance(height, int) and isinstance(width, int):
            batch = -1  # if the batch is unknown, the shape is still a constant
        return ops.reshape(products, (batch, height, width, self.filters))

    def get_config(self) -> dict[str, Any]:
        return versions.portable(super().get_config())


@keras.saving.register_keras_serializable(package="keras_bit")
class StdConv2D(Conv2D):
    """2-D convolution whose kernel is standardized on every use (weight standardization).

    The raw kernel is stored and trained. Before each convolution, every output channel is brought to mean 0 and
    variance 1 over `(height, width, input channels)`, in float32 even under mixed precision.

    Args:
        filters, kernel_size, strides, padding, dilation_rate, groups: arguments of `keras.layers.Conv2D`.
        use_bias: `False` by default, unlike Keras: BiT has no bias in any convolution.
        epsilon: added to the variance, 1e-8 as in transformers and timm.
        **kwargs: further arguments of `keras.layers.Conv2D`.

    Input: `(batch, height, width, channels)`. Output: `(batch, new height, new width, filters)`.

    Source: Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization"
    (arXiv:1903.10520); checked against transformers 5.23 `WeightStandardizedConv2d`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "valid",
        dilation_rate: int | tuple[int, int] = 1,
        groups: int = 1,
        use_bias: bool = False,
        epsilon: float = WEIGHT_STANDARDIZATION_EPSILON,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            dilation_rate=dilation_rate,
            groups=groups,
            use_bias=use_bias,
            **kwargs,
        )
        self.epsilon = epsilon

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        # The statistics are computed from the variable as it is stored. Autocasting would give a float16 copy of it.
        if kwargs.get("name") in ("kernel", *LOW_RANK):
            kwargs["autocast"] = False
        return super().add_weight(*args, **kwargs)

    @property
    def kernel(self) -> Any:
        """The kernel before standardization, in its own dtype. (Keras casts it after `enable_lora`.)"""
        return plain_weights(self)["kernel"] if self.lora_enabled else super().kernel

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        standardize = normalization.standardize_kernel_in_training if training else normalization.standardize_kernel
        kernel = standardize(ops.convert_to_tensor(self.kernel), self.epsilon)
        outputs = self.convolution_op(inputs, ops.cast(kernel, inputs.dtype))
        if self.use_bias:
            channels_last = self.data_format == "channels_last"
            outputs = outputs + ops.reshape(self.bias, (1, 1, 1, -1) if channels_last else (1, -1, 1, 1))
        return self.activation(outputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="keras_bit")
class GroupNormalization(keras.layers.Layer):
    """Group normalization of channels-last feature maps with the activation that follows it.

    `activation((x - mean) / sqrt(variance + epsilon) * gamma + beta)`, mean and biased variance per sample and group
    over height, width and the group's channels, in float32 even under mixed precision.

    Args:
        groups: number of groups, which must divide the number of channels.
        epsilon: added to the variance, 1e-5 as everywhere in BiT (Keras' own layer has 1e-3).
        activation: name or function, applied to the result; `None` for none.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Input and output: `(batch, height, width, channels)`. With `training=True` the values are the same and the gradient
    is written by hand. It can be differentiated again on every backend, but `jax.jvp` of the layer needs
    `training=False`.

    Raises:
        ValueError: the input is not four-dimensional, or `groups` does not divide its channels.

    Checked against transformers 5.23 `BitGroupNormActivation` and a float64 oracle.
    """

    def __init__(
        self,
        groups: int = 32,
        epsilon: float = GROUP_NORMALIZATION_EPSILON,
        activation: Activation | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
            raise ValueError(f"`groups` must be a positive whole number, got {groups!r}.")
        self.groups = groups
        self.epsilon = epsilon
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(
                "The input of `GroupNormalization` must be (batch, height, width, channels) with a known number of "
                f"channels, got shape {tuple(input_shape)}."
            )
        channels = input_shape[-1]
        if channels % self.groups:
            raise ValueError(
                f"`groups` {self.groups} does not divide the {channels} channels of the input. "
                "Choose a divisor of the channels."
            )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        # Scale and shift are combined with the statistics in float32, so they must not be autocast.
        self.gamma = self.add_weight(shape=(channels,), initializer="ones", name="gamma", autocast=False)
        self.beta = self.add_weight(shape=(channels,), initializer="zeros", name="beta", autocast=False)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        normalize = normalization.normalize_groups_in_training if training else normalization.normalize_groups
        gamma, beta = ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)
        outputs = normalize(inputs, gamma, beta, self.groups, self.epsilon)
        return self.activation(ops.cast(outputs, self.compute_dtype))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "groups": self.groups,
            "epsilon": self.epsilon,
            "activation": keras.activations.serialize(self.activation),
        }
