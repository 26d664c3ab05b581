"""Group normalization and weight standardization as functions, each also in a form with a gradient written by hand.

Both are bound by memory, not by arithmetic, so the number of reads and writes of a tensor counts. An automatic gradient
goes back through every operation and keeps the input of each. The gradient by hand is one multiply-add after two
reductions, and only the input is kept. Layers of the same shape share one graph (`traced_once`), because the time
before the first step grows with the number of nodes. `docs/explanation/performance-details.md` has the figures.

The gradients by hand can be differentiated again, but JAX refuses `jax.jvp` of them in training. Its alternatives
(`jax.custom_jvp`, or the automatic gradient) are slower. The plain functions give the same values and allow `jax.jvp`.

The gradients by hand are for training only. Exported graphs use the plain functions, because some converters cannot
read calls of functions. `predict` and `evaluate` are never exported, so their layers share graphs too.
"""

import math
from typing import Any

import keras
from keras import ops

from keras_bit.network.tracing import gradients_are_recorded, in_a_step, tensor_of, traced_once

KERNEL_AXES = (0, 1, 2)  # height, width and input channels


def widened(x: Any) -> Any:
    """Returns `x` in at least float32: 1e-8 underflows in float16, and half-precision sums are too inexact."""
    return ops.cast(x, "float32") if keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16") else x


def standardize_kernel(kernel: Any, epsilon: float) -> Any:
    """Returns `(kernel - mean) / sqrt(variance + epsilon)` for each output channel.

    Mean and variance are those over height, width and input channels.

    Args:
        kernel: `(height, width, input channels, output channels)`; half precision is computed and returned in float32.
        epsilon: added to the biased variance.

    Checked against transformers 5.23 `WeightStandardizedConv2d`.
    """
    if in_a_step():
        return _standardize_once(tensor_of(widened(kernel)), epsilon=epsilon)[0]
    return _standardize(widened(kernel), epsilon)[0]


def standardize_kernel_in_training(kernel: Any, epsilon: float) -> Any:
    """Returns what `standardize_kernel` returns, with a gradient written by hand.

    The gradient is `(g - mean(g) - standardized * mean(g * standardized)) / deviation`.
    """

    @ops.custom_gradient
    def standardize(kernel: Any) -> tuple[Any, Any]:
        kept = _standardize_once(kernel, epsilon=epsilon)

        def gradient(*given: Any, upstream: Any = None) -> Any:
            again = _standardize_once(*given, epsilon=epsilon) if gradients_are_recorded() else kept
            return _standardize_gradient(_upstream(given, upstream), *again)

        return kept[0], gradient

    return standardize(tensor_of(widened(kernel)))


def normalize_groups(x: Any, gamma: Any, beta: Any, groups: int, epsilon: float) -> Any:
    """Returns `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, per sample and group of channels.

    It is computed as `x * scale + shift` with factors per sample and channel. They come from two reductions over the
    image, the means of the channels and the means of their *centered* squares, which are then combined by group. This
    keeps four dimensions and reads the feature map three times. `E[x^2] - E[x]^2` would save one read, but lose three
    digits if the mean is large compared with the spread.

    Args:
        x: `(batch, height, width, channels)`; half precision is computed and returned in float32.
        gamma, beta: `(channels,)`.
        groups: divides the number of channels.
        epsilon: added to the biased variance.

    Checked against transformers 5.23 `BitGroupNormActivation` and a float64 oracle.
    """
    if in_a_step():
        return _normalize(x, tensor_of(widened(gamma)), tensor_of(widened(beta)), groups=groups, epsilon=epsilon)[0]
    x = widened(x)
    scale, shift = _scale_and_shift(*_group_statistics(x, groups, epsilon), widened(gamma), widened(beta))
    return x * _per_channel(scale, x) + _per_channel(shift, x)


def normalize_groups_in_training(x: Any, gamma: Any, beta: Any, groups: int, epsilon: float) -> Any:
    """Returns what `normalize_groups` returns, with a gradient by hand that keeps `x` and two numbers per group."""

    @ops.custom_gradient
    def normalize(x: Any, gamma: Any, beta: Any) -> tuple[Any, Any]:
        normalized, *kept = _normalize(x, gamma, beta, groups=groups, epsilon=epsilon)

        def gradient(*given: Any, upstream: Any = None) -> tuple[Any, Any, Any]:
            again = kept
            if gradients_are_recorded():
                _, *again = _normalize(*given, groups=groups, epsilon=epsilon)
            return _normalize_gradient(_upstream(given, upstream), x, *again)

        return normalized, gradient

    return normalize(x, tensor_of(widened(gamma)), tensor_of(widened(beta)))


def _standardize(kernel: Any, epsilon: float) -> tuple[Any, Any]:
    centered = kernel - _mean(kernel, KERNEL_AXES)
    variance = _mean(ops.square(centered), KERNEL_AXES)
    inverse_deviation = ops.rsqrt(variance + epsilon)
    return centered * inverse_deviation, inverse_deviation


