"""The directory that Keras writes for a whole model: `config.json`, `metadata.json` and `model.weights.h5`.

`keras.saving.save_model(model, directory, zipped=False)` and `model.save("hf://owner/name")` write it.
"""

from pathlib import Path

import keras

from keras_bit.hub import finding
from keras_bit.network import config_files

WEIGHTS_NAME = "model.weights.h5"


def holds(weights: Path) -> bool:
    """Returns whether a file of weights is in a directory of Keras, whose `config.json` describes the layers."""
    config = weights.with_name(config_files.CONFIG_NAME)
    return weights.name == WEIGHTS_NAME and config.is_file() and config_files.is_kerass(finding.read_json(config))


def description(folder: Path) -> str:
    """Returns the layers as JSON."""
    return (folder / config_files.CONFIG_NAME).read_text(encoding="utf-8")


def load(folder: Path) -> keras.Model:
    """Loads the model; may raise almost anything for a damaged file.

    Checked against Keras 3.15 `saving_lib`, which reads such a directory from version 3.12 on.
    """
    # Keras itself leaves out the compile arguments too.
    layers = {**finding.read_json(folder / config_files.CONFIG_NAME), "compile_config": None}
    model = keras.saving.deserialize_keras_object(layers, safe_mode=True)
    model.load_weights(folder / WEIGHTS_NAME)
    return model
