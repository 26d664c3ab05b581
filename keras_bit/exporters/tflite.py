"""TFLite (LiteRT) for phones and small computers, in float32, half precision or 8 bits, by TensorFlow's converter.

A file has one signature, from `pixel_values` to the model's outputs, with the names of `output_names`. Inputs and
outputs are float32 but with `"int8_full"`, which is for processors without floating point: there they are uint8, as
from cameras and for MediaPipe, and mean `(integer - zero point) * scale` with the two numbers in the file. Use
`resize_tensor_input` for resizable inputs.
"""

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bit.exporters import calibration_data, tflite_metadata
from keras_bit.exporters.formats import Format
from keras_bit.exporters.job import OUTPUT, Job, Run, Shape
from keras_bit.exporters.output_names import output_names
from keras_bit.network.transforms import fuse_in_float32

CALIBRATED = ("int8", "int8_full")
INPUT = "pixel_values"
DEFAULT_SIZE = (224, 224)  # px
LARGEST_FILE = 2**31  # bytes; the format's offsets are 32 bits wide and signed
WEIGHT_BYTES = {None: 4, "float16": 2, "dynamic": 1, "int8": 1, "int8_full": 1}
# The operators of group normalization, residual sums and softmax. In 8 bits variances lose most of their range,
# probabilities have steps of 1/256, and XNNPACK splits a BiT-50 into many slow parts.
FLOAT_OPERATORS = ("MEAN", "SQUARED_DIFFERENCE", "SUB", "ADD", "MUL", "RSQRT", "SOFTMAX")
# As shares of the largest output. A network with random weights amplifies every rounding, and still stays below these.
# The limits distinguish a wrong file from a right one; only accuracy shows whether 8 bits are enough for a network.
LIMITS = {None: 1e-4, "float16": 2e-2, "dynamic": 0.3, "int8": 0.5, "int8_full": 0.5}


class TFLite(Format):
    """One file for phones; it runs in LiteRT's interpreter."""

    name = "tflite"
    packages = ("ai_edge_litert",)
    quantizations = tuple(LIMITS)
    calibrated = CALIBRATED

    def refusal(self, model: keras.Model, quantize: str | None) -> str:
        size = model.count_params() * WEIGHT_BYTES[quantize]
        if size < LARGEST_FILE:
            return ""
        return (
            f"`model` has {size / 1e9:.1f} GB of weights for `quantize={quantize!r}`, but a TFLite file holds 2.1. "
            "Choose a smaller model, or 'float16' or 'dynamic', with two bytes or one per weight."
        )

    def check(self, job: Job) -> None:
        if any("\n" in label or "\r" in label for label in job.labels or ()):
            raise ValueError("`labels` must be names of one line each: a TFLite file holds them as lines.")
        if job.quantize in CALIBRATED:
            calibration_data.check(job, _size(job), "'dynamic' needs none")

    def shape(self, job: Job) -> Shape:
        return _batch_size(job), *_size(job)

    def write(self, job: Job, path: Path) -> None:
        job.progress("standardizing the kernels")
        converter = _converter(job)
        job.progress("converting to TFLite" + (" and measuring the ranges" if job.quantize in CALIBRATED else ""))
        with warnings.catch_warnings():
            # TensorFlow warns about its own code: its debugger runs a deprecated interpreter, and its converter asks
            # for statistics that the representative data will give.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"tensorflow\.lite")
            try:
                content = _quantized_but(FLOAT_OPERATORS, converter) if job.quantize == "int8" else converter.convert()
            except Exception as error:
                if type(error).__name__ != "ConverterError":  # TensorFlow has no public name for it
                    raise
                raise ValueError(
                    f"`model` cannot be written with TFLite's own operators. Replace the layers that fail. The "
                    f"converter says: {str(error).strip()}"
                ) from error
        path.write_bytes(_described(bytes(content), job))

    def load(self, job: Job, path: Path) -> Run:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), num_threads=os.cpu_count())
        runner = interpreter.get_signature_runner()
        details = runner.get_input_details()[INPUT]

        def run(batch: np.ndarray) -> dict[str, np.ndarray]:
            outputs = runner(**{INPUT: _to_integers(batch, details)})
            described = runner.get_output_details()
            arrays = {name: _from_integers(values, described[name]) for name, values in outputs.items()}
            return arrays if isinstance(job.model.output, dict) else {OUTPUT: next(iter(arrays.values()))}

        return run

    def limit(self, job: Job) -> float:
        return LIMITS[job.quantize]


