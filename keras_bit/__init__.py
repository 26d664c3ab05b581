"""BiT (Big Transfer) for Keras 3: PyTorch's checkpoints with PyTorch's numbers, channels last."""

from keras_bit.applications import BiT, BiT50, BiT50x3, BiT101, BiT101x3, BiT152x2, BiT152x4, from_pretrained
from keras_bit.backbone import BiTBackbone, freeze
from keras_bit.checkpoints.saving import push_to_hub, save_pretrained
from keras_bit.data.dataset import image_dataset
from keras_bit.exporters.exporting import export
from keras_bit.hyperrule import HyperRule
from keras_bit.images.processor import BitImageProcessor, preprocess_input
from keras_bit.labels import decode_predictions
from keras_bit.network import layers
from keras_bit.network.config import BitConfig
from keras_bit.network.rematerialization import rematerialize
from keras_bit.network.transforms import fuse
from keras_bit.training.fine_tuning import fine_tune

__version__ = "0.1.0"

__all__ = [
    "BiT",
    "BiT50",
    "BiT50x3",
    "BiT101",
    "BiT101x3",
    "BiT152x2",
    "BiT152x4",
    "BiTBackbone",
    "BitConfig",
    "BitImageProcessor",
    "HyperRule",
    "decode_predictions",
    "export",
    "fine_tune",
    "freeze",
    "from_pretrained",
    "fuse",
    "image_dataset",
    "layers",
    "preprocess_input",
    "push_to_hub",
    "rematerialize",
    "save_pretrained",
]
