"""Reads files of Google's TensorFlow 2 code: the `.h5` of its Keras classes, and SavedModels of TF Hub.

Both hold the variables of `bit_tf2/models.py` of big_transfer, whose names are those of Google's `.npz`, with a linear
head. No code is run; only the variables of a SavedModel are read.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit import packages
from keras_bit.checkpoints.layouts import plain_google_name
from keras_bit.checkpoints.lazy import LazyTensor, check_name
from keras_bit.files.damage import refusing_damage

VARIABLES = "variables/variables.index"  # in the directory of a SavedModel
DATA = "variables/variables.data-00000-of-00001"  # the file with the numbers, next to the index
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # holds the names of the variables
_PARTS = r"(?:root_block|block\d+|group_norm|head)"  # the beginnings of Google's names after `resnet/`


def is_older_h5(path: Path) -> bool:
    """Returns whether a file is an `.h5` file that `save_weights` of TensorFlow's Keras 2 wrote."""
    import h5py

    with refusing_damage(path, "not a .weights.h5 file of Keras", "Fetch or save it again."), h5py.File(path) as file:
        return "layer_names" in file.attrs


def open_older_h5(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    """Opens the named tensors of an `.h5` file that `save_weights` of TensorFlow's Keras 2 wrote.

    Raises:
        ValueError: it is damaged, or a layer of it is not one of Google's BiT.
    """
    import h5py

    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}

    def visit(place: str, item: Any) -> None:
        check_name(place)
        if not isinstance(item, h5py.Dataset):
            return
        if item.external or item.is_virtual:
            raise ValueError(f"{place} is kept in another file, which is not read")
        name = _google_name(*_layer_and_weight(place, layers))
        if name in shapes:
            raise ValueError(f"it holds {name} twice, as {shapes[name][0]} and as {place}")
        shapes[name] = (place, tuple(item.shape or ()))

    with refusing_damage(path, "not an .h5 file of Google's BiT", "Fetch it again."), h5py.File(path) as file:
        # A layer's name may hold a slash, such as `head/dense`.
        layers = [one.decode() if isinstance(one, bytes) else str(one) for one in file.attrs["layer_names"]]
        file.visititems(visit)  # does not follow links
    for name, (place, shape) in shapes.items():
        yield name, LazyTensor(shape, functools.partial(_read_h5, path, place), path=path)


def _layer_and_weight(place: str, layers: list[str]) -> tuple[str, str]:
    layer = max((one for one in layers if place.startswith(f"{one}/")), key=len, default="")
    return layer, place[len(layer) :].lstrip("/")


def _google_name(layer: str, weight: str) -> str:
    """Returns a weight's name in Google's layout.

    The weight's name in the file is the full name, or only the part from its layer on.
    """
    plain = weight.removesuffix(":0")
    match = re.search(rf"(?:^|/)({_PARTS}/.+)", plain)
    if match is not None and f"{match[1]}/".startswith(f"{layer}/"):
        return plain_google_name(f"resnet/{match[1]}")
    whole = f"{layer}/{plain}"
    return plain_google_name(f"resnet/{whole}") if re.match(rf"{_PARTS}/", whole) else whole


def _read_h5(path: Path, place: str) -> np.ndarray:
    import h5py

    with h5py.File(path) as file:
        return file[place][()]


def open_saved_model(index: Path) -> Iterator[tuple[str, LazyTensor]]:
    """Opens the named tensors of a SavedModel's variables, from `VARIABLES` in its directory.

    Raises:
        MissingPackageError: TensorFlow is not installed.
        ValueError: it is damaged, or its variables do not have the names of Google's BiT.
    """
    packages.require_tensorflow("Reading the variables of a SavedModel")
    import tensorflow as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    prefix = str(index.with_suffix(""))
    with refusing_damage(index, "not a SavedModel's variables", "Fetch it again, with its variables.data-* files."):
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
        keys = {key: key for key in shapes if key != _GRAPH}
        if _GRAPH in shapes:
            graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor(_GRAPH))
            attributes = [one for node in graph.nodes for one in node.attributes if one.full_name]
            keys = {one.full_name: one.checkpoint_key for one in attributes if one.checkpoint_key in shapes}
        found: dict[str, str] = {}
        for full_name, key in keys.items():
            check_name(full_name)
            name = plain_google_name(full_name)
            if name.startswith("resnet/") and found.setdefault(name, key) != key:
                raise ValueError(f"it holds {name} twice")
        if not found:
            raise ValueError("it has no variables `resnet/...`, as in Google's BiT")
    for name, key in found.items():
        yield name, LazyTensor(tuple(shapes[key]), functools.partial(_read_variable, prefix, key), path=index)


def _read_variable(prefix: str, key: str) -> np.ndarray:
    import tensorflow as tf

    return tf.train.load_checkpoint(prefix).get_tensor(key)
