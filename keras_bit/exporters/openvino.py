"""OpenVINO's intermediate representation, a pair of `.xml` and `.bin`; run in OpenVINO.

A BiT is converted from an ONNX file that is written for OpenVINO, other models with Keras' exporter.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit import packages
from keras_bit.exporters import (
    calibration_data,
    keras_exporters,
    onnx_file,
    onnx_graph,
    onnx_quantization,
    openvino_images,
)
from keras_bit.exporters.formats import Format, share
from keras_bit.exporters.job import OUTPUT, Job, Run, Shape
from keras_bit.exporters.onnx_norm import by_means, by_means_of_8_bits
from keras_bit.exporters.onnx_weights import data_file
from keras_bit.exporters.openvino_package import core, import_openvino
from keras_bit.exporters.output_names import clash, output_names

NUL, LABELS = "\0", ["model_info", "labels"]
LAYOUTS = {2: "NC", 4: "NHWC"}  # by the number of axes
LIMITS = {None: 1e-4, "float16": 2e-2, "int8": 0.5}  # of the largest output; see `tflite.LIMITS`


class OpenVINO(Format):
    """Two files with the input "pixel_values"; for the names of outputs see `output_names`.

    Weights are float32, or float16 with `quantize="float16"`. In int8 only convolutions and the dense layer use 8 bits;
    the input and the outputs stay float32. The input and the outputs have a layout, such as NHWC, for Model Server. The
    runtime information has `model_info/labels` for OpenVINO's Model API: separated by spaces, with underscores for the
    spaces in a name and for an empty name. With the processor's steps inside, the input is "images", in uint8.
    """

    name = "openvino"
    packages = ("openvino", "onnx")
    quantizations = tuple(LIMITS)
    calibrated = ("int8",)

    def needs_tensorflow(self, model: keras.Model) -> bool:
        return not onnx_graph.describes(model)

    def beside(self, target: Path) -> tuple[Path, ...]:
        return (target.with_suffix(".bin"),)

    def target(self, path: Path) -> Path:
        if path.suffix != ".xml":
            raise ValueError(f"`path` must end in .xml for the format 'openvino', got {str(path)!r}.")
        return path

    def shape(self, job: Job) -> Shape:
        """Returns the shape that the network takes, after the preprocessing if that is in the file."""
        return openvino_images.network_shape(job) if job.include_preprocessing else super().shape(job)

    def refusal(self, model: keras.Model, quantize: str | None) -> str:
        if quantize == "int8" and not onnx_graph.describes(model):
            return (
                "`quantize='int8'` of the format 'openvino' needs a BiT without layers before or after it. Use the "
                "format 'onnx' or 'tflite' for other models."
            )
        return clash(model, onnx_file.INPUT, self.name)

    def check(self, job: Job) -> None:
        for index, label in enumerate(job.labels or ()):
            if NUL in label:
                raise ValueError(
                    f"`labels` must have no NUL character for the format 'openvino', whose labels end there, got "
                    f"{label!r} for class {index}. Leave it out."
                )
        if job.include_preprocessing:
            openvino_images.check(job)
        if job.quantize == "int8":
            packages.require("onnxruntime", "onnx", f"`quantize` 'int8' of the format {self.name!r}")
            _, height, width = self.shape(job)
            calibration_data.check(job, (height, width), "'float16' needs none")
        if not onnx_graph.describes(job.model):
            keras_exporters.require("scipy", self.name)

    def write(self, job: Job, path: Path) -> None:
        openvino = import_openvino()
        raw = self._converted(job, path)
        model = core().read_model(raw)
        names = output_names(job.model)
        _forget_names_between(model)
        for result in model.get_results():
            tensor = result.input(0).get_source_output().get_tensor()
            name = next((name for name in names if name in tensor.names), None)
            if name is None:  # the converter treats some intermediate values as outputs
                model.remove_result(result)
            else:
                tensor.set_names({name})
                result.set_friendly_name(name)
                if layout := LAYOUTS.get(len(result.output(0).partial_shape)):
                    result.set_layout(openvino.Layout(layout))
        if job.include_preprocessing:
            openvino_images.put_in_front(model, job)
        model.get_parameters()[0].set_layout(openvino.Layout(LAYOUTS[4]))
        if job.labels is not None:
            model.set_rt_info(_in_one_line(job.labels), LABELS)
        with _reason_of_the_system(path.parent, 4 * job.model.count_params()):
            openvino.save_model(model, path, compress_to_fp16=job.quantize == "float16")
        del model  # it maps the file of weights
        for file in (raw, raw.with_suffix(".bin"), data_file(raw)):
            file.unlink(missing_ok=True)

    def _converted(self, job: Job, path: Path) -> Path:
        """Writes a file next to `path` that OpenVINO can read, and returns it."""
        raw = path.with_stem(f"{path.stem}-as-converted")
        if onnx_graph.describes(job.model):
            job.progress("standardizing the kernels and writing the nodes")
            raw = raw.with_suffix(".onnx")
            if job.quantize != "int8":
                onnx_file.write(job, raw, self.shape(job), by_means)
                return raw
            whole = raw.with_stem(f"{path.stem}-in-float32")
            onnx_file.write(job, whole, self.shape(job), by_means_of_8_bits)
            job.progress("measuring the ranges and rounding to 8 bits")
            onnx_quantization.quantize(job, whole, raw, float_outputs=onnx_quantization.OPERATORS)
            return raw
        with _reason_of_the_system(path.parent, 4 * job.model.count_params()):
            keras_exporters.export(job, raw, "openvino", self.shape(job))
        return raw

    def limit(self, job: Job) -> float:
        return LIMITS[job.quantize]

    def load(self, job: Job, path: Path) -> Run:
        model = core().read_model(path)
        if job.labels is not None and model.get_rt_info(LABELS).astype(str) != _in_one_line(job.labels):
            raise ValueError(
                "`labels` are not the same when OpenVINO reads them from the file. Leave unusual characters out."
            )
        if job.include_preprocessing:
            model.add_outputs(onnx_file.INPUT)
            openvino_images.compare(job, _compiled(model, job), share(self.limit(job), job.model))
            model = openvino_images.network_of(core().read_model(path))
        return _compiled(model, job)


def _in_one_line(labels: Sequence[str]) -> str:
    return " ".join("_".join(label.split()) or "_" for label in labels)


def _compiled(model: Any, job: Job) -> Run:
    """Returns an `openvino.Model` with one input as a function from that to the outputs by the names of `job.model`."""
    # On processors with bfloat16 instructions OpenVINO would use them: that is the user's choice, not the file's.
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    single = not isinstance(job.model.output, dict)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        named = {output.any_name: np.array(values) for output, values in compiled([batch]).items()}
        # A single output may have several names. `INPUT` is the pixels behind the processor's steps.
        return {OUTPUT if single and name != onnx_file.INPUT else name: values for name, values in named.items()}

    return run


def _forget_names_between(model: Any) -> None:
    """Removes the names of inner tensors, because an output that repeats one would get its name.

    Operations keep theirs.
    """
    ends = [*model.get_parameters(), *(result.input_value(0).get_node() for result in model.get_results())]
    kept = {operation.get_friendly_name() for operation in (*ends, *model.get_results())}
    for operation in model.get_ops():
        if operation.get_friendly_name() not in kept:
            for output in operation.outputs():
                output.get_tensor().set_names(set())


@contextlib.contextmanager
def _reason_of_the_system(folder: Path, size: int) -> Iterator[None]:
    """Finds out why OpenVINO cannot write, which it does not say, by writing as many bytes."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if "iostream error" in str(error):
            with tempfile.TemporaryFile(dir=folder) as stream:
                for _ in range(1 + size // 2**20):
                    stream.write(bytes(2**20))
        raise
