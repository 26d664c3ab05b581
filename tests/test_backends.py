"""One `.keras` file under TensorFlow, JAX and PyTorch, each in a process of its own: equal numbers, equal losses."""

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
from keras_bit import BiT, BiT50, BitConfig

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


def probed(backend, folder, *parts):
    """What `backend` computes from the model and the images in `folder`, in a process of its own."""
    if importlib.util.find_spec(backend) is None:
        absent(f"{backend} is not installed: pip install {backend}")
    script = ROOT / "tests" / "backend_probe.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "bit.keras"), str(folder / "pictures.npy"), *parts],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["backend"] == backend
    return answer


def relative(found, reference):
    """The largest difference over the largest magnitude."""
    return np.abs(np.subtract(found, reference)).max() / np.abs(reference).max()


@pytest.fixture(scope="module", params=CONFIGS)
def probes(request, tmp_path_factory):
    """A function from a backend's name to what it computed; every backend reads the same file."""
    folder = tmp_path_factory.mktemp(request.param)
    sizes = {"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (2, 1), "num_groups": 4}
    generator = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = BiT(BitConfig(**sizes, **CONFIGS[request.param]))
    # Norms too: ones and zeros would hide their gradients and their order.
    model.set_weights([values + 0.2 * generator.standard_normal(values.shape) for values in model.get_weights()])
    model.save(folder / "bit.keras")
    np.save(folder / "pictures.npy", generator.uniform(-1, 1, (4, 45, 60, 3)).astype("float32"))
    return functools.cache(lambda backend: probed(backend, folder, "logits", "maps", "losses", "half"))


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """The same for BiT-50 at full size with random kernels and norms, on a photograph of 224x224 px."""
    folder = tmp_path_factory.mktemp("bit-50")
    generator = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = BiT50(weights=None)
    for layer in model.layers:
        if layer.name.endswith(("norm", "norm1", "norm2", "norm3")):
            layer.set_weights(
                [values + 0.3 * generator.standard_normal(values.shape) for values in layer.get_weights()]
            )
    model.save(folder / "bit.keras")
    # Neighboring pixels are alike in a photograph, which is what the network is for.
    try:
        picture = Image.open(photographs.find([])[0]).convert("RGB")
    except ImportError:
        picture = Image.fromarray(goldens.generated_images()[0][0])
    picture = np.asarray(picture.resize((224, 224), Image.Resampling.BILINEAR))
    np.save(folder / "pictures.npy", goldens.to_pixel_values(picture[None]))
    return functools.cache(lambda backend: probed(backend, folder, "logits", "half"))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_keras_file_gives_the_same_numbers_and_losses_under_every_backend(probes, backend):
    expected, found = probes("tensorflow"), probes(backend)
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
def test_half_precision_is_finite_and_close_under_every_backend(probes, backend, policy, limit):
    # Ten convolutions of numbers that hold 11 (float16) or 8 (bfloat16) binary digits; measured 1.6e-3 and 7.5e-3.
    found = probes(backend)
    difference = relative(found["half"][policy], found["logits"])
    print(f"{backend}, {policy}: {difference:.1e} relative from float32")
    assert difference <= limit


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_bit_50_at_full_size_gives_the_same_logits_under_every_backend(full_size, backend):
    difference = relative(full_size(backend)["logits"], full_size("tensorflow")["logits"])
    print(f"BiT-50, {backend} beside tensorflow: logits {difference:.1e} relative")
    assert difference <= 5e-5  # float32 itself is off by 1e-5 after fifty convolutions; measured 2.8e-6


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
@pytest.mark.parametrize(("policy", "limit"), [("mixed_float16", 0.01), ("mixed_bfloat16", 0.05)])
def test_half_precision_of_bit_50_is_finite_and_close_under_every_backend(full_size, backend, policy, limit):
    # As above, through fifty convolutions; measured 4.0e-3 and 2.8e-2.
    found = full_size(backend)
    difference = relative(found["half"][policy], found["logits"])
    print(f"BiT-50, {backend}, {policy}: {difference:.1e} relative from float32")
    assert difference <= limit


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_fine_tuning_passes_its_tests_under_every_backend(backend):
    if importlib.util.find_spec(backend) is None:
        absent(f"{backend} is not installed: pip install {backend}")
    chosen = "test_training_state or by_hand or accumulated or mixup or no_number or mixed_precision"
    chosen += " or test_rematerialization"
    names = ("test_rematerialization.py", "test_state.py", "test_fine_tuning.py")
    files = [str(ROOT / "tests" / name) for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *files],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "23 passed" in done.stdout
