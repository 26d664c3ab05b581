"""Activations in ONNX: one operator for most, and several for GELU."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_bit.network.model import gelu_new

if TYPE_CHECKING:
    from keras_bit.exporters.onnx_graph import OnnxGraph

# Keras' function to the operator and its attributes.
OPERATORS: dict[Callable[[Any], Any], tuple[str, dict[str, Any]]] = {
    keras.activations.relu: ("Relu", {}),
    keras.activations.selu: ("Selu", {}),
    keras.activations.elu: ("Elu", {}),
    keras.activations.sigmoid: ("Sigmoid", {}),
    keras.activations.softmax: ("Softmax", {"axis": -1}),
    keras.activations.log_softmax: ("LogSoftmax", {"axis": -1}),
    keras.activations.softplus: ("Softplus", {}),
    keras.activations.softsign: ("Softsign", {}),
    keras.activations.tanh: ("Tanh", {}),
    keras.activations.exponential: ("Exp", {}),
}
GELU = (keras.activations.gelu, gelu_new)


def is_known(activation: Callable[[Any], Any] | None) -> bool:
    """Returns whether `activated` supports it."""
    return activation in (None, keras.activations.linear, *GELU, *OPERATORS)


def activated(graph: "OnnxGraph", value: str, activation: Callable[[Any], Any] | None, name: str) -> str:
    """Adds the nodes of an activation; the last one is `name`."""
    if activation in (None, keras.activations.linear):
        return graph.node("Identity", [value], name)
    if activation in GELU:
        return _gelu(graph, value, name, approximate=activation is gelu_new)
    operator, attributes = OPERATORS[activation]
    return graph.node(operator, [value], name, **attributes)


def _gelu(graph: "OnnxGraph", value: str, name: str, approximate: bool) -> str:
    """Writes `x / 2 * (1 + erf(x / sqrt(2)))`, or its tanh form, in the order that onnxruntime can fuse."""

    def number(it: float) -> str:
        return graph.tensors.add(str(it), np.array(it, np.float32))

    if approximate:
        cubed = graph.node("Pow", [value, number(3.0)], f"{name}/cubed")
        scaled = graph.node("Mul", [cubed, number(0.044715)], f"{name}/scaled")
        summed = graph.node("Add", [value, scaled], f"{name}/summed")
        inner = graph.node("Mul", [summed, number(np.sqrt(2 / np.pi))], f"{name}/inner")
        share = graph.node("Tanh", [inner], f"{name}/tanh")
    else:
        inner = graph.node("Div", [value, number(np.sqrt(2.0))], f"{name}/inner")
        share = graph.node("Erf", [inner], f"{name}/erf")
    share = graph.node("Add", [share, number(1.0)], f"{name}/share")
    product = graph.node("Mul", [value, share], f"{name}/product")
    return graph.node("Mul", [product, number(0.5)], name)
