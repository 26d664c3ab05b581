"""SavedModel for TF Serving: versions in a base directory, signatures for images and for pixels."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit.exporters import checked, comparison_images, serving_files
from keras_bit.exporters.job import OUTPUT, Checks, Job, Run, Shape
from keras_bit.exporters.output_names import HEAD, has_head, output_names
from keras_bit.network.layers import Conv2D
from keras_bit.network.model import BiTModel, head_activation
from keras_bit.network.transforms import fuse_in_float32

QUANTIZATIONS = (None,)
NEEDS_TENSORFLOW = True
KIND = "version"
BESIDE = ()
VERSION = "[0-9]{1,18}"  # what TF Serving takes for one: its numbers have 63 bits
LOGITS, FEATURES, SERVE_BYTES, CLASSIFY = (
    f"saved_model, {name}" for name in ("logits", "features", "serve_bytes", "classify")
)


def check(job: Job) -> None:
    if job.processor is None:
        return
    if not has_head(job.model):
        raise ValueError(
            "`processor` must be None for a model that is not a BiT with its own head: images are answered with that "
            f"head's classes, and a {type(job.model).__name__} without is served for pixels."
        )
    if job.model.input_shape[-1] != 3:
        channels = job.model.input_shape[-1]
        raise ValueError(f"`processor` must be None for a model of {channels} channels: images are decoded as RGB.")
    if not job.processor.do_convert_rgb:
        raise ValueError("`processor` must have `do_convert_rgb=True`: images are decoded as RGB.")
    size = job.processor.fixed_size
    if size is None:
        raise ValueError(
            "`processor` must give every image the same size, by its crop or `size={'height', 'width'}`: a batch of "
            "requests is one tensor. `processor=None` leaves out what takes images."
        )
    wanted = shape(job)[1:]
    if any(own is not None and own != found for own, found in zip(wanted, size, strict=True)):
        raise ValueError(
            f"`processor` must give the {wanted[0]}x{wanted[1]} px of the export, got {size[0]}x{size[1]}. "
            "`processor=None` leaves out what takes images."
        )


def target(path: Path) -> Path:
    """The next version in `path`."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"`path` must be a directory for versions, or a new name for one. {path} is a file.")
    names = [one.name for one in path.iterdir()] if path.exists() else []
    versions = [int(name) for name in names if re.fullmatch(VERSION, name)]
    return path / str(max(versions, default=0) + 1)


def shape(job: Job) -> Shape:
    return (job.batch_size, *(job.image_size or job.model.input_shape[1:3]))


def write(job: Job, path: Path) -> None:
    import tensorflow as tf

    from keras_bit.exporters.signatures import Served

    job.tell("standardizing the kernels")
    network, activation = _network(fuse_in_float32(job.model, Conv2D))
    if activation is keras.activations.linear:
        activation = _probabilities_of(job.model)
    job.tell("tracing the signatures and writing the SavedModel")
    with tempfile.TemporaryDirectory() as folder:
        label_file = None
        if job.labels is not None:
            label_file = Path(folder) / "labels.txt"
            label_file.write_text("".join(f"{' '.join(name.split())}\n" for name in job.labels), encoding="utf-8")
        served = Served(
            network,
            has_head(job.model),
            activation,
            job.processor,
            job.labels,
            shape(job),
            label_file and str(label_file),
        )
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

    signatures = tf.saved_model.load(str(path)).signatures
    wanted = None
    if has_head(job.model):
        linear = job.model.get_layer(HEAD).activation is keras.activations.linear
        wanted = "logits" if linear else "probabilities"
        _check_features(job, signatures["features"])
    if "serve_bytes" in signatures:
        _check_pictures(job, signatures)
    serve = signatures["serving_default"]
    if wanted == "probabilities":
        _check_logits(job, serve)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        outputs = _arrays(serve(pixel_values=tf.constant(batch)))
        if wanted is not None:
            return {OUTPUT: outputs[wanted]}
        return outputs if isinstance(job.model.output, dict) else {OUTPUT: next(iter(outputs.values()))}

    return run


def _check_features(job: Job, signature: Any) -> None:
    """Against the model's own input of its head."""
    import tensorflow as tf

    batch = comparison_images.batches(job, shape(job))[0]
    pooled = keras.Model(job.model.input, job.model.get_layer(HEAD).input)(batch, training=False)
    checks = Checks([batch], [{"features": keras.ops.convert_to_numpy(keras.ops.cast(pooled, "float32"))}])
    share = checked.share(limit(job), job.model)
    checked.compare(lambda pixels: _arrays(signature(pixel_values=tf.constant(pixels))), checks, share, FEATURES)


