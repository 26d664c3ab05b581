"""SavedModel for TF Serving: versions in a base directory, signatures for images and for pixels."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit.exporters import comparison_images, serving_files, signature_checks
from keras_bit.exporters.formats import Format, share
from keras_bit.exporters.job import OUTPUT, Job, Run, Shape
from keras_bit.exporters.output_names import HEAD, has_head, output_names
from keras_bit.exporters.signature_checks import arrays, probabilities_of
from keras_bit.network.layers import Conv2D
from keras_bit.network.transforms import fuse_in_float32

VERSION = "[0-9]{1,18}"  # TF Serving's limit: its numbers have 63 bits


class SavedModel(Format):
    """A new version in the model's base directory, with files for TF Serving and KServe next to it."""

    name = "saved_model"
    kind = "version"

    def check(self, job: Job) -> None:
        if job.processor is None:
            return
        if not has_head(job.model):
            raise ValueError(
                "`processor` must be None for a model that is not a BiT with its own head: only that head gives "
                f"classes for images, and this {type(job.model).__name__} is served for pixels only."
            )
        if job.model.input_shape[-1] != 3:
            channels = job.model.input_shape[-1]
            raise ValueError(f"`processor` must be None for a model of {channels} channels: images are decoded as RGB.")
        if not job.processor.do_convert_rgb:
            raise ValueError("`processor` must have `do_convert_rgb=True`: images are decoded as RGB.")
        size = job.processor.fixed_size
        if size is None:
            raise ValueError(
                "`processor` must give every image the same size, by its crop or `size={'height', 'width'}`: a batch "
                "of requests is one tensor. Pass `processor=None` to leave out the signatures for images."
            )
        wanted = self.shape(job)[1:]
        if any(own is not None and own != found for own, found in zip(wanted, size, strict=True)):
            raise ValueError(
                f"`processor` must give the {wanted[0]}x{wanted[1]} px of the export, got {size[0]}x{size[1]}. "
                "Pass `processor=None` to leave out the signatures for images."
            )

    def target(self, path: Path) -> Path:
        """Returns the directory of the next version in `path`."""
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(
                f"`path` must be a directory for versions, or a new name for one. {path} is a file."
            )
        names = [one.name for one in path.iterdir()] if path.exists() else []
        versions = [int(name) for name in names if re.fullmatch(VERSION, name)]
        return path / str(max(versions, default=0) + 1)

    def shape(self, job: Job) -> Shape:
        """Returns any batch size, unless the caller fixes it: a server takes all."""
        return job.batch_size, *super().shape(job)[1:]

    def write(self, job: Job, path: Path) -> None:
        import tensorflow as tf

        from keras_bit.exporters.signatures import Served

        job.progress("standardizing the kernels")
        network, activation = _network(fuse_in_float32(job.model, Conv2D))
        if activation is keras.activations.linear:
            activation = probabilities_of(job.model)
        job.progress("tracing the signatures and writing the SavedModel")
        with tempfile.TemporaryDirectory(prefix="labels-", dir=path.parent) as folder:
            served = Served(
                network=network,
                has_head=has_head(job.model),
                activation=activation,
                processor=job.processor,
                labels=job.labels,
                shape=self.shape(job),
                label_file=_label_file(Path(folder), job.labels),
                dtype=job.dtype,
            )
            tf.saved_model.save(served.trackable, str(path), signatures=served.signatures)
        if "classify" in served.signatures:
            # TF Serving's Classify method needs this name; a TensorFlow 2 function is saved as Predict.
            updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(path))
            updater.replace_method_name("classify", "tensorflow/serving/classify")
            updater.save()
        takes_images = "serve_bytes" in served.signatures
        channels = job.model.input_shape[-1]
        serving_files.write_warmup(path, self.shape(job), channels, job.dtype, takes_images, job.progress)

    def load(self, job: Job, path: Path) -> Run:
        import tensorflow as tf

        signatures = tf.saved_model.load(str(path)).signatures
        serve = signatures["serving_default"]
        if not has_head(job.model):
            named = isinstance(job.model.output, dict)

            def run(batch: np.ndarray) -> dict[str, np.ndarray]:
                outputs = arrays(serve(pixel_values=tf.constant(batch)))
                return outputs if named else {OUTPUT: next(iter(outputs.values()))}

            return run

        allowed = share(self.limit(job), job.model)
        batch = comparison_images.batches(job, self.shape(job))[0]
        signature_checks.check_features(job.model, signatures["features"], batch, allowed)
        if job.processor is not None:
            signature_checks.check_images(job, job.processor, signatures, allowed)
        linear = job.model.get_layer(HEAD).activation is keras.activations.linear
        if not linear:
            signature_checks.check_logits(job.model, serve, batch, allowed)
        scores = "logits" if linear else "probabilities"
        return lambda batch: {OUTPUT: arrays(serve(pixel_values=tf.constant(batch)))[scores]}

    def finish(self, job: Job, path: Path) -> None:
        serving_files.write_beside(path, job.batch_size)


def _network(model: keras.Model) -> tuple[keras.Model, Callable[[Any], Any] | None]:
    """Returns the model with named outputs, and the activation that was removed from its head."""
    if not has_head(model):
        outputs = model.output
        if not isinstance(outputs, dict):
            outputs = dict(zip(output_names(model), [outputs], strict=True))
        return keras.Model(model.input, outputs), None
    head = model.get_layer(HEAD)
    activation = head.activation
    head.activation = keras.activations.linear  # of this private copy
    return keras.Model(model.input, {"features": head.input, "logits": head.output}), activation


def _label_file(folder: Path, labels: tuple[str, ...] | None) -> str | None:
    """Writes a line per label, and returns the file's path; `None` if no labels are known."""
    if labels is None:
        return None
    file = folder / "labels.txt"
    file.write_text("".join(f"{' '.join(name.split())}\n" for name in labels), encoding="utf-8")
    return str(file)
