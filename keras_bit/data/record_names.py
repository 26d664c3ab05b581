"""Recognizes names of TFRecord files. Without TensorFlow, which reads them."""

import os
import re
from typing import Any

from keras_bit.data.items import is_path

# image.tfrecord, .tfrecords, .tfrec, .tfrecord.gz, train-00000-of-01024, cifar10-train.tfrecord-00000-of-00001
RECORDS = re.compile(r"(\.tfrec(ords?)?[\d*?\[\]-]*|-of-[\d*?\[\]-]+)(\.gz)?$")


def is_record_name(name: str) -> bool:
    return bool(RECORDS.search(os.path.basename(name)))


def record_names(source: Any) -> list[str]:
    """Returns the names or patterns of TFRecord files in `source`; empty if it names other files."""
    paths = [source] if is_path(source) else source
    if not isinstance(paths, list | tuple) or not paths or not all(map(is_path, paths)):
        return []
    names = [os.fspath(path) for path in paths]
    return names if all(isinstance(name, str) and is_record_name(name) for name in names) else []
