"""ONNX: a BiT is written directly, other models with Keras' exporter and tf2onnx; run in onnxruntime."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit.exporters import calibration_data, keras_exporters, onnx_file, onnx_graph, onnx_quantization
from keras_bit.exporters.formats import Format
from keras_bit.exporters.job import OUTPUT, Job, Run, Shape
from keras_bit.exporters.onnx_norm import by_instances
from keras_bit.exporters.onnx_weights import MOST_BYTES, data_file
from keras_bit.exporters.output_names import clash

ALMOST_ZERO = "almost_zero"  # a tensor's name
# As a share of the largest output; see `tflite.LIMITS`. In 8 bits networks reach about half of the limit.
LIMITS = {None: 1e-4, "int8": 0.5}


class ONNX(Format):
    """One file with the input "pixel_values"; for the names of outputs see `output_names`.

    The axes without a fixed size are called batch, height and width. The metadata have `labels`, as a JSON array.
    Operators are those of opset 17. Weights of more than 2 GB are in a second file next to it, with the suffix `.data`.
    In int8 only convolutions and dense layers use 8 bits; the input and the outputs stay float32.
    """

    name = "onnx"
    packages = ("onnx", "onnxruntime")
    quantizations = tuple(LIMITS)
    calibrated = ("int8",)

    def needs_tensorflow(self, model: keras.Model) -> bool:
        return not onnx_graph.describes(model)

    def beside(self, target: Path) -> tuple[Path, ...]:
        return (data_file(target),)

    def refusal(self, model: keras.Model, quantize: str | None) -> str:
        size = onnx_file.size(model)
        if size > MOST_BYTES and not onnx_graph.describes(model):
            return (
                f"`model` has {size / 1e9:.1f} GB of weights in float32, and tf2onnx, which is needed for models "
                "around a BiT, writes at most 2.1 GB. Use the format 'saved_model' or 'openvino'."
            )
        return clash(model, onnx_file.INPUT, self.name)

    def check(self, job: Job) -> None:
        if job.quantize == "int8":
            _, height, width = self.shape(job)
            calibration_data.check(job, (height, width), "None, which is float32, needs no images")
        if not onnx_graph.describes(job.model):
            keras_exporters.require("tf2onnx", self.name)

    def write(self, job: Job, path: Path) -> None:
        import onnx

        whole = path if job.quantize is None else path.with_stem(f"{path.stem}-in-float32")
        if onnx_graph.describes(job.model):
            job.progress("standardizing the kernels and writing the nodes")
            onnx_file.write(job, whole, self.shape(job), by_instances)
        else:
            onnx_file.save(_converted(job, whole, self.shape(job)), job, whole)
        if job.quantize == "int8":
            job.progress("measuring the ranges and rounding to 8 bits")
            onnx_quantization.quantize(job, whole, path)
        with keras_exporters.refusals("onnx"):  # tf2onnx keeps operators that it does not know
            onnx.checker.check_model(path)  # by its name, because it is checked together with its data

    def limit(self, job: Job) -> float:
        return LIMITS[job.quantize]

    def load(self, job: Job, path: Path) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if data_file(path).exists():
            # Without this, it would hold the kernels several times while it changes their layout.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        single = not isinstance(job.model.output, dict)

        def run(batch: np.ndarray) -> dict[str, np.ndarray]:
            outputs = session.run(None, {onnx_file.INPUT: batch})
            names = [OUTPUT if single else output.name for output in session.get_outputs()]
            return dict(zip(names, outputs, strict=True))

        return run


def _converted(job: Job, path: Path, shape: Shape) -> Any:
    """Returns the model of Keras' exporter and tf2onnx."""
    import onnx

    keras_exporters.export(job, path, "onnx", shape)
    model = onnx.load(path)
    model.graph.name = job.model.name
    _keep_pads_out_of_pools(model.graph)
    for value in model.graph.input:
        _name_axes(value, onnx_file.AXES)
    for value in model.graph.output:
        _name_axes(value, ("batch", f"{value.name}_height", f"{value.name}_width"))
    return model


def _keep_pads_out_of_pools(graph: Any) -> None:
    """Makes the zeros before a max pool almost zero, because onnxruntime 1.20 to 1.30 treats them as minus infinity."""
    from onnx import numpy_helper

    pooled = {node.input[0] for node in graph.node if node.op_type == "MaxPool"}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if not any(tensor.dims)}
    pads = [node for node in graph.node if node.op_type == "Pad" and node.output[0] in pooled]
    for node in pads:
        value = node.input[2] if len(node.input) > 2 else ""
        if not value or constants.get(value) == 0:
            node.input[:] = [*node.input[:2], ALMOST_ZERO, *node.input[3:]]
    if any(ALMOST_ZERO in node.input for node in pads):
        almost_zero = np.array(onnx_graph.ALMOST_ZERO, np.float32)
        graph.initializer.append(numpy_helper.from_array(almost_zero, ALMOST_ZERO))


def _name_axes(value: Any, names: tuple[str, ...]) -> None:
    for axis, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
        if not axis.HasField("dim_value"):
            axis.dim_param = name
