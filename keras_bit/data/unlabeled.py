"""Images without labels as a source: a student learns them only from the answers of its teacher.

Without TensorFlow.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_bit.data import targets
from keras_bit.data.folders import images_in
from keras_bit.data.items import described, is_path
from keras_bit.images.array_likes import sequence_of

NAMES = ("0",)  # every image has this class, and no batch has labels


def source_of(source: Any, class_names: Sequence[str] | None, sampling: str | None) -> tuple[Any, targets.Labels]:
    """Returns a pair (images, labels) for images without labels, as `image_dataset` takes it.

    Args:
        source: a directory of images at any depth; a list of paths, of which those of directories stand for the images
            in them; uint8 arrays.
        class_names, sampling: values of `image_dataset` and of its recipe, which are for labels.

    Raises:
        ValueError: it is another thing, a directory without images, or has labels.
    """
    for name, value in (("class_names", class_names), ("sampling", sampling)):
        if value is not None:
            raise ValueError(
                f"`{name}` must be None with label_mode='unlabeled', got {value!r}: these images have no classes."
            )
    several = sequence_of(source)
    if is_path(source):
        if not os.path.exists(source):
            raise FileNotFoundError(f"`source` must be an existing directory of images, got {described(source)}.")
        images: Any = [source]
    elif several is not None and not isinstance(source, tuple):
        images = list(several)
    elif isinstance(source, np.ndarray):
        images = source
    else:
        raise ValueError(
            "`source` must be a directory, a list of paths or of uint8 arrays, or one uint8 array (count, height, "
            f"width, channels) with label_mode='unlabeled', got {described(source)}. Pass the images without labels."
        )
    if isinstance(images, list) and all(map(is_path, images)):
        images = [path for one in images for path in _paths(one)]
    return images, targets.Labels(np.zeros(len(images), np.int32), NAMES)


def _paths(path: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
    return [*images_in(path)] if os.path.isdir(path) else [path]
