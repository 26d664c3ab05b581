"""One file of weights to its tensors, of every kind but .keras; names and shapes at once, numbers when asked."""

import dataclasses
import functools
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors

from keras_bit import packages
from keras_bit.checkpoints.layouts import is_part_of_bit, plain_google_name, saved_tensor_name

# What reading a tensor of a damaged file may raise.
UNREADABLE = (
    safetensors.SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
)


# How safetensors files name the types that are read in parts; the others come through the library, or its refusal.
_SAFETENSORS_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": ml_dtypes.bfloat16}
_PART = 2**20  # bytes, about: what fits a processor's own cache
_PART_ROWS = 16  # at least, and a multiple of it: whoever turns a kernel writes that many numbers in one go


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor whose shape is known and whose numbers are still in the file.

    Args:
        shape: as the file says it; what `read` gives may differ where the file has changed.
        read: its numbers.
        in_parts: its numbers in parts along the first axis, from first to last, each gone when the next is asked for;
            `None` where a kind of file gives only the whole.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    in_parts: Callable[[], Iterator[np.ndarray]] | None = None

    def parts(self) -> Iterator[np.ndarray]:
        """Its numbers, in parts where they can be had so."""
        return iter((self.read(),)) if self.in_parts is None else self.in_parts()


def open_file(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    """The named tensors of a file, by its suffix.

    Raises:
        ValueError: the suffix is unknown, or the file is damaged.
        ImportError: a PyTorch file, and torch is not installed.
    """
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
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


def _open_safetensors(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    try:
        handle = safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file: {error}. Its download may be incomplete; fetch it again."
        ) from error
    shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118 - no mapping
    with path.open("rb") as file:
        opened = _file_version(file)
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))  # which the library has checked
    for name, shape in shapes.items():
        read = functools.partial(_read_safetensor, path, name)
        dtype = _SAFETENSORS_DTYPES.get(header[name]["dtype"])
        if dtype is None or not shape or not all(shape):  # no numbers, or one
            yield name, LazyTensor(shape, read)
        else:
            place = _Place(path, opened, start + header[name]["data_offsets"][0], shape, np.dtype(dtype))
            yield name, LazyTensor(shape, read, functools.partial(_read_parts, place, read))


def _read_safetensor(path: Path, name: str) -> np.ndarray:
    # A handle maps its file into memory, and what was read through it counts as the process's until it is gone: with
    # one for all tensors the whole file would be there beside the model.
    with safetensors.safe_open(path, framework="numpy") as handle:
        return handle.get_tensor(name)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a tensor lies in a file: that version of it, from that byte on."""

    path: Path
    version: tuple[int, ...]
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype


def _read_parts(place: _Place, read: Callable[[], np.ndarray]) -> Iterator[np.ndarray]:
    """A tensor's numbers through one small buffer: each byte comes by once, in the file's order.

    Read, not mapped into memory: faults of 4 KB cost more than the copy, and a file that shrinks kills who mapped it.
    """
    row = math.prod(place.shape[1:]) * place.dtype.itemsize
    rows = min(max(_PART // row // _PART_ROWS, 1) * _PART_ROWS, place.shape[0])
    buffer = np.empty(rows * row, np.uint8)
    with place.path.open("rb") as file:
        if _file_version(file) != place.version:
            yield read()  # what it is now, for the caller to look at
            return
        file.seek(place.start)
        for begin in range(0, place.shape[0], rows):
            size = min(rows, place.shape[0] - begin) * row
            if file.readinto(buffer[:size].data) != size:
                raise ValueError("the file ends before it")
            yield buffer[:size].view(place.dtype).reshape(-1, *place.shape[1:])


def _file_version(file: BinaryIO) -> tuple[int, ...]:
    """What changes when a file is written again or replaced."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


def _open_npz(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.namelist() if member.endswith(".npy")]
            shapes = {member.removesuffix(".npy"): _npy_shape(archive, member) for member in members}
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged or no .npz file: {error}. Fetch it again.") from error
    held: dict[str, str] = {}
    for name, shape in shapes.items():
        plain = plain_google_name(name)
        if held.setdefault(plain, name) != name:
            raise ValueError(f"{path} holds {plain} twice, as {held[plain]} and as {name}. Keep the right one of them.")
        yield plain, LazyTensor(shape, functools.partial(_read_npy, path, name))


def _npy_shape(archive: zipfile.ZipFile, member: str) -> tuple[int, ...]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"{member} has version {version} of numpy's format, expected 1.0 or 2.0")
        return read_header[version](file)[0]


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
        yield name, LazyTensor(shapes[place], functools.partial(_read_h5, path, place))


def _saved_layers(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """The layers of a `.weights.h5` from group to name, empty where it has none, and all its arrays' shapes."""
    import h5py

    layers: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def visit(place: str, item: Any) -> None:
        if match := re.fullmatch(r"layers/([^/]+)/vars", place):
            layers[match.group(1)] = str(item.attrs.get("name", ""))
        if isinstance(item, h5py.Dataset) and not place.startswith("optimizer/"):  # of a compiled model
            if item.external or item.is_virtual:
                raise ValueError(f"{place} is kept in another file, which is not read")
            shapes[place] = tuple(item.shape or ())

    try:
        with h5py.File(path) as file:
            file.visititems(visit)  # goes through no links
    except PermissionError:
        raise
    except UNREADABLE as error:
        raise ValueError(
            f"{path} is damaged or no .weights.h5 file of Keras: {error}. Fetch or save it again."
        ) from error
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
    for name, tensor in tensors.items():
        yield name, LazyTensor(tuple(tensor.shape), functools.partial(_torch_to_numpy, tensor))


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
