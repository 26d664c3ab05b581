"""Reads and writes golden files: generated images and the reference's outputs, for machines without torch."""

import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

from convert import reference
from keras_bit.files import writing
from keras_bit.hub.finding import HubOptions

# (height, width). The first is the smallest square with more than one position at every stage of a BiT. The second has
# odd sides that differ.
SIZES = ((64, 64), (45, 61))
SEED = 20190511


def generated_images() -> list[np.ndarray]:
    """Returns batches of one image, uint8 [0, 255], `(1, height, width, 3)`, with waves and noise in each channel."""
    generator = np.random.default_rng(SEED)
    images = []
    for height, width in SIZES:
        y, x = np.mgrid[0:height, 0:width][..., None] / 8.0
        frequency, phase = generator.uniform(0.3, 1.5, (2, 3)), generator.uniform(0, 6, (2, 3))
        waves = np.sin(x * frequency[0] + phase[0]) * np.cos(y * frequency[1] + phase[1])
        noise = generator.normal(0.0, 12.0, (height, width, 3))
        images.append(np.clip(127.5 + 100.0 * waves + noise, 0, 255).astype(np.uint8)[None])
    return images


def to_pixel_values(images: np.ndarray) -> np.ndarray:
    """Converts uint8 [0, 255] to float32 [-1, 1], without a processor."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def write(path: Path, source: str, hub: HubOptions) -> None:
    """Writes the golden file of a checkpoint; `source` is the same as for `reference.outputs`."""
    images = generated_images()
    results = reference.outputs(source, [to_pixel_values(batch) for batch in images], **hub.arguments)
    arrays = {"versions": np.array(json.dumps({**reference.versions(), "numpy": np.__version__}))}
    for index, (batch, outputs) in enumerate(zip(images, results, strict=True)):
        arrays[f"{index}/pictures"] = batch
        arrays.update({f"{index}/{name}": values for name, values in outputs.items()})
    with (
        writing.replacing(path) as beside,
        open(beside, "wb") as file,
    ):  # a stream, because numpy adds a suffix to a name
        np.savez_compressed(file, **arrays)


def read(path: Path) -> tuple[list[np.ndarray], list[dict[str, np.ndarray]], dict[str, str]]:
    """Reads the pixel values, the reference's outputs for each, and the versions of the packages that made them.

    Raises:
        ValueError: `path` is not a golden file.
    """
    try:
        # Opened here, because numpy does not close a damaged file.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        versions = dict(json.loads(str(arrays.pop("versions"))))
        batches, results = [], []
        for index in range(sum(name.endswith("/pictures") for name in arrays)):
            prefix = f"{index}/"
            found = {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
            images = found.pop("pictures")
            if images.ndim != 4 or any(values.dtype.kind != "f" for values in found.values()):
                raise ValueError("images of four dimensions and outputs of floating point are expected")
            batches.append(to_pixel_values(images))
            results.append(found)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is not a golden file, or a damaged one: {error}. Make one with `python -m convert SOURCE "
            "--write-golden FILE`."
        ) from error
    if not batches:
        raise ValueError(
            f"{path} is not a golden file: it holds no images. "
            "Make one with `python -m convert SOURCE --write-golden FILE`."
        )
    return batches, results, versions
