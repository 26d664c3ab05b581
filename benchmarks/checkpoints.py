"""Checkpoints of any size with random weights, in a layout that keras_bit and transformers both read."""

import dataclasses
import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit import BitConfig, BitImageProcessor
from keras_bit.checkpoints import safetensors_file
from keras_bit.checkpoints.layouts import TRANSFORMERS
from keras_bit.labels import imagenet_labels
from keras_bit.network.weights import weights_of


def write(folder: Path, config: BitConfig, image_size: int) -> Path:
    """Writes `config.json`, `model.safetensors` (float32) and the processor; holds one tensor at a time.

    transformers cannot build a `width_factor` other than 1, but it can build the same network from explicit widths, so
    the `config.json` has these.

    Raises:
        OSError: the disk has not enough room.
    """
    labels = {index: names for index, (_, names) in enumerate(imagenet_labels())} if config.num_labels == 1000 else None
    config = dataclasses.replace(
        config,
        embedding_size=config.stem_width,
        hidden_sizes=config.stage_widths,
        width_factor=1,
        id2label=labels,
        label2id=None,
    )
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    size = {"height": image_size, "width": image_size}
    BitImageProcessor(size=size, do_center_crop=False, resample=2, image_mean=half, image_std=half).save_pretrained(
        folder
    )

    header: dict[str, Any] = {}
    end = 0
    shapes = {}
    for weight in weights_of(config):
        name = TRANSFORMERS.tensor_name(weight.layer, weight.variable)
        shapes[name] = TRANSFORMERS.file_shape(name, weight.shape)
        start, end = end, end + 4 * math.prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": [start, end]}
    if (free := shutil.disk_usage(folder).free) < end + 2**28:
        raise OSError(
            f"{folder} has room for {free / 1e9:.1f} GB, but {end / 1e9:.1f} are needed. Set TMPDIR to another "
            "directory."
        )
    generator = np.random.default_rng(0)
    checksums = dict.fromkeys(shapes, "0" * 8)  # as in `save_pretrained`, so that loading compares them too
    with (folder / "model.safetensors").open("wb") as file:
        file.write(_encoded(header, checksums))
        for name, shape in shapes.items():
            # Norms are near 1 and 0; kernels may have any scale, because they are standardized.
            spread, center = (0.1, 1.0 if name.endswith("weight") else 0.0) if len(shape) == 1 else (0.05, 0.0)
            values = generator.standard_normal(shape, dtype=np.float32)
            values *= np.float32(spread)
            values += np.float32(center)
            file.write(values.data)
            checksums[name] = safetensors_file.checksum(name, values)
        file.seek(0)
        file.write(_encoded(header, checksums))
    return folder


def _encoded(header: dict[str, Any], checksums: dict[str, str]) -> bytes:
    metadata = {"format": "pt", safetensors_file.CHECKSUMS: json.dumps(checksums)}
    encoded = json.dumps({"__metadata__": metadata, **header}).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded


def write_image(path: Path) -> Path:
    """Writes a JPEG of 500x375 px with soft shapes, the default photograph."""
    from PIL import Image

    y, x = np.mgrid[0:375, 0:500][..., None] / 40.0
    waves = np.sin(x * [1.0, 0.7, 1.3]) * np.cos(y * [0.8, 1.1, 0.6])
    Image.fromarray((127.5 + 100 * waves).astype(np.uint8)).save(path, quality=90)
    return path
