"""Other libraries' data sets as sources: Hugging Face `datasets` and TensorFlow Datasets.

Neither is imported before somebody has passed a data set of it. Imports TensorFlow, and is imported by functions only.
"""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bit.data import streams, targets
from keras_bit.data.source import Example, Source, described, files, indexed
from keras_bit.files import some


def open_library(
    source: Any,
    *,
    split: str | None,
    class_names: tuple[str, ...] | None,
    image_column: str,
    label_column: str,
    shuffle_buffer: int,
    check_labels: bool,
) -> Source | None:
    """The source, or `None` for one that is not of these libraries. See `sources.open_source`."""
    hugging_face = sys.modules.get("datasets")
    split = _checked_split(source, split)
    if hugging_face and isinstance(source, hugging_face.DatasetDict):
        source = source[split]
    if hugging_face and isinstance(source, hugging_face.Dataset):
        return _hugging_face(source, class_names, image_column, label_column, check_labels)
    if hugging_face and isinstance(source, hugging_face.IterableDataset | hugging_face.IterableDatasetDict):
        raise ValueError(
            "`source` must be a Hugging Face data set that is not streamed, which can be read in any order, got "
            f"{described(source)}. Load it without streaming=True, or pass a tf.data.Dataset of (bytes, label)."
        )
    if split is not None:
        return _tensorflow_datasets(source, split, class_names, image_column, label_column, shuffle_buffer)
    return None


def _checked_split(source: Any, split: str | None) -> str | None:
    """`split`, which is given if the source has several, and only then."""
    hugging_face, tensorflow_datasets = sys.modules.get("datasets"), sys.modules.get("tensorflow_datasets")
    if hugging_face and isinstance(source, hugging_face.DatasetDict):
        splits, fits = sorted(source), split in source
    elif tensorflow_datasets and isinstance(source, tensorflow_datasets.core.DatasetBuilder):
        # It has a language for parts of splits, as "train[:10%]", and its own errors.
        splits, fits = sorted(source.info.splits), split is not None
    elif split is not None:
        raise ValueError(f"`split` is for sources that have several, got {split!r} for {described(source)}.")
    else:
        return None
    if not fits:
        raise ValueError(
            f"`split` must be one of {', '.join(map(repr, splits)) or 'none: it is empty'}, got {split!r}."
        )
    return split


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
        other = column[int(np.argmin(unlabeled))]
        column = [other if label is None else label for label in column]
    opened = _hugging_face_rows(data, column, class_names, image_column, label_column, check_labels)
    return _without_labels(opened, unlabeled) if unlabeled.any() else opened


def _refuse_unlabeled(unlabeled: np.ndarray, check_labels: bool) -> None:
    rows = np.flatnonzero(unlabeled)
    if check_labels or len(rows) == len(unlabeled):
        shown = some((f"row {row}" for row in rows), targets.SHOWN)
        raise ValueError(
            f"`source` must have a label in every row, got none in {shown} ({len(rows):,} of "
            f"{len(unlabeled):,}). Fill them in, or pass on_error='skip' to leave such rows out."
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

    labels = _read_labels(column, data.features[label_column], class_names, check_labels)
    feature = data.features[image_column]
    images = data.select_columns([image_column]).with_format(None)
    if isinstance(feature, datasets.Image):
        images = images.cast_column(image_column, datasets.Image(decode=False))  # its bytes, not a Pillow image
        return _rows_of_bytes(lambda row: images[row][image_column], labels)
    if feature in (datasets.Value("string"), datasets.Value("large_string")):
        paths = [os.fsencode(path or "") for path in images[:][image_column]]
        names = [path or b"row %d of `source`, which has no path," % row for row, path in enumerate(paths)]
        return files(paths, labels, names)
    if feature in (datasets.Value("binary"), datasets.Value("large_binary")):
        return _rows_of_bytes(lambda row: {"bytes": images[row][image_column], "path": None}, labels)
    raise ValueError(
        f"`image_column` must be a column of `datasets.Image`, bytes or paths, got {image_column!r} of {feature}."
    )


def _read_labels(
    column: list[Any], feature: Any, class_names: tuple[str, ...] | None, check_labels: bool
) -> targets.Labels:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return targets.read_renamed(column, tuple(feature.names), class_names, check_labels)
    return targets.read_labels(column, class_names, check_labels)


def _rows_of_bytes(value: Callable[[int], dict[str, Any] | None], labels: targets.Labels) -> Source:
    """Rows that Python reads.

    Args:
        value: from a row's number to `bytes` and `path`, either of which may be `None`; `None` where there is no image.
    """

    def contents(index: np.ndarray) -> np.ndarray:
        found = value(int(index)) or {"bytes": None, "path": None}
        if found["bytes"] is None and found["path"]:
            return np.array(Path(found["path"]).read_bytes(), object)
        return np.array(found["bytes"] or b"", object)  # numpy's own byte strings lose zeros at the end

    def read(index: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(contents, [index], tf.string, stateful=False), [])

    def full_name(index: np.ndarray) -> np.ndarray:
        path = (value(int(index)) or {"path": None})["path"]
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
        # Unlabeled images have -1 there.
        inside = (example.label >= 0) & (example.label < len(names))
        label = tf.where(inside, numbers[tf.clip_by_value(example.label, 0, len(names) - 1)], -1)
        return example._replace(label=label)

    return dataclasses.replace(stream, open=open_example, class_names=wanted or names)
