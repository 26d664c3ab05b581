"""Corrects checksums in damaged files, so that a reader gets past the checksum and meets the damage."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable


def in_zip(whole: bytes, member: str) -> Callable[[bytes], bytes]:
    """Returns a function from a damaged member to the archive `whole` with this member."""

    def packed(damaged: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as before, zipfile.ZipFile(file, "w") as after:
            for name in before.namelist():
                after.writestr(name, damaged if name == member else before.read(name))
        return file.getvalue()

    return packed


def member_of(whole: bytes, end: str) -> str:
    """Returns the first member of an archive whose name has this end."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        return next(name for name in archive.namelist() if name.endswith(end))


def read_member(whole: bytes, member: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        return archive.read(member)


def png(damaged: bytes) -> bytes:
    """Corrects the checksum of every chunk of a PNG, as far as the chunks can be followed."""
    content, place = bytearray(damaged), 8
    while place + 12 <= len(content):
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        if end + 4 > len(content):
            break
        content[end : end + 4] = zlib.crc32(content[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(content)


def safetensors(data: bytes) -> Callable[[bytes], bytes]:
    """Returns a function from a damaged header to a safetensors file with this header and the numbers `data`."""
    return lambda header: struct.pack("<Q", len(header)) + header + data
