"""ONNX and OpenVINO for models around a BiT: Keras' own exporters, with stable names."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from keras_bit import packages
from keras_bit.exporters.job import Job, Shape
from keras_bit.exporters.onnx_file import INPUT
from keras_bit.exporters.output_names import output_names
from keras_bit.network import transforms

EXTRA = "own-models"  # the extra that installs their packages


def require(package: str, name: str) -> None:
    """Checks that the package of Keras' exporter for the format `name` is installed.

    Raises:
        MissingPackageError: it is not.
    """
    packages.require(package, EXTRA, _purpose(name))


def _purpose(name: str) -> str:
    return f"`format` {name!r}, for a model around a BiT,"


def export(job: Job, path: Path, name: str, shape: Shape) -> None:
    """Writes the fused model for batches of `shape` with `keras.Model.export`, and sets its names."""
    import tensorflow as tf

    job.progress("standardizing the kernels")
    model = transforms.fuse_in_float32(job.model)
    _use_erf(model)
    if not isinstance(model.output, Mapping):
        model = keras.Model(model.input, dict(zip(output_names(job.model), [model.output], strict=True)))
    job.progress(f"converting to {name}")
    signature = [tf.TensorSpec((*shape, job.model.input_shape[-1]), job.dtype, name=INPUT)]
    with warnings.catch_warnings():
        # Keras asks whether numpy still has `np.object`.
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        with packages.needing(EXTRA, _purpose(name)), refusals(name):
            _Inference(model).export(str(path), format=name, input_signature=signature, verbose=False)


@contextlib.contextmanager
def refusals(name: str) -> Iterator[None]:
    """Turns a converter's errors about a model, of many types, into a ValueError."""
    try:
        yield
    except (MemoryError, OSError):
        raise
    except Exception as error:
        if packages.failed_import(error):
            raise
        raise ValueError(
            f"`model` cannot be written in the format {name!r}. Choose another format, or replace the layers "
            f"that fail. The converter says: {str(error).strip()}"
        ) from error


class _Inference(keras.Model):
    """Fixes `training=False`: Keras' exporters leave it open, and augmentation layers would treat that as True."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name=model.name)
        self._model = model
        self.built = True  # the inner layers are

    def call(self, pixel_values: Any) -> Any:
        return self._model(pixel_values, training=False)


def _use_erf(model: keras.Model) -> None:
    """Replaces exact GELU: Keras' form uses TensorFlow's `Erfc`, which tf2onnx does not know."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _use_erf(layer)
        elif getattr(layer, "activation", None) is keras.activations.gelu:
            layer.activation = _gelu


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1 + keras.ops.erf(x * 0.5**0.5))
