"""Opens one file of weights of any kind except .keras: names and shapes at once, numbers on demand."""

import argparse
import functools
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from keras_bit import packages, wording
from keras_bit.checkpoints import safetensors_file, tensorflow_files
from keras_bit.checkpoints.layouts import is_part_of_bit, plain_google_name, saved_tensor_name
from keras_bit.checkpoints.lazy import LazyTensor, check_name
from keras_bit.files import keras_files
from keras_bit.files.damage import refusing_damage
from keras_bit.hub import finding

_TORCH = (".bin", ".pth", ".pt", ".tar", ".ckpt")  # timm's scripts write model_best.pth.tar; Lightning writes last.ckpt
# Keys of the weights in files of training scripts: timm's, Lightning's, DeiT's, PyTorch's tutorial's. The order is that
# of timm's `load_state_dict`, which prefers averaged weights (EMA).
_STATE_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
_NUMPYS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the methods of compression that numpy uses
_LONGEST_HEADER = 2**16  # bytes, as in version 1.0 of numpy's format; those of a BiT have 118
_LARGEST_NUMBER = 16  # bytes of a number; a longer type is a text or a record
_PLACE = r"layers/([^/]+)/vars/([^/]+)"  # an array's place in a `.weights.h5`: its layer's group, and its number
_FLOAT8_VARIABLES = 7  # the least: a kernel, three scales and their histories; plain layers have fewer


