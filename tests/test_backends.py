"""Tests that a `.keras` file gives equal outputs and losses under TensorFlow, JAX and PyTorch (a process for each)."""

import functools
import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, absent
from convert import goldens, photographs
from keras_bit import BiT, BiT50, BiTClassifier, BitConfig, BitImageProcessor
from tiny_bit import write_checkpoint

# What each backend may do otherwise: a known number of channels, unknown sizes, a pool padded by the size, dropout.
CONFIGS = {
    "preactivation": {"num_labels": 5},
    "bottleneck": {
        "num_labels": 5,
        "layer_type": "bottleneck",
        "global_padding": "same",
        "embedding_dynamic_padding": True,
        "hidden_act": "gelu_new",
    },
}


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """Returns what each backend computes from the same files, in a process for each backend."""
    folder = tmp_path_factory.mktemp("networks")
    for name, config in CONFIGS.items():
        write_small(folder / name, config)
    write_full_size(folder / "BiT-50")
    write_classifier(folder / "classifier")

    @functools.cache
    def answers_of(backend):
        if importlib.util.find_spec(backend) is None:
            absent(f"{backend} is not installed: pip install {backend}")
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "backend_probe.py"), str(folder)],
            env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer["backend"] == backend
        return answer["networks"]

    return answers_of


def relative(found, reference):
    """Returns the largest difference as a share of the largest magnitude."""
    return np.abs(np.subtract(found, reference)).max() / np.abs(reference).max()


def write(folder, model, images, parts):
    folder.mkdir()
    model.save(folder / "bit.keras")
    np.save(folder / "images.npy", images)
    (folder / "parts.json").write_text(json.dumps(parts))


def write_small(folder, config):
    sizes = {"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (2, 1), "num_groups": 4}
    generator = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = BiT(BitConfig(**sizes, **config))
    # Norms too: ones and zeros would hide their gradients and their order.
    model.set_weights([values + 0.2 * generator.standard_normal(values.shape) for values in model.get_weights()])
    images = generator.uniform(-1, 1, (4, 45, 60, 3)).astype("float32")
    write(folder, model, images, ["logits", "maps", "losses", "half"])


def write_full_size(folder):
    """Writes BiT-50 at full size with random kernels and norms, and a photograph of 224x224 px."""
    generator = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = BiT50(weights=None)
    for layer in model.layers:
        if layer.name.endswith(("norm", "norm1", "norm2", "norm3")):
            layer.set_weights(
                [values + 0.3 * generator.standard_normal(values.shape) for values in layer.get_weights()]
            )
    # Neighboring pixels are alike in a photograph, which is what the network is for.
    try:
        image = Image.open(photographs.find([])[0]).convert("RGB")
    except ImportError:
        image = Image.fromarray(goldens.generated_images()[0][0])
    image = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))
    write(folder, model, goldens.to_pixel_values(image[None]), ["logits", "half"])


def write_classifier(folder):
    """Writes a `BiTClassifier` in one file, and images that its processor crops."""
    keras.utils.set_random_seed(0)
    labels = {"id2label": dict(enumerate(["ant", "bee", "cat", "dog", "elk"]))}
    config = BitConfig(embedding_size=8, hidden_sizes=(16, 32), depths=(1, 1), num_groups=4, **labels)
    processor = BitImageProcessor(size=48, crop_size=48, resample=2, image_mean=[0.4, 0.5, 0.6], image_std=0.5)
    images = np.random.default_rng(0).integers(0, 256, (4, 48, 60, 3), np.uint8)
    write(folder, BiTClassifier(BiT(config), processor), images, ["classified"])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.release)])
def test_kerass_own_export_writes_what_it_writes_of_a_plain_network(tmp_path, backend):
    """It writes none under PyTorch, and under JAX only networks of a fixed size: README, *Exporting*."""
    if importlib.util.find_spec(backend) is None:
        absent(f"{backend} is not installed: pip install {backend}")
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests" / "keras_export_probe.py"),
            str(write_checkpoint(tmp_path / "bit")),
            str(tmp_path),
        ],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(backend, found)
    for written in found.values():
        keras_alone = written.pop("Keras")
        assert set(written.values()) == {keras_alone}, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_classifiers_file_says_and_learns_the_same_under_every_backend(probed, backend):
    expected, found = (probed(name)["classifier"]["classified"] for name in ("tensorflow", backend))
    assert found["labels"] == expected["labels"]
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=1e-5)  # float32, each in its own order
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-4)  # two epochs of steps on top of that


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("network", CONFIGS)
def test_a_keras_file_gives_equal_numbers_under_every_backend(probed, network, backend):
    expected, found = probed("tensorflow")[network], probed(backend)[network]
    difference = relative(found["logits"], expected["logits"])
    losses = np.abs(np.subtract(found["losses"], expected["losses"])).max()
    print(f"{backend} beside tensorflow: logits {difference:.1e} relative, losses {losses:.1e}")
    assert difference <= 1e-5  # float32 through ten convolutions, each backend summing in its own order
    assert found["maps"].keys() == expected["maps"].keys()
    for name, total in expected["maps"].items():
        assert found["maps"][name] == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-4)  # two epochs of steps on top of that


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
@pytest.mark.parametrize(("policy", "limit"), [("mixed_float16", 0.004), ("mixed_bfloat16", 0.02)])
@pytest.mark.parametrize("network", CONFIGS)
def test_half_precision_is_finite_and_close_under_every_backend(probed, network, backend, policy, limit):
    # Ten convolutions of numbers that hold 11 (float16) or 8 (bfloat16) binary digits; measured 1.6e-3 and 7.5e-3.
    found = probed(backend)[network]
    difference = relative(found["half"][policy], found["logits"])
    print(f"{backend}, {policy}: {difference:.1e} relative from float32")
    assert difference <= limit


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_bit_50_at_full_size_gives_the_same_logits_under_every_backend(probed, backend):
    difference = relative(probed(backend)["BiT-50"]["logits"], probed("tensorflow")["BiT-50"]["logits"])
    print(f"BiT-50, {backend} beside tensorflow: logits {difference:.1e} relative")
    assert difference <= 5e-5  # float32 itself is off by 1e-5 after fifty convolutions; measured 2.8e-6


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
@pytest.mark.parametrize(("policy", "limit"), [("mixed_float16", 0.01), ("mixed_bfloat16", 0.05)])
def test_half_precision_of_bit_50_is_finite_and_close_under_every_backend(probed, backend, policy, limit):
    # As above, through fifty convolutions; measured 4.0e-3 and 2.8e-2.
    found = probed(backend)["BiT-50"]
    difference = relative(found["half"][policy], found["logits"])
    print(f"BiT-50, {backend}, {policy}: {difference:.1e} relative from float32")
    assert difference <= limit
