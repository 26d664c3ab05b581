"""Where the pictures of a data set come from: folders, paths, arrays, records, and other libraries' data sets.

Imports TensorFlow, and is imported by functions only.
"""

import dataclasses
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_bit import targets

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")  # Keras' list, and what TensorFlow decodes beside it
# picture.tfrecord, picture.tfrecords, train-00000-of-01024, cifar10-train.tfrecord-00000-of-00001
RECORDS = re.compile(r"\.tfrecords?[\d*?\[\]-]*$|-of-[\d*?\[\]-]+$")
INTERLEAVED = 16  # record files that are read at a time in training


class Example(NamedTuple):
    """One picture before it is read."""

    name: Any  # scalar string: what an error calls it
    label: Any  # int32 scalar or float32 row
    load: Callable[[], Any]  # the encoded bytes, or uint8 (height, width, channels)
    problem: Any = ""  # scalar string: why the source could not give it


@dataclasses.dataclass(frozen=True)
class Source:
    """Pictures with labels.

    Args:
        elements: the data set in the source's order; of numbers, where pictures can be read in any order.
        open: from an element to its `Example`, in the graph.
        shuffled: from a seed to the elements in an order that is new in every epoch.
        class_names: what the labels are called, or `None` where the source does not tell.
        count: how many elements there are, below 0 where that is not known.
        encoded: whether the pictures are bytes of files, not pixels.
        size: (height, width) of every picture, where the source knows.
    """

    elements: tf.data.Dataset
    open: Callable[[Any], Example]
    shuffled: Callable[[int | None], tf.data.Dataset]
    class_names: tuple[str, ...] | None
    count: int
    encoded: bool = True
    size: tuple[int, int] | None = None


