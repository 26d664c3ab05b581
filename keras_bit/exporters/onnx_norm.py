"""Group normalization in ONNX, in several forms, because the fastest one depends on the engine.

All subtract the mean before they square, as the layer does. ONNX's own `GroupNormalization` becomes a dozen operators
in onnxruntime 1.32, and is slower.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_bit.exporters.onnx_activations import activated

if TYPE_CHECKING:
    from keras_bit.exporters.onnx_graph import OnnxGraph, Value

# Adds the nodes of a `GroupNormalization` with its activation.
Normalization = Callable[["OnnxGraph", keras.layers.Layer, "Value"], "Value"]


def by_instances(graph: "OnnxGraph", layer: keras.layers.Layer, x: "Value") -> "Value":
    """Writes, for onnxruntime, `InstanceNormalization` of the groups, then a depthwise convolution with gamma and beta.

    The first works on a group's memory. The second includes the activation and has the blocked layout that the next
    convolution reads; a product, a sum and an activation in the plain layout would each go through the whole map.
    """
    groups, name = layer.groups, layer.name
    ones, zeros = (
        graph.tensors.add(f"{kind}_{groups}", np.full(groups, value, np.float32))
        for kind, value in (("ones", 1), ("zeros", 0))
    )
    # A 0 in a shape keeps the size of that axis. The width stays in its place, so that no shape is computed.
    grouped = graph.node("Reshape", [x.name, graph.tensors.integers(0, groups, -1, 0)], f"{name}/groups")
    whitened = graph.node("InstanceNormalization", [grouped, ones, zeros], f"{name}/whitened", epsilon=layer.epsilon)
    shape = graph.tensors.integers(0, x.channels, -1, 0)
    normalized = graph.map("Reshape", [whitened, shape], x.named(f"{name}/normalized"))
    gamma, beta = _gamma_and_beta(graph, layer, (x.channels, 1, 1, 1), (x.channels,))
    shifted = x.named(f"{name}/shifted")
    graph.map("Conv", [normalized.name, gamma, beta], shifted, group=x.channels, kernel_shape=[1, 1])
    return x.named(activated(graph, shifted.name, layer.activation, name))


def by_means(graph: "OnnxGraph", layer: keras.layers.Layer, x: "Value") -> "Value":
    """Writes, for OpenVINO, means over the image, and everything else on tensors of one number per channel.

    Feature maps keep their shape, so that OpenVINO keeps its own layout and fuses what follows a mean.
    """
    name, of_channels = layer.name, graph.tensors.integers(0, x.channels, 1, 1)
    share = x.channels // layer.groups
    of_groups = graph.tensors.integers(0, layer.groups, share, 1)
    epsilon = graph.tensors.add(f"epsilon_{layer.epsilon}", np.array(layer.epsilon, np.float32))
    ones = graph.tensors.add(f"ones_1x1x{share}x1", np.ones((1, 1, share, 1), np.float32))
    gamma, beta = _gamma_and_beta(graph, layer, (1, layer.groups, share, 1), (1, x.channels, 1, 1))

    def of_group(value: str, what: str) -> str:
        """Returns the mean over the image and the channels of a group, `(batch, groups, 1, 1)`."""
        mean = graph.node("ReduceMean", [value], f"{name}/{what}_of_channels", axes=[2, 3], keepdims=1)
        mean = graph.node("Reshape", [mean, of_groups], f"{name}/{what}_by_group")
        return graph.node("ReduceMean", [mean], f"{name}/{what}", axes=[2], keepdims=1)

    mean = graph.node("Mul", [of_group(x.name, "mean"), ones], f"{name}/mean_repeated")
    mean = graph.node("Reshape", [mean, of_channels], f"{name}/mean_of_its_group")
    centered = graph.node("Sub", [x.name, mean], f"{name}/centered")
    variance = of_group(graph.node("Mul", [centered, centered], f"{name}/squared"), "variance")
    deviation = graph.node("Sqrt", [graph.node("Add", [variance, epsilon], f"{name}/sum")], f"{name}/deviation")
    scale = graph.node("Div", [gamma, deviation], f"{name}/scale")
    scale = graph.node("Reshape", [scale, of_channels], f"{name}/scale_of_channels")
    scaled = graph.node("Mul", [centered, scale], f"{name}/scaled")
    shifted = graph.node("Add", [scaled, beta], f"{name}/shifted")
    return x.named(activated(graph, shifted, layer.activation, name))


def by_means_of_8_bits(graph: "OnnxGraph", layer: keras.layers.Layer, x: "Value") -> "Value":
    """Writes, for OpenVINO after a convolution in 8 bits, `by_means` after a `Clip` without effect.

    OpenVINO 2026.4 gives wrong numbers if a mean reads such a convolution directly.
    """
    largest = float(np.finfo(np.float32).max)
    ends = [graph.tensors.add(str(end), np.array(end, np.float32)) for end in (-largest, largest)]
    return by_means(graph, layer, graph.map("Clip", [x.name, *ends], x.named(f"{layer.name}/unclipped")))


def _gamma_and_beta(
    graph: "OnnxGraph", layer: keras.layers.Layer, gamma: tuple[int, ...], beta: tuple[int, ...]
) -> tuple[str, str]:
    """Returns the two weights, in these shapes."""
    weights = graph.weights(layer)
    return (
        graph.tensors.add(f"{layer.name}.gamma", weights["gamma"].reshape(gamma)),
        graph.tensors.add(f"{layer.name}.beta", weights["beta"].reshape(beta)),
    )
