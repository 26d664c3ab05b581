"""Files of safetensors with a checksum of every tensor: written, and read part by part.

The checksum is that of a tensor's name and its bytes, so that it finds a flipped bit as well as two tensors that were
swapped. It stands in the file's metadata, from where it vanishes when another program writes the file again; files
without it are read as they are.
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

# How safetensors files name the types, of which these are read in parts. The others come through the library, or its
# refusal.
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": ml_dtypes.bfloat16}
_TYPES = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
_PART = 2**20  # bytes, about: what fits a processor's own cache
_PART_ROWS = 16  # at least, and a multiple of it: whoever turns a kernel writes that many numbers in one go


def write(tensors: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]) -> None:
    """Writes arrays and, beside `metadata`, their checksums. The same arrays always give the same file.

    The library's own writing has the metadata in another order each time, and is by way of a file of another name.

    Raises:
        OSError: it cannot be written: a full disk, no permission.
    """
    # As the library does: the widest first, so that each lies at a multiple of its own width.
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
    """The named tensors of a file; their checksums are compared when they are read.

    Raises:
        ValueError: the file is damaged.
        OSError: it is not there, or cannot be read.
    """
    with refusing_damage(path, "no safetensors file", "Its download may be incomplete; fetch it again."):
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
        if dtype is None or not shape or not all(shape):  # no numbers, or one
            yield name, LazyTensor(shape, read, path=path)
        else:
            place = _Place(path, opened, start + header[name]["data_offsets"][0], shape, np.dtype(dtype))
            in_parts = functools.partial(_read_parts, place, name, checksums, read)
            yield name, LazyTensor(shape, read, in_parts, path)


def _stored(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    """The checksums in a file's metadata; `None` where there are none."""
    if not metadata or CHECKSUMS not in metadata:
        return None
    stored = json_text.parse(metadata[CHECKSUMS])
    if not isinstance(stored, dict):
        raise ValueError(f"its {CHECKSUMS} are no JSON object")
    return stored


def checksum(name: str, values: np.ndarray) -> str:
    """What `CHECKSUMS` holds for a tensor: the CRC-32 of its name in UTF-8 and its bytes, 8 hexadecimal digits."""
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
            f"its checksum is {found}, and {stored.get(name, 'none')} was stored: it is damaged, or another program "
            "changed it. Fetch or save the file again"
        )


def _read(path: Path, name: str) -> np.ndarray:
    # A handle maps its file into memory, and what was read through it counts as the process's until it is gone: with
    # one for all tensors the whole file would be there beside the model.
    with safetensors.safe_open(path, framework="numpy") as handle:
        values, stored = handle.get_tensor(name), _stored(handle.metadata())
    if stored is not None:
        _compare(checksum(name, values), name, stored)
    return values


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a tensor lies in a file: that version of it, from that byte on."""

    path: Path
    version: tuple[int, ...]
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype


def _read_parts(
    place: _Place, name: str, stored: Mapping[str, str] | None, read: Callable[[], np.ndarray]
) -> Iterator[np.ndarray]:
    """A tensor's numbers through one small buffer: each byte comes by once, in the file's order.

    Read, not mapped into memory: faults of 4 KB cost more than the copy, and a file that shrinks kills who mapped it.
    """
    row = math.prod(place.shape[1:]) * place.dtype.itemsize
    rows = min(max(_PART // row // _PART_ROWS, 1) * _PART_ROWS, place.shape[0])
    buffer = np.empty(rows * row, np.uint8)
    crc = _begin(name)
    with place.path.open("rb") as file:
        if _file_version(file) != place.version:
            yield read()  # what it is now, for the caller to look at
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
    """What changes when a file is written again or replaced."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns
