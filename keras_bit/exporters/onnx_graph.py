"""Writes a BiT as ONNX nodes, layer by layer, without TensorFlow and tf2onnx.

Inside, channels come first, as ONNX needs them. The images are transposed once, and so is each output that is a map,
because both are channels last in every format. A value has the name of its layer.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bit.exporters.job import OUTPUT, Shape, input_dtype
from keras_bit.exporters.onnx_activations import activated, is_known
from keras_bit.exporters.onnx_norm import Normalization
from keras_bit.exporters.onnx_weights import Tensors
from keras_bit.network import outline
from keras_bit.network.layers import StdConv2D
from keras_bit.network.model import BiTModel, Graph, layers_in_front
from keras_bit.network.normalization import standardize_kernel
from keras_bit.network.plain_weights import plain_weights

ALMOST_ZERO = 1e-30


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph, `(batch, channels, height, width)` or `(batch, channels)`.

    Args:
        name: the name of the node's output.
        channels: the number of channels.
        size: a text for height and width; equal texts mean equal sizes.
        zeros: rows and columns of zeros that its reader must add on every side.
    """

    name: str
    channels: int
    size: str = ""
    zeros: int = 0

    def named(self, name: str) -> "Value":
        """Returns another tensor of the same shape."""
        return dataclasses.replace(self, name=name)


def describes(model: keras.Model) -> bool:
    """Returns whether `OnnxGraph` can write the model: an unchanged BiT with any of its layers as outputs."""
    if not isinstance(model, BiTModel) or len(model.inputs) != 1 or input_dtype(model) != np.float32:
        return False
    try:
        config = model.config
    except AttributeError:  # a network around a BiT with the same class
        return False
    names = {layer.name for layer in model.layers}
    outputs = list(_outputs(model).values())
    described = outline.Outline(config, outline.ends_of(model)).layers.keys()
    return (
        not layers_in_front(model)
        and not outline.differences(model, fused=_is_fused(model))
        and all(name in described & names for name in outputs)
        and len(set(outputs)) == len(outputs)
        and all(is_known(layer.activation) for layer in model.layers if hasattr(layer, "activation"))
    )


