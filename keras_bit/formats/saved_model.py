"""SavedModel for TF Serving: versions in a base directory, signatures for pictures and for pixels."""

import re
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit.formats import serving_files
from keras_bit.formats.job import OUTPUT, Job, Run, Shape
from keras_bit.fusion import fuse_in_float32
from keras_bit.model import BiTModel, head_activation

QUANTIZATIONS = (None,)
NEEDS_TENSORFLOW = True
HEAD = "predictions"


def check(job: Job) -> None:
    if job.processor is None:
        return
    if not _has_head(job.model):
        raise ValueError("`processor` must be None for a model without a head: pictures are answered with its classes.")
    size = job.processor.fixed_size
    if size is None:
        raise ValueError(
            "`processor` must give every picture the same size, by its crop or `size={'height', 'width'}`: a batch of "
            "requests is one tensor."
        )
    wanted = shape(job)[1:]
    if any(own is not None and own != found for own, found in zip(wanted, size, strict=True)):
        raise ValueError(
            f"`processor` must give the {wanted[0]}x{wanted[1]} px of the export, got {size[0]}x{size[1]}."
        )


def target(path: Path) -> Path:
    """The next version in `path`."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"`path` must be a directory for versions, or a new name for one. {path} is a file.")
    versions = [int(one.name) for one in path.iterdir() if re.fullmatch(r"\d+", one.name)] if path.exists() else []
    return path / str(max(versions, default=0) + 1)


def shape(job: Job) -> Shape:
    return (job.batch_size, *(job.image_size or job.model.input_shape[1:3]))


def write(job: Job, path: Path) -> None:
    import tensorflow as tf

    from keras_bit.formats.signatures import Served

    job.tell("standardising the kernels")
    network, activation = _network(fuse_in_float32(job.model))
    if activation is keras.activations.linear:
        activation = _probabilities_of(job.model)
    job.tell("tracing the signatures and writing the SavedModel")
    with tempfile.TemporaryDirectory() as folder:
        label_file = None
        if job.labels is not None:
            label_file = Path(folder) / "labels.txt"
            label_file.write_text("".join(f"{' '.join(name.split())}\n" for name in job.labels), encoding="utf-8")
        served = Served(network, activation, job.processor, job.labels, shape(job), label_file and str(label_file))
        tf.saved_model.save(served.trackable, str(path), signatures=served.signatures)
    if "classify" in served.signatures:
        # TF Serving's Classify method asks for this name; a TensorFlow 2 function is saved as a Predict.
        updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(path))
        updater.replace_method_name("classify", "tensorflow/serving/classify")
        updater.save()
    serving_files.write_warmup(
        path, shape(job), job.model.input_shape[-1], "serve_bytes" in served.signatures, job.tell
    )


def load(job: Job, path: Path) -> Run:
    import tensorflow as tf

    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    wanted = None
    if _has_head(job.model):
        linear = job.model.get_layer(HEAD).activation is keras.activations.linear
        wanted = "logits" if linear else "probabilities"

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        outputs = {name: values.numpy() for name, values in signature(pixel_values=tf.constant(batch)).items()}
        if wanted is not None:
            return {OUTPUT: outputs[wanted]}
        return outputs if isinstance(job.model.output, dict) else {OUTPUT: next(iter(outputs.values()))}

    return run


def limit(job: Job) -> float:
    return 1e-4  # the same kernels in another order of operations


def finish(job: Job, path: Path) -> None:
    serving_files.write_beside(path.parent, job.batch_size)


def _has_head(model: keras.Model) -> bool:
    return isinstance(model, BiTModel) and any(layer.name == HEAD for layer in model.layers)


def _network(model: keras.Model) -> tuple[keras.Model, Any]:
    """The model with named outputs, and the activation that was taken off its head."""
    if not _has_head(model):
        outputs = model.output
        if not isinstance(outputs, dict):
            single = outputs[0] if isinstance(outputs, list | tuple) else outputs
            outputs = {"features" if len(single.shape) == 2 else "last_hidden_state": single}
        return keras.Model(model.input, outputs), None
    head = model.get_layer(HEAD)
    activation = head.activation
    head.activation = keras.activations.linear  # of this copy, which is nobody else's
    return keras.Model(model.input, {"features": head.input, "logits": head.output}), activation


def _probabilities_of(model: BiTModel) -> Any:
    """What makes a logits model's outputs probabilities; `None` for a regression."""
    name = head_activation(model.config)
    return None if name is None else keras.activations.get(name)
