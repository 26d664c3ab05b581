"""What a source is: folders, paths, arrays, records, or another library's data set.

Imports TensorFlow, and is imported by functions only.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bit.data import libraries, records, streams, targets
from keras_bit.data.folders import class_folders, tell
from keras_bit.data.source import Source, described, files, indexed, is_path
from keras_bit.data.splits import Subset, subset_of


def open_source(
    source: Any,
    *,
    class_names: Sequence[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    shuffle_buffer: int = 1,
    check_labels: bool = True,
    subset: Subset | None = None,
) -> Source:
    """Finds out what `source` is. See `keras_bit.image_dataset` for the arguments.

    `check_labels` raises for labels outside of the class names at once; otherwise they are left to the pipeline.
    `subset` takes a part of a directory's images.
    """
    if subset is not None and not (is_path(source) and Path(source).is_dir()):
        raise ValueError(
            "`validation_split` is for a directory with a folder per class, which `source` names, got "
            f"{described(source)}. Divide other sources before."
        )
    names = targets.checked_class_names(class_names)
    image, label = image_column or "image", label_column or "label"
    of_library = libraries.open_library(
        source,
        split=split,
        class_names=names,
        image_column=image,
        label_column=label,
        shuffle_buffer=shuffle_buffer,
        check_labels=check_labels,
    )
    if of_library is not None:
        return of_library
    if isinstance(source, Source):  # another module's own
        return source
    if isinstance(source, tf.data.Dataset):
        return streams.stream(source, names, image, label, shuffle_buffer)
    if is_path(source) and Path(source).is_dir():
        return _folders(Path(source), names, subset)
    if record_files := records.record_files(source):
        image, label = image_column or records.IMAGE, label_column or records.LABEL
        return records.records(record_files, names, image, label, shuffle_buffer, check_labels)
    if isinstance(source, tuple) and len(source) == 2:
        return _pairs(*source, names, check_labels)
    if is_path(source) and not Path(source).exists():
        raise FileNotFoundError(f"`source` must be an existing directory or TFRecord files, got {os.fspath(source)!r}.")
    raise ValueError(
        "`source` must be a directory with a folder per class, a pair (paths or arrays, labels), a tf.data.Dataset of "
        "(bytes, label), TFRecord files, a Hugging Face `datasets.Dataset` or a TensorFlow Datasets builder, got "
        f"{described(source)}."
    )


def _folders(directory: Path, class_names: tuple[str, ...] | None, subset: Subset | None) -> Source:
    found = class_folders(directory, class_names) if subset is None else subset_of(directory, class_names, subset)
    tell(directory, found)
    return files(found.paths, targets.Labels(found.labels, found.class_names))


def _pairs(images: Any, labels: Any, class_names: tuple[str, ...] | None, check_labels: bool) -> Source:
    if hasattr(images, "__array__"):
        images = np.asarray(images)
    elif isinstance(images, tuple):
        images = list(images)
    if not isinstance(images, np.ndarray | list):
        raise ValueError(
            "`source[0]` must be a list of paths or of uint8 arrays, or one uint8 array (count, height, width, "
            f"channels), got {described(images)}. A data set of (bytes, label) is passed by itself."
        )
    if not len(images):
        raise ValueError("`source[0]` must hold at least one image, got none.")
    paths = all(is_path(image) for image in images)
    arrays = not paths and all(hasattr(image, "__array__") for image in images)
    if not paths and not arrays:
        kinds = sorted({type(image).__name__ for image in images})
        raise ValueError(
            f"`source[0]` must hold paths alone or uint8 arrays alone, got {' and '.join(kinds)}. Encoded images go "
            "through `tf.data.Dataset.from_tensor_slices((images, labels))`."
        )
    found = targets.read_labels(labels, class_names, check_labels)
    if len(found.values) != len(images):
        raise ValueError(
            f"`source` must have a label for each image, got {len(images):,} images and {len(found.values):,} labels."
        )
    return files([os.fsencode(path) for path in images], found) if paths else _arrays(images, found)


def _arrays(arrays: Sequence[Any] | np.ndarray, labels: targets.Labels) -> Source:
    checked = [_checked_array(f"`source[0][{index}]`", array) for index, array in enumerate(arrays)]
    shapes = np.array([array.shape for array in checked], np.int64)
    starts = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])[:-1]
    # One after the other in one tensor, so that images of many sizes are stored as those of one size.
    pixels = tf.constant(
        arrays.reshape(-1) if isinstance(arrays, np.ndarray) else np.concatenate([a.reshape(-1) for a in checked])
    )
    channels = shapes[0, 2] if (shapes[:, 2] == shapes[0, 2]).all() else None
    starts, all_shapes = tf.constant(starts), tf.constant(shapes)

    def read(index: Any) -> Any:
        start, shape = starts[index], all_shapes[index]
        image = tf.reshape(pixels[start : start + tf.reduce_prod(shape)], shape)
        return tf.ensure_shape(image, [None, None, channels])

    sizes = {tuple(map(int, shape[:2])) for shape in shapes}
    size = sizes.pop() if len(sizes) == 1 else None
    return indexed(read, lambda index: tf.strings.format("source[0][{}]", index), labels, encoded=False, size=size)


def _checked_array(name: str, array: Any) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or not array.size:
        raise ValueError(
            f"{name} must be uint8 (height, width, channels) in [0, 255] with 1, 3 or 4 channels, got {array.dtype} "
            f"{array.shape}. Scale images of other types first, and add a channel axis to gray ones."
        )
    return array
