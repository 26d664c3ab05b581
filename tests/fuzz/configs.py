"""Fuzzes configurations: the config.json of transformers and timm, that of a processor, and class maps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.kinds import Kind, changed, damaged
from keras_bit import BitConfig, BitImageProcessor
from keras_bit.evaluation import class_map
from tiny_bit import CONFIG

TIMM = {
    "architecture": "resnetv2_50x1_bit",
    "num_classes": 2,
    "label_names": ["a", "b"],
    "label_descriptions": {"a": "an a"},
    "model_args": {"in_chans": 3, "output_stride": 32, "drop_path_rate": 0.1, "act_layer": "relu", "preact": True},
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "crop_pct": 0.9,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "label_names": ["c", "d"],
    },
}
# These keys say what kind of file it is: if they are changed, the error says that the file is of another kind.
OF_ANOTHER_KIND = ("model_type", "architecture", "pretrained_cfg")
CLASSES = {"kat": "cat", "dogs": ["dog", 1], "bird": 3, "rest": None}
ANIMALS = BitConfig(id2label=dict(enumerate(["cat", "dog", "fox, red fox", "crane", "crane"])))
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
LARGEST = 512  # px; a processor that makes larger images is read but not used


def _config(path: Path) -> Any:
    return BitConfig.from_pretrained(path.parent).to_dict()


def _processor(path: Path) -> Any:
    processor = BitImageProcessor.from_pretrained(path.parent)
    edges = (*processor.size.values(), *processor.crop_size.values())
    if max(edges) > LARGEST:
        return processor.to_dict()
    try:
        pixels = processor(PIXELS)
    except ValueError as error:  # the options are possible, but do not fit this image
        return {**processor.to_dict(), "error": str(error)}
    return {**processor.to_dict(), "pixels": pixels}


def _classes(path: Path) -> Any:
    said = class_map.read(path)
    try:
        return {"matched": repr(class_map.match(list(CLASSES), ANIMALS, said))}
    except ValueError as error:  # names the folders, not the file
        return {"error": str(error)}


def config(name: str, values: Any, read: Callable[[Path], Any], structured: bool) -> Callable[[Path], Kind]:
    def kind(folder: Path) -> Kind:
        whole = json.dumps(values, indent=1).encode()

        def inputs(count: int, seed: int) -> Any:
            found = changed(values, fields=read is not _classes)(count, seed)
            return [one._replace(words=()) if {*one.words} & {*OF_ANOTHER_KIND} else one for one in found]

        return Kind(folder / name, whole, inputs if structured else damaged(whole), read, names=(f"{folder}",))

    return kind


_FILES = {
    "transformers config": ("config.json", CONFIG | BitConfig.from_dict(CONFIG).to_dict(), _config),
    "timm config": ("config.json", TIMM, _config),
    "timm processor": ("config.json", TIMM, _processor),
    "preprocessor config": ("preprocessor_config.json", BitImageProcessor().to_dict(), _processor),
    "class map": ("classes.json", CLASSES, _classes),
}
KINDS = {
    **{name: config(*row, structured=False) for name, row in _FILES.items()},
    **{f"{name}, values": config(*row, structured=True) for name, row in _FILES.items()},
}
