"""One file of weights to its tensors, of every kind but .keras; names and shapes at once, numbers when asked."""

import functools
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from keras_bit import packages
from keras_bit.checkpoints import safetensors_file
from keras_bit.checkpoints.layouts import is_part_of_bit, plain_google_name, saved_tensor_name
from keras_bit.checkpoints.lazy import LazyTensor, check_name, refusing_damage

_NUMPYS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # how numpy writes
_LONGEST_HEADER = 2**16  # bytes, as in version 1.0 of numpy's format; those of a BiT have 118
_LARGEST_NUMBER = 16  # bytes; a longer one is a text or a record


def open_file(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    """The named tensors of a file, by its suffix.

    Raises:
        ValueError: the suffix is unknown, or the file is damaged.
        ImportError: a PyTorch file, and torch is not installed.
    """
    if path.suffix == ".safetensors":
        return safetensors_file.open_tensors(path)
    if path.suffix == ".bin":
        return _open_torch(path)
    if path.suffix == ".npz":
        return _open_npz(path)
    if path.suffix == ".h5":
        return _open_h5(path)
    raise ValueError(
        f"`source` {str(path)!r} is of an unknown kind: expected .safetensors, .bin, .npz, .weights.h5, .keras or "
        "the .index.json of sharded weights."
    )


def _open_npz(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    with refusing_damage(path, "no .npz file", "Fetch it again."), zipfile.ZipFile(path) as archive:
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
        raise ValueError(f"{member} holds {dtype.itemsize:,} bytes in each of its places, which is no number")
    return shape


def _read_npy(path: Path, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        return file[name]


def _open_h5(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    layers, shapes = _saved_layers(path)
    if nameless := [group for group, layer in layers.items() if not layer]:
        raise ValueError(
            f"{path} does not name its layers ({', '.join(nameless)}): an older Keras wrote it. Load it by "
            "`load_weights` of the model that was saved, and save that again."
        )
    names: dict[str, str] = {}
    # Kept in order, each once.
    foreign = {f"{layer} ({group})": None for group, layer in layers.items() if not is_part_of_bit(layer, group)}
    for place in shapes:
        match = re.fullmatch(r"layers/([^/]+)/vars/([^/]+)", place)
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
            f"{path} is not of a BiT alone, as keras_bit builds it and Keras' `save_weights` saves it. Nothing was "
            f"loaded.\n  {listed}\n`load_weights` of the model that was saved reads it. A BiT inside another model "
            "must be saved by itself, a fused one before it is fused."
        )
    held: dict[str, str] = {}
    for place, name in names.items():
        if held.setdefault(name, place) != place:
            raise ValueError(f"{path} holds {name} twice, as {held[name]} and as {place}. Save it again.")
        yield name, LazyTensor(shapes[place], functools.partial(_read_h5, path, place), path=path)


def _saved_layers(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """The layers of a `.weights.h5` from group to name, empty where it has none, and all its arrays' shapes."""
    import h5py

    layers: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def visit(place: str, item: Any) -> None:
        check_name(place)
        if match := re.fullmatch(r"layers/([^/]+)/vars", place):
            layers[match.group(1)] = str(item.attrs.get("name", ""))
            check_name(layers[match.group(1)])
        if isinstance(item, h5py.Dataset) and not place.startswith("optimizer/"):  # of a compiled model
            if item.external or item.is_virtual:
                raise ValueError(f"{place} is kept in another file, which is not read")
            if item.dtype.itemsize > _LARGEST_NUMBER:
                raise ValueError(f"{place} holds {item.dtype.itemsize:,} bytes in each of its places: no number")
            shapes[place] = tuple(item.shape or ())

    with (
        refusing_damage(path, "no .weights.h5 file of Keras", "Fetch or save it again."),
        h5py.File(path) as file,
    ):
        file.visititems(visit)  # goes through no links
    return layers, shapes


def _read_h5(path: Path, place: str) -> np.ndarray:
    import h5py

    with h5py.File(path) as file:
        values = file[place][()]
        # HDF5 has no bfloat16: Keras writes its bytes and says what they are.
        return values.view(ml_dtypes.bfloat16) if file[place].attrs.get("dtype") == "bfloat16" else values


def _open_torch(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    with packages.needing("torch", f"Reading the PyTorch file {path.name}, unlike a model.safetensors,"):
        import torch

        tensors = _load_torch(path)
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in tensors.items()
    ):
        raise ValueError(f"{path} does not hold a dictionary from names to tensors, as torch saves a state_dict.")
    with refusing_damage(path, "no state_dict of torch", "Fetch it again."):
        for name in tensors:
            check_name(name)
    for name, tensor in tensors.items():
        yield name, LazyTensor(tuple(tensor.shape), functools.partial(_torch_to_numpy, tensor), path=path)


def _load_torch(path: Path) -> Any:
    import torch

    try:
        # The files of torch before 1.6 are not zip archives, and are read whole.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (PermissionError, ImportError):
        raise
    except Exception as error:  # a damaged pickle ends in almost any of them
        # torch's own words are kept out: they recommend to unpickle it all the same.
        raise ValueError(
            f"{path} is damaged, or holds more than tensors, which is never unpickled because it can run code "
            f"({type(error).__name__}). Fetch it again, or take a checkpoint with model.safetensors."
        ) from error


def _torch_to_numpy(tensor: Any) -> np.ndarray:
    # numpy knows no bfloat16, and nothing is lost by widening it.
    return (tensor.detach().float() if tensor.is_floating_point() else tensor.detach()).numpy()
