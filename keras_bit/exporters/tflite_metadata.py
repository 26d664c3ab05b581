"""Metadata in a TFLite file: the labels, and how images become the model's input.

The format is that of MediaPipe and the Android libraries: a flatbuffer ("M001") among the model's buffers, and the
labels in a zip archive after the model, so that the file is both. The packages that write it (tflite-support,
mediapipe) are unmaintained or large, so the few necessary tables are here.

Source: `metadata_schema.fbs` of tensorflow/tflite-support, schema 1.0.0; checked against the parser and the
`ImageClassifier` of mediapipe 1.2.
"""

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_bit.images.processor import BitImageProcessor

LABELS = "labels.txt"  # in the archive; one name a line, in the order of the outputs
# Table to its fields in the schema's order, which gives their numbers. Unused fields at the end are left out.
TABLES = {
    "ModelMetadata": ("name", "description", "version", "subgraphs", "author", "license", "files", "parser_version"),
    "SubGraphMetadata": ("name", "description", "inputs", "outputs"),
    "TensorMetadata": ("name", "description", "dimensions", "content", "process_units", "stats", "files"),
    "Content": ("properties_type", "properties"),
    "FeatureProperties": (),
    "ImageProperties": ("color_space", "default_size"),
    "ImageSize": ("width", "height"),
    "ProcessUnit": ("options_type", "options"),
    "NormalizationOptions": ("mean", "std"),
    "Stats": ("max", "min"),
    "AssociatedFile": ("name", "description", "type"),
}
FEATURE, IMAGE = np.int8(1), np.int8(2)  # ContentProperties
RGB, GRAYSCALE = np.int8(1), np.int8(2)  # ColorSpaceType
NORMALIZATION = np.int8(1)  # ProcessUnitOptions
AXIS_LABELS = np.int8(2)  # AssociatedFileType


@dataclasses.dataclass(frozen=True)
class Description:
    """The facts that the metadata hold.

    Args:
        name: the name of the model.
        input: name of the input.
        outputs: names of the outputs, in the file's order.
        channels: the number of channels of the input.
        size: (height, width) of the input, or its usual size if it is resizable.
        processor: how images become the input; `None` if unknown.
        labels: the names of the classes, which are the entries of the only output.
    """

    name: str
    input: str
    outputs: Sequence[str]
    channels: int
    size: tuple[int, int]
    processor: BitImageProcessor | None = None
    labels: Sequence[str] | None = None


def normalization(processor: BitImageProcessor, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rescaling and normalization as one `(x - mean) / std` of pixels in [0, 255], in float32."""
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)

    def in_pixels(value: Any) -> np.ndarray:
        return np.broadcast_to(np.divide(value, scale), (channels,)).astype(np.float32)

    return in_pixels(mean), in_pixels(std)


def encoded(description: Description) -> bytes:
    """Returns the flatbuffer."""
    import flatbuffers

    builder = flatbuffers.Builder()
    # The parser of 1.0.0 knows all of these fields.
    model = _table(
        "ModelMetadata",
        name=description.name,
        description="BiT image classifier" if description.labels else "BiT",
        subgraphs=[
            _table(
                "SubGraphMetadata",
                inputs=[_input(description)],
                outputs=[_output(description, name) for name in description.outputs],
            )
        ],
        parser_version="1.0.0",
    )
    builder.Finish(_packed(builder, model), b"M001")
    return bytes(builder.Output())


def with_labels(content: bytes, labels: Sequence[str] | None) -> bytes:
    """Returns `content` followed by the zip archive with the labels, uncompressed and without times."""
    file = io.BytesIO(content)
    if labels is not None:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(zipfile.ZipInfo(LABELS), "".join(f"{label}\n" for label in labels).encode())
    return file.getvalue()


def _input(description: Description) -> dict[int, Any]:
    height, width = map(np.uint32, description.size)
    properties: dict[str, Any] = {"default_size": _table("ImageSize", width=width, height=height)}
    color_space = {1: GRAYSCALE, 3: RGB}.get(description.channels)
    if color_space is not None:
        properties["color_space"] = color_space
    fields: dict[str, Any] = {}
    if description.processor is not None:
        mean, std = normalization(description.processor, description.channels)
        options = _table("NormalizationOptions", mean=mean, std=std)
        fields["process_units"] = [_table("ProcessUnit", options_type=NORMALIZATION, options=options)]
        fields["stats"] = _table("Stats", max=(255 - mean) / std, min=(0 - mean) / std)
    return _table(
        "TensorMetadata",
        name=description.input,
        description="Images (batch, height, width, channels)",
        content=_table("Content", properties_type=IMAGE, properties=_table("ImageProperties", **properties)),
        **fields,
    )


def _output(description: Description, name: str) -> dict[int, Any]:
    fields = {}
    if description.labels is not None:
        fields["files"] = [_table("AssociatedFile", name=LABELS, description="The classes' names", type=AXIS_LABELS)]
    return _table(
        "TensorMetadata",
        name=name,
        description="A score for each class" if description.labels is not None else "Features",
        content=_table("Content", properties_type=FEATURE, properties=_table("FeatureProperties")),
        **fields,
    )


def _table(kind: str, **fields: Any) -> dict[int, Any]:
    """Returns field number to value: text, a table, a list of either, an array of numbers, or a numpy number."""
    return {TABLES[kind].index(name): value for name, value in fields.items()}


def _packed(builder: Any, value: Any) -> int:
    """Writes the parts before the whole, as flatbuffers need; returns the place of `value`."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, Sequence):
        places = [_packed(builder, item) for item in value]
        builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            builder.PrependUOffsetTRelative(place)
        return builder.EndVector()
    return _packed_table(builder, value)


def _packed_table(builder: Any, table: Mapping[int, Any]) -> int:
    numbers = {field: value for field, value in table.items() if isinstance(value, np.generic)}
    places = {field: _packed(builder, value) for field, value in table.items() if field not in numbers}
    builder.StartObject(max(table, default=-1) + 1)
    for field, place in places.items():
        builder.PrependUOffsetTRelativeSlot(field, place, 0)
    for field, number in numbers.items():
        prepend = builder.PrependUint32Slot if isinstance(number, np.uint32) else builder.PrependInt8Slot
        prepend(field, int(number), 0)
    return builder.EndObject()
