"""ONNX, by Keras' exporter and tf2onnx; run in onnxruntime."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from keras_bit.exporters import keras_exporters
from keras_bit.exporters.formats import Format
from keras_bit.exporters.job import OUTPUT, Job, Run

# Protocol buffers hold 2 GiB, and TensorFlow's frozen graph, which tf2onnx reads, is one, too. A graph takes few MB.
MOST_BYTES = 2**31 - 2**25


class ONNX(Format):
    """One file, whose input is "pixel_values"; for its outputs' names see `output_names`.

    The axes without a fixed size are called batch, height and width. The metadata have `labels`, as a JSON array.
    """

    name = "onnx"
    packages = ("onnx", "tf2onnx", "onnxruntime")

    def check(self, job: Job) -> None:
        size = 4 * job.model.count_params()
        if size > MOST_BYTES:
            raise ValueError(
                f"`model` has {size / 1e9:.1f} GB of weights in float32, and an ONNX file holds 2.1 GB. The formats "
                "'saved_model' and 'openvino' have no such limit."
            )

    def write(self, job: Job, path: Path) -> None:
        import onnx

        keras_exporters.export(job, path, "onnx", self.shape(job))
        model = onnx.load(path)
        graph = model.graph
        for value in graph.input:
            _name_axes(value, ("batch", "height", "width"))
        for value in graph.output:
            _name_axes(value, ("batch", f"{value.name}_height", f"{value.name}_width"))
        graph.name = job.model.name
        if job.labels is not None:
            onnx.helper.set_model_props(model, {"labels": json.dumps(job.labels, ensure_ascii=False)})
        with keras_exporters.refusals("onnx"):  # tf2onnx leaves what it does not know as it is
            onnx.checker.check_model(model)
        onnx.save(model, path)

    def load(self, job: Job, path: Path) -> Run:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        single = not isinstance(job.model.output, dict)

        def run(batch: np.ndarray) -> dict[str, np.ndarray]:
            outputs = session.run(None, {keras_exporters.INPUT: batch})
            names = [OUTPUT if single else output.name for output in session.get_outputs()]
            return dict(zip(names, outputs, strict=True))

        return run


def _name_axes(value: Any, names: tuple[str, str, str]) -> None:
    for axis, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
        if not axis.HasField("dim_value"):
            axis.dim_param = name