class OnnxGraph(Graph):
    """The nodes and tensors of one network. Layers are not called; the model has them and their weights.

    Args:
        model: one that this module `describes`.
        tensors: receives the weights, in float32.
        normalize: the form of group normalization.

    Attributes:
        nodes: `onnx.NodeProto`, each after its inputs.
        maps: the feature maps whose shapes are known as texts only.
    """

    def __init__(self, model: BiTModel, tensors: Tensors, normalize: Normalization) -> None:
        super().__init__(model.config, None)
        self.tensors = tensors
        self.normalize = normalize
        self.nodes: list[Any] = []
        self.maps: list[Value] = []
        self._model = model
        self._layers = {layer.name: layer for layer in model.layers}
        self._values: dict[str, Value] = {}
        self._padded: dict[str, Value] = {}

    def write(self, images: str, names: Mapping[str, str]) -> None:
        """Adds all nodes, from the input `images`, channels last, to the outputs.

        Args:
            names: the model's name of an output, or `OUTPUT`, to its name in the file.
        """
        first = self.node("Transpose", [images], f"{images}/channels_first", perm=[0, 3, 1, 2])
        self.whole(Value(first, self.config.num_channels), outline.ends_of(self._model))
        values = {output: self.padded(self._values[layer]) for output, layer in _outputs(self._model).items()}
        inside = self._renamed(set(names.values()))
        for output, layer in _outputs(self._model).items():
            value = values[output].named(inside.get(values[output].name, values[output].name))
            if len(self._layers[layer].output.shape) == 4:
                self.node("Transpose", [value.name], names[output], perm=[0, 2, 3, 1])
            else:
                self.node("Identity", [value.name], names[output])

    def _renamed(self, taken: set[str]) -> dict[str, str]:
        """Renames tensors that have the name of an output, and returns the new names."""
        renamed = {node.output[0]: f"{node.output[0]}/inside" for node in self.nodes if node.output[0] in taken}
        for node in self.nodes:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[0] = node.name = renamed.get(node.output[0], node.output[0])
        self.maps = [value.named(renamed.get(value.name, value.name)) for value in self.maps]
        return renamed

    def map(self, operator: str, inputs: list[str], output: Value, **attributes: Any) -> Value:
        """Adds a node that gives a feature map."""
        self.node(operator, inputs, output.name, **attributes)
        self.maps.append(output)
        return output

    def shapes(self, shape: Shape) -> list[Any]:
        """Returns the shapes of the feature maps for images of `shape`, if sizes are free.

        They tell onnxruntime that two added maps have the same shape, so that it can add one while it computes the
        convolution of the other. Fixed shapes it derives itself.
        """
        from onnx import TensorProto, helper

        batch, *sides = shape
        free = [None if side is not None else name for side, name in zip(sides, ("height", "width"), strict=True)]
        return [
            helper.make_tensor_value_info(
                value.name,
                TensorProto.FLOAT,
                [batch or "batch", value.channels, *(name and f"{name}{value.size}" for name in free)],
            )
            for value in self.maps
        ]

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node, and returns the name of its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def call(self, layer: keras.layers.Layer, x: Any) -> Any:
        """Adds the nodes of a layer; `None` if the model lacks it, and for the layers after it."""
        if layer.name not in self._layers:
            return x if isinstance(layer, keras.layers.Dropout) else None
        value: Value = NODES[type(layer).__name__](self, self._layers[layer.name], x)
        self._values[layer.name] = value
        return value

    def weights(self, layer: keras.layers.Layer) -> dict[str, np.ndarray]:
        """Returns the weights of a layer in float32, with a convolution's kernel standardized."""
        weights = {name: ops.convert_to_tensor(value) for name, value in plain_weights(layer).items()}
        if isinstance(layer, StdConv2D):
            weights["kernel"] = standardize_kernel(weights["kernel"], layer.epsilon)
        return {name: ops.convert_to_numpy(ops.cast(value, "float32")) for name, value in weights.items()}

    def padded(self, value: Value) -> Value:
        """Returns the value with its zeros around it.

        A depthwise convolution with 1 and zero padding adds them. Unlike `Pad`, it stays in the blocked layout of
        onnxruntime's convolutions, and so does the following pool.
        """
        if not value.zeros:
            return value
        name = f"{value.name}/padded"
        if name in self._padded:
            return self._padded[name]
        ones = self.tensors.add(f"ones_{value.channels}x1x1x1", np.ones((value.channels, 1, 1, 1), np.float32))
        self._padded[name] = around = Value(name, value.channels, f"{value.size}+{2 * value.zeros}")
        pads = {"pads": [value.zeros] * 4, "kernel_shape": [1, 1]}
        return self.map("Conv", [value.name, ones], around, group=value.channels, **pads)