def open_source(
    source: Any,
    *,
    class_names: Sequence[str] | None,
    image_column: str | None,
    label_column: str | None,
    split: str | None,
    shuffle_buffer: int,
    check_labels: bool,
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

    if isinstance(source, tf.data.Dataset):
        return _stream(source, names, image_column or "image", label_column or "label", shuffle_buffer)
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
    if files := _record_files(source):
        return _records(
            files, names, image_column or "image/encoded", label_column or "image/class/label", shuffle_buffer
        )
    if isinstance(source, tuple) and len(source) == 2:
        return _pairs(*source, names, check_labels)
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


def _indexed(
    images: Callable[[Any], Any], image_names: Callable[[Any], Any], labels: targets.Labels, **known: Any
) -> Source:
    """Pictures that are read by their number, so that only numbers are shuffled."""
    values = tf.constant(labels.values)
    count = len(labels.values)

    def open_example(index: Any) -> Example:
        return Example(image_names(index), values[index], lambda: images(index))

    elements = tf.data.Dataset.range(count)
    return Source(
        elements, open_example, lambda seed: elements.shuffle(count, seed=seed), labels.class_names, count, **known
    )


def _folders(directory: Path, class_names: tuple[str, ...] | None) -> Source:
    folders = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise ValueError(
            f"`source` must hold a folder per class. {str(directory)!r} has none; put the pictures in some."
        )
    names = tuple(folders) if class_names is None else class_names
    missing = sorted(set(names) - set(folders))
    if missing:
        raise ValueError(
            f"`class_names` must name folders in {str(directory)!r}. There is none for "
            f"{', '.join(map(repr, missing))}; there are "
            f"{', '.join(map(repr, folders[:20]))}{', ...' * (len(folders) > 20)}."
        )
    paths, labels = _scan(directory, names)
    if not paths:
        raise ValueError(f"No folder in {str(directory)!r} holds a picture ({', '.join(SUFFIXES)}).")
    empty = [name for name, count in zip(names, np.bincount(labels, minlength=len(names)), strict=True) if not count]
    if empty:
        warnings.warn(
            f"These folders in {str(directory)!r} hold no picture and remain classes: {', '.join(empty)}.", stacklevel=4
        )
    if len(names) == 1:
        warnings.warn(f"{str(directory)!r} has one class, {names[0]!r}: there is nothing to tell apart.", stacklevel=4)
    return _files(paths, targets.Labels(np.array(labels, np.int32), names))


def _scan(directory: Path, names: Sequence[str]) -> tuple[list[bytes], list[int]]:
    from tqdm import tqdm

    paths, labels = [], []
    with tqdm(desc=f"scan {directory}", unit="picture", delay=2, leave=False) as progress:
        for label, name in enumerate(names):
            for path in _pictures_below(directory / name):
                paths.append(os.fsencode(path))  # a name may hold bytes that are no UTF-8
                labels.append(label)
                progress.update()
    return paths, labels


def _pictures_below(folder: Path) -> Iterator[str]:
    """In the order of Keras' `image_dataset_from_directory`; what begins with a dot is hidden."""
    for root, folders, files in sorted(os.walk(folder), key=lambda found: found[0]):
        if any(part.startswith(".") for part in Path(root).relative_to(folder).parts):
            continue
        del folders
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(root, name)


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
        raise ValueError("`source[0]` must hold at least one picture, got none.")
    paths = all(_is_path(picture) for picture in pictures)
    arrays = not paths and all(hasattr(picture, "__array__") for picture in pictures)
    if not paths and not arrays:
        kinds = sorted({type(picture).__name__ for picture in pictures})
        raise ValueError(
            f"`source[0]` must hold paths alone or uint8 arrays alone, got {' and '.join(kinds)}. Encoded pictures go "
            "through `tf.data.Dataset.from_tensor_slices((pictures, labels))`."
        )
    found = targets.read_labels(labels, class_names, check_labels)
    if len(found.values) != len(pictures):
        raise ValueError(
            f"`source` must have a label for each picture, got {len(pictures):,} pictures and {len(found.values):,} "
            "labels."
        )
    return _files([os.fsencode(path) for path in pictures], found) if paths else _arrays(pictures, found)


def _files(paths: Sequence[bytes], labels: targets.Labels) -> Source:
    stored = tf.constant(paths)

    def name(index: Any) -> Any:
        return stored[index]

    return _indexed(lambda index: tf.io.read_file(name(index)), name, labels)


def _arrays(arrays: Sequence[Any] | np.ndarray, labels: targets.Labels) -> Source:
    checked = [_checked_array(f"`source[0][{index}]`", array) for index, array in enumerate(arrays)]
    shapes = np.array([array.shape for array in checked], np.int64)
    starts = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])[:-1]
    # One after the other in one tensor, so that pictures of many sizes are stored as those of one size.
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
    return _indexed(read, lambda index: tf.strings.format("source[0][{}]", index), labels, encoded=False, size=size)


def _checked_array(name: str, array: Any) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or not array.size:
        raise ValueError(
            f"{name} must be uint8 (height, width, channels) in [0, 255] with 1, 3 or 4 channels, got {array.dtype} "
            f"{array.shape}. Scale pictures of other types first, and add a channel axis to grey ones."
        )
    return array


