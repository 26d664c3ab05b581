"""Moves a model between stacks: `moving.py save PATH` trains and saves it, `moving.py open PATH ...` compares."""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_bit

TINY = Path(__file__).parent.parent / "checkpoints" / "bit-tiny-cifar10"
# Probabilities in float32: versions of TensorFlow add up in other orders.
TOLERANCE = 1e-5


def save(path: str) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    model = keras_bit.from_pretrained(TINY)
    model.compile(keras_bit.HyperRule(num_examples=100, image_size=32).optimizer(), "sparse_categorical_crossentropy")
    model.fit(images, np.array([1, 2]), verbose=0)
    model.save(f"{path}.keras")
    fused = keras_bit.fuse(model)
    fused.save(f"{path}.fused.keras")
    np.savez(f"{path}.npz", images=images, scores=model.predict(images, verbose=0))


def check(path: str) -> None:
    saved = np.load(f"{path}.npz")
    for file in (f"{path}.keras", f"{path}.fused.keras"):
        model = keras.saving.load_model(file)
        difference = float(np.abs(model.predict(saved["images"], verbose=0) - saved["scores"]).max())
        assert difference <= TOLERANCE, (file, difference)
        print(f"{Path(file).name} differs by {difference:.1e}", end="; ")
    model = keras.saving.load_model(f"{path}.keras")
    assert model.optimizer.iterations == 1
    model.fit(saved["images"], np.array([1, 2]), verbose=0)


if __name__ == "__main__":
    for path in sys.argv[2:]:
        save(path) if sys.argv[1] == "save" else check(path)
