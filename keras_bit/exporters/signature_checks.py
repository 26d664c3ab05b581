"""Checks every signature of a SavedModel against the model, called as a server would call it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_bit.exporters import comparing, comparison_images
from keras_bit.exporters.job import Checks, Job, Outputs
from keras_bit.exporters.output_names import HEAD
from keras_bit.images.processor import BitImageProcessor
from keras_bit.network.model import BiTModel, head_activation

LOGITS, FEATURES, SERVE_BYTES, CLASSIFY = (
    f"saved_model, {name}" for name in ("logits", "features", "serve_bytes", "classify")
)


def check_features(model: BiTModel, signature: Any, batch: np.ndarray, share: float) -> None:
    """Checks the features against the input of the model's head.

    Raises:
        ArithmeticError: they differ by more than `share` of the largest one, as in every check here.
    """
    import tensorflow as tf

    pooled = keras.Model(model.input, model.get_layer(HEAD).input)(batch, training=False)
    checks = Checks([batch], [{"features": _as_float32(pooled)}])
    comparing.compare(lambda pixels: arrays(signature(pixel_values=tf.constant(pixels))), checks, share, FEATURES)


def check_logits(model: BiTModel, signature: Any, batch: np.ndarray, share: float) -> None:
    """Checks the logits against the same call's probabilities, which are compared with the model's scores."""
    import tensorflow as tf

    found = arrays(signature(pixel_values=tf.constant(batch)))
    scores = model.get_layer(HEAD).activation(keras.ops.convert_to_tensor(found["logits"]))
    checks = Checks([batch], [{"logits": found["probabilities"]}])
    comparing.compare(lambda _: {"logits": keras.ops.convert_to_numpy(scores)}, checks, share, LOGITS)


def check_images(job: Job, processor: BitImageProcessor, signatures: Mapping[str, Any], share: float) -> None:
    """Checks `serve_bytes` and `classify` of encoded images against the processor and the model."""
    import tensorflow as tf

    contents = comparison_images.encoded(job.batch_size or 2)
    scores = job.model(processor(contents).astype(job.dtype), training=False)
    activation = probabilities_of(job.model)
    if activation is not None and job.model.get_layer(HEAD).activation is keras.activations.linear:
        scores = activation(scores)
    name = "probabilities" if "classify" in signatures else "logits"
    answer = arrays(signatures["serve_bytes"](image_bytes=tf.constant(contents)))
    checks = Checks([np.array(contents, object)], [{name: _as_float32(scores)}])
    comparing.compare(lambda _: {name: answer[name]}, checks, share, SERVE_BYTES)
    if "classify" in signatures:
        names = job.labels if job.labels is not None else [str(index) for index in range(answer[name].shape[1])]
        _check_classes(names, answer)
        _check_classify(signatures["classify"], contents, names, answer, share)


def probabilities_of(model: BiTModel) -> Callable[[Any], Any] | None:
    """Returns the function from a model's logits to probabilities; `None` for a regression."""
    name = head_activation(model.config)
    return None if name is None else keras.activations.get(name)


def arrays(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts a signature's answer from TensorFlow's tensors."""
    return {name: values.numpy() for name, values in outputs.items()}


def _check_classes(names: Sequence[str], answer: Outputs) -> None:
    scores, classes = answer["probabilities"], answer["classes"]
    labels = [[label.decode() for label in row] for row in answer["labels"]]
    best = -np.sort(-scores, axis=1)[:, : classes.shape[1]]
    found = (answer["scores"], np.take_along_axis(scores, classes, 1))
    if labels != [[names[index] for index in row] for row in classes.tolist()] or not all(
        np.array_equal(one, best) for one in found
    ):
        raise ArithmeticError(
            f"The export ({SERVE_BYTES}) names other classes than those of the best scores. Nothing was kept."
        )


def _check_classify(
    signature: Any, contents: Sequence[bytes], names: Sequence[str], answer: Outputs, share: float
) -> None:
    """Checks it against `answer` of `serve_bytes`; classes with equal scores except for rounding may be swapped."""
    import tensorflow as tf

    from keras_bit.exporters.signatures import EXAMPLE_KEY

    serialized = []
    for content in contents:
        example = tf.train.Example()
        example.features.feature[EXAMPLE_KEY].bytes_list.value.append(content)
        serialized.append(example.SerializeToString())
    found = arrays(signature(inputs=tf.constant(serialized)))
    checks = Checks([np.array(serialized, object)], [{"scores": answer["scores"]}])
    _, allowed = comparing.compare(lambda _: {"scores": found["scores"]}, checks, share, CLASSIFY)
    for labels, best, scores in zip(found["classes"], found["scores"], answer["probabilities"], strict=True):
        for label, score in zip(labels, best, strict=True):
            if label.decode() not in [
                names[index] for index in np.flatnonzero(np.abs(scores - score) <= allowed).tolist()
            ]:
                raise ArithmeticError(
                    f"The export ({CLASSIFY}) must name the classes of serve_bytes, got {label.decode()!r}. Nothing "
                    "was kept."
                )


def _as_float32(values: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(values, "float32"))
