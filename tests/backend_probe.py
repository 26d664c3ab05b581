"""Run in a process of its own with KERAS_BACKEND set: what a `.keras` file gives under that backend, as JSON.

python tests/backend_probe.py MODEL.keras PICTURES.npy PART...   with the parts logits, maps, losses, half
"""

import json
import sys

import keras
import numpy as np

from keras_bit import BiTBackbone, from_pretrained


def logits(path: str, pictures: np.ndarray) -> list[list[float]]:
    model = from_pretrained(path, classifier_activation=None)
    return keras.ops.convert_to_numpy(keras.ops.cast(model(pictures), "float32")).tolist()


def maps(path: str, pictures: np.ndarray) -> dict[str, float]:
    """The sum of every map's magnitudes."""
    found = BiTBackbone(path, out_features=["stem", "stage1", "stage2"])(pictures)
    return {name: float(np.abs(keras.ops.convert_to_numpy(values)).sum()) for name, values in found.items()}


def losses(path: str, pictures: np.ndarray) -> list[float]:
    """The losses of two epochs of two steps."""
    model = keras.saving.load_model(path)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    targets = np.arange(len(pictures)) % model.config.num_labels
    return model.fit(pictures, targets, batch_size=2, epochs=2, shuffle=False, verbose=0).history["loss"]


def half(path: str, pictures: np.ndarray) -> dict[str, list[list[float]]]:
    """The logits under each policy of half precision."""
    found = {}
    for policy in ("mixed_float16", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        found[policy] = logits(path, pictures)
    keras.config.set_dtype_policy("float32")
    return found


PARTS = {"logits": logits, "maps": maps, "losses": losses, "half": half}


def main() -> None:
    path, pictures = sys.argv[1], np.load(sys.argv[2])
    answer = {part: PARTS[part](path, pictures) for part in sys.argv[3:]}
    print(json.dumps({"backend": keras.backend.backend(), **answer}))


if __name__ == "__main__":
    main()
