"""ONNX: of a BiT from its own description, of other models by Keras' exporter and tf2onnx; run in onnxruntime."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit.exporters import calibration_data, keras_exporters, onnx_file, onnx_graph, onnx_quantization
from keras_bit.exporters.formats import Format
from keras_bit.exporters.job import OUTPUT, Job, Run, Shape
from keras_bit.exporters.onnx_norm import by_instances
from keras_bit.exporters.onnx_weights import MOST_BYTES, data_file

ALMOST_ZERO = "almost_zero"  # a tensor's name
# Of the largest output; see `tflite.LIMITS`. In 8 bits the small trained network comes to 0.19 on 10,000 images, as do
# the logits of a BiT-50 of random weights on 16.
LIMITS = {None: 1e-4, "int8": 0.5}


class ONNX(Format):
    """One file, whose input is "pixel_values"; for its outputs' names see `output_names`.

    The axes without a fixed size are called batch, height and width. The metadata have `labels`, as a JSON array.
    Operators are those of opset 17. Weights of more than 2 GB stand in a second file beside it, with `.data` after the
    name, which the first one names. In int8 all but the convolutions and dense layers stays in float32, as do the input
    and the outputs.
    """

    name = "onnx"
    packages = ("onnx", "onnxruntime")
    quantizations = tuple(LIMITS)

    def needs_tensorflow(self, model: keras.Model) -> bool:
        return not onnx_graph.describes(model)

    def beside(self, target: Path) -> tuple[Path, ...]:
        return (data_file(target),)

    def check(self, job: Job) -> None:
        if job.quantize == "int8":
            _, height, width = self.shape(job)
            calibration_data.check(job, (height, width), "None, which is float32, needs none")
        if onnx_graph.describes(job.model):
            return
        keras_exporters.require("tf2onnx", self.name)
        size = onnx_file.size(job.model)
        if size > MOST_BYTES:
            raise ValueError(
                f"`model` has {size / 1e9:.1f} GB of weights in float32, and tf2onnx, which writes models that are not "
                "a BiT alone, writes at most 2.1 GB. The formats 'saved_model' and 'openvino' have no such limit."
            )

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
        with keras_exporters.refusals("onnx"):  # tf2onnx leaves what it does not know as it is
            onnx.checker.check_model(path)  # by its name, as it is checked together with its data

    def limit(self, job: Job) -> float:
        return LIMITS[job.quantize]

    def load(self, job: Job, path: Path) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if data_file(path).exists():
            # To bring the kernels into its own layout it holds them several times, beside the model that is compared.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        single = not isinstance(job.model.output, dict)

        def run(batch: np.ndarray) -> dict[str, np.ndarray]:
            outputs = session.run(None, {onnx_file.INPUT: batch})
            names = [OUTPUT if single else output.name for output in session.get_outputs()]
            return dict(zip(names, outputs, strict=True))

        return run


def _converted(job: Job, path: Path, shape: Shape) -> Any:
    """The model that Keras' exporter and tf2onnx make."""
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
    """Makes the zeros before a max pool almost zeros: onnxruntime 1.20 to 1.30 would take them for minus infinity."""
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
