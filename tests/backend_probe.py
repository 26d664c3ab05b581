"""Prints what `.keras` files give under one backend, as JSON. Run in a process of its own with KERAS_BACKEND set.

python tests/backend_probe.py FOLDER

FOLDER has a folder for each network, with bit.keras, images.npy and parts.json, a list of names in PARTS.
"""

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit import BiTBackbone, from_pretrained


def logits(path: Path, images: np.ndarray) -> list[list[float]]:
    model = from_pretrained(path, classifier_activation=None)
    return keras.ops.convert_to_numpy(keras.ops.cast(model(images), "float32")).tolist()


def maps(path: Path, images: np.ndarray) -> dict[str, float]:
    """Returns the sum of the magnitudes of every feature map."""
    found = BiTBackbone(path, out_features=["stem", "stage1", "stage2"])(images)
    return {name: float(np.abs(keras.ops.convert_to_numpy(values)).sum()) for name, values in found.items()}


def losses(path: Path, images: np.ndarray) -> list[float]:
    """Returns the losses of two epochs of two steps."""
    model = keras.saving.load_model(path)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    targets = np.arange(len(images)) % model.config.num_labels
    return model.fit(images, targets, batch_size=2, epochs=2, shuffle=False, verbose=0).history["loss"]


def half(path: Path, images: np.ndarray) -> dict[str, list[list[float]]]:
    """Returns the logits under each dtype policy of half precision."""
    found = {}
    for policy in ("mixed_float16", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        found[policy] = logits(path, images)
    keras.config.set_dtype_policy("float32")
    return found


def classified(path: Path, images: np.ndarray) -> dict[str, Any]:
    """Returns the outputs of a `BiTClassifier` for images, and its losses when it trains on their centers."""
    classifier = keras.saving.load_model(path)
    said = classifier.classify(list(images))
    classifier.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    middles = classifier.processor(images, do_rescale=False, do_normalize=False).astype("uint8")
    history = classifier.fit(middles, np.arange(len(images)), batch_size=2, epochs=2, shuffle=False, verbose=0)
    return {
        "labels": [[label for label, _ in row] for row in said],
        "scores": [[score for _, score in row] for row in said],
        "losses": history.history["loss"],
    }


PARTS = {"logits": logits, "maps": maps, "losses": losses, "half": half, "classified": classified}


def main() -> None:
    answer = {}
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        images = np.load(folder / "images.npy")
        parts = json.loads((folder / "parts.json").read_text())
        answer[folder.name] = {part: PARTS[part](folder / "bit.keras", images) for part in parts}
    print(json.dumps({"backend": keras.backend.backend(), "networks": answer}))


if __name__ == "__main__":
    main()
