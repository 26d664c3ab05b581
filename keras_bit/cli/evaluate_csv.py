"""`keras-bit evaluate` of a CSV file."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_bit.cli.terminal import note

if TYPE_CHECKING:
    from keras_bit.data.label_table import LabelTable, TableOptions
    from keras_bit.evaluation.evaluating import AnyEvaluation
    from keras_bit.images.processor import BitImageProcessor
    from keras_bit.network.config import BitConfig
    from keras_bit.network.model import BiTModel


def evaluate_csv(
    model: "BiTModel",
    file: str,
    options: "TableOptions",
    class_map: str | None,
    processor: "BitImageProcessor",
    batch_size: int,
    on_error: str,
) -> tuple["AnyEvaluation", list[str]]:
    """Returns the evaluation, and a line for each image that was left out.

    Args:
        options: how to read the file; the model decides the kind of labels.
        class_map: the name of a file, from the table's classes to the model's.

    Raises:
        ValueError: the file is not a table, or its labels do not fit the model.
    """
    import numpy as np

    from keras_bit.data.label_table import NUMBER, ONE
    from keras_bit.data.named_batches import NamedBatches
    from keras_bit.data.targets import Labels
    from keras_bit.evaluation import asking, evaluating

    kind = asking.head_of(model).problem_type
    table = _read(file, options, kind, model.config, check_files=on_error == "raise")
    label_map, class_names = None, None
    if kind == ONE:
        table, class_names, label_map = _matched(table, class_map, model.config)
        labels: Any = table.labels
    elif class_map is not None:
        raise ValueError(f"`class_map` is for one class per image, got a model for {kind}. Leave it out.")
    else:
        class_names = None if kind == NUMBER else table.names
        labels = Labels(table.labels.astype(np.float32), class_names)
    folder = options.image_folder or os.path.dirname(file)
    batches = NamedBatches(
        (list(table.paths), labels),
        [_relative(path, folder) for path in table.paths],
        processor=processor,
        batch_size=batch_size,
        class_names=class_names,
        on_error=on_error,
    )
    return evaluating.evaluate(model, batches, class_names=class_names, label_map=label_map), batches.skipped


def _read(file: str, options: "TableOptions", kind: str, config: "BitConfig", check_files: bool) -> "LabelTable":
    """Returns the test images: those of the column `split`, or all."""
    import numpy as np

    from keras_bit.data import label_table
    from keras_bit.evaluation.class_map import labels_of

    outputs = labels_of(config)
    # Classes in a column of names are matched later; a single number may have any name.
    names = outputs if kind != label_table.ONE and not (kind == label_table.NUMBER and len(outputs) == 1) else None
    options = dataclasses.replace(options, problem_type=kind)
    table = label_table.read(file, options, names=names, check_files=check_files)
    if len(table.names) != len(outputs) and kind != label_table.ONE:
        raise ValueError(
            f"{file!r} must have a column for each of the model's {len(outputs)} outputs, got {len(table.names)}: "
            f"{', '.join(table.names)}. Name the right ones in `label_columns`."
        )
    for line in table.notes:
        note(line)
    if table.parts is None:
        return table
    part = next((part for part in ("test", "validation") if part in table.parts), None)
    if part is None:
        return table
    chosen = np.flatnonzero(np.array(table.parts) == part)
    note(f"{len(chosen):,} of {len(table.paths):,} images, those for {part}")
    return table.some(chosen)


def _matched(
    table: "LabelTable", class_map: str | None, config: "BitConfig"
) -> tuple["LabelTable", tuple[str, ...], list[tuple[int, ...]]]:
    """Returns the images with classes of the model, the names of these, and their numbers in the model."""
    import numpy as np

    from keras_bit.evaluation import class_map as maps

    said = None if class_map is None else maps.read(class_map)
    occurring = np.unique(table.labels)
    names = [table.names[label] for label in occurring]
    matched = maps.match(names, config, said)
    used = [label for label, right in zip(occurring, matched, strict=True) if right is not None]
    table = table.some(np.flatnonzero(np.isin(table.labels, used)))
    place = np.zeros(len(table.names), np.int32)
    place[used] = np.arange(len(used))
    table = dataclasses.replace(table, labels=place[table.labels])
    kept = [table.names[label] for label in used]
    return table, tuple(maps.shown_names(kept, config)), [right for right in matched if right is not None]


def _relative(path: str, folder: str | Path) -> str:
    below = os.path.relpath(path, folder or ".")
    return path if below.startswith(os.pardir) else below