def _convolution(graph: OnnxGraph, layer: keras.layers.Layer, x: Value) -> Value:
    kernel = graph.tensors.add(f"{layer.name}.kernel", graph.weights(layer)["kernel"].transpose(3, 2, 0, 1))
    strided = layer.strides != (1, 1)
    padding: dict[str, Any] = {"pads": [x.zeros] * 4}
    if layer.padding == "same" and strided:
        padding = {"auto_pad": "SAME_UPPER"}
    elif layer.padding == "same":
        padding = {"pads": [layer.dilation_rate[0] * (layer.kernel_size[0] // 2)] * 4}
    result = Value(layer.name, layer.filters, x.size + strided * "/2")
    shape = {"kernel_shape": layer.kernel_size, "strides": layer.strides, "dilations": layer.dilation_rate}
    return graph.map("Conv", [x.name, kernel], result, **shape, **padding)


def _zeros_around(graph: OnnxGraph, layer: keras.layers.Layer, x: Value) -> Value:
    return dataclasses.replace(x, zeros=layer.padding[0][0])


def _zeros_to_same(graph: OnnxGraph, layer: keras.layers.Layer, x: Value) -> Value:
    """Writes `ZeroPaddedToSame`: one row after, and one before if their number is odd, of almost zeros.

    onnxruntime 1.20 to 1.30 fuse a zero pad and the pool after it to a pool that pads with minus infinity.
    """
    x = graph.padded(x)
    size = graph.node("Shape", [x.name], f"{layer.name}/size", start=2, end=4)
    before = graph.node("Mod", [size, graph.tensors.integers(2)], f"{layer.name}/before")
    parts = [graph.tensors.integers(0, 0), before, graph.tensors.integers(0, 0, 1, 1)]
    pads = graph.node("Concat", parts, f"{layer.name}/pads", axis=0)
    value = graph.tensors.add("almost_zero", np.array(ALMOST_ZERO, np.float32))
    return graph.map("Pad", [x.name, pads, value], Value(layer.name, x.channels, f"{x.size}+same"))


def _pool(graph: OnnxGraph, layer: keras.layers.Layer, x: Value) -> Value:
    x = graph.padded(x)
    shape = {"kernel_shape": layer.pool_size, "strides": layer.strides}
    return graph.map("MaxPool", [x.name], Value(layer.name, x.channels, f"{x.size}/pool"), **shape)


def _global_pool(operator: str) -> Any:
    def pool(graph: OnnxGraph, layer: keras.layers.Layer, x: Value) -> Value:
        pooled = graph.node(operator, [x.name], f"{layer.name}/map")
        return Value(graph.node("Flatten", [pooled], layer.name, axis=1), x.channels)

    return pool


def _norm(graph: OnnxGraph, layer: keras.layers.Layer, x: Value) -> Value:
    return graph.normalize(graph, layer, graph.padded(x))


def _sum(graph: OnnxGraph, layer: keras.layers.Layer, x: list[Value]) -> Value:
    return graph.map("Add", [value.name for value in x], x[0].named(layer.name))


def _activation(graph: OnnxGraph, layer: keras.layers.Layer, x: Value) -> Value:
    return x.named(activated(graph, x.name, layer.activation, layer.name))


def _dense(graph: OnnxGraph, layer: keras.layers.Layer, x: Value) -> Value:
    weights = graph.weights(layer)
    names = [graph.tensors.add(f"{layer.name}.{name}", weights[name]) for name in ("kernel", "bias")]
    product = graph.node("Gemm", [x.name, *names], f"{layer.name}/linear")
    return Value(activated(graph, product, layer.activation, layer.name), layer.units)


def _unchanged(graph: OnnxGraph, layer: keras.layers.Layer, x: Value) -> Value:
    return x


# The class of a layer in `network.model.Graph` to the function that writes it.
NODES = {
    "Activation": _activation,
    "Add": _sum,
    "Conv2D": _convolution,
    "Dense": _dense,
    "Dropout": _unchanged,
    "GlobalAveragePooling2D": _global_pool("GlobalAveragePool"),
    "GlobalMaxPooling2D": _global_pool("GlobalMaxPool"),
    "GroupNormalization": _norm,
    "MaxPooling2D": _pool,
    "StdConv2D": _convolution,
    "ZeroPadding2D": _zeros_around,
    "ZeroPaddedToSame": _zeros_to_same,
}


def _is_fused(model: BiTModel) -> bool:
    return not any(isinstance(layer, StdConv2D) for layer in model.layers)


def _outputs(model: BiTModel) -> dict[str, str]:
    """Returns the model's name of each output, or `OUTPUT`, with its layer."""
    outputs = model.output if isinstance(model.output, Mapping) else {OUTPUT: model.output}
    return {name: tensor._keras_history.operation.name for name, tensor in outputs.items()}
