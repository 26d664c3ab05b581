"""BiT (Big Transfer) for Keras 3: PyTorch's checkpoints with PyTorch's numbers, channels last."""

from keras_bit import layers
from keras_bit.applications import BiT, BiT50, from_pretrained
from keras_bit.config import BitConfig
from keras_bit.labels import decode_predictions
from keras_bit.preprocessing import BitImageProcessor, preprocess_input

__version__ = "0.1.0"

__all__ = [
    "BiT",
    "BiT50",
    "BitConfig",
    "BitImageProcessor",
    "decode_predictions",
    "from_pretrained",
    "layers",
    "preprocess_input",
]
