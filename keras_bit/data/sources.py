"""Where the images of a data set come from: folders, paths, arrays, records, and other libraries' data sets.

Imports TensorFlow, and is imported by functions only.
"""

import dataclasses
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bit.data import streams, targets
from keras_bit.data.source import Example, Source, indexed

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")  # Keras' list, and what TensorFlow decodes beside it
# image.tfrecord, .tfrecords, .tfrec, .tfrecord.gz, train-00000-of-01024, cifar10-train.tfrecord-00000-of-00001
RECORDS = re.compile(r"(\.tfrec(ords?)?[\d*?\[\]-]*|-of-[\d*?\[\]-]+)(\.gz)?$")


def open_source(
    source: Any,
    *,
    class_names: Sequence[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    shuffle_buffer: int = 1,
    check_labels: bool = True,
) -> Source:
    """Finds out what `source` is. See `keras_bit.image_dataset` for the arguments.

    `check_labels` raises for labels outside of the class names at once; otherwise they are left to the pipeline.
    """
    names = targets.checked_class_names(class_names)
    hugging_face, tensorflow_datasets = sys.modules.get("datasets"), sys.modules.get("tensorflow_datasets")
    splits = None
    if hugging_face and isinstance(source, hugging_face.DatasetDict):
        splits = sorted(source)
    elif tensorflow_datasets and isinstance(source, tensorflow_datasets.core.DatasetBuilder):
        splits = sorted(source.info.splits)
    if splits is None and split is not None:
        raise ValueError(f"`split` is for sources that have several, got {split!r} for {_described(source)}.")
    # TensorFlow Datasets has a language for parts of splits, as "train[:10%]", and its own errors.
    if splits is not None and (split is None or (isinstance(source, dict) and split not in splits)):
        raise ValueError(
            f"`split` must be one of {', '.join(map(repr, splits)) or 'none: it is empty'}, got {split!r}."
        )

    if isinstance(source, Source):  # another module's own
        return source
    if isinstance(source, tf.data.Dataset):
        return streams.stream(source, names, image_column or "image", label_column or "label", shuffle_buffer)
    if hugging_face and isinstance(source, hugging_face.DatasetDict):
        return _hugging_face(source[split], names, image_column or "image", label_column or "label", check_labels)
    if hugging_face and isinstance(source, hugging_face.Dataset):
        return _hugging_face(source, names, image_column or "image", label_column or "label", check_labels)
    if splits is not None:
        return _tensorflow_datasets(
            source, split, names, image_column or "image", label_column or "label", shuffle_buffer
        )
    if _is_path(source) and Path(source).is_dir():
        return _folders(Path(source), names)
    if files := record_files(source):
        return streams.records(
            files,
            names,
            image_column or "image/encoded",
            label_column or "image/class/label",
            shuffle_buffer,
            check_labels,
        )
    if isinstance(source, tuple) and len(source) == 2:
        return _pairs(*source, names, check_labels)
    if hugging_face and isinstance(source, hugging_face.IterableDataset | hugging_face.IterableDatasetDict):
        raise ValueError(
            "`source` must be a Hugging Face data set that is not streamed, which can be read in any order, got "
            f"{_described(source)}. Load it without streaming=True, or pass a tf.data.Dataset of (bytes, label)."
        )
    if _is_path(source) and not Path(source).exists():
        raise FileNotFoundError(f"`source` must be an existing directory or TFRecord files, got {os.fspath(source)!r}.")
    raise ValueError(
        "`source` must be a directory with a folder per class, a pair (paths or arrays, labels), a tf.data.Dataset of "
        "(bytes, label), TFRecord files, a Hugging Face `datasets.Dataset` or a TensorFlow Datasets builder, got "
        f"{_described(source)}."
    )


def _described(source: Any) -> str:
    return repr(os.fspath(source)) if _is_path(source) else f"{type(source).__module__}.{type(source).__name__}"


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _folders(directory: Path, class_names: tuple[str, ...] | None) -> Source:
    paths, labels = class_folders(directory, class_names)
    return _files(paths, labels)


def class_folders(directory: Path, class_names: tuple[str, ...] | None = None) -> tuple[list[bytes], targets.Labels]:
    """The paths of the images in a directory with a folder per class, and their labels."""
    folders = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise ValueError(
            f"`source` must hold a folder per class. {str(directory)!r} has none; put the images in some. TFRecord "
            "files are passed by their names or by a pattern, such as 'records/*.tfrecord'."
        )
    names = tuple(folders) if class_names is None else class_names
    missing = sorted(set(names) - set(folders))
    if missing:
        raise ValueError(
            f"`class_names` must name folders in {str(directory)!r}. There is none for "
            f"{', '.join(map(repr, missing))}; there are "
            f"{', '.join(map(repr, folders[:20]))}{', ...' * (len(folders) > 20)}."
        )
    paths, labels = scan(directory, names)
    if not paths:
        raise ValueError(f"No folder in {str(directory)!r} holds an image ({', '.join(SUFFIXES)}).")
    empty = [name for name, count in zip(names, np.bincount(labels, minlength=len(names)), strict=True) if not count]
    if empty:
        warnings.warn(
            f"These folders in {str(directory)!r} hold no image and remain classes: {', '.join(empty)}.", stacklevel=4
        )
    if len(names) == 1:
        warnings.warn(f"{str(directory)!r} has one class, {names[0]!r}: there is nothing to tell apart.", stacklevel=4)
    return paths, targets.Labels(np.array(labels, np.int32), names)


def scan(directory: Path, names: Sequence[str]) -> tuple[list[bytes], list[int]]:
    from tqdm import tqdm

    paths, labels = [], []
    with tqdm(desc=f"scan {directory}", unit="picture", delay=2, leave=False) as progress:
        for label, name in enumerate(names):
            found = []
            for picture in _pictures_below(directory / name):
                found.append(picture)
                progress.update()
            # The order of Keras' `image_dataset_from_directory`. A name may hold bytes that are no UTF-8.
            paths += [os.fsencode(os.path.join(*picture)) for picture in sorted(found)]
            labels += [label] * len(found)
    return paths, labels


def _pictures_below(folder: Path) -> Iterator[tuple[str, str]]:
    """Folder and name of each image, as the disk gives them; what begins with a dot is hidden."""
    waiting = [os.fspath(folder)]
    while waiting:
        root = waiting.pop()
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if not entry.is_symlink():  # it may lead in a circle
                        waiting.append(entry.path)
                elif entry.name.lower().endswith(SUFFIXES):
                    yield root, entry.name


def _pairs(pictures: Any, labels: Any, class_names: tuple[str, ...] | None, check_labels: bool) -> Source:
    if hasattr(pictures, "__array__"):
        pictures = np.asarray(pictures)
    elif isinstance(pictures, tuple):
        pictures = list(pictures)
    if not isinstance(pictures, np.ndarray | list):
        raise ValueError(
            "`source[0]` must be a list of paths or of uint8 arrays, or one uint8 array (count, height, width, "
            f"channels), got {_described(pictures)}. A data set of (bytes, label) is passed by itself."
        )
    if not len(pictures):
        raise ValueError("`source[0]` must hold at least one image, got none.")
    paths = all(_is_path(picture) for picture in pictures)
    arrays = not paths and all(hasattr(picture, "__array__") for picture in pictures)
    if not paths and not arrays:
        kinds = sorted({type(picture).__name__ for picture in pictures})
        raise ValueError(
            f"`source[0]` must hold paths alone or uint8 arrays alone, got {' and '.join(kinds)}. Encoded images go "
            "through `tf.data.Dataset.from_tensor_slices((images, labels))`."
        )
    found = targets.read_labels(labels, class_names, check_labels)
    if len(found.values) != len(pictures):
        raise ValueError(
            f"`source` must have a label for each image, got {len(pictures):,} images and {len(found.values):,} labels."
        )
    return _files([os.fsencode(path) for path in pictures], found) if paths else _arrays(pictures, found)


def _files(paths: Sequence[bytes], labels: targets.Labels, names: Sequence[bytes] | None = None) -> Source:
    stored = tf.constant(paths)
    shown = stored if names is None else tf.constant(names)

    def name(index: Any) -> Any:
        return shown[index]

    return indexed(lambda index: tf.io.read_file(stored[index]), name, labels)


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
        picture = tf.reshape(pixels[start : start + tf.reduce_prod(shape)], shape)
        return tf.ensure_shape(picture, [None, None, channels])

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


def record_files(source: Any) -> list[str]:
    """The TFRecord files that `source` names, one by one or by a pattern; empty where it names others."""
    paths = [source] if _is_path(source) else source
    if not isinstance(paths, list | tuple) or not paths or not all(map(_is_path, paths)):
        return []
    names = [os.fspath(path) for path in paths]
    if not all(isinstance(name, str) and RECORDS.search(os.path.basename(name)) for name in names):
        return []
    # A name that exists is no pattern, whatever brackets it has.
    found = [[name] if tf.io.gfile.exists(name) else sorted(tf.io.gfile.glob(name)) for name in names]
    missing = [name for name, files in zip(names, found, strict=True) if not files]
    if missing:
        raise FileNotFoundError(f"`source` names TFRecord files that do not exist: {', '.join(map(repr, missing))}.")
    return [file for files in found for file in files]


def _hugging_face(
    data: Any, class_names: tuple[str, ...] | None, image_column: str, label_column: str, check_labels: bool
) -> Source:
    missing = [name for name in (image_column, label_column) if name not in data.features]
    if missing:
        raise ValueError(
            f"`source` has no column {' and no '.join(map(repr, missing))} among "
            f"{', '.join(map(repr, data.column_names))}. Pass `image_column` and `label_column`."
        )
    if not len(data):
        raise ValueError("`source` must hold at least one image, got an empty data set.")
    column = data.select_columns([label_column]).with_format(None)[:][label_column]
    unlabeled = np.array([label is None for label in column])
    if unlabeled.any():
        _refuse_unlabeled(unlabeled, check_labels)
        # The others' kind, for the time until the row's turn.
        some = column[int(np.argmin(unlabeled))]
        column = [some if label is None else label for label in column]
    opened = _hugging_face_rows(data, column, class_names, image_column, label_column, check_labels)
    return _without_labels(opened, unlabeled) if unlabeled.any() else opened


def _refuse_unlabeled(unlabeled: np.ndarray, check_labels: bool) -> None:
    rows = np.flatnonzero(unlabeled)
    if check_labels or len(rows) == len(unlabeled):
        shown = ", ".join(f"row {row}" for row in rows[: targets.SHOWN])
        raise ValueError(
            f"`source` must have a label in every row, got none in {shown}{', ...' * (len(rows) > targets.SHOWN)} "
            f"({len(rows):,} of {len(unlabeled):,}). Fill them in, or pass on_error='skip' to leave such rows out."
        )


def _without_labels(rows: Source, unlabeled: np.ndarray) -> Source:
    """The same; where a row is `unlabeled`, that is its problem."""
    missing = tf.constant(unlabeled)

    def with_problem(read: Any) -> Any:
        return lambda index: read(index)._replace(problem=tf.where(missing[index], "has no label.", ""))

    return dataclasses.replace(rows, open=with_problem(rows.open), look=rows.look and with_problem(rows.look))


def _hugging_face_rows(
    data: Any,
    column: list[Any],
    class_names: tuple[str, ...] | None,
    image_column: str,
    label_column: str,
    check_labels: bool,
) -> Source:
    """The same, with the labels in `column`, one for each row."""
    import datasets

    stored = data.features[label_column]
    if isinstance(stored, datasets.ClassLabel):
        labels = targets.read_renamed(column, tuple(stored.names), class_names, check_labels)
    else:
        labels = targets.read_labels(column, class_names, check_labels)

    pictures = data.select_columns([image_column]).with_format(None)
    feature = data.features[image_column]
    if isinstance(feature, datasets.Image):
        pictures = pictures.cast_column(image_column, datasets.Image(decode=False))  # its bytes, not a Pillow image
    elif feature in (datasets.Value("string"), datasets.Value("large_string")):
        paths = [os.fsencode(path or "") for path in pictures[:][image_column]]
        names = [path or b"row %d of `source`, which has no path," % row for row, path in enumerate(paths)]
        return _files(paths, labels, names)
    elif feature not in (datasets.Value("binary"), datasets.Value("large_binary")):
        raise ValueError(
            f"`image_column` must be a column of `datasets.Image`, bytes or paths, got {image_column!r} of {feature}."
        )

    def contents(index: np.ndarray) -> np.ndarray:
        value = pictures[int(index)][image_column]
        if isinstance(value, dict):
            value = Path(value["path"]).read_bytes() if value["bytes"] is None and value["path"] else value["bytes"]
        return np.array(value or b"", object)  # numpy's own byte strings lose zeros at the end

    def read(index: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(contents, [index], tf.string, stateful=False), [])

    def full_name(index: np.ndarray) -> np.ndarray:
        value = pictures[int(index)][image_column]
        path = value["path"] if isinstance(value, dict) else None
        return np.array(b"row %d of `source`" % index + (b", %s," % os.fsencode(path) if path else b""), object)

    rows = indexed(read, lambda index: tf.strings.format("row {} of `source`", index), labels)

    def look(index: Any) -> Example:
        name = tf.numpy_function(full_name, [index], tf.string, stateful=False)
        return rows.open(index)._replace(name=tf.ensure_shape(name, []))

    return dataclasses.replace(rows, look=look)


def _tensorflow_datasets(
    builder: Any,
    split: str,
    class_names: tuple[str, ...] | None,
    image_column: str,
    label_column: str,
    shuffle_buffer: int,
) -> Source:
    import tensorflow_datasets as tfds

    features = builder.info.features
    if image_column not in features or label_column not in features:
        raise ValueError(
            f"`source` has no column {image_column!r} or {label_column!r} among {', '.join(map(repr, features))}. Pass "
            "`image_column` and `label_column`."
        )
    # Undecoded: its decoder's pixels are not Pillow's.
    data = builder.as_dataset(split=split, decoders={image_column: tfds.decode.SkipDecoding()})
    names = getattr(features[label_column], "names", None)
    opened = streams.stream(data, None, image_column, label_column, shuffle_buffer)
    if names is None:
        return dataclasses.replace(opened, class_names=class_names)
    return _with_names(opened, tuple(names), class_names)


def _with_names(stream: Source, names: tuple[str, ...], wanted: tuple[str, ...] | None) -> Source:
    """The same images, their labels renumbered in the order of `wanted`; those of other classes become -1."""
    numbers = tf.constant(targets.renumbered(names, wanted))

    def open_example(element: Any) -> Example:
        example = stream.open(element)
        # Unlabelled images have -1 there.
        inside = (example.label >= 0) & (example.label < len(names))
        label = tf.where(inside, numbers[tf.clip_by_value(example.label, 0, len(names) - 1)], -1)
        return example._replace(label=label)

    return dataclasses.replace(stream, open=open_example, class_names=wanted or names)
