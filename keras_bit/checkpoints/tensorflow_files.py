"""What Google's TensorFlow 2 code writes of a BiT: the `.h5` of its Keras classes, and SavedModels of TF Hub.

Both hold the variables of `bit_tf2/models.py` of big_transfer, whose names are those of Google's `.npz`, with a linear
head. Neither is run: of a SavedModel only its variables are read.
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
DATA = "variables/variables.data-00000-of-00001"  # which goes with it
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # which says the names of the variables
_PARTS = r"(?:root_block|block\d+|group_norm|head)"  # what Google's names begin with after `resnet/`


def is_older_h5(path: Path) -> bool:
    """Whether it is an `.h5` as `save_weights` of TensorFlow's Keras 2 wrote it."""
    import h5py

    with refusing_damage(path, "no .weights.h5 file of Keras", "Fetch or save it again."), h5py.File(path) as file:
        return "layer_names" in file.attrs


def open_older_h5(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    """The named tensors of such a file.

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

    with refusing_damage(path, "no .h5 file of Google's BiT", "Fetch it again."), h5py.File(path) as file:
        # A layer's name may hold a slash, as `head/dense` does.
        layers = [one.decode() if isinstance(one, bytes) else str(one) for one in file.attrs["layer_names"]]
        file.visititems(visit)  # goes through no links
    for name, (place, shape) in shapes.items():
        yield name, LazyTensor(shape, functools.partial(_read_h5, path, place), path=path)


def _layer_and_weight(place: str, layers: list[str]) -> tuple[str, str]:
    layer = max((one for one in layers if place.startswith(f"{one}/")), key=len, default="")
    return layer, place[len(layer) :].lstrip("/")


def _google_name(layer: str, weight: str) -> str:
    """The name in Google's layout of a weight, which its own name says in full, or from its layer on."""
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
    """The named tensors of a SavedModel's variables, from `VARIABLES` in its directory.

    Raises:
        MissingPackageError: TensorFlow is not installed.
        ValueError: it is damaged, or names no variable as Google's BiT does.
    """
    packages.require_tensorflow("Reading the variables of a SavedModel")
    import tensorflow as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    prefix = str(index.with_suffix(""))
    with refusing_damage(index, "no variables of a SavedModel", "Fetch it again, with its variables.data-* files."):
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
            raise ValueError("it names no variables `resnet/...`, as Google's BiT has them")
    for name, key in found.items():
        yield name, LazyTensor(tuple(shapes[key]), functools.partial(_read_variable, prefix, key), path=index)


def _read_variable(prefix: str, key: str) -> np.ndarray:
    import tensorflow as tf

    return tf.train.load_checkpoint(prefix).get_tensor(key)