def _stream(
    data: tf.data.Dataset,
    class_names: tuple[str, ...] | None,
    image_column: str,
    label_column: str,
    shuffle_buffer: int,
) -> Source:
    spec = data.element_spec
    if isinstance(spec, dict):
        missing = [name for name in (image_column, label_column) if name not in spec]
        if missing:
            raise ValueError(
                f"`source` has no {' and no '.join(map(repr, missing))} among {', '.join(map(repr, sorted(spec)))}. "
                "Pass `image_column` and `label_column`."
            )
        spec = (spec[image_column], spec[label_column])
        pairs = data.map(lambda columns: (columns[image_column], columns[label_column]), tf.data.AUTOTUNE)
    else:
        pairs = data
    if not isinstance(spec, tuple) or len(spec) != 2 or not all(isinstance(part, tf.TensorSpec) for part in spec):
        raise ValueError(
            "`source` must give (bytes, label), or dictionaries with an image and a label column, got elements of "
            f"{data.element_spec}."
        )
    image, label = spec
    encoded = image.dtype == tf.string and image.shape.rank in (0, None)
    if not encoded and not (image.dtype == tf.uint8 and image.shape.rank == 3):
        raise ValueError(
            "`source` must give one picture at a time, encoded (a scalar string) or uint8 (height, width, channels), "
            f"got {image.dtype.name} {image.shape}. Undo a batch with `unbatch()`."
        )
    rows = label.dtype.is_floating or (label.shape.rank == 1)
    if label.shape.rank != int(rows) or not (label.dtype.is_integer or label.dtype.is_floating or label.dtype.is_bool):
        raise ValueError(
            "`source` must give labels that are whole numbers, or rows of numbers with one per class, got "
            f"{label.dtype.name} {label.shape}. Look names up first."
        )
    if rows:
        if label.shape[0] is None:
            raise ValueError(
                "`source` must give label rows of a known length; set it with `tf.ensure_shape` in a `map`."
            )
        class_names = targets.names_for(label.shape[0], class_names)

    def serialized(image: Any, label: Any) -> tuple[Any, Any]:
        return image if encoded else tf.io.serialize_tensor(image), label

    def open_example(element: tuple[Any, Any, tuple[Any, Any]]) -> Example:
        number, failed, (contents, label) = element
        name = tf.strings.format("element {} of `source`", number)

        def load() -> Any:
            return contents if encoded else tf.ensure_shape(tf.io.parse_tensor(contents, tf.uint8), image.shape)

        problem = tf.where(failed, "cannot be had: `source` fails there by itself. Iterate over it to see why.", "")
        return Example(name, tf.cast(label, tf.float32 if rows else tf.int32), load, problem)

    # Pixels as one string: pictures of several sizes make no batch.
    elements = _numbered(pairs.map(serialized, tf.data.AUTOTUNE))
    count = int(data.cardinality())

    def shuffled(seed: int | None) -> tf.data.Dataset:
        return elements.shuffle(shuffle_buffer, seed=seed)

    return Source(elements, open_example, shuffled, class_names, count, encoded)


def _numbered(data: tf.data.Dataset) -> tf.data.Dataset:
    """(number, failed, element) of each element; the one after an element that `data` fails to give has `failed`.

    Further on, pictures that cannot be read are left out and missed, and errors of the source would be left out with
    them, unseen.
    """
    spec = data.element_spec
    end = tf.nest.map_structure(lambda part: tf.zeros([size or 0 for size in part.shape], part.dtype), spec)
    ends = tf.data.Dataset.from_tensors((end, True))
    # A number is used up by an element that fails.
    numbered = data.map(lambda *element: (element if len(element) > 1 else element[0], False)).concatenate(ends)

    def look(expected: Any, numbered: tuple[Any, tuple[Any, Any]]) -> Any:
        number, (element, is_end) = numbered
        failed = number > expected
        return number + 1, (expected, failed, element, failed | ~is_end)

    checked = numbered.enumerate().ignore_errors().scan(tf.constant(0, tf.int64), look)
    kept = checked.filter(lambda number, failed, element, keep: keep)
    return kept.map(lambda number, failed, element, keep: (number, failed, element))


def _record_files(source: Any) -> list[str]:
    """The TFRecord files that `source` names, one by one or by a pattern; empty where it names others."""
    paths = [source] if _is_path(source) else source
    if not isinstance(paths, list | tuple) or not paths or not all(map(_is_path, paths)):
        return []
    names = [os.fspath(path) for path in paths]
    if not all(isinstance(name, str) and RECORDS.search(os.path.basename(name)) for name in names):
        return []
    found = [sorted(tf.io.gfile.glob(name)) for name in names]
    missing = [name for name, files in zip(names, found, strict=True) if not files]
    if missing:
        raise FileNotFoundError(f"`source` names TFRecord files that do not exist: {', '.join(map(repr, missing))}.")
    return [file for files in found for file in files]


