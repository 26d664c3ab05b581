"""Lists of millions of images. The names are in a file, which is read shard by shard."""

import codecs
import contextlib
import dataclasses
import hashlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from keras_bit.data.split_names import NotClassesError, are_parts, split_folders
from keras_bit.data.walk import KINDS, SUFFIXES, DirectoryWarning, LeftOut, folders_in, images_below


@dataclasses.dataclass(frozen=True)
class ImageList:
    """A list of images in shards, stored on the disk.

    Args:
        file: the names in order, each followed by a zero byte, which no file name has.
        root: the directory that the names are relative to and whose folders are labels, or `None`.
        offsets: the beginning of each shard in `file`, and the end of the last one.
        count: the number of images.
        shard_size: images in each shard except the last one.
        sha256: the hash of the file.
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
        """Returns the first folder of a name, which is its class; `None` without a root or without a folder."""
        folder, inside, _ = name.partition(os.fsencode(os.sep))
        return text_of(folder) if self.root is not None and inside else None


def check_data(data: str | Path) -> None:
    if str(data) == "-" or Path(data).is_dir():
        return
    if not Path(data).exists():
        raise FileNotFoundError(
            f"`data` must be a directory or a text file with a path in each line, but {str(data)!r} does not exist."
        )
    if str(data).lower().endswith(SUFFIXES):
        raise ValueError(
            f"`data` must be a directory or a text file with a path in each line, got the image {str(data)!r}. Name "
            "its directory, or pass '-' and its path on standard input."
        )


def list_images(data: str | Path, file: Path, shard_size: int) -> ImageList:
    """Writes the names of the images to `file`, one by one. See `embed` for `data`.

    Raises:
        ValueError: `data` has no images, or `data` is not text.
    """
    offsets, count, length, digest, left_out = [0], 0, 0, hashlib.sha256(), LeftOut()
    with contextlib.ExitStack() as opened:
        if Path(data).is_dir():
            names: Iterable[bytes] = map(os.fsencode, images_below(data, left_out))
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
        raise ValueError(f"`data` must hold images, got {str(data)!r}, which {_without(data, left_out)}.")
    if left_out:
        warnings.warn(f"Left out in {str(data)!r}: {left_out}.", DirectoryWarning, stacklevel=3)
    if Path(data).is_dir():
        _warn_of_parts(Path(data))
    if count % shard_size:
        offsets.append(length)
    root = str(data) if Path(data).is_dir() else None
    return ImageList(file, root, tuple(offsets), count, shard_size, digest.hexdigest())


def _warn_of_parts(directory: Path) -> None:
    try:
        parts = split_folders(directory, folders_in(directory))
    except NotClassesError:
        return  # in any case their names become the labels
    if are_parts(parts):
        names = ", ".join(sorted(path.name for path in parts.values()))
        warnings.warn(
            f"{str(directory)!r} holds the parts of a data set, so their names become the labels: {names}. Pass one "
            "of them to get its classes as labels.",
            DirectoryWarning,
            stacklevel=4,
        )


def _without(data: str | Path, left_out: LeftOut) -> str:
    if not Path(data).is_dir():
        return "has no line with a path"
    return f"has none at any depth ({KINDS}){f'; there are {left_out}' if left_out else ''}"


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


def text_of(name: bytes) -> str:
    return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
