"""A BiT and its preprocessing in one Keras model: from images in any form to labels."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from PIL import Image

from keras_bit import labels, versions
from keras_bit.counts import check_whole
from keras_bit.images import steps
from keras_bit.images.array_likes import sequence_of
from keras_bit.images.inputs import AnyImage, Encoded
from keras_bit.images.processor import BitImageProcessor
from keras_bit.network import calls, tracing
from keras_bit.network.model import MIN_SIZE, BiTModel, head_activation, layers_in_front
from keras_bit.network.steps import QuickSteps
from keras_bit.network.weights import HEAD

BATCH_SIZE = 32  # Keras' own default

Images = AnyImage | Sequence[AnyImage]


@keras.saving.register_keras_serializable(package="keras_bit")
class BiTClassifier(QuickSteps, keras.Model):
    """A model and its processor as one Keras model, for prediction, training and saving.

    Examples:
        >>> classifier = BiTClassifier(model, processor)  # doctest: +SKIP
        >>> classifier.classify("cat.jpg", top=2)  # doctest: +SKIP
        [[('tabby', 0.62), ('tiger_cat', 0.31)]]

    It takes images in two ways. `classify` and `predict` take images in any form, and the processor reads, resizes,
    crops and normalizes each one on the host. A call, `fit`, `evaluate`, and `predict` of a data set take uint8 batches
    `(batch, height, width, channels)` in [0, 255], and rescale and normalize them on the device. They do not resize or
    crop, so images must already have the processor's size: if resize and crop have the same size, as for google/bit-50,
    `processor(images, do_rescale=False, do_normalize=False).astype("uint8")` makes such batches.

    `classifier.save("cats.keras")` and `keras.saving.load_model("cats.keras")` keep everything in one file.

    Args:
        model: A model that keras_bit built, with its head. It is not copied, so training the classifier trains it.
        processor: The `BitImageProcessor` that turns images into the model's input.
        name: The classifier's name.
        **kwargs: Arguments of `keras.Model`: `trainable` and `dtype`.

    Attributes:
        model: The model.
        processor: The processor.

    Raises:
        TypeError: `model` or `processor` has another type, or an argument is unknown, also in a call.
        ValueError: `model` has no head, or has layers in front of the network; the processor's images do not fit it.
    """

    def __init__(
        self, model: BiTModel, processor: BitImageProcessor, name: str = "bit_classifier", **kwargs: Any
    ) -> None:
        calls.refuse_unknown(type(self).__name__, kwargs, ("model", "processor", "name", "trainable", "dtype"))
        _check(model, processor)
        super().__init__(name=name, **kwargs)
        self.model = model
        self.processor = processor
        self.built = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        calls.refuse_unknown(f"the classifier {self.name!r}", kwargs, ("images", "training"))
        return super().__call__(*args, **kwargs)

    def classify(self, images: Images, top: int = 5, *, batch_size: int | None = None) -> list[list[tuple[str, float]]]:
        """Returns the best labels of each image.

        Args:
            images: One image or a sequence of them, as `processor(images)` takes them: paths, encoded bytes, PIL
                images, arrays. Or the path of a directory, for all images in it at any depth, in the order of
                `keras-bit classify DIRECTORY`: folder by folder in the order of paths, each sorted by name.
            top: Number of labels per image, at most all classes.
            batch_size: Images per batch; `None` is 32.

        Returns:
            For each image a list of `(label, score)`, best first. Labels are those of `decode_predictions`. Scores are
            probabilities, even if the model gives logits: by softmax, or by sigmoid if its `problem_type` is
            `multi_label_classification`.

        Raises:
            ValueError: The model predicts numbers (regression), or `top` or `batch_size` is not a whole number of at
                least 1.
            TypeError, ValueError: An image cannot be read; the message names it, such as `images[3]`.
        """
        top = labels.checked_top(top)
        config = self.model.config
        activation = head_activation(config)
        if activation is None:
            raise ValueError("`classify` is for classes, but the model predicts numbers (regression). Use `predict`.")
        scores = self._scores(images, batch_size)
        if self.model.get_layer(HEAD).activation is keras.activations.linear:
            scores = ops.convert_to_numpy(keras.activations.get(activation)(ops.convert_to_tensor(scores)))
        known = labels.labels_of_checkpoint(config.id2label or {})
        names = None if known is None else [known[index] for index in sorted(known)]
        decoded = labels.decode_predictions(scores, top, labels=names)
        return [[(label, score) for _, label, score in row] for row in decoded]

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Returns the model's own scores or logits for images, `(batch, classes)`.

        Args:
            x: Images in any form, as in `classify`; or a source of uint8 batches such as a `tf.data.Dataset`, for which
                everything is as in `keras.Model.predict`.
            batch_size: Images per batch; `None` is 32.
            verbose: As in Keras; no progress is shown for images in any form.
            steps: The number of batches to predict, as in Keras; only for a data set.
            callbacks: Callbacks of Keras; only for a data set.
        """
        if not _are_images(x):
            return super().predict(x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks)
        if steps is not None or callbacks is not None:
            raise ValueError("`steps` and `callbacks` must be None if `x` is images, not a data set of batches.")
        return self._scores(x, batch_size)

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self.model(self._pixel_values(images), training=training)

    def build(self, input_shape: Any) -> None:
        """Does nothing, because the weights are the model's."""

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "processor": self.processor.to_dict(),
        }
        return versions.portable(config)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "BiTClassifier":
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        options = {name: value for name, value in config["processor"].items() if name != "image_processor_type"}
        return cls(**{**config, "model": model, "processor": BitImageProcessor(**options)})

    def _pixel_values(self, images: Any) -> Any:
        """Returns the processor's float32 values for a uint8 batch, bit for bit, by a table of the 256 pixel values."""
        dtype = keras.backend.standardize_dtype(images.dtype)
        if dtype != "uint8":
            raise ValueError(
                f"`images` must be uint8 pixels in [0, 255], got {dtype}. Floats can be pixels or preprocessed "
                f"images, so they are refused: cast pixels in "
                '[0, 255] to "uint8", and give preprocessed images, as those of `image_dataset`, to `classifier.model`.'
            )
        shape = tuple(size if isinstance(size, int) else None for size in images.shape)
        if len(shape) != 4 or shape[-1] is None:
            raise ValueError(f"`images` must be (batch, height, width, channels), got the shape {shape}.")
        self._check_size(shape[1], shape[2])
        processor, channels = self.processor, shape[-1]
        if processor.do_convert_rgb and channels != 3:
            if channels not in (1, 4):
                raise ValueError(f"`images` must have 1, 3 or 4 channels to become RGB, got {channels}.")
            images = ops.repeat(images, 3, axis=-1) if channels == 1 else images[..., :3]
            channels = 3
        table = steps.value_table(
            channels,
            processor.rescale_factor if processor.do_rescale else None,
            (processor.image_mean, processor.image_std) if processor.do_normalize else None,
        )
        places = ops.cast(images, "int32")
        if table.ndim == 2:  # one channel after the other
            places = places + ops.convert_to_tensor(256 * np.arange(channels, dtype=np.int32))
            table = table.T.reshape(-1)
        return ops.take(ops.convert_to_tensor(table), places)

    def _check_size(self, height: int | None, width: int | None) -> None:
        """Refuses images that the processor would resize or crop."""
        processor = self.processor
        if not processor.do_resize and not processor.do_center_crop:
            return
        if height is None or width is None:
            raise ValueError(
                "`images` must have a height and a width that are known when the graph is made, because the processor "
                "resizes or crops. `tf.ensure_shape(images, (None, height, width, 3))` in the data set's `map` sets it."
            )
        wanted = (height, width)
        if processor.do_resize:
            wanted = steps.resized_shape(height, width, processor.size)
        if processor.do_center_crop:
            cropped = (processor.crop_size["height"], processor.crop_size["width"])
            changes = wanted != (height, width) or cropped != wanted
            wanted = cropped
        else:
            changes = wanted != (height, width)
        if not changes:
            return
        got = f"batches are neither resized nor cropped on the device, got {height}x{width}"
        again = steps.resized_shape(*wanted, processor.size) if processor.do_resize else wanted
        if again != wanted:
            raise ValueError(
                f"`images` cannot be a batch for this processor: it crops to {wanted[0]}x{wanted[1]} px, but resizes "
                f"even images of that size to {again[0]}x{again[1]} px first, and {got}. Use `classify` or `predict`, "
                "which take images of any size, or a processor whose `size` is its `crop_size`."
            )
        raise ValueError(
            f"`images` must have the size that the processor makes, {wanted[0]}x{wanted[1]} px, because {got}. Make "
            'them on the host: `processor(images, do_rescale=False, do_normalize=False).astype("uint8")`. `classify` '
            "and `predict` take images of any size."
        )

    def _scores(self, images: Images, batch_size: int | None) -> np.ndarray:
        """Returns the model's outputs for images in any form."""
        size = BATCH_SIZE if batch_size is None else batch_size
        check_whole("batch_size", size)
        batches = self._batches(_each_of(images), size)
        first = next(batches, None)
        if first is None:
            raise ValueError("`images` must have at least one image, got none.")
        second = next(batches, None)
        if second is None and keras.backend.backend() == "tensorflow":
            # Tracing a graph takes seconds, which is not worth it for a few images.
            with tracing.step():
                return ops.convert_to_numpy(self.model(ops.convert_to_tensor(first), training=False))
        rest = () if second is None else itertools.chain([second], batches)
        found = [self._ask(first)]
        for batch in rest:
            count = len(batch)
            if count < size and batch.shape[1:] == first.shape[1:] and len(first) == size:
                # Another number of images would be compiled again.
                batch = np.concatenate([batch, np.zeros((size - count, *batch.shape[1:]), batch.dtype)])
            found.append(self._ask(batch)[:count])
        return np.concatenate(found)

    def _ask(self, batch: np.ndarray) -> np.ndarray:
        # As a tensor, to avoid the warning about raw pixels if the processor leaves [0, 255] on purpose.
        return self.model.predict_on_batch(ops.convert_to_tensor(batch))

    def _batches(self, images: Images, size: int) -> Iterator[np.ndarray]:
        """Yields batches of preprocessed images of one size, at most `size` at a time."""
        waiting: list[np.ndarray] = []
        for name, pixels in self.processor.each(images):
            _check_pixels(name, pixels.shape, self.model.config.num_channels)
            if waiting and (len(waiting) == size or waiting[0].shape != pixels.shape):
                yield np.stack(waiting)
                waiting = []
            waiting.append(pixels)
        if waiting:
            yield np.stack(waiting)


