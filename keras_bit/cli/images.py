"""The images that a person names: files, folders, patterns, addresses, or a list of them on standard input."""

import glob
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

SILENCE = 20.0  # seconds that a server may say nothing
PATIENCE = 60.0  # seconds that an image may take
MOST_BYTES = 100_000_000  # of an image from the network
CHUNK = 1 << 16  # bytes
READABLE_IN_AN_ADDRESS = "%/:=&?~#+!$,;'@()*[]"  # what `quote` leaves alone, beside letters and digits


def listed(arguments: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """The name of each image, and `None` or what is wrong with it.

    A directory stands for the images in it, at any depth, in the order of their names; a pattern for the files that it
    matches, unless a file has that very name; `-` for such names on standard input, one in each line. Whether an image
    can be read is found out when it is.
    """
    for name in _each(arguments):
        try:
            for file in _files(name):
                yield file, None
        except (OSError, ValueError) as error:
            yield name, str(error)


def opened(name: str, orientation: str) -> "Image.Image":
    """The decoded image; `orientation` as a processor has it: "upright" is as a person sees it.

    Raises:
        OSError: there is no such file, or the server does not answer.
        ValueError: it is not an image, or the name is an image as base64 text.
    """
    from keras_bit.images import inputs

    return inputs.read(name, encoded(name), orientation)


def encoded(name: str) -> bytes:
    """The bytes of the file, or what the address answers with."""
    if is_address(name):
        return _download(name)
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name} is a directory; name an image in it.")
    try:
        return Path(name).read_bytes()
    except OSError as error:
        from keras_bit.images import base64_text
        from keras_bit.wording import shortened

        # Not the system's own words, which repeat a name of any length.
        if text := base64_text.described(name):
            raise ValueError(f"{shortened(name)!r} is {text}, not a file. Write what it encodes to one.") from None
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{shortened(name)!r} does not exist") from None
        raise type(error)(f"{shortened(name)!r} cannot be read: {error.strerror or error}") from None


def is_address(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


def shown(name: str) -> str:
    """The name for a person or a program to read: of an address without its user and password."""
    from keras_bit.hub.redaction import without_users

    return without_users(name) if is_address(name) else name


def _each(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument != "-":
            yield argument
            continue
        for line in sys.stdin.buffer:
            if name := os.fsdecode(line.rstrip(b"\r\n")):
                yield name


def _files(name: str) -> Iterator[str]:
    if is_address(name):
        yield name
    elif os.path.isdir(name):
        yield from _inside(name)
    elif os.path.lexists(name) or not glob.has_magic(name):
        yield name
    else:
        pattern = os.path.expanduser(name)
        found = sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise FileNotFoundError(f"{name!r} matches no file")
        for match in found:
            if not os.path.isdir(match):
                yield match
            elif "**" not in pattern:  # which matches the files in it by itself
                yield from _inside(match)


def _inside(directory: str) -> Iterator[str]:
    from keras_bit.data import folders

    yield from folders.images_in(directory)


class _RefusedError(OSError):
    """What an address sends is too much or takes too long."""


def _download(address: str) -> bytes:
    """What an `http(s)` address answers with.

    Raises:
        OSError: the server does not answer, refuses, is too slow, or sends too much; the message names the address.
    """
    if (masked := shown(address)) != address:
        raise ValueError(
            f"{masked} has a user or a password, which are not sent. Download the image, and name its file."
        )
    quoted = urllib.parse.quote(address, READABLE_IN_AN_ADDRESS)
    until = time.monotonic() + PATIENCE
    contents = bytearray()
    try:
        request = urllib.request.Request(quoted, headers={"User-Agent": "keras-bit"})
        with urllib.request.urlopen(request, timeout=SILENCE) as response:
            while chunk := response.read1(CHUNK):
                contents += chunk
                if len(contents) > MOST_BYTES:
                    raise _RefusedError(f"{address} sends more than {MOST_BYTES / 1e6:.0f} MB")
                if time.monotonic() > until:
                    raise _RefusedError(f"{address} has not sent all after {PATIENCE:.0f} s")
    except urllib.error.HTTPError as error:
        raise OSError(f"{address} answers with {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise ConnectionError(f"{address} gives no answer: {error.reason}") from None
    except _RefusedError:
        raise
    except (OSError, ValueError, HTTPException) as error:
        raise ConnectionError(f"{address} gives no answer: {error or type(error).__name__}") from None
    return bytes(contents)
