"""Collects facts and features of a data set's images in shards, so that an interrupted run can continue."""

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_bit.data.items import Item, named
from keras_bit.data.parts import Part
from keras_bit.data.skipped import Skipped
from keras_bit.embedding.writer import digest
from keras_bit.examining.features import Network, check_finite, check_in_files
from keras_bit.examining.image_facts import Facts, facts_of, stamp
from keras_bit.files import json_text
from keras_bit.files.writing import remove_abandoned, replacing

SHARD = 256  # images per file; at most these are lost when a run is killed
VERSION = 1  # version of a shard's contents
THREADS = min(os.cpu_count() or 1, 8)  # each holds an image
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)  # a shard, if it was


@dataclasses.dataclass(frozen=True)
class Collection:
    """All images of a data set, part after part.

    Args:
        paths: the paths of the files.
        parts: the name of each image's part.
        labels: int32 `(images,)`.
        facts: the facts about each file.
        features: float32 `(images, width)`; zeros for unreadable images.
        thumbnails: uint8 `(images, height, width, 3)`.
    """

    paths: tuple[str, ...]
    parts: tuple[str, ...]
    labels: np.ndarray
    facts: tuple[Facts, ...]
    features: np.ndarray
    thumbnails: np.ndarray

    @property
    def readable(self) -> np.ndarray:
        """Bool `(images,)`."""
        return np.array([not facts.problem for facts in self.facts], bool)


def collect(parts: Sequence[tuple[str, Part]], network: Network, directory: Path) -> Collection:
    """Reads all images and computes their features, with a progress bar.

    Args:
        parts: the names and images of the parts.
        network: the network for the features.
        directory: the directory of the shards, one file per `SHARD` images. A shard's name is a hash of its images'
            names, sizes and times, of the network and of its processor, so shards of other images are never used.
            Unused shards are removed.

    Raises:
        ValueError: the images are not in files, or none of them can be read.
        ArithmeticError: a feature is NaN or infinite.
    """
    from tqdm import tqdm

    for _, part in parts:
        check_in_files(part)
    remove_abandoned(directory)
    paths = [name for _, part in parts for name in part.names]
    made_by = f"{VERSION} {digest(network.model)} {json.dumps(network.processor.to_dict(), sort_keys=True)}"
    found, used = [], set()
    with tqdm(total=len(paths), desc="read", unit=" images", delay=2, leave=False) as progress:
        for start in range(0, len(paths), SHARD):
            chosen = paths[start : start + SHARD]
            file = directory / f"{_key(made_by, chosen)}.npz"
            used.add(file.name)
            shard = _stored(file, len(chosen))
            if shard is None:
                shard = _computed(chosen, network, progress.update)
                _store(file, shard)
            found.append(shard)
            progress.update(start + len(chosen) - progress.n)
    for file in directory.glob("*.npz"):
        if file.name not in used:
            file.unlink(missing_ok=True)
    facts = [one for shard in found for one in shard.facts]
    if all(one.problem for one in facts):
        raise ValueError(f"No image can be read. The first: {facts[0].problem}")
    width = max(shard.features.shape[1] for shard in found)
    return Collection(
        tuple(paths),
        tuple(name for name, part in parts for _ in range(len(part))),
        np.concatenate([part.labels for _, part in parts]),
        tuple(facts),
        np.concatenate([_widened(shard.features, width) for shard in found]),
        np.concatenate([shard.thumbnails for shard in found]),
    )


@dataclasses.dataclass(frozen=True)
class _Shard:
    """The part of a `Collection` for some of the images."""

    facts: list[Facts]
    features: np.ndarray
    thumbnails: np.ndarray


def _key(made_by: str, paths: Sequence[str]) -> str:
    found = hashlib.sha256(made_by.encode())
    for path in paths:
        found.update(b"\0" + os.fsencode(path) + b"\0" + stamp(path).encode())
    return found.hexdigest()


def _computed(paths: Sequence[str], network: Network, advance: Callable[[int], object]) -> _Shard:
    with ThreadPoolExecutor(THREADS) as pool:
        read = list(pool.map(lambda path: facts_of(path, network.processor.orientation), paths))
    facts = [one for one, _ in read]
    places = [place for place, one in enumerate(facts) if not one.problem]
    rows: list[np.ndarray] = []
    skipped = Skipped()
    if places:
        items = (Item(named(paths[place]), np.int32(0), paths[place]) for place in places)
        for values, _ in network.features(items, "raise", skipped):
            rows.append(values)
            advance(len(values))
    features = np.zeros((len(paths), rows[0].shape[1] if rows else 0), np.float32)
    if rows:
        features[places] = np.concatenate(rows)
        check_finite(features, paths)
    return _Shard(facts, features, np.stack([thumbnail for _, thumbnail in read]))


def _store(file: Path, shard: _Shard) -> None:
    facts = json.dumps([one.to_dict() for one in shard.facts])
    with replacing(file) as beside:
        np.savez(beside, facts=np.array(facts), features=shard.features, thumbnails=shard.thumbnails)


def _stored(file: Path, count: int) -> _Shard | None:
    """Reads a shard of an earlier run; `None` if it is missing or damaged."""
    try:
        # Opened here, because numpy does not close a file that it cannot read.
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as stored:
            facts = [Facts(**one) for one in json_text.parse(str(stored["facts"]))]
            shard = _Shard(facts, stored["features"], stored["thumbnails"])
    except DAMAGED:
        return None
    return shard if len(facts) == len(shard.features) == len(shard.thumbnails) == count else None


def _widened(features: np.ndarray, width: int) -> np.ndarray:
    """Gives a width to the features of a shard without readable images."""
    return features if features.shape[1] == width else np.zeros((len(features), width), np.float32)
