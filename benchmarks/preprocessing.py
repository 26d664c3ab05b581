"""Measures images per second from JPEG files to normalized batches, for keras_bit and every installed peer.

Every measurement has a process of its own, with all cores. All read the same files, which come from the page cache.
Each case is set up once, makes some batches that are not measured, and then whole epochs for at least some seconds.
All cases do what BiT's checkpoints need: resize the short edge (bilinear), crop the center, and scale to [-1, 1].

keras_bit                       `image_dataset`, whose values equal those of transformers' Pillow processor
keras_bit, graph                `image_dataset` with `engine="graph"`, which only uses TensorFlow's operations
TensorFlow's decoder            only decodes: with this decoder, no pipeline can be faster
keras                           `image_dataset_from_directory`, which resizes without antialiasing, and `Rescaling`
transformers, Pillow            `BitImageProcessorPil` as a user calls it: one process, which uses one thread
transformers, torchvision       `BitImageProcessor`, the default of version 5, as a user calls it: one process
torchvision, Pillow             `Resize, CenterCrop, ToTensor, Normalize` in a DataLoader with a worker per core
torchvision, tensors            `torchvision.io.decode_jpeg` and `transforms.v2` in the same DataLoader
timm                            `create_transform` in the same DataLoader

Each row compares keras_bit with one of the others: a ratio above 1 means that keras_bit is faster.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import rounds_of
from benchmarks.report import Report, Row

BATCH = 32
FILES = 1600  # in an epoch; the measurement includes the start of each epoch
COMPARED = 16  # images whose values are compared
WARM_UP = 4  # batches
SECONDS = 4  # each process measures at least this long
SIZES = (224, 448)  # px
OURS = "keras_bit"
GRAPH = "keras_bit, graph"
EXACT = "transformers, Pillow"
DECODER = "TensorFlow's decoder"
EXACT_TARGET = 2.2  # times as many images per second as transformers' Pillow processor
INEXACT_TARGET = 1.2  # times as many images per second as the fastest of the others
PACKAGES = ("keras_bit", "tensorflow", "keras", "numpy", "pillow")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        type=int,
        action="append",
        metavar="PX",
        help="image size after preprocessing; repeat the option for several (default: 224, 448)",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="processes of each case (default: 3)")
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="FOLDER",
        help="folder of JPEG files (default: photographs in scikit-image's wheel)",
    )
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="FILE",
        help="Python interpreter of an environment with torch, torchvision, transformers and timm (default: this one)",
    )


def run(options: argparse.Namespace) -> Report:
    if options.photos is None:
        from convert import photographs

        photos = photographs.find([])
    else:
        photos = sorted(file for file in options.photos.glob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
        if not photos:
            raise FileNotFoundError(f"`--photos` {options.photos} holds no files that end in .jpg or .jpeg.")
    return measure(photos, options.size or SIZES, rounds=options.rounds, peer_python=options.peer_python)


def measure(
    photos: Sequence[Path],
    sizes: Sequence[int],
    *,
    rounds: int,
    peer_python: str = sys.executable,
    files: int = FILES,
    seconds: float = SECONDS,
    cases: Sequence[str] | None = None,
) -> Report:
    """Measures every case whose packages are installed, at every size.

    Args:
        photos: images that Pillow reads. They are repeated to make `files` files; other formats are converted to JPEG.
        sizes: height and width of the preprocessed images, px.
        rounds: processes for each case and size.
        peer_python: the Python interpreter for the cases that need torch.
        files: number of files in an epoch.
        seconds: how long each process measures, at least.
        cases: some of `CASES`; `None` for all whose packages are installed.
    """
    if rounds < 1:
        raise ValueError(f"`rounds` must be at least 1, got {rounds}.")
    installed = _installed(peer_python)
    chosen = [name for name in cases or CASES if all(package in installed for package in CASES[name][1])]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        folder = Path(scratch, "photos", "all")
        folder.mkdir(parents=True)
        _fill(folder, photos, files)
        arguments, pythons = {}, {}
        for size in sizes:
            np.save(Path(scratch, f"{size}.npy"), _expected(sorted(folder.iterdir())[:COMPARED], size))
            for name in chosen:
                case = f"{size} px, {name}"
                arguments[case] = ["benchmarks.preprocessing", name, str(size), scratch, str(seconds)]
                pythons[case] = peer_python if CASES[name][1] else sys.executable
        found = rounds_of(arguments, rounds, pythons)
    return Report(
        title=f"images per second, {os.cpu_count()} cores",
        peer="peer",
        rows=[row for size in sizes for row in _rows(found, size, chosen)],
        measurements=found,
        packages=PACKAGES,
        notes=[_differences(found, size, chosen) for size in sizes]
        + [f"not measured, packages are missing: {'; '.join(name for name in CASES if name not in chosen)}"]
        * (cases is None and len(chosen) < len(CASES)),
    )


def _rows(found: Mapping[str, Sequence[Mapping[str, Any]]], size: int, chosen: Sequence[str]) -> list[Row]:
    speeds = {
        name: statistics.median(one["images_per_second"] for one in found[f"{size} px, {name}"]) for name in chosen
    }
    inexact = {name: speed for name, speed in speeds.items() if name not in (OURS, GRAPH, DECODER, EXACT)}
    fastest = max(inexact, key=inexact.get, default=None)
    targets = {EXACT: EXACT_TARGET, fastest: INEXACT_TARGET}
    return [
        Row(
            f"{size} px, compared with {name}",
            "/s",
            speeds[OURS],
            speed,
            limit=targets[name] * speed if name in targets else None,
            more_is_better=True,
        )
        for name, speed in speeds.items()
        if name != OURS
    ]


def _differences(found: Mapping[str, Sequence[Mapping[str, Any]]], size: int, chosen: Sequence[str]) -> str:
    worst = {name: found[f"{size} px, {name}"][0]["difference"] for name in chosen if name != DECODER}
    shown = ", ".join(f"{name} {'-' if value is None else f'{value:.3g}'}" for name, value in worst.items())
    return f"{size} px, largest difference from transformers' Pillow processor, of 256 values of a pixel: {shown}"


def _installed(python: str) -> set[str]:
    """Returns those of the peers' packages that the interpreter finds."""
    wanted = sorted({package for _, packages in CASES.values() for package in packages})
    code = f"import importlib.util as u; print(*[p for p in {wanted!r} if u.find_spec(p)])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"`peer_python` {python!r} does not run as a Python interpreter: {error}") from error
    return set(done.stdout.split())


