"""One file of weights to its tensors: safetensors, PyTorch and .npz; names and shapes at once, numbers when asked."""

import dataclasses
import importlib.util
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from keras_bit.checkpoint import plain_google_name

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
)


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor whose shape is known and whose numbers are still in the file."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


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
    raise ValueError(
        f"`source` {str(path)!r} is of an unknown kind: expected .safetensors, .bin, .npz, .keras or the .index.json "
        "of sharded weights."
    )


def _open_safetensors(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    try:
        handle = safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file: {error}. Its download may be incomplete; fetch it again."
        ) from error
    for name in handle.keys():  # noqa: SIM118 - a safetensors handle is no mapping
        shape = tuple(handle.get_slice(name).get_shape())
        yield name, LazyTensor(shape, lambda name=name: _read_safetensor(path, name))


def _read_safetensor(path: Path, name: str) -> np.ndarray:
    # A handle maps its file into memory, and what was read through it counts as the process's until it is gone: with
    # one for all tensors the whole file would be there beside the model.
    with safetensors.safe_open(path, framework="numpy") as handle:
        return handle.get_tensor(name)


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
        yield plain, LazyTensor(shape, lambda name=name: _read_npy(path, name))


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


def _open_torch(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    if importlib.util.find_spec("torch") is None:
        raise ImportError(
            f"{path.name} is a PyTorch file and reading it takes torch, which is not installed: pip install "
            "'keras_bit[torch]'. A checkpoint with model.safetensors needs no torch."
        )
    import torch

    try:
        # The files of torch before 1.6 are no zip archives, and are read whole.
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except PermissionError:
        raise
    except Exception as error:  # a damaged pickle ends in almost any of them
        # torch's own words are kept out: they recommend to unpickle it all the same.
        raise ValueError(
            f"{path} is damaged, or holds more than tensors, which is never unpickled because it can run code "
            f"({type(error).__name__}). Fetch it again, or take a checkpoint with model.safetensors."
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in tensors.items()
    ):
        raise ValueError(f"{path} does not hold a dictionary from names to tensors, as torch saves a state_dict.")
    for name, tensor in tensors.items():
        yield name, LazyTensor(tuple(tensor.shape), lambda tensor=tensor: _torch_to_numpy(tensor))


def _torch_to_numpy(tensor: Any) -> np.ndarray:
    # numpy knows no bfloat16, and nothing is lost by widening it.
    return (tensor.detach().float() if tensor.is_floating_point() else tensor.detach()).numpy()