_standardize_once = traced_once(_standardize)


@traced_once
def _standardize_gradient(g: Any, standardized: Any, inverse_deviation: Any) -> Any:
    along = _mean(g * standardized, KERNEL_AXES)
    return inverse_deviation * (g - _mean(g, KERNEL_AXES) - standardized * along)


@traced_once
def _normalize(x: Any, gamma: Any, beta: Any, groups: int, epsilon: float) -> tuple[Any, Any, Any, Any]:
    """Returns the normalized feature map, and what the gradient needs besides `x`: mean, 1 / deviation and scale."""
    mean, inverse_deviation = _group_statistics(widened(x), groups, epsilon)
    scale, shift = _scale_and_shift(mean, inverse_deviation, gamma, beta)
    return widened(x) * _per_channel(scale, x) + _per_channel(shift, x), mean, inverse_deviation, scale


@traced_once
def _normalize_gradient(g: Any, x: Any, mean: Any, inverse_deviation: Any, scale: Any) -> tuple[Any, Any, Any]:
    groups, wide = mean.shape[2], widened(x)
    g_mean = _by_group(_spatial_mean(g), groups)
    # The mean is subtracted after the sum, as in PyTorch, which saves a pass over the feature map.
    g_along = (_by_group(_spatial_mean(g * wide), groups) - mean * g_mean) * inverse_deviation
    slope = _mean(scale * g_along, 3) * inverse_deviation
    offset = _mean(scale * g_mean, 3) - mean * slope
    dx = g * _per_channel(scale, x) - (wide * _per_channel(slope, x) + _per_channel(offset, x))
    pixels = ops.cast(ops.shape(x)[1] * ops.shape(x)[2], g.dtype)
    dgamma, dbeta = (ops.reshape(ops.sum(each, axis=0) * pixels, (x.shape[-1],)) for each in (g_along, g_mean))
    return ops.cast(dx, x.dtype), dgamma, dbeta


def _group_statistics(x: Any, groups: int, epsilon: float) -> tuple[Any, Any]:
    """Returns the mean and 1 / sqrt(variance + epsilon) per sample and group, `(batch, 1, groups, 1)`."""
    channel_mean = _spatial_mean(x)
    channel_variance = _spatial_mean(ops.square(x - channel_mean))
    # A group's variance is the mean of its channels' variances plus the variance of their means.
    channel_mean = _by_group(channel_mean, groups)
    mean = _mean(channel_mean, 3)
    variance = _by_group(channel_variance, groups) + ops.square(channel_mean - mean)
    variance = _mean(variance, 3)
    return mean, ops.rsqrt(variance + epsilon)


def _scale_and_shift(mean: Any, inverse_deviation: Any, gamma: Any, beta: Any) -> tuple[Any, Any]:
    """Returns scale and shift of the feature map `x * scale + shift`, `(batch, 1, groups, channels of a group)`."""
    groups = mean.shape[2]
    scale = inverse_deviation * _by_group(gamma, groups)
    return scale, _by_group(beta, groups) - mean * scale


def _spatial_mean(x: Any) -> Any:
    # One axis is reduced after the other, which is not slower. Over both at once TensorFlow adds the pixels one by one,
    # and the error is ten times larger.
    return _mean(_mean(x, 2), 1)


def _mean(x: Any, axis: int | tuple[int, ...]) -> Any:
    """Returns the mean over `axis`, which keeps its place in the shape with the size 1."""
    if keras.backend.standardize_dtype(x.dtype) != "float64" or keras.backend.backend() == "tensorflow":
        return ops.mean(x, axis=axis, keepdims=True)
    # Keras 3.15 computes `ops.mean` of float64 in float32 under JAX and PyTorch.
    total = ops.sum(x, axis=axis, keepdims=True)
    return total * (math.prod(total.shape) / math.prod(x.shape))


def _by_group(per_channel: Any, groups: int) -> Any:
    """Reshapes `(batch, 1, 1, channels)` to `(batch, 1, groups, channels of a group)`; `(channels,)` is one sample."""
    return ops.reshape(per_channel, (-1, 1, groups, per_channel.shape[-1] // groups))


def _per_channel(by_group: Any, x: Any) -> Any:
    """Reshapes `(batch, 1, groups, channels of a group or 1)` to `(batch, 1, 1, channels)`."""
    groups, channels = by_group.shape[2], x.shape[-1]
    if by_group.shape[3] == 1 and groups != channels:
        # `ops.repeat` would take sixteen nodes in TensorFlow.
        by_group = by_group * ops.ones((1, 1, groups, channels // groups), by_group.dtype)
    return ops.reshape(by_group, (-1, 1, 1, channels))


def _upstream(given: tuple[Any, ...], upstream: Any) -> Any:
    """Returns the upstream gradient, which Keras passes by name under PyTorch and by position elsewhere."""
    return given[0] if upstream is None else upstream
