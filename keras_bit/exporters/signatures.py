"""The signatures of a SavedModel, as TensorFlow functions.

Imports TensorFlow, so only functions import this module.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_bit.images import graph_faults, graph_preprocessing
from keras_bit.images.processor import BitImageProcessor

TOP = 5  # classes in an answer
NOT_THE_IMAGE = "cannot be processed, although nothing is wrong with it. Probably memory ran out."
NAMED = 3  # corrupt images that an error names
# Advice about images that are too large, which a sender cannot follow.
LIMIT = (" If you trust its source, raise .*", " The limit was set when the model was exported.")
EXAMPLE_KEY = "image/encoded"  # key of the image in the tf.Examples for `classify`; TensorFlow's own name


class Served:
    """A model's signatures, `signatures`, and the object to save, `trackable`.

    Args:
        network: a function from `pixel_values` to a dict: "features" and "logits" of a classifier, else the model's
            outputs.
        has_head: whether it is a classifier.
        activation: a function from logits to probabilities; `None` if the output is logits or has none.
        processor: how images become `pixel_values`, all of one size; `None` leaves out the signatures for images.
        labels: a name per class; `None` if unknown.
        shape: (batch, height, width) of `pixel_values`, `None` for any.
        label_file: the path of the file for `assets`; `None` for none.
        dtype: the dtype of `pixel_values`.
    """

    def __init__(
        self,
        network: keras.Model,
        has_head: bool,
        activation: Callable[[Any], Any] | None,
        processor: BitImageProcessor | None,
        labels: tuple[str, ...] | None,
        shape: tuple[int | None, ...],
        label_file: str | None,
        dtype: Any = tf.float32,
    ) -> None:
        self._network, self._activation = network, activation
        self._has_head = has_head
        # The variables one by one, because a whole Keras model would add its layers and their attributes to the file.
        self.trackable = tf.Module()
        self.trackable.weights = [variable.value for variable in network.variables]
        if label_file is not None:
            self.trackable.label_file = tf.saved_model.Asset(label_file)
        classes = network.output["logits"].shape[-1] if self._has_head else 0
        names = labels if labels is not None else tuple(str(index) for index in range(classes))
        self._names = tf.constant(names, tf.string)
        self._top = min(TOP, classes)

        pixel_values = tf.TensorSpec((*shape, network.input_shape[-1]), dtype, name="pixel_values")
        strings = tf.TensorSpec(shape[:1], tf.string, name="image_bytes")
        serialized = tf.TensorSpec(shape[:1], tf.string, name="inputs")

        def traced(function: Callable[[Any], Any], spec: tf.TensorSpec) -> Any:
            return tf.function(function, input_signature=[spec], autograph=False)

        # Tracing ties a signature to its variables; the order is that of `saved_model_cli show`.
        self.signatures = {"serving_default": traced(self._serving_default, pixel_values)}
        if self._has_head:
            self.signatures["features"] = traced(self._features, pixel_values)
        if self._has_head and processor is not None:
            self._preprocess = lambda image_bytes: tf.cast(decoded(image_bytes, processor), dtype)
            self.signatures["serve_bytes"] = traced(self._serve_bytes, strings)
            if activation is not None:
                self.signatures["classify"] = traced(self._classify, serialized)

    def _run(self, pixel_values: Any) -> dict[str, Any]:
        return self._network(pixel_values, training=False)

    def _serving_default(self, pixel_values: Any) -> dict[str, Any]:
        outputs = self._run(pixel_values)
        if not self._has_head:
            return outputs
        probabilities = {"probabilities": self._activation(outputs["logits"])} if self._activation else {}
        return {"logits": outputs["logits"], **probabilities}

    def _features(self, pixel_values: Any) -> dict[str, Any]:
        return {"features": self._run(pixel_values)["features"]}

    def _scores(self, image_bytes: Any) -> Any:
        logits = self._run(self._preprocess(image_bytes))["logits"]
        return self._activation(logits) if self._activation else logits

    def _serve_bytes(self, image_bytes: Any) -> dict[str, Any]:
        scores = self._scores(image_bytes)
        if self._activation is None:
            return {"logits": scores}
        best, classes = tf.math.top_k(scores, self._top)
        labels = tf.gather(self._names, classes)
        return {"probabilities": scores, "classes": classes, "labels": labels, "scores": best}

    def _classify(self, inputs: Any) -> dict[str, Any]:
        feature = {EXAMPLE_KEY: tf.io.FixedLenFeature([], tf.string, default_value="")}
        image_bytes = tf.io.parse_example(inputs, feature)[EXAMPLE_KEY]
        scores = self._scores(image_bytes)
        best, classes = tf.math.top_k(scores, self._top)
        return {"classes": tf.gather(self._names, classes), "scores": best}


def decoded(image_bytes: Any, processor: BitImageProcessor) -> Any:
    """Converts encoded images `(batch,)` to `pixel_values`, each with `processor.tf_preprocess`.

    Raises:
        ValueError: the processor's result has no fixed size.
        tf.errors.InvalidArgumentError: when it runs: an image cannot be read; the message has its index and the reason.
    """
    if processor.fixed_size is None:
        raise ValueError("`processor` must give every image the same size: a batch of requests is one tensor.")
    shape = (*processor.fixed_size, graph_preprocessing.CHANNELS)
    nothing = tf.zeros(shape, tf.float32)

    def one(contents: Any) -> tuple[Any, Any]:
        # A graph has no exceptions, so a failing operation would end the request without naming the image.
        pixels, fine = graph_faults.attempt(lambda: graph_preprocessing.preprocess(contents, processor), nothing)

        def look() -> Any:
            wrong = graph_faults.problem(contents, processor)
            return tf.where(wrong == "", NOT_THE_IMAGE, tf.strings.regex_replace(wrong, *LIMIT))

        return pixels, tf.cond(fine, lambda: "", look)

    signature = (tf.TensorSpec(shape, tf.float32), tf.TensorSpec([], tf.string))
    pixels, why = tf.map_fn(one, image_bytes, fn_output_signature=signature)
    failed = tf.where(why != "")[:, 0]
    named = failed[:NAMED]
    each = tf.strings.join(["the image at index ", tf.strings.as_string(named), " ", tf.gather(why, named)])
    checks = [
        tf.debugging.Assert(tf.size(image_bytes) > 0, ["there must be at least one image"]),
        tf.debugging.Assert(tf.size(failed) == 0, [tf.strings.reduce_join(each, separator=" ")]),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(pixels)
