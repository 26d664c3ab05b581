"""Other libraries' data sets: Hugging Face `datasets` as items, and the choice of a split.

A library is imported only after one of its data sets was passed. Without TensorFlow.
"""

import os
import sys
from typing import Any

import numpy as np

from keras_bit.data import targets
from keras_bit.data.items import Files, Items, Rows, Unlabeled, described
from keras_bit.packages import has_tensorflow
from keras_bit.wording import some


def checked_split(source: Any, split: str | None) -> str | None:
    """Returns `split`, which must be given if, and only if, the source has several."""
    hugging_face, tensorflow_datasets = sys.modules.get("datasets"), sys.modules.get("tensorflow_datasets")
    if hugging_face and isinstance(source, hugging_face.DatasetDict):
        splits, fits = sorted(source), split in source
    elif tensorflow_datasets and isinstance(source, tensorflow_datasets.core.DatasetBuilder):
        # It has its own notation for parts of splits, such as "train[:10%]", and its own errors.
        splits, fits = sorted(source.info.splits), split is not None
    elif split is not None:
        raise ValueError(
            f"`split` is for sources with several splits, got {split!r} for {described(source)}. Leave it out."
        )
    else:
        return None
    if not splits:
        raise ValueError(f"`source` must have at least one split, got none for {described(source)}. Check the source.")
    if not fits:
        raise ValueError(f"`split` must be one of {', '.join(map(repr, splits))}, got {split!r}.")
    return split


def is_builder(source: Any) -> bool:
    """Returns whether a source is a builder of TensorFlow Datasets."""
    library = sys.modules.get("tensorflow_datasets")
    return bool(library and isinstance(source, library.core.DatasetBuilder))


def hugging_face(
    source: Any,
    split: str | None,
    class_names: tuple[str, ...] | None,
    image_column: str,
    label_column: str,
    check_labels: bool,
) -> Items | None:
    """Returns the rows of a Hugging Face data set; `None` for another source. See `sources.open_source`."""
    library = sys.modules.get("datasets")
    if library is None:
        return None
    if isinstance(source, library.DatasetDict):
        source = source[split]
    if isinstance(source, library.Dataset):
        return _table(source, class_names, image_column, label_column, check_labels)
    if isinstance(source, library.IterableDataset | library.IterableDatasetDict):
        other = ", or pass a tf.data.Dataset of (bytes, label)" if has_tensorflow() else ""
        raise ValueError(
            "`source` must be a Hugging Face data set that is not streamed, which can be read in any order, got "
            f"{described(source)}. Load it without streaming=True{other}."
        )
    return None


def _table(
    data: Any, class_names: tuple[str, ...] | None, image_column: str, label_column: str, check_labels: bool
) -> Items:
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
        # A placeholder of the right type until the row is read.
        other = column[int(np.argmin(unlabeled))]
        column = [other if label is None else label for label in column]
    rows = _rows(data, column, class_names, image_column, label_column, check_labels)
    return Unlabeled(rows, unlabeled) if unlabeled.any() else rows


def _refuse_unlabeled(unlabeled: np.ndarray, check_labels: bool) -> None:
    rows = np.flatnonzero(unlabeled)
    if check_labels or len(rows) == len(unlabeled):
        shown = some((f"row {row}" for row in rows), targets.SHOWN)
        raise ValueError(
            f"`source` must have a label in every row, got none in {shown} ({len(rows):,} of "
            f"{len(unlabeled):,}). Fill them in, or pass on_error='skip' to leave such rows out."
        )


def _rows(
    data: Any,
    column: list[Any],
    class_names: tuple[str, ...] | None,
    image_column: str,
    label_column: str,
    check_labels: bool,
) -> Items:
    """Returns the rows with the labels in `column`, one for each row."""
    import datasets

    labels = _read_labels(column, data.features[label_column], class_names, check_labels)
    feature = data.features[image_column]
    images = data.select_columns([image_column]).with_format(None)
    if isinstance(feature, datasets.Image):
        images = images.cast_column(image_column, datasets.Image(decode=False))  # its bytes, not a Pillow image
        return Rows(lambda row: images[row][image_column], labels)
    if feature in (datasets.Value("string"), datasets.Value("large_string")):
        paths = [os.fsencode(path or "") for path in images[:][image_column]]
        names = [path or b"row %d of `source`, which has no path," % row for row, path in enumerate(paths)]
        return Files(paths, labels, names)
    if feature in (datasets.Value("binary"), datasets.Value("large_binary")):
        return Rows(lambda row: {"bytes": images[row][image_column], "path": None}, labels)
    raise ValueError(
        f"`image_column` must be a column of `datasets.Image`, bytes or paths, got {image_column!r} of {feature}. "
        "Name another column."
    )


def _read_labels(
    column: list[Any], feature: Any, class_names: tuple[str, ...] | None, check_labels: bool
) -> targets.Labels:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return targets.read_renamed(column, tuple(feature.names), class_names, check_labels)
    return targets.read_labels(column, class_names, check_labels)
