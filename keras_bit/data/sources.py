"""Recognizes a source: folders, paths, arrays, records, or another library's data set."""

import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from keras_bit.data import csv_rows, label_table, libraries, targets
from keras_bit.data.folders import class_folders, tell
from keras_bit.data.items import Arrays, Files, Item, Items, described, is_path
from keras_bit.data.label_table import TableOptions
from keras_bit.data.record_names import record_names
from keras_bit.data.split_names import part_of
from keras_bit.data.splits import Subset, subset_of
from keras_bit.data.walk import DirectoryWarning
from keras_bit.images import base64_text
from keras_bit.images.array_likes import as_array, sequence_of
from keras_bit.packages import has_tensorflow, require_tensorflow

if TYPE_CHECKING:
    from keras_bit.data.source import Source


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
    table: TableOptions | None = None,
) -> "Source":
    """Recognizes `source`, for `tf.data`. See `keras_bit.image_dataset` for the arguments.

    `check_labels` raises for labels outside of the class names at once; otherwise they are left to the pipeline.
    `subset` takes a part of a directory's images. `table` says how a CSV file is read.
    """
    import tensorflow as tf

    from keras_bit.data import builders, records, streams
    from keras_bit.data.source import indexed

    _check_subset(source, subset)
    _check_table(source, table)
    names = targets.checked_class_names(class_names)
    image, label = image_column or "image", label_column or "label"
    if libraries.is_builder(source):
        split = libraries.checked_split(source, split)
        return builders.builder(source, str(split), names, image, label, shuffle_buffer)
    if isinstance(source, tf.data.Dataset):
        libraries.checked_split(source, split)
        return streams.stream(source, names, image, label, shuffle_buffer)
    if record_files := records.record_files(source):
        libraries.checked_split(source, split)
        image, label = image_column or records.IMAGE, label_column or records.LABEL
        return records.records(record_files, names, image, label, shuffle_buffer, check_labels)
    items = open_items(
        source,
        class_names=names,
        image_column=image_column,
        label_column=label_column,
        split=split,
        check_labels=check_labels,
        subset=subset,
        table=table,
    )
    return indexed(items)