def _check_logits(job: Job, signature: Any) -> None:
    """Against the same call's probabilities, which are compared with the model's scores."""
    import tensorflow as tf

    activation = job.model.get_layer(HEAD).activation

    def scores(pixels: np.ndarray) -> dict[str, np.ndarray]:
        logits = signature(pixel_values=tf.constant(pixels))["logits"].numpy()
        return {"logits": keras.ops.convert_to_numpy(activation(keras.ops.convert_to_tensor(logits)))}

    batch = comparison_images.batches(job, shape(job))[0]
    expected = {"logits": signature(pixel_values=tf.constant(batch))["probabilities"].numpy()}
    checked.compare(scores, Checks([batch], [expected]), checked.share(limit(job), job.model), LOGITS)


def _check_pictures(job: Job, signatures: Any) -> None:
    """`serve_bytes` and `classify` of encoded images, against the model behind the processor."""
    import tensorflow as tf

    contents = comparison_images.encoded(job.batch_size or 2)
    scores = job.model(job.processor(contents), training=False)
    activation = _probabilities_of(job.model)
    if activation is not None and job.model.get_layer(HEAD).activation is keras.activations.linear:
        scores = activation(scores)
    name = "probabilities" if "classify" in signatures else "logits"
    expected = {name: keras.ops.convert_to_numpy(keras.ops.cast(scores, "float32"))}
    answer = _arrays(signatures["serve_bytes"](image_bytes=tf.constant(contents)))
    share = checked.share(limit(job), job.model)
    checked.compare(
        lambda _: {name: answer[name]}, Checks([np.array(contents, object)], [expected]), share, SERVE_BYTES
    )
    if "classify" in signatures:
        names = job.labels if job.labels is not None else [str(index) for index in range(answer[name].shape[1])]
        _check_classes(names, answer)
        _check_classify(signatures["classify"], contents, names, answer, share)


def _check_classes(names: Sequence[str], answer: Mapping[str, np.ndarray]) -> None:
    scores, classes = answer["probabilities"], answer["classes"]
    told = [[label.decode() for label in row] for row in answer["labels"]]
    best = -np.sort(-scores, axis=1)[:, : classes.shape[1]]
    found = (answer["scores"], np.take_along_axis(scores, classes, 1))
    if told != [[names[index] for index in row] for row in classes] or not all(
        np.array_equal(one, best) for one in found
    ):
        raise ArithmeticError(f"The export ({SERVE_BYTES}) names other classes than those of the best scores.")


def _check_classify(
    signature: Any, contents: Sequence[bytes], names: Sequence[str], answer: Mapping[str, np.ndarray], share: float
) -> None:
    """Against `answer`, that of `serve_bytes`; classes whose scores are equal but for rounding may change places."""
    import tensorflow as tf

    from keras_bit.exporters.signatures import EXAMPLE_KEY

    serialized = []
    for content in contents:
        example = tf.train.Example()
        example.features.feature[EXAMPLE_KEY].bytes_list.value.append(content)
        serialized.append(example.SerializeToString())
    found = _arrays(signature(inputs=tf.constant(serialized)))
    checks = Checks([np.array(serialized, object)], [{"scores": answer["scores"]}])
    _, allowed = checked.compare(lambda _: {"scores": found["scores"]}, checks, share, CLASSIFY)
    for labels, best, scores in zip(found["classes"], found["scores"], answer["probabilities"], strict=True):
        for label, score in zip(labels, best, strict=True):
            if label.decode() not in [names[index] for index in np.flatnonzero(np.abs(scores - score) <= allowed)]:
                raise ArithmeticError(f"The export ({CLASSIFY}) names other classes than serve_bytes.")


def _arrays(outputs: Any) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in outputs.items()}


def limit(job: Job) -> float:
    return 1e-4  # the same kernels in another order of operations


def finish(job: Job, path: Path) -> None:
    serving_files.write_beside(path, job.batch_size)


def _network(model: keras.Model) -> tuple[keras.Model, Any]:
    """The model with named outputs, and the activation that was taken off its head."""
    if not has_head(model):
        outputs = model.output
        if not isinstance(outputs, dict):
            outputs = dict(zip(output_names(model), [outputs], strict=True))
        return keras.Model(model.input, outputs), None
    head = model.get_layer(HEAD)
    activation = head.activation
    head.activation = keras.activations.linear  # of this copy, which is nobody else's
    return keras.Model(model.input, {"features": head.input, "logits": head.output}), activation


def _probabilities_of(model: BiTModel) -> Any:
    """What makes a logits model's outputs probabilities; `None` for a regression."""
    name = head_activation(model.config)
    return None if name is None else keras.activations.get(name)