def _check(model: Any, processor: Any) -> None:
    if not isinstance(model, BiTModel):
        raise TypeError(f"`model` must be a model that keras_bit built, got {type(model).__name__}.")
    if not isinstance(processor, BitImageProcessor):
        raise TypeError(f"`processor` must be a keras_bit.BitImageProcessor, got {type(processor).__name__}.")
    heads = [layer for layer in model.layers if layer.name == HEAD]
    if not heads or model.output is not heads[0].output:
        raise ValueError(f"`model` must end in its head {HEAD!r}. Build it with `include_top=True` and its classes.")
    if in_front := layers_in_front(model):
        raise ValueError(
            f"`model` must begin with the network's own input, got layers in front of it: {', '.join(in_front)}. The "
            "processor already prepares images."
        )
    channels = 3 if processor.do_convert_rgb else model.config.num_channels
    if channels != model.config.num_channels:
        raise ValueError(
            f"`processor` must have `do_convert_rgb=False` for a model of {model.config.num_channels} channels."
        )
    if processor.fixed_size is not None:
        _check_pixels("`processor`: every image", (*processor.fixed_size, channels), channels)
        own = model.input_shape[1:3]
        if any(side not in (None, made) for side, made in zip(own, processor.fixed_size, strict=True)):
            raise ValueError(
                f"`processor` must give the {own[0]}x{own[1]} px of the model's input, got "
                f"{processor.fixed_size[0]}x{processor.fixed_size[1]}. Make them equal."
            )


def _check_pixels(name: str, shape: tuple[int, ...], channels: int) -> None:
    if min(shape[:2]) < MIN_SIZE or shape[-1] != channels:
        raise ValueError(
            f"{name} becomes {shape[0]}x{shape[1]} px with {shape[-1]} channels in the processor, but the model takes "
            f"{channels} channels and at least {MIN_SIZE} px. Change the processor, or pass another image."
        )


def _are_images(x: Any) -> bool:
    """Returns whether `x` is images in any form, not a source of batches."""
    one = isinstance(x, str | os.PathLike | Encoded | Image.Image) or hasattr(x, "__array__")
    return one or sequence_of(x) is not None


def _each_of(images: Images) -> Images:
    """Returns the images; for a directory, the files in it."""
    if isinstance(images, str | os.PathLike) and os.path.isdir(images):
        from keras_bit.data import folders

        return folders.images_in(images)
    return images
