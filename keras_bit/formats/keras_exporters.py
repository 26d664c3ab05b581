"""What ONNX and OpenVINO share: Keras' own exporters on the fused model, and names that do not depend on its graph."""

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_bit import fusion
from keras_bit.formats.job import OUTPUT, Job, Shape

INPUT = "pixel_values"


def check_packages(name: str, packages: Sequence[str]) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(
            f"The format {name!r} needs {' and '.join(missing)}, which is not installed: "
            f"pip install 'keras_bit[{name}]', or pip install -e '.[{name}]' in a checkout."
        )


def shape(job: Job) -> Shape:
    batch, height, width, _ = job.model.input_shape
    return (job.batch_size or batch, *(job.image_size or (height, width)))


def output_names(model: keras.Model) -> tuple[str, ...]:
    """What the outputs are called in the file.

    Those of a `BiTBackbone` have their stages' names. The only output of a model is "probabilities" behind a softmax
    or sigmoid, "logits" behind a dense layer without, and else "output".
    """
    if isinstance(model.output, Mapping):
        return tuple(model.output)
    layer = model
    while isinstance(layer, keras.Model):  # the last layer may be a model itself
        last = layer.output_names[0] if hasattr(layer, "output_names") else layer.layers[-1].name
        layer = next((inner for inner in layer.layers if inner.name == last), None)  # or an operation, as `x * 2`
    activation = getattr(layer, "activation", None)
    if activation in (keras.activations.softmax, keras.activations.sigmoid) or isinstance(layer, keras.layers.Softmax):
        return ("probabilities",)
    if isinstance(layer, keras.layers.Dense) and activation is keras.activations.linear:
        return ("logits",)
    return (OUTPUT,)


def export(job: Job, path: Path, name: str) -> None:
    """Writes the fused model by `keras.Model.export`, of the shape that the job asks for, with its names."""
    import tensorflow as tf

    job.tell("fusing")
    model = fusion.fuse_in_float32(job.model)
    _use_erf(model)
    if not isinstance(model.output, Mapping):
        model = keras.Model(model.input, dict(zip(output_names(job.model), [model.output], strict=True)))
    job.tell(f"converting to {name}")
    signature = [tf.TensorSpec((*shape(job), job.model.input_shape[-1]), tf.float32, name=INPUT)]
    with warnings.catch_warnings():
        # Keras asks whether numpy still has `np.object`.
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        model.export(str(path), format=name, input_signature=signature, verbose=False)


def _use_erf(model: keras.Model) -> None:
    """Exact GELU in another form: Keras' own has TensorFlow's `Erfc`, which tf2onnx does not know."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _use_erf(layer)
        elif getattr(layer, "activation", None) is keras.activations.gelu:
            layer.activation = _gelu


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1 + keras.ops.erf(x * 0.5**0.5))
