"""Lists and reads the images of a command: files, folders, patterns, web addresses, or a list on standard input."""

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

SILENCE = 20.0  # seconds to wait for a server's next bytes
PATIENCE = 60.0  # seconds for a whole download
MOST_BYTES = 100_000_000  # of an image from the network
CHUNK = 1 << 16  # bytes
READABLE_IN_AN_ADDRESS = "%/:=&?~#+!$,;'@()*[]"  # characters that `quote` keeps, besides letters and digits


def listed(arguments: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Yields the name of each image, and `None` or what is wrong with it.

    A directory means the images in it, at any depth, in the order of their names; a pattern the files that it matches,
    unless a file has exactly that name; `-` such names on standard input, one per line. Images are not read yet.
    """
    for name in _each(arguments):
        try:
            for file in _files(name):
                yield file, None
        except (OSError, ValueError) as error:
            yield name, str(error)


def opened(name: str, orientation: str) -> "Image.Image":
    """Returns the decoded image; `orientation` is a processor's: "upright" or "ignore".

    Raises:
        OSError: the file does not exist, or the server does not answer.
        ValueError: it is not an image, or the name is an image as base64 text.
    """
    from keras_bit.images import inputs

    return inputs.read(name, encoded(name), orientation)


def encoded(name: str) -> bytes:
    """Returns the bytes of the file or of the address."""
    if is_address(name):
        return _download(name)
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name} is a directory. Pass an image in it.")
    try:
        return Path(name).read_bytes()
    except OSError as error:
        from keras_bit.images import base64_text
        from keras_bit.wording import shortened

        # Not the system's message, which would repeat a name of any length.
        if text := base64_text.described(name):
            raise ValueError(
                f"{shortened(name)!r} is {text}, not a file. Decode it to a file, and pass its name."
            ) from None
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{shortened(name)!r} does not exist. Check the path.") from None
        raise type(error)(
            f"{shortened(name)!r} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from None


def is_address(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


def shown(name: str) -> str:
    """Returns the name for output; addresses lose their user and password."""
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
            raise FileNotFoundError(f"{name!r} matches no file. Check the pattern.")
        for match in found:
            if not os.path.isdir(match):
                yield match
            elif "**" not in pattern:  # which would itself match the files in it
                yield from _inside(match)


def _inside(directory: str) -> Iterator[str]:
    from keras_bit.data import folders

    yield from folders.images_in(directory)


class _RefusedError(OSError):
    """A download is too large or takes too long."""


def _download(address: str) -> bytes:
    """Downloads an `http(s)` address.

    Raises:
        OSError: the server does not answer, refuses, is too slow, or sends too much.
    """
    if (masked := shown(address)) != address:
        raise ValueError(
            f"{masked} has a user or a password, which are not sent. Download the image, and pass its file."
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
                    raise _RefusedError(
                        f"{address} sends more than {MOST_BYTES / 1e6:.0f} MB. Download the image, and pass its file."
                    )
                if time.monotonic() > until:
                    raise _RefusedError(
                        f"{address} has not sent all after {PATIENCE:.0f} s. Download the image, and pass its file."
                    )
    except urllib.error.HTTPError as error:
        raise OSError(f"{address} answers with {error.code} {error.reason}. Check the address.") from None
    except urllib.error.URLError as error:
        raise ConnectionError(
            f"{address} does not answer: {error.reason}. Check the address and the network."
        ) from None
    except _RefusedError:
        raise
    except (OSError, ValueError, HTTPException) as error:
        raise ConnectionError(
            f"{address} does not answer: {error or type(error).__name__}. Check the address and the network."
        ) from None
    return bytes(contents)
