"""The table of formats, from which `keras_bit.export` finds the class of each."""

import importlib

from keras_bit.exporters.formats import Format

# Name to the module of `keras_bit.exporters` and the class in it, imported when it is used; Keras' own names mean the
# same.
FORMATS = {
    "saved_model": "saved_model:SavedModel",
    "tflite": "tflite:TFLite",
    "onnx": "onnx:ONNX",
    "openvino": "openvino:OpenVINO",
    "web": "web.site:Web",
    "huggingface": "huggingface:HuggingFace",
    "tf_saved_model": "saved_model:SavedModel",
    "litert": "tflite:TFLite",
}


def format_named(name: str) -> Format:
    """Returns the format of a name in `FORMATS`."""
    module, _, kind = FORMATS[name].partition(":")
    return getattr(importlib.import_module(f"keras_bit.exporters.{module}"), kind)()
