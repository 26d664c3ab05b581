"""Checks a model's layers against its configuration: the arguments of each layer, and the layers that it reads."""

import functools
from collections.abc import Iterator
from typing import Any

import keras

from keras_bit.network.config import BitConfig
from keras_bit.network.layers import Conv2D
from keras_bit.network.model import CHECKED, BiTModel, Ends, Graph, network_layers

# These arguments are not compared: those that do not change the layer's output, and those of weights, whose tensors are
# compared instead.
_IGNORED = {
    "name",
    "dtype",
    "trainable",
    "seed",
    "lora_rank",
    "lora_alpha",
    "quantization_config",
}
_IGNORED_ENDS = ("_initializer", "_regularizer", "_constraint")


class Outline(Graph):
    """The layers of a network and their inputs. The layers are never called, so they have no weights and no graph.

    Args:
        config: the network's configuration.
        ends: its beginning and end.
        fused: whether its convolutions are fused.

    Attributes:
        layers: the name of a layer to the layer and to the names of the layers that it reads.
    """

    def __init__(self, config: BitConfig, ends: Ends, fused: bool = False) -> None:
        super().__init__(config, None)
        if fused:
            self.convolution = functools.partial(Conv2D, use_bias=False)
        self.layers: dict[str, tuple[keras.layers.Layer, list[str]]] = {}
        self.whole(CHECKED, ends)

    def call(self, layer: keras.layers.Layer, x: Any) -> Any:
        self.layers[layer.name] = layer, list(x) if isinstance(x, list) else [x]
        return layer.name


def ends_of(model: BiTModel) -> Ends:
    """Returns the ends of a model, such as its pooling, from the names of its layers."""
    names = [layer.name for layer in network_layers(model)]
    pooling = next((pooling for pooling in ("avg", "max") if f"{pooling}_pool" in names), None)
    return Ends(include_top="predictions" in names, pooling=pooling)


def differences(model: BiTModel, fused: bool = False) -> list[str]:
    """Lists how a model's layers differ from those that its `config` describes, a sentence for each difference.

    The head's activation is not compared, because the configuration does not hold it. Layers before BiT are not
    compared either. `fused` says whether the convolutions should be those of `fuse`.
    """
    names = [layer.name for layer in network_layers(model)]
    expected = Outline(model.config, ends_of(model), fused).layers
    found = []
    for described in model.get_config()["layers"]:
        name = described["name"]
        if name not in names or name == CHECKED:
            continue
        if name not in expected:
            found.append(f"{name} (a {described['class_name']}) is an extra layer")
            continue
        layer, read = expected[name]
        found += [f"{name}: {difference}" for difference in _compared(described, layer)]
        if (inputs := list(_tensors(described["inbound_nodes"]))) != read:
            found.append(f"{name}: reads {', '.join(inputs)}, expected {', '.join(read)}")
    return found


def _compared(described: dict[str, Any], layer: keras.layers.Layer) -> Iterator[str]:
    expected = keras.saving.serialize_keras_object(layer)
    if (described["class_name"], described["registered_name"]) != (expected["class_name"], expected["registered_name"]):
        yield f"is a {described['class_name']}, expected {expected['class_name']}"
        return
    ignored = _IGNORED | ({"activation"} if layer.name == "predictions" else set())
    values, wanted = described["config"], expected["config"]
    for argument in dict.fromkeys((*wanted, *values)):
        if argument in ignored or argument.endswith(_IGNORED_ENDS):
            continue
        got, right = _plain(values.get(argument)), _plain(wanted.get(argument))
        if got != right:
            yield f"{argument} is {got!r}, expected {right!r}"


def _plain(value: Any) -> Any:
    """Converts tuples in a layer's config to lists, as they are in a loaded model."""
    if isinstance(value, dict):
        if value.get("class_name") == "__tuple__":
            return _plain(value["items"])
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _tensors(nodes: Any) -> Iterator[str]:
    """Returns the names of the layers whose outputs a layer's `inbound_nodes` read."""
    if isinstance(nodes, dict):
        if nodes.get("class_name") == "__keras_tensor__":
            yield nodes["config"]["keras_history"][0]
        else:
            for item in nodes.values():
                yield from _tensors(item)
    elif isinstance(nodes, list | tuple):
        for item in nodes:
            yield from _tensors(item)