def open_file(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    """Opens the named tensors of a file, by its suffix.

    Raises:
        ValueError: the suffix is unknown, or the file is damaged.
        ImportError: it is a PyTorch file, and torch is not installed.
    """
    if path.suffix == ".safetensors":
        return safetensors_file.open_tensors(path)
    if path.suffix in _TORCH:
        return _open_torch(path)
    if path.suffix == ".npz":
        return _open_npz(path)
    if path.suffix in keras_files.HDF5:
        older = tensorflow_files.is_older_h5(path)
        return tensorflow_files.open_older_h5(path) if older else open_saved(path, {path: []})
    if path.suffix == ".index":
        return tensorflow_files.open_saved_model(path)
    raise ValueError(
        f"`source` {str(path)!r} is of an unknown kind. Expected a file that ends in {', '.join(finding.FILE_SUFFIXES)}"
        "."
    )


def _open_npz(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    with refusing_damage(path, "not an .npz file", "Fetch it again."), zipfile.ZipFile(path) as archive:
        members = [member for member in archive.namelist() if member.endswith(".npy")]
        shapes = {member.removesuffix(".npy"): _npy_shape(archive, member) for member in members}
    held: dict[str, str] = {}
    for name, shape in shapes.items():
        plain = plain_google_name(name)
        if held.setdefault(plain, name) != name:
            raise ValueError(f"{path} holds {plain} twice, as {held[plain]} and as {name}. Keep the right one of them.")
        yield plain, LazyTensor(shape, functools.partial(_read_npy, path, name), path=path)


def _npy_shape(archive: zipfile.ZipFile, member: str) -> tuple[int, ...]:
    check_name(member)
    method = archive.getinfo(member).compress_type
    if method not in _NUMPYS:  # bzip2 and lzma unpack a few kilobytes to gigabytes in one step
        raise ValueError(f"{member} is compressed by method {method}, expected {' or '.join(map(str, _NUMPYS))}")
    with archive.open(member) as compressed:
        start = compressed.read(12)
        length = int.from_bytes(start[8:12] if start[6:7] == b"\x02" else start[8:10], "little")
        if length > _LONGEST_HEADER:  # a few bytes may unpack to gigabytes
            raise ValueError(f"the header of {member} has {length:,} bytes, expected at most {_LONGEST_HEADER:,}")
        file = io.BytesIO(start + compressed.read(length))
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"{member} has version {version} of numpy's format, expected 1.0 or 2.0")
    shape, _, dtype = read_header[version](file)
    if dtype.itemsize > _LARGEST_NUMBER:
        raise ValueError(f"{member} holds elements of {dtype.itemsize:,} bytes, which are not numbers")
    return shape


def _read_npy(path: Path, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        values = file[name]
    # numpy writes JAX's bfloat16 as two bytes without a type.
    return values.view(ml_dtypes.bfloat16) if values.dtype == "V2" else values


def open_saved(path: Path, shards: Mapping[Path, Sequence[str]]) -> Iterator[tuple[str, LazyTensor]]:
    """Opens the named tensors of a `.weights.h5`, or of several that together hold one model.

    Args:
        path: the file, or the index of several.
        shards: the files, and the places of layers that the index lists for each.

    Raises:
        ValueError: a file is damaged, or holds more than a BiT.
    """
    layers: dict[str, str] = {}
    arrays: dict[str, _Array] = {}
    files_of: dict[str, Path] = {}
    for file, promised in shards.items():
        more, found = _saved_layers(file)
        # If a layer is in several files, only the first one holds its name.
        layers |= {group: name for group, name in more.items() if name or group not in layers}
        if lacking := [one for one in promised if not any(place.startswith(f"{one.strip('/')}/") for place in found)]:
            raise ValueError(
                f"{file} lacks tensors that {path.name} lists for it: {', '.join(lacking)}. Fetch it again."
            )
        if twice := [place for place in found if place in arrays]:
            raise ValueError(
                f"{file} holds tensors that another shard holds too: {', '.join(twice)}. Save the checkpoint again."
            )
        arrays |= found
        files_of |= dict.fromkeys(found, file)
    if nameless := [group for group, layer in layers.items() if not layer]:
        raise ValueError(
            f"{path} does not name its layers ({', '.join(nameless)}): an older Keras wrote it. Load it into the saved "
            "model with `load_weights`, and save that model again."
        )
    if quantized := _quantized(layers, arrays):
        raise ValueError(
            f"{path} holds the weights of a quantized model: {wording.some(quantized)}. Its weights before "
            "quantization are lost. Load it with `load_weights` of a model that was quantized in the same way."
        )
    names: dict[str, str] = {}
    # A dictionary keeps each name once, and in order.
    foreign = {f"{layer} ({group})": None for group, layer in layers.items() if not is_part_of_bit(layer, group)}
    for place in arrays:
        match = re.fullmatch(_PLACE, place)
        group, index = match.groups() if match else (place, None)
        layer = layers.get(group, place)
        name = saved_tensor_name(layer, group, index) if index else None
        if name is None:
            foreign[f"{layer} ({group})"] = None
        else:
            names[place] = name
    if foreign or not names:
        listed = f"not of BiT ({len(foreign)}): {', '.join(foreign)}" if foreign else "it holds no weights of layers"
        raise ValueError(
            f"{path} does not hold just a BiT, as Keras' `save_weights` saves a keras_bit model. Nothing was loaded.\n "
            f" {listed}\nLoad it with `load_weights` of the saved model. If the BiT is inside another model, save "
            f"only the "
            "BiT. If it is fused, save it before `fuse`."
        )
    held: dict[str, str] = {}
    for place, name in names.items():
        if held.setdefault(name, place) != place:
            raise ValueError(f"{path} holds {name} twice, as {held[name]} and as {place}. Save it again.")
        file = files_of[place]
        yield name, LazyTensor(arrays[place].shape, functools.partial(_read_h5, file, place), path=file)


def _quantized(layers: Mapping[str, str], arrays: Mapping[str, "_Array"]) -> list[str]:
    """Lists the quantized layers, such as `"predictions (int8)"`.

    A kernel of 8 or 4 bits is stored in bytes; one of `float8` has scales, also for inputs and gradients. Checked
    against Keras 3.15 `Dense.save_own_variables`.
    """
    inside: dict[str, list[_Array]] = {}
    for place, array in arrays.items():
        if match := re.fullmatch(_PLACE, place):
            inside.setdefault(layers.get(match[1]) or match[1], []).append(array)
    found = []
    for layer, held in inside.items():
        if kinds := [array.kind for array in held if array.kind in ("int8", "uint8")]:
            found.append(f"{layer} ({kinds[0]})")
        elif len(held) >= _FLOAT8_VARIABLES:
            found.append(f"{layer} (float8)")
    return found


class _Array(NamedTuple):
    """The shape and the type's name of an array in an `.h5` file."""

    shape: tuple[int, ...]
    kind: str


def _saved_layers(path: Path) -> tuple[dict[str, str], dict[str, _Array]]:
    """Returns the layers of a `.weights.h5` from group to name (empty if unnamed), and all its arrays."""
    import h5py

    layers: dict[str, str] = {}
    arrays: dict[str, _Array] = {}

    def visit(place: str, item: Any) -> None:
        check_name(place)
        if match := re.fullmatch(r"layers/([^/]+)/vars", place):
            layers[match.group(1)] = str(item.attrs.get("name", ""))
            check_name(layers[match.group(1)])
        if isinstance(item, h5py.Dataset) and not place.startswith("optimizer/"):  # a compiled model has these
            if item.external or item.is_virtual:
                raise ValueError(f"{place} is kept in another file, which is not read")
            if item.dtype.itemsize > _LARGEST_NUMBER:
                raise ValueError(f"{place} holds elements of {item.dtype.itemsize:,} bytes, which are not numbers")
            arrays[place] = _Array(tuple(item.shape or ()), item.dtype.name)

    with (
        refusing_damage(path, "not a .weights.h5 file of Keras", "Fetch or save it again."),
        h5py.File(path) as file,
    ):
        file.visititems(visit)  # does not follow links
    return layers, arrays


def _read_h5(path: Path, place: str) -> np.ndarray:
    import h5py

    with h5py.File(path) as file:
        values = file[place][()]
        # HDF5 has no bfloat16, so Keras writes its bytes and notes the type.
        return values.view(ml_dtypes.bfloat16) if file[place].attrs.get("dtype") == "bfloat16" else values


def _open_torch(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    with packages.needing("torch", f"Reading the PyTorch file {path.name}, unlike a model.safetensors,"):
        import torch

        content = _load_torch(path)
    tensors = _state_dict(content, torch.Tensor)
    if tensors is None:
        held = f": it holds {wording.some(map(wording.shortened, content))}" if isinstance(content, dict) else ""
        raise ValueError(
            f"{path} must hold a dictionary from names to tensors (a state_dict of torch), or a dictionary with "
            f"such a one under the key {' or '.join(_STATE_KEYS)}{held}."
        )
    with refusing_damage(path, "not a state_dict of torch", "Fetch it again."):
        for name in tensors:
            check_name(name)
    for name, tensor in tensors.items():
        yield name, LazyTensor(tuple(tensor.shape), functools.partial(_torch_to_numpy, tensor), path=path)


def _state_dict(content: Any, tensor: type) -> dict[str, Any] | None:
    """Returns the dictionary from names to tensors: in `content` or `content` itself; `None` if it has none."""
    # A script that does not average weights leaves an empty dictionary under the key of averaged weights.
    for held in (content, *(content.get(key) or None for key in _STATE_KEYS if isinstance(content, dict))):
        if isinstance(held, dict) and all(isinstance(name, str) and isinstance(held[name], tensor) for name in held):
            return held
    return None


def _load_torch(path: Path) -> Any:
    import torch

    try:
        # timm's scripts save a namespace of arguments together with the weights, which only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            # The files of torch before 1.6 are not zip archives, and are read whole.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (PermissionError, ImportError):
        raise
    except Exception as error:  # a damaged pickle may raise almost anything
        # torch's own message is left out, because it recommends unpickling.
        raise ValueError(
            f"{path} is damaged, or holds more than tensors, which is refused because unpickling can run code "
            f"({type(error).__name__}). Fetch it again, or use a checkpoint with model.safetensors. If it is your own, "
            "save only `model.state_dict()`."
        ) from error


def _torch_to_numpy(tensor: Any) -> np.ndarray:
    # numpy has no bfloat16; float32 holds the same values.
    return (tensor.detach().float() if tensor.is_floating_point() else tensor.detach()).numpy()