def open_items(
    source: Any,
    *,
    class_names: Sequence[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    check_labels: bool = True,
    subset: Subset | None = None,
    table: TableOptions | None = None,
) -> Items:
    """Opens a source whose images can be read in any order, without TensorFlow."""
    _check_subset(source, subset)
    _check_table(source, table)
    names = targets.checked_class_names(class_names)
    if csv_rows.is_csv(source):
        columns: dict[str, Any] = {} if image_column is None else {"image_column": image_column}
        columns |= {} if label_column is None else {"label_columns": (label_column,)}
        return _table(source, dataclasses.replace(table or TableOptions(), **columns), names, split, check_labels)
    split = libraries.checked_split(source, split)
    rows = libraries.hugging_face(source, split, names, image_column or "image", label_column or "label", check_labels)
    if rows is not None:
        return rows
    if is_path(source) and Path(source).is_dir():
        return _folders(Path(source), names, subset)
    if isinstance(source, tuple) and len(source) == 2:
        return _pairs(*source, names, check_labels)
    if is_path(source) and not Path(source).exists():
        raise FileNotFoundError(
            f"`source` must be an existing directory, a CSV file or TFRecord files, got {described(source)}."
        )
    others = "a tf.data.Dataset of (bytes, label), TFRecord files, a Hugging Face `datasets.Dataset` or a TensorFlow "
    allowed = f"{others}Datasets builder" if has_tensorflow() else "a Hugging Face `datasets.Dataset`"
    raise ValueError(
        f"`source` must be a directory with a folder per class, a CSV file, a pair (paths or arrays, labels), "
        f"{allowed}, got {described(source)}."
    )


def _check_subset(source: Any, subset: Subset | None) -> None:
    if subset is not None and not (is_path(source) and Path(source).is_dir()):
        raise ValueError(
            "`validation_split` is for a directory with a folder per class, which `source` names, got "
            f"{described(source)}. Divide other sources beforehand."
        )


def _check_table(source: Any, table: TableOptions | None) -> None:
    if table is not None and not csv_rows.is_csv(source):
        raise ValueError(f"`table` is for a CSV file, which `source` names, got {described(source)}. Leave it out.")


def of_numbers(source: Any, class_names: Sequence[str] | None, check_labels: bool) -> tuple[Any, targets.Labels]:
    """Opens a pair whose labels are numbers to predict, whatever their range.

    Raises:
        ValueError: `source` is not a pair, or its labels are not numbers.
    """
    if not isinstance(source, tuple) or len(source) != 2:
        raise ValueError(
            f"`label_mode` 'numbers' is for a pair (paths or arrays, labels), got {described(source)}. For a CSV file, "
            "pass TableOptions(problem_type='regression')."
        )
    if class_names is not None:
        raise ValueError(f"`class_names` must be None for numbers to predict, got {class_names!r}.")
    return source[0], targets.read_numbers(source[1], check_labels)


def open_in_order(
    source: Any, class_names: Sequence[str] | None
) -> tuple[Callable[[], Iterable[Item]], int | None, tuple[int, int] | None]:
    """Opens a source for evaluation: its items in order, with their number and size if known."""
    if not has_tensorflow():
        refuse_without_tensorflow(source, "host")
    if needs_tensorflow(source):
        opened = open_source(source, class_names=class_names, check_labels=False)
        count = opened.count if opened.count >= 0 else None
        return lambda: map(opened.item, opened.elements.as_numpy_iterator()), count, opened.size
    items = open_items(source, class_names=class_names, check_labels=False)
    count = len(items.labels.values)
    return lambda: map(items.__getitem__, range(count)), count, items.size


def needs_tensorflow(source: Any) -> bool:
    """Returns whether TensorFlow reads a source: a `tf.data.Dataset`, TFRecords, TensorFlow Datasets."""
    tensorflow = sys.modules.get("tensorflow")
    stream = tensorflow is not None and isinstance(source, tensorflow.data.Dataset)
    return stream or libraries.is_builder(source) or bool(record_names(source))


def refuse_without_tensorflow(source: Any, engine: str) -> None:
    """Refuses sources that need TensorFlow if it is not installed.

    Raises:
        MissingPackageError: TFRecords, or `engine="graph"`.
    """
    if engine == "graph":
        require_tensorflow("engine='graph'")
    if record_names(source):
        require_tensorflow("Reading TFRecord files")


def _folders(directory: Path, class_names: tuple[str, ...] | None, subset: Subset | None) -> Items:
    found = class_folders(directory, class_names) if subset is None else subset_of(directory, class_names, subset)
    tell(directory, found)
    return Files(found.paths, targets.Labels(found.labels, found.class_names))


def _table(
    file: str | Path, options: TableOptions, names: tuple[str, ...] | None, split: str | None, check_files: bool
) -> Items:
    """Returns the images of a CSV file, or those of a part in its column `split`."""
    table = label_table.read(file, options, names=names, check_files=check_files)
    if split is not None:
        there = sorted(set(table.parts or ()))
        wanted = part_of(split) or split
        if wanted not in there:
            raise ValueError(
                f"`split` must be one of "
                f"{', '.join(map(repr, there)) or 'none, because the table has no column named split'}, got "
                f"{split!r}."
            )
        table = table.some(np.flatnonzero(np.array(table.parts) == wanted))
    for line in table.notes:
        warnings.warn(f"{line} ({file})", DirectoryWarning, stacklevel=2)
    kind = table.problem_type
    labels = targets.Labels(table.labels.astype(np.float32), None) if kind == label_table.NUMBER else None
    return Files([os.fsencode(path) for path in table.paths], labels or targets.Labels(table.labels, table.names))


def _pairs(images: Any, labels: Any, class_names: tuple[str, ...] | None, check_labels: bool) -> Items:
    several = sequence_of(images)
    if several is not None:
        images = _without_decoded(several)
    elif hasattr(images, "__array__"):
        images = as_array("`source[0]`", images)
    if not isinstance(labels, targets.Labels) and (names := sequence_of(labels)) is not None:
        labels = list(names)
    if not isinstance(images, np.ndarray | list):
        raise ValueError(
            "`source[0]` must be a list of paths or of uint8 arrays, or one uint8 array (count, height, width, "
            "channels), got "
            f"{described(images)}.{' Pass a data set of (bytes, label) without a pair.' if has_tensorflow() else ''}"
        )
    if not len(images):
        raise ValueError("`source[0]` must hold at least one image, got none.")
    paths = all(is_path(image) for image in images)
    arrays = not paths and all(hasattr(image, "__array__") for image in images)
    if not paths and not arrays:
        kinds = sorted({type(image).__name__ for image in images})
        raise ValueError(
            f"`source[0]` must hold only paths or only uint8 arrays, got {' and '.join(kinds)}. {_for_encoded()}"
        )
    found = labels if isinstance(labels, targets.Labels) else targets.read_labels(labels, class_names, check_labels)
    if len(found.values) != len(images):
        raise ValueError(
            f"`source` must have a label for each image, got {len(images):,} images and {len(found.values):,} labels."
        )
    if paths:
        _refuse_text(images)
        return Files([os.fsencode(path) for path in images], found)
    return Arrays([_checked_array(f"`source[0][{index}]`", array) for index, array in enumerate(images)], found)


def _without_decoded(images: Sequence[Any]) -> list[Any]:
    """Refuses PIL images, because a column decodes each one on access."""
    if len(images) and isinstance(images[0], Image.Image):
        raise ValueError(
            "`source[0]` must hold paths or uint8 arrays, got PIL images. Pass `numpy.asarray(image)` for each, or "
            "pass a Hugging Face data set itself: image_dataset(dataset)."
        )
    return list(images)


def _refuse_text(paths: Iterable[str | os.PathLike]) -> None:
    for index, path in enumerate(paths):
        if not isinstance(path, str) or len(path) <= base64_text.LONGEST_NAME:
            continue
        if (text := base64_text.described(path)) and not os.path.lexists(path):  # a long path looks like base64
            raise ValueError(
                f"`source[0][{index}]` is {text}, not a path, which begins with {path[:20]!r}. {_for_encoded()}"
            )


def _for_encoded() -> str:
    """Returns advice on the bytes of image files, for a message."""
    if has_tensorflow():
        return "Pass encoded images as bytes, in `tf.data.Dataset.from_tensor_slices((images, labels))`."
    return "Write encoded images to files, and pass their paths."


def _checked_array(name: str, array: Any) -> np.ndarray:
    array = as_array(name, array)
    if array.ndim == 2:
        array = array[..., None]  # gray
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or not array.size:
        raise ValueError(
            f"{name} must be uint8 (height, width, channels) in [0, 255] with 1, 3 or 4 channels, got {array.dtype} "
            f"{array.shape}. Scale images of other types first."
        )
    return array
