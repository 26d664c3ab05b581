"""Augments a batch with Keras' own layers, on the host, before it is normalized. It depends only on a seed."""

from collections.abc import Iterable, Sequence

import keras
import numpy as np

from keras_bit.images import steps
from keras_bit.images.processor import BitImageProcessor
from keras_bit.recipes.recipe import CUT_MIX

LAYERS = {"rand_augment": "RandAugment", CUT_MIX: "CutMix", "random_erasing": "RandomErasing"}
VALUES = (0, 255)  # of a pixel


def check_layers(names: Sequence[str]) -> None:
    """Checks that the installed Keras has these layers.

    Raises:
        ImportError: it is too old for one of them.
    """
    for name in names:
        if not hasattr(keras.layers, LAYERS[name]):
            raise ImportError(
                f"`augment` {name!r} needs keras.layers.{LAYERS[name]}, which Keras {keras.__version__} does not have. "
                "Install a newer one with `pip install --upgrade keras`."
            )


def augmented(
    names: Sequence[str], processor: BitImageProcessor, images: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Applies Keras' layers to a batch, then rescales and normalizes it.

    The layers are created anew for every batch, so their random numbers depend only on `seed`, not on earlier batches,
    and a resumed run sees the same images. The numbers come from the backend, so they differ between backends.

    Args:
        names: keys of `LAYERS`, in order.
        processor: gives the rescaling and the normalization.
        images: float32 `(batch, height, width, 3)` in [0, 255].
        labels: `(batch,)`, or float32 `(batch, classes)`, which `"cut_mix"` mixes.
        seed: a seed in [0, 2**31).

    Returns:
        float32 images and the labels.
    """
    with keras.device("cpu:0"):  # runs on the CPU, out of the training's way
        for number, name in enumerate(names):
            layer = _layer(name, (seed + number) % 2**31)
            if name == CUT_MIX:
                mixed = layer({"images": images, "labels": labels}, training=True)
                labels = keras.ops.convert_to_numpy(mixed["labels"])
                images = keras.ops.convert_to_numpy(mixed["images"])
            else:
                images = keras.ops.convert_to_numpy(layer(images, training=True))
        factor = processor.rescale_factor if processor.do_rescale else None
        spread = (processor.image_mean, processor.image_std) if processor.do_normalize else None
        return steps.rescale_and_normalize(images, factor, spread), labels


def seed_of(numbers: Iterable[int]) -> int:
    """Returns a seed for Keras, from those of a batch."""
    words = [int(number) % 2**64 for number in numbers]
    return int(np.random.SeedSequence(words).generate_state(1)[0]) % 2**31


def _layer(name: str, seed: int) -> keras.layers.Layer:
    ranges = {} if name == CUT_MIX else {"value_range": VALUES}
    # In float32 even if the model computes in half precision.
    return getattr(keras.layers, LAYERS[name])(seed=seed, dtype="float32", data_format="channels_last", **ranges)