def _records(
    files: list[str], class_names: tuple[str, ...] | None, image_column: str, label_column: str, shuffle_buffer: int
) -> Source:
    features = {image_column: tf.io.FixedLenFeature([], tf.string), label_column: tf.io.FixedLenFeature([], tf.int64)}

    example = tf.train.Example()
    example.features.feature[image_column].bytes_list.value.append(b"")
    example.features.feature[label_column].int64_list.value.append(0)
    nothing = example.SerializeToString()

    def read(file: Any) -> tf.data.Dataset:
        return _numbered(tf.data.TFRecordDataset(file)).map(lambda *numbered: (file, *numbered))

    def open_example(element: tuple[Any, Any, Any, Any]) -> Example:
        file, number, failed, record = element
        # An example that nobody looks at, where there is no record.
        record = tf.where(failed, nothing, record)
        parsed = tf.io.parse_single_example(record, features)
        name = tf.strings.format("record {} of ", number) + file
        problem = tf.where(failed, "cannot be had: the file is damaged there or cut off.", "")
        return Example(name, tf.cast(parsed[label_column], tf.int32), lambda: parsed[image_column], problem)

    def shuffled(seed: int | None) -> tf.data.Dataset:
        order = names.shuffle(len(files), seed=seed)
        # In the order of the files, whichever is read first: the same in every run.
        records = order.interleave(
            read, cycle_length=INTERLEAVED, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return records.shuffle(shuffle_buffer, seed=seed)

    names = tf.data.Dataset.from_tensor_slices(files)
    return Source(names.flat_map(read), open_example, shuffled, class_names, count=-1)


def _hugging_face(
    data: Any, class_names: tuple[str, ...] | None, image_column: str, label_column: str, check_labels: bool
) -> Source:
    import datasets

    missing = [name for name in (image_column, label_column) if name not in data.features]
    if missing:
        raise ValueError(
            f"`source` has no column {' and no '.join(map(repr, missing))} among "
            f"{', '.join(map(repr, data.column_names))}. Pass `image_column` and `label_column`."
        )
    if not len(data):
        raise ValueError("`source` must hold at least one picture, got an empty data set.")
    stored = data.features[label_column]
    column = data.select_columns([label_column]).with_format(None)[:][label_column]
    if isinstance(stored, datasets.ClassLabel):
        labels = targets.read_renamed(column, tuple(stored.names), class_names, check_labels)
    else:
        labels = targets.read_labels(column, class_names, check_labels)

    pictures = data.select_columns([image_column]).with_format(None)
    feature = data.features[image_column]
    if isinstance(feature, datasets.Image):
        pictures = pictures.cast_column(image_column, datasets.Image(decode=False))  # its bytes, not a Pillow image
    elif feature == datasets.Value("string"):
        return _files([os.fsencode(path) for path in pictures[:][image_column]], labels)
    elif feature != datasets.Value("binary"):
        raise ValueError(
            f"`image_column` must be a column of `datasets.Image`, bytes or paths, got {image_column!r} of {feature}."
        )

    def contents(index: np.ndarray) -> np.ndarray:
        value = pictures[int(index)][image_column]
        if isinstance(value, dict):
            value = value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()
        return np.array(value, object)  # numpy's own byte strings lose zeros at the end

    def read(index: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(contents, [index], tf.string, stateful=False), [])

    return _indexed(read, lambda index: tf.strings.format("row {} of `source`", index), labels)


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
    stream = _stream(data, None, image_column, label_column, shuffle_buffer)
    if names is None:
        return dataclasses.replace(stream, class_names=class_names)
    return _with_names(stream, tuple(names), class_names)


def _with_names(stream: Source, names: tuple[str, ...], wanted: tuple[str, ...] | None) -> Source:
    """The same pictures, their labels renumbered in the order of `wanted`; those of other classes become -1."""
    numbers = tf.constant(targets.renumbered(names, wanted))

    def open_example(element: Any) -> Example:
        example = stream.open(element)
        # Unlabelled pictures have -1 there.
        inside = (example.label >= 0) & (example.label < len(names))
        label = tf.where(inside, numbers[tf.clip_by_value(example.label, 0, len(names) - 1)], -1)
        return example._replace(label=label)

    return dataclasses.replace(stream, open=open_example, class_names=wanted or names)
