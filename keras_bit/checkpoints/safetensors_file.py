"""Writes and reads safetensors files with a checksum of every tensor, part by part.

The checksum is that of a tensor's name and its bytes, so that it finds a flipped bit as well as two tensors that were
swapped. It is stored in the file's metadata, which other programs drop when they rewrite the file. Files without it are
read unchecked.
"""

import dataclasses
import functools
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors

from keras_bit.checkpoints.lazy import LazyTensor, check_name
from keras_bit.files import json_text
from keras_bit.files.damage import refusing_damage

CHECKSUMS = "keras_bit_crc32"  # in the metadata: a JSON object from tensor name to 8 hexadecimal digits

# The names of types in safetensors files that are read in parts here. The library reads or refuses the others.
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": ml_dtypes.bfloat16}
_TYPES = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
_PART = 2**20  # bytes, about the size of a processor's own cache
_PART_ROWS = 16  # a part has a multiple of these rows, because transposing a kernel writes this many numbers at once


def write(tensors: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]) -> None:
    """Writes arrays, `metadata` and their checksums. The same arrays always give the same file.

    The library itself writes the metadata in a different order each time, and uses a temporary file of its own.

    Raises:
        OSError: it cannot be written: a full disk, no permission.
    """
    # The widest types come first, as in the library, so that each tensor is aligned to its own width.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    checksums = {name: checksum(name, tensors[name]) for name in order}
    header: dict[str, Any] = {"__metadata__": {**metadata, CHECKSUMS: json.dumps(checksums)}}
    end = 0
    for name in order:
        values = tensors[name]
        begin, end = end, end + values.nbytes
        header[name] = {"dtype": _TYPES[values.dtype.name], "shape": values.shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in order:
            file.write(_bytes(tensors[name]))


def open_tensors(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    """Opens the named tensors of a file; their checksums are compared when they are read.

    Raises:
        ValueError: the file is damaged.
        OSError: it does not exist, or cannot be read.
    """
    with refusing_damage(path, "not a safetensors file", "Its download may be incomplete. Fetch it again."):
        handle = safetensors.safe_open(path, framework="numpy")
        shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118 - no mapping
        for name in shapes:
            check_name(name)
        with path.open("rb") as file:
            opened = _file_version(file)
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))  # which the library has checked
        checksums = _stored(header.get("__metadata__"))
    for name, shape in shapes.items():
        read = functools.partial(_read, path, name)
        dtype = _DTYPES.get(header[name]["dtype"])
        # The library reads tensors of other types, of a single number, and without numbers.
        if dtype is None or not shape or not all(shape):
            yield name, LazyTensor(shape, read, path=path)
        else:
            place = _Place(path, opened, start + header[name]["data_offsets"][0], shape, np.dtype(dtype))
            in_parts = functools.partial(_read_parts, place, name, checksums, read)
            yield name, LazyTensor(shape, read, in_parts, path)


def _stored(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    """Returns the checksums in a file's metadata; `None` if it has none."""
    if not metadata or CHECKSUMS not in metadata:
        return None
    stored = json_text.parse(metadata[CHECKSUMS])
    if not isinstance(stored, dict):
        raise ValueError(f"its {CHECKSUMS} are not a JSON object")
    return stored


def checksum(name: str, values: np.ndarray) -> str:
    """Returns a tensor's checksum: the CRC-32 of its name in UTF-8 and its bytes, 8 hexadecimal digits."""
    return _hexadecimal(zlib.crc32(_bytes(values), _begin(name)))


def _begin(name: str) -> int:
    return zlib.crc32(name.encode())


def _hexadecimal(crc: int) -> str:
    return f"{crc:08x}"


def _bytes(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _compare(found: str, name: str, stored: Mapping[str, str] | None) -> None:
    if stored is not None and stored.get(name) != found:
        raise ValueError(
            f"its checksum is {found}, but {stored.get(name, 'none')} was stored: it is damaged, or another program "
            "changed it"
        )


def _read(path: Path, name: str) -> np.ndarray:
    # A handle maps its file into memory, and everything read through it counts as the process's memory while it is
    # open. A single handle for all tensors would keep the whole file in memory together with the model.
    with safetensors.safe_open(path, framework="numpy") as handle:
        values, stored = handle.get_tensor(name), _stored(handle.metadata())
    if stored is not None:
        _compare(checksum(name, values), name, stored)
    return values


@dataclasses.dataclass(frozen=True)
class _Place:
    """The place of a tensor: the version of the file, and the first byte."""

    path: Path
    version: tuple[int, ...]
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype


def _read_parts(
    place: _Place, name: str, stored: Mapping[str, str] | None, read: Callable[[], np.ndarray]
) -> Iterator[np.ndarray]:
    """Yields a tensor's numbers through one small buffer; each byte is read once, in the file's order.

    It reads instead of mapping, because page faults cost more than the copy, and a mapped file that shrinks kills the
    process.
    """
    row = math.prod(place.shape[1:]) * place.dtype.itemsize
    rows = min(max(_PART // row // _PART_ROWS, 1) * _PART_ROWS, place.shape[0])
    buffer = np.empty(rows * row, np.uint8)
    crc = _begin(name)
    with place.path.open("rb") as file:
        if _file_version(file) != place.version:
            yield read()  # the caller compares the new shape with the expected one
            return
        file.seek(place.start)
        for begin in range(0, place.shape[0], rows):
            size = min(rows, place.shape[0] - begin) * row
            if file.readinto(buffer[:size].data) != size:
                raise ValueError("the file ends before it")
            if stored is not None:
                crc = zlib.crc32(buffer[:size].data, crc)  # 2 GB/s, without the interpreter's lock
            yield buffer[:size].view(place.dtype).reshape(-1, *place.shape[1:])
    _compare(_hexadecimal(crc), name, stored)


def _file_version(file: BinaryIO) -> tuple[int, ...]:
    """Returns a value that changes when a file is rewritten or replaced."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns
