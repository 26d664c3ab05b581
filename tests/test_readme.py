"""Every Python block of the README runs, in order, against a loopback Hub with a google/bit-50 of random numbers."""

import re

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from conftest import ROOT
from keras_bit import BiT50, BitConfig, BitImageProcessor
from keras_bit.checkpoints.layouts import TRANSFORMERS
from keras_bit.labels import imagenet_labels
from loopback_hub import LoopbackHub, run_against_hub

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bit50(tmp_path_factory) -> dict[str, bytes]:
    """The files of a google/bit-50 with random weights."""
    directory = tmp_path_factory.mktemp("bit-50")
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


@pytest.mark.slow
def test_the_python_code_of_the_readme_runs(bit50, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 2
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(tmp_path / "cat.jpg")
    with LoopbackHub({"google/bit-50": {"main": bit50}}) as server:
        done = run_against_hub("\n".join(blocks), server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^[\w' -]+: 0\.\d{3}$", done.stdout, flags=re.MULTILINE)) == 3


def test_the_readme_names_the_commands_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for names in re.findall(r"^([a-z -]+):", makefile, flags=re.MULTILINE) for name in names.split()}
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets


def test_the_files_that_the_readme_links_to_are_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert all((ROOT / link).exists() for link in links)