def _fill(folder: Path, photos: Sequence[Path], count: int) -> None:
    for index in range(count):
        photo = photos[index % len(photos)]
        target = folder / f"{index:05d}.jpg"
        if photo.suffix.lower() in (".jpg", ".jpeg"):
            shutil.copyfile(photo, target)
        else:
            from PIL import Image

            Image.open(photo).convert("RGB").save(target, quality=90)


def _expected(files: Sequence[Path], size: int) -> np.ndarray:
    """Returns the values of keras_bit's processor for the files; transformers' Pillow processor gives the same."""
    import keras_bit

    options = {"size": size, "crop_size": size, "resample": 2, "image_mean": 0.5, "image_std": 0.5}
    return keras_bit.BitImageProcessor(**options)(list(files))


# A case is set up once for the files, and returns a function that starts an epoch. An epoch yields batches of images,
# with channels last or first.
Epochs = Callable[[], Iterator[Any]]


def _ours(files: Sequence[str], size: int, engine: str = "host") -> Epochs:
    import keras_bit

    processor = keras_bit.BitImageProcessor(size=size, crop_size=size, resample=2, image_mean=0.5, image_std=0.5)
    labels = [0] * len(files)
    dataset = keras_bit.image_dataset((files, labels), processor=processor, batch_size=BATCH, engine=engine)
    return lambda: (batch for batch, _ in dataset.as_numpy_iterator())


def _graph(files: Sequence[str], size: int) -> Epochs:
    return _ours(files, size, engine="graph")


def _decoder(files: Sequence[str], size: int) -> Epochs:
    import tensorflow as tf

    def decode(path: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")
        return image[:1, :1]

    dataset = tf.data.Dataset.from_tensor_slices(list(files)).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE).as_numpy_iterator


def _keras(files: Sequence[str], size: int) -> Epochs:
    import keras
    import tensorflow as tf

    dataset = keras.utils.image_dataset_from_directory(
        Path(files[0]).parent.parent,
        label_mode=None,
        batch_size=BATCH,
        image_size=(size, size),
        shuffle=False,
        crop_to_aspect_ratio=True,
        verbose=False,
    )
    scaled = dataset.map(keras.layers.Rescaling(1 / 127.5, -1), num_parallel_calls=tf.data.AUTOTUNE)
    return scaled.prefetch(tf.data.AUTOTUNE).as_numpy_iterator


def _transformers(files: Sequence[str], size: int, name: str) -> Epochs:
    import transformers
    from PIL import Image

    processor = getattr(transformers, name)(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        resample=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )

    def epoch() -> Iterator[Any]:
        for start in range(0, len(files), BATCH):
            images = [Image.open(file).convert("RGB") for file in files[start : start + BATCH]]
            yield processor(images, return_tensors="pt")["pixel_values"]

    return epoch


