"""Writes the ONNX file of a BiT from its graph."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

from keras_bit.exporters.job import OUTPUT, Job, Shape
from keras_bit.exporters.onnx_graph import OnnxGraph
from keras_bit.exporters.onnx_norm import Normalization
from keras_bit.exporters.onnx_weights import MOST_BYTES, Tensors, data_file
from keras_bit.exporters.output_names import output_names

INPUT = "pixel_values"
AXES = ("batch", "height", "width")
# The newest opset whose operators every onnxruntime from 1.12 on keeps in its blocked layout: each version knows only
# the opsets of its time.
OPSET = 17
IR_VERSION = 8  # the file format of that time
PRODUCER = "keras_bit"


def write(job: Job, path: Path, shape: Shape, normalize: Normalization) -> None:
    """Writes a model that `onnx_graph` describes to `path`, for batches of `shape`.

    Weights that one file cannot hold go into a second file; then only one weight is copied at a time.
    """
    from onnx import helper

    names = output_names(job.model)
    image = (*shape, job.model.input_shape[-1])
    shapes = job.model.compute_output_shape(image)
    outputs = shapes if isinstance(shapes, dict) else {OUTPUT: shapes}
    with Tensors(data_file(path) if size(job.model) > MOST_BYTES else None) as tensors:
        graph = OnnxGraph(job.model, tensors, normalize)
        graph.write(INPUT, dict(zip(outputs, names, strict=True)))
        described = helper.make_graph(
            graph.nodes,
            job.model.name,
            [_described(INPUT, image, AXES)],
            [
                _described(name, output, ("batch", f"{name}_height", f"{name}_width"))
                for name, output in zip(names, outputs.values(), strict=True)
            ],
            tensors.protos(),
            value_info=graph.shapes(shape),
        )
    model = helper.make_model(
        described,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=PRODUCER,
        producer_version=version(),
    )
    save(model, job, path)


def save(model: Any, job: Job, path: Path) -> None:
    """Writes an `onnx.ModelProto` with the labels in its metadata."""
    from onnx import helper

    if job.labels is not None:
        helper.set_model_props(model, {"labels": json.dumps(job.labels, ensure_ascii=False)})
    path.write_bytes(model.SerializeToString())


def version() -> str:
    """Returns the version of the writer."""
    return metadata.version(PRODUCER)


def size(model: keras.Model) -> int:
    """Returns the bytes of the weights in float32."""
    return 4 * model.count_params()


def _described(name: str, shape: tuple[int | None, ...], axes: tuple[str, ...]) -> Any:
    """Describes an input or output in float32; an axis without a size has a name."""
    from onnx import TensorProto, helper

    names = [*axes, *(len(shape) * [""])]
    sizes = [axis if size is None else size for size, axis in zip(shape, names, strict=False)]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
