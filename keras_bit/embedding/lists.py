"""The images of a directory or a list, by the million: their names in a file, read shard by shard."""

import codecs
import contextlib
import dataclasses
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from keras_bit.data.folders import SUFFIXES


@dataclasses.dataclass(frozen=True)
class ImageList:
    """A list of images on the disk, in shards.

    Args:
        file: the names in order, each ended by a zero byte, which no file name has.
        root: the directory that the names are relative to and whose folders are labels, or `None`.
        offsets: where in `file` each shard begins, and where the last one ends.
        count: the number of images.
        shard_size: images in each shard, the last one apart.
        sha256: of the file.
    """

    file: Path
    root: str | None
    offsets: tuple[int, ...]
    count: int
    shard_size: int
    sha256: str

    @property
    def shards(self) -> int:
        return len(self.offsets) - 1

    def length(self, shard: int) -> int:
        return min(self.shard_size, self.count - shard * self.shard_size)

    def names(self, shard: int) -> list[bytes]:
        with open(self.file, "rb") as file:
            file.seek(self.offsets[shard])
            return file.read(self.offsets[shard + 1] - self.offsets[shard]).split(b"\0")[:-1]

    def path(self, name: bytes) -> str:
        return os.fsdecode(name if self.root is None else os.path.join(os.fsencode(self.root), name))

    def label(self, name: bytes) -> str | None:
        """The first folder, as in `image_dataset`."""
        folder, inside, _ = name.partition(os.fsencode(os.sep))
        return text_of(folder) if self.root is not None and inside else None


def check_data(data: str | Path) -> None:
    if str(data) == "-" or Path(data).is_dir():
        return
    if not Path(data).exists():
        raise FileNotFoundError(
            f"`data` must be a directory or a text file with a path in each line, and there is no {str(data)!r}."
        )
    if str(data).lower().endswith(SUFFIXES):
        raise ValueError(
            f"`data` must be a directory or a text file with a path in each line, got the image {str(data)!r}. Name "
            "its directory, or pass '-' and its path on standard input."
        )


def list_images(data: str | Path, file: Path, shard_size: int) -> ImageList:
    """Writes the names of the images to `file`, one by one. See `embed` for `data`.

    Raises:
        ValueError: there are none, or `data` is no text.
    """
    offsets, count, length, digest = [0], 0, 0, hashlib.sha256()
    with contextlib.ExitStack() as opened:
        if Path(data).is_dir():
            names = _names_below(os.fsencode(data))
        elif str(data) == "-":
            names = _lines(sys.stdin.buffer, "standard input")
        else:
            names = _lines(opened.enter_context(open(data, "rb")), str(data))
        stored = opened.enter_context(open(file, "wb"))
        for name in _shown(names):
            ended = name + b"\0"
            stored.write(ended)
            digest.update(ended)
            count += 1
            length += len(ended)
            if count % shard_size == 0:
                offsets.append(length)
    if not count:
        raise ValueError(f"`data` must hold images, got {str(data)!r}, which {_without(data)}.")
    if count % shard_size:
        offsets.append(length)
    root = str(data) if Path(data).is_dir() else None
    return ImageList(file, root, tuple(offsets), count, shard_size, digest.hexdigest())


def _without(data: str | Path) -> str:
    return f"has none at any depth ({', '.join(SUFFIXES)})" if Path(data).is_dir() else "has no line with a path"


def _shown(names: Iterable[bytes]) -> Iterable[bytes]:
    from tqdm import tqdm

    return tqdm(names, desc="list", unit=" images", delay=2, leave=False)


def _lines(file: BinaryIO, called: str) -> Iterator[bytes]:
    for number, line in enumerate(file):
        name = (line.removeprefix(codecs.BOM_UTF8) if number == 0 else line).rstrip(b"\r\n")
        if b"\0" in name:
            raise ValueError(f"`data` must be text with a path in each line, got {called!r}, which has zero bytes.")
        if name:
            yield name


def _names_below(directory: bytes, inside: bytes = b"") -> Iterator[bytes]:
    """Images at any depth, relative to `directory`; folders and files of a folder in the order of their names."""
    suffixes = tuple(map(os.fsencode, SUFFIXES))
    with os.scandir(os.path.join(directory, inside)) as entries:
        # Not the entries themselves, which are ten times as large.
        found = sorted(
            (entry.name, folder)
            for entry in entries
            if not entry.name.startswith(b".")
            and ((folder := entry.is_dir()) or entry.name.lower().endswith(suffixes))
            # A link to a folder may lead in a circle; below the root, as the class's folder, it is one step, unless it
            # leads to where it is.
            and not (folder and entry.is_symlink() and (inside or _leads_back(directory, entry.path)))
        )
    for name, folder in found:
        name = os.path.join(inside, name)
        if folder:
            yield from _names_below(directory, name)
        else:
            yield name


def _leads_back(directory: bytes, link: bytes) -> bool:
    target = os.path.realpath(link)
    return os.path.commonpath([os.path.realpath(directory), target]) == target


def text_of(name: bytes) -> str:
    return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
