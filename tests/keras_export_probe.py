"""Prints which models Keras' own `model.export` writes under one backend, as JSON. Run with KERAS_BACKEND set.

python tests/keras_export_probe.py CHECKPOINT OUT
"""

import json
import sys
from pathlib import Path
from typing import Any

import keras

from keras_bit import BitForImageClassification, from_pretrained


def plain(shape: tuple[int | None, ...]) -> keras.Model:
    """Builds a network of Keras' own layers with a classifier's operations: a convolution, a global mean, a head."""
    images = keras.Input(shape)
    maps = keras.layers.Conv2D(8, 3, strides=2, padding="same")(images)
    return keras.Model(images, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(maps)))


def is_written(model: Any, path: Path) -> bool:
    try:
        model.export(str(path), format="tf_saved_model", verbose=False)
    except Exception as error:  # what a backend's exporter raises may be anything
        print(f"{path.name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        return False
    return True


def main(checkpoint: str, out: Path) -> None:
    found = {}
    for name, shape in {"fixed": (64, 64, 3), "any": (None, None, 3)}.items():
        models = {"Keras": plain(shape), "ours": from_pretrained(checkpoint, input_shape=shape)}
        if name == "any":
            models["BitForImageClassification"] = BitForImageClassification.from_pretrained(checkpoint)
        found[name] = {title: is_written(model, out / f"{name}-{title}") for title, model in models.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
