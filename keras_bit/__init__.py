"""BiT (Big Transfer) for Keras 3: PyTorch's checkpoints with PyTorch's numbers, channels last.

`import keras_bit` imports neither Keras nor a backend: each name is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from keras_bit.registration import register_with_keras

if TYPE_CHECKING:
    from keras_bit import distribution as distribution
    from keras_bit import embedding as embedding
    from keras_bit import evaluation as evaluation
    from keras_bit import layers as layers
    from keras_bit.applications import BiT as BiT
    from keras_bit.applications import BiT50 as BiT50
    from keras_bit.applications import BiT50x3 as BiT50x3
    from keras_bit.applications import BiT101 as BiT101
    from keras_bit.applications import BiT101x3 as BiT101x3
    from keras_bit.applications import BiT152x2 as BiT152x2
    from keras_bit.applications import BiT152x4 as BiT152x4
    from keras_bit.applications import BiTBackbone as BiTBackbone
    from keras_bit.applications import from_pretrained as from_pretrained
    from keras_bit.checkpoints.publishing import push_to_hub as push_to_hub
    from keras_bit.checkpoints.saving import save_pretrained as save_pretrained
    from keras_bit.classifier import BiTClassifier as BiTClassifier
    from keras_bit.data.dataset import image_dataset as image_dataset
    from keras_bit.data.label_table import TableOptions as TableOptions
    from keras_bit.exporters.exporting import export as export
    from keras_bit.hub.published import list_checkpoints as list_checkpoints
    from keras_bit.images.processor import BitImageProcessor as BitImageProcessor
    from keras_bit.images.scaling import preprocess_input as preprocess_input
    from keras_bit.labels import decode_predictions as decode_predictions
    from keras_bit.network.config import BitConfig as BitConfig
    from keras_bit.network.transforms import freeze as freeze
    from keras_bit.network.transforms import fuse as fuse
    from keras_bit.network.transforms import rematerialize as rematerialize
    from keras_bit.recipes.hyperrule import HyperRule as HyperRule
    from keras_bit.recipes.recipe import Recipe as Recipe
    from keras_bit.training.calibration import calibrate as calibrate
    from keras_bit.training.card import model_card as model_card
    from keras_bit.training.fine_tuning import fine_tune as fine_tune
    from keras_bit.transformers_shape.models import BitBackbone as BitBackbone
    from keras_bit.transformers_shape.models import BitForImageClassification as BitForImageClassification
    from keras_bit.transformers_shape.models import BitModel as BitModel

    __version__: str

# Public name to its module; `None` means that the name is a module.
_MODULES = {
    "BiT": "applications",
    "BiT50": "applications",
    "BiT50x3": "applications",
    "BiT101": "applications",
    "BiT101x3": "applications",
    "BiT152x2": "applications",
    "BiT152x4": "applications",
    "BiTBackbone": "applications",
    "BiTClassifier": "classifier",
    "BitBackbone": "transformers_shape.models",
    "BitConfig": "network.config",
    "BitForImageClassification": "transformers_shape.models",
    "BitImageProcessor": "images.processor",
    "BitModel": "transformers_shape.models",
    "HyperRule": "recipes.hyperrule",
    "Recipe": "recipes.recipe",
    "TableOptions": "data.label_table",
    "calibrate": "training.calibration",
    "decode_predictions": "labels",
    "distribution": None,
    "embedding": None,
    "evaluation": None,
    "export": "exporters.exporting",
    "fine_tune": "training.fine_tuning",
    "freeze": "network.transforms",
    "from_pretrained": "applications",
    "fuse": "network.transforms",
    "image_dataset": "data.dataset",
    "layers": None,
    "list_checkpoints": "hub.published",
    "model_card": "training.card",
    "preprocess_input": "images.scaling",
    "push_to_hub": "checkpoints.publishing",
    "rematerialize": "network.transforms",
    "save_pretrained": "checkpoints.saving",
}

__all__ = [
    "BiT",
    "BiT50",
    "BiT50x3",
    "BiT101",
    "BiT101x3",
    "BiT152x2",
    "BiT152x4",
    "BiTBackbone",
    "BiTClassifier",
    "BitBackbone",
    "BitConfig",
    "BitForImageClassification",
    "BitImageProcessor",
    "BitModel",
    "HyperRule",
    "Recipe",
    "TableOptions",
    "calibrate",
    "decode_predictions",
    "distribution",
    "embedding",
    "evaluation",
    "export",
    "fine_tune",
    "freeze",
    "from_pretrained",
    "fuse",
    "image_dataset",
    "layers",
    "list_checkpoints",
    "model_card",
    "preprocess_input",
    "push_to_hub",
    "rematerialize",
    "save_pretrained",
]


if not TYPE_CHECKING:  # to a type checker a misspelled name would be one that comes from here

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version  # imported here, because it takes as long as all the rest

            value: Any = version("keras_bit")
        elif name not in _MODULES:
            raise AttributeError(f"module 'keras_bit' has no attribute {name!r}")
        elif (module := _MODULES[name]) is None:
            value = importlib.import_module(f"keras_bit.{name}")
        else:
            value = getattr(importlib.import_module(f"keras_bit.{module}"), name)
        globals()[name] = value  # found directly the next time
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


register_with_keras()
