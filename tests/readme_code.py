"""The README's Python code, run against a loopback Hub with a google/bit-50 of random numbers.

Outside of a checkout, too: `tests/extras` runs it where nothing but the built wheel is installed.
"""

import re
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save

from keras_bit import BiT50, BitConfig, BitImageProcessor
from keras_bit.checkpoints.layouts import TRANSFORMERS
from keras_bit.labels import imagenet_labels
from loopback_hub import LoopbackHub, run_against_hub


def run(readme: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs every Python block of the README in order, in one process and in `folder`, where a `cat.jpg` is made."""
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(blocks) >= 2
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(folder / "cat.jpg")
    with LoopbackHub({"google/bit-50": {"main": _bit50(folder / "bit-50")}}) as server:
        return run_against_hub("\n".join(blocks), server, folder)


def predictions(printed: str) -> list[str]:
    """The lines with a label and its score that the first block prints."""
    return re.findall(r"^[\w' -]+: 0\.\d{3}$", printed, flags=re.MULTILINE)


def _bit50(directory: Path) -> dict[str, bytes]:
    """The files of a google/bit-50 with random weights."""
    config = BitConfig(id2label={index: name for index, (_, name) in enumerate(imagenet_labels())})
    config.save_pretrained(directory)
    BitImageProcessor(
        size=448, crop_size=448, resample=2, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
    ).save_pretrained(directory)
    axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
    tensors = {}
    for layer in BiT50(weights=None).layers:
        for variable, values in zip(layer.weights, layer.get_weights(), strict=True):
            name = TRANSFORMERS.tensor_name(layer.name, variable.name)
            tensors[name] = np.ascontiguousarray(values.transpose(axes[values.ndim]))
    files = {file.name: file.read_bytes() for file in directory.iterdir()}
    return {**files, "model.safetensors": save(tensors)}
