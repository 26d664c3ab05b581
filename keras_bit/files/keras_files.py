"""Reads the description of layers in Keras' files of whole models. It is JSON, and is never run.

`model.save` writes a `.keras` file or, in its older format, an `.h5` file. `keras.saving.save_model(zipped=False)` and
`model.save("hf://owner/name")` write a directory, in which `config.json` is the description.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_bit.files.damage import refusing_damage

HDF5 = (".h5", ".hdf5")
SUFFIXES = (".keras", *HDF5)
_CLASSIFIER = "keras_bit>BiTClassifier"  # Keras' name of the class with a model and its processor


def layers_in(path: Path) -> str | None:
    """Returns the description of the layers in a file of a whole model; `None` for a file of weights only.

    Raises:
        ValueError: an `.h5` file is damaged, or takes values from other files. A damaged `.keras` file may raise almost
            anything.
        OSError: it cannot be read.
    """
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return archive.read("config.json").decode()
    if path.suffix not in HDF5 or path.name.endswith(".weights.h5"):
        return None
    import h5py

    def fault(place: str, link: Any) -> str | None:  # h5py's visits stop at a returned value, not at errors
        if not isinstance(link, h5py.HardLink):
            return f"{place} is a link, which is not followed"
        item = file[place]
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            return f"{place} is kept in another file, which is not read"
        return None

    with refusing_damage(path, "not an .h5 file of Keras", "Fetch or save it again."), h5py.File(path) as file:
        config = file.attrs.get("model_config")
        if config is None:
            return None
        if found := file.visititems_links(fault):
            raise ValueError(found)
        return config if isinstance(config, str) else bytes(config).decode()


def described_in(path: Path) -> Mapping[str, Any] | None:
    """Returns the description of the layers as a dictionary; `None` for a file of weights only.

    Raises:
        ValueError: it is damaged, or takes values from other files.
        OSError: it cannot be read.
    """
    text = layers_in(path) if path.suffix != ".keras" else ""
    if text is None:
        return None
    with refusing_damage(path, "not a model file of Keras", "Fetch or save it again."):
        values = json.loads(text or layers_in(path) or "")
        if not isinstance(values, dict):
            raise ValueError(f"its description is a {type(values).__name__}, expected an object")
    return values


def is_classifier(model: object) -> bool:
    """Returns whether it is a `BiTClassifier`, whose `model` is the BiT."""
    import keras

    return keras.saving.get_registered_name(type(model)) == _CLASSIFIER


def processor_in(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the processor's options in the description of a `BiTClassifier`; `None` for other models."""
    config = values.get("config")
    names = (values.get("registered_name"), values.get("class_name"))
    if not isinstance(config, Mapping) or not {_CLASSIFIER, _CLASSIFIER.rpartition(">")[2]} & set(map(str, names)):
        return None
    processor = config.get("processor")
    return dict(processor) if isinstance(processor, Mapping) else None