def _transformers_pillow(files: Sequence[str], size: int) -> Epochs:
    return _transformers(files, size, "BitImageProcessorPil")


def _transformers_torchvision(files: Sequence[str], size: int) -> Epochs:
    return _transformers(files, size, "BitImageProcessor")


class _Files:
    """A data set for torch's DataLoader; the DataLoader sends it to its workers."""

    def __init__(self, files: Sequence[str], read: Callable[[str], Any], transform: Callable[[Any], Any]) -> None:
        self.files, self.read, self.transform = files, read, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.read(self.files[index]))


def _open_pillow(file: str) -> Any:
    from PIL import Image

    return Image.open(file).convert("RGB")


def _open_tensor(file: str) -> Any:
    import torchvision

    return torchvision.io.decode_jpeg(torchvision.io.read_file(file), mode=torchvision.io.ImageReadMode.RGB)


def _loader(files: Sequence[str], read: Callable[[str], Any], transform: Callable[[Any], Any]) -> Epochs:
    import torch

    torch.set_num_threads(1)  # the workers inherit it
    data = _Files(files, read, transform)
    workers = os.cpu_count() or 1
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, num_workers=workers, persistent_workers=True)
    return lambda: iter(loader)


def _torchvision_pillow(files: Sequence[str], size: int) -> Epochs:
    from torchvision import transforms

    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    return _loader(files, _open_pillow, transforms.Compose([*steps, transforms.Normalize([0.5] * 3, [0.5] * 3)]))


def _torchvision_tensors(files: Sequence[str], size: int) -> Epochs:
    import torch
    from torchvision.transforms import v2

    steps = [v2.Resize(size), v2.CenterCrop(size), v2.ToDtype(torch.float32, scale=True)]
    return _loader(files, _open_tensor, v2.Compose([*steps, v2.Normalize([0.5] * 3, [0.5] * 3)]))


def _timm(files: Sequence[str], size: int) -> Epochs:
    from timm.data import create_transform

    options = {"interpolation": "bilinear", "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return _loader(files, _open_pillow, create_transform((3, size, size), is_training=False, **options))


# Name of a case to the function that sets it up and the packages that it needs.
CASES: dict[str, tuple[Callable[[Sequence[str], int], Epochs], tuple[str, ...]]] = {
    OURS: (_ours, ()),
    GRAPH: (_graph, ()),
    DECODER: (_decoder, ()),
    "keras": (_keras, ()),
    EXACT: (_transformers_pillow, ("torch", "transformers")),
    "transformers, torchvision": (_transformers_torchvision, ("torch", "torchvision", "transformers")),
    "torchvision, Pillow": (_torchvision_pillow, ("torch", "torchvision")),
    "torchvision, tensors": (_torchvision_tensors, ("torch", "torchvision")),
    "timm": (_timm, ("torch", "torchvision", "timm")),
}


def measure_case(name: str, files: Sequence[str], size: int, seconds: float, expected: np.ndarray | None) -> dict:
    """Runs a case in this process.

    Args:
        name: a key of `CASES`.
        files: paths of JPEG files.
        size: height and width of the result, px.
        seconds: how long to measure at least.
        expected: images of the first files, channels last in [-1, 1]; the first images of the case are compared with
            them.

    Returns:
        `images_per_second`, and the largest `difference` in pixel values; it is `None` if the case makes no images of
        this shape.
    """
    epoch = CASES[name][0](files, size)
    difference = None
    for number, batch in enumerate(itertools.islice(epoch(), WARM_UP)):
        if number == 0 and expected is not None:
            difference = _difference(np.asarray(batch), expected)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        images += sum(len(batch) for batch in epoch())
    return {"images_per_second": images / (time.perf_counter() - start), "difference": difference}


def _difference(batch: np.ndarray, expected: np.ndarray) -> float | None:
    if batch.shape[1] == 3:
        batch = batch.transpose(0, 2, 3, 1)
    found = batch[: len(expected)]
    return None if found.shape != expected.shape else float(np.abs(found - expected).max() * 127.5)


if __name__ == "__main__":
    chosen_case, chosen_size, folder, least = sys.argv[1:]
    print(
        json.dumps(
            measure_case(
                chosen_case,
                [str(file) for file in sorted(Path(folder, "photos", "all").iterdir())],
                int(chosen_size),
                float(least),
                np.load(Path(folder, f"{chosen_size}.npy")),
            )
        )
    )