def _size(job: Job) -> tuple[int | None, int | None]:
    if job.image_size is not None:
        return job.image_size
    return _filled(job.model.input_shape[1:3], _usual_size(job))


def _batch_size(job: Job) -> int:
    return job.batch_size or job.model.input_shape[0] or 1


def _usual_size(job: Job) -> tuple[int, int]:
    return (job.processor.fixed_size if job.processor is not None else None) or DEFAULT_SIZE


def _filled(size: tuple[int | None, int | None], usual: tuple[int, int]) -> tuple[int, int]:
    """Returns `size`, with the usual one if it is open."""
    return size[0] or usual[0], size[1] or usual[1]


def _converter(job: Job) -> Any:
    import tensorflow as tf

    model = fuse_in_float32(job.model)
    names = output_names(job.model)

    def compute(pixel_values: Any) -> dict[str, Any]:
        outputs = model(pixel_values, training=False)
        return outputs if isinstance(outputs, dict) else dict(zip(names, [outputs], strict=True))

    whole = (_batch_size(job), *_size(job), model.input_shape[-1])
    signature = tf.TensorSpec(whole, job.dtype, name=INPUT)
    holder = tf.Module()
    holder.weights = [variable.value for variable in model.variables]  # tracked, to become constants
    traced = tf.function(compute, input_signature=[signature]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], holder)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if job.quantize is None:
        return converter
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job.quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if job.quantize in CALIBRATED:
        converter.representative_dataset = lambda: (
            {INPUT: batch} for batch in calibration_data.samples(job.representative_data or (), _batch_size(job))
        )
    if job.quantize == "int8_full":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    return converter


def _quantized_but(operators: tuple[str, ...], converter: Any) -> bytes:
    """Quantizes everything but `operators` to 8 bits, with the converter's debugger, which has this option."""
    import tensorflow as tf

    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=converter.representative_dataset,
        debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(operators)),
    )
    return debugger.get_nondebug_quantized_model()


def _described(content: bytes, job: Job) -> bytes:
    """Returns `content` with the metadata inside and the labels after it."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    class Builder(flatbuffers.Builder):
        def StartVector(self, size: int, count: int, alignment: int) -> int:  # noqa: N802 - flatbuffers' name
            # The schema needs the weights, its only vectors of bytes, at multiples of 16 bytes; the generated Python
            # does not do this.
            return super().StartVector(size, count, 16 if size == 1 else alignment)

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    if not (model.subgraphs and model.signatureDefs):  # TensorFlow says nothing
        raise OSError(
            f"TensorFlow's converter made an empty file, probably because {tempfile.gettempdir()!r}, where it writes "
            "the model first, is full. Make room there, or set the variable TMPDIR to another directory."
        )
    _check_operators(model, schema)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    names = {output.tensorIndex: output.name.decode() for output in signature.outputs}
    description = tflite_metadata.Description(
        name=job.model.name,
        input=INPUT,
        outputs=[names[index] for index in graph.outputs],
        channels=job.model.input_shape[-1],
        size=_filled(_size(job), _usual_size(job)),
        processor=job.processor,
        labels=job.labels,
    )
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(tflite_metadata.encoded(description), np.uint8)
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    builder = Builder(len(content) + 2**16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return tflite_metadata.with_labels(bytes(builder.Output()), job.labels)


def _check_operators(model: Any, schema: Any) -> None:
    """Refuses TensorFlow's own (Flex) and custom operators, which need a special runtime."""
    custom = [code.customCode for code in model.operatorCodes if code.builtinCode == schema.BuiltinOperator.CUSTOM]
    if custom:
        raise ValueError(f"`model` has layers that TFLite's own operators do not support: {custom}. Leave them out.")


def _to_integers(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    scale, zero = details["quantization"]
    if not scale:
        return values
    bounds = np.iinfo(details["dtype"])
    return np.clip(np.rint(values / scale) + zero, bounds.min, bounds.max).astype(details["dtype"])


def _from_integers(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    scale, zero = details["quantization"]
    return (values.astype(np.float32) - zero) * scale if scale else values
