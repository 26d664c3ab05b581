"""One `.keras` file under TensorFlow, JAX and PyTorch, each in a process of its own: equal numbers, equal losses."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT, absent
from keras_bit import BiT, BitConfig

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


@pytest.fixture(scope="module", params=CONFIGS)
def probes(request, tmp_path_factory):
    """A function from a backend's name to what it computed; every backend reads the same file."""
    folder = tmp_path_factory.mktemp(request.param)
    sizes = {"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (2, 1), "num_groups": 4}
    generator = np.random.default_rng(0)
    model = BiT(BitConfig(**sizes, **CONFIGS[request.param]))
    # Norms too: ones and zeros would hide their gradients and their order.
    model.set_weights([values + 0.2 * generator.standard_normal(values.shape) for values in model.get_weights()])
    model.save(folder / "bit.keras")
    np.save(folder / "pictures.npy", generator.uniform(-1, 1, (4, 45, 60, 3)).astype("float32"))
    answers = {}

    def probe(backend):
        package = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}[backend]
        if importlib.util.find_spec(package) is None:
            absent(f"{package} is not installed: pip install {package}")
        if backend not in answers:
            script = ROOT / "tests" / "backend_probe.py"
            done = subprocess.run(
                [sys.executable, str(script), str(folder / "bit.keras"), str(folder / "pictures.npy")],
                env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            answers[backend] = json.loads(done.stdout.splitlines()[-1])
            assert answers[backend]["backend"] == backend
        return answers[backend]

    return probe


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_keras_file_gives_the_same_numbers_and_losses_under_every_backend(probes, backend):
    expected, found = probes("tensorflow"), probes(backend)
    logits, reference = np.array(found["logits"]), np.array(expected["logits"])
    difference = np.abs(logits - reference).max() / np.abs(reference).max()
    losses = np.abs(np.subtract(found["losses"], expected["losses"])).max()
    print(f"{backend} beside tensorflow: logits {difference:.1e} relative, losses {losses:.1e}")
    assert difference <= 1e-5  # float32 through ten convolutions, each backend summing in its own order
    assert found["sums"].keys() == expected["sums"].keys()
    for name, total in expected["sums"].items():
        assert found["sums"][name] == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-4)  # two epochs of steps on top of that


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
@pytest.mark.parametrize(("policy", "limit"), [("mixed_float16", 0.004), ("mixed_bfloat16", 0.02)])
def test_half_precision_is_finite_and_close_under_every_backend(probes, backend, policy, limit):
    # Ten convolutions of numbers that hold 11 (float16) or 8 (bfloat16) binary digits; measured 1.6e-3 and 8.1e-3.
    found = probes(backend)
    logits, half = np.array(found["logits"]), np.array(found["half"][policy])
    difference = np.abs(half - logits).max() / np.abs(logits).max()
    print(f"{backend}, {policy}: {difference:.1e} relative from float32")
    assert difference <= limit
