"""TFRecord files as the parts of a data set. Imports TensorFlow in functions only."""

import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from keras_bit.data.parts import Part
from keras_bit.data.record_names import is_record_name
from keras_bit.data.split_names import WORDS, part_of
from keras_bit.data.walk import LeftOut
from keras_bit.packages import require_tensorflow
from keras_bit.wording import some

SHOWN = 5  # files and folders that a note names


def holds_records(data: str | Path) -> bool:
    """Returns whether `data` is TFRecord files: a directory with some, or a name or pattern of them."""
    if Path(data).is_dir():
        return any(is_record_name(entry.name) for entry in Path(data).iterdir() if entry.is_file())
    return is_record_name(str(data))


def record_files(data: str | Path) -> dict[str, list[str]]:
    """Groups TFRecord files by their names into `train`, `validation` and `test`; the default is `train`.

    Args:
        data: a directory of them, or a name or pattern.
    """
    if Path(data).is_dir():
        files = sorted(entry.path for entry in os.scandir(data) if is_record_name(entry.name))
    else:
        from keras_bit.data import records

        files = records.record_files(data)
    grouped: dict[str, list[str]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", os.path.basename(file).lower())
        said = {part_of(word) for word in words}
        grouped.setdefault(next((part for part in WORDS if part in said), "train"), []).append(file)
    return {part: grouped[part] for part in sorted(grouped, key=list(WORDS).index)}


def about_records(data: str | Path) -> list[str]:
    """Returns notes about the files: which ones each part has, and what is left out."""
    parts = record_files(data)
    notes = [
        f"{part}: {len(files):,} TFRecord file{'s' * (len(files) > 1)}, {some(map(os.path.basename, files), SHOWN)}"
        for part, files in parts.items()
        if len(parts) > 1
    ]
    if not Path(data).is_dir():
        return notes
    left_out, folders = LeftOut(), []
    for entry in os.scandir(data):
        if left_out.passes_over(entry.name) or is_record_name(entry.name):
            continue
        if entry.is_dir():
            folders.append(entry.name)
        else:
            left_out.passes_over_file(entry.name)
    if left_out:
        notes.append(f"Left out in {str(data)!r}: {left_out}.")
    if folders:
        notes.append(f"Left out: the folder{'s' * (len(folders) > 1)} {some(sorted(folders), SHOWN)} in {str(data)!r}.")
    return notes


def record_parts(data: str | Path, names: tuple[str, ...] | None) -> tuple[dict[str, Part], tuple[str, ...]]:
    require_tensorflow("Reading TFRecord files")
    parts = {part: _of_records(files) for part, files in record_files(data).items()}
    count = max(int(part.labels.max()) for part in parts.values()) + 1
    least = min(int(part.labels.min()) for part in parts.values())
    if least < 0:
        raise ValueError(f"Labels in TFRecord files must count from 0, got {least}. Write the files with such labels.")
    names = names or tuple(map(str, range(count)))
    if count > len(names):
        hint = ""
        if least == count - len(names):
            hint = f" The labels begin at {least}: renumber them from 0, or name the classes before that too."
        raise ValueError(f"`class_names` must name all {count} classes in {str(data)!r}, got {len(names)} names.{hint}")
    return parts, names


def _of_records(files: list[str]) -> Part:
    """Returns the records of some files, which are read once for their labels."""
    import tensorflow as tf

    from keras_bit.data import records

    labels, names = _read_labels(files)
    examples = {
        records.IMAGE: tf.io.FixedLenFeature([], tf.string),
        records.LABEL: tf.io.FixedLenFeature([], tf.int64),
    }

    def chosen_records(chosen: np.ndarray, given: np.ndarray) -> Any:
        is_wanted = np.zeros(len(labels), bool)
        is_wanted[chosen] = True
        given_to = np.zeros(len(labels), np.int32)
        given_to[chosen] = given
        wanted, new_labels = tf.constant(is_wanted), tf.constant(given_to)

        def image_and_label(number: Any, record: Any) -> Any:
            return tf.io.parse_single_example(record, examples)[records.IMAGE], new_labels[number]

        data = records.record_data(files).enumerate().filter(lambda number, record: wanted[number])
        return data.map(image_and_label).apply(tf.data.experimental.assert_cardinality(len(chosen)))

    def images(chosen: np.ndarray) -> Iterable[io.BytesIO]:
        return (io.BytesIO(image) for image, _ in chosen_records(chosen, chosen).as_numpy_iterator())

    return Part(labels, names, chosen_records, images, in_files=False)


def _read_labels(files: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Returns the labels and the names of all records.

    Raises:
        ValueError: a file is damaged, a record has no label, or the files have no records.
    """
    import tensorflow as tf

    from keras_bit.data import records

    features = {records.LABEL: tf.io.FixedLenFeature([], tf.int64)}
    labels: list[int] = []
    names: list[str] = []
    with tqdm(desc="labels", unit="record", delay=2, leave=False) as progress:
        for file in files:
            batches = records.record_data([file]).batch(256)
            found: list[int] = []
            try:
                for batch in batches.as_numpy_iterator():
                    found.extend(tf.io.parse_example(batch, features)[records.LABEL].numpy().tolist())
                    progress.update(len(batch))
            except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
                lacking = f"has no {records.LABEL!r} that is one int64"
                kind = "is damaged" if isinstance(error, tf.errors.DataLossError) else lacking
                raise ValueError(
                    f"{file} {kind}, at the record {len(found)} or up to 255 further on. Write the file again."
                ) from None
            names += [f"record {number} of {file}" for number in range(len(found))]
            labels += found
    if not labels:
        raise ValueError(f"No record was found in {some(files)}. Pass files with at least one tf.Example.")
    return np.array(labels, np.int64).clip(-1, 2**31 - 1).astype(np.int32), names
