"""Writes an ONNX file in 8 bits: convolutions and dense layers are quantized, everything else stays float.

Weights are int8 with a scale per channel, limited to 7 bits: without VNNI, onnxruntime adds two products in 16 bits,
which 8 bits would overflow, and the file should give the same numbers on every processor.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_bit.exporters import calibration_data, onnx_file
from keras_bit.exporters.job import Job
from keras_bit.exporters.onnx_weights import MOST_BYTES, data_file

OPERATORS = ["Conv", "Gemm", "MatMul"]
# Scores in steps of 1/256 of their range would hide small differences.
FLOAT_OUTPUTS = ("Gemm", "MatMul")


def quantize(job: Job, source: Path, path: Path, float_outputs: Sequence[str] = FLOAT_OUTPUTS) -> None:
    """Writes the model of the file `source` to `path`, with the ranges of `job.representative_data`.

    `source` is removed.

    Args:
        float_outputs: operators whose results are not rounded to 8 bits. onnxruntime computes a convolution in 8 bits
            only if its result is rounded.
    """
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = _batches(job)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {onnx_file.INPUT: batch}

    graph = onnx.load(source, load_external_data=False).graph
    with _without_advice():
        quantization.quantize_static(
            source,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=OPERATORS,
            nodes_to_exclude=[node.name for node in graph.node if _is_of_each_channel(node)],
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            use_external_data_format=onnx_file.size(job.model) > MOST_BYTES,
            extra_options={"OpTypesToExcludeOutputQuantization": [*float_outputs]},
        )
    for file in (source, data_file(source)):
        file.unlink(missing_ok=True)
    model = onnx.load(path, load_external_data=False)
    model.producer_name, model.producer_version = onnx_file.PRODUCER, onnx_file.version()
    onnx_file.save(model, job, path)


def _batches(job: Job) -> Iterator[Any]:
    fixed = job.batch_size or job.model.input_shape[0]
    batches = job.representative_data or ()
    return iter(batches) if fixed is None else calibration_data.samples(batches, fixed)


def _is_of_each_channel(node: Any) -> bool:
    """Returns whether it is a depthwise convolution; BiT's are norms and zeros around a map."""
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Silences advice that onnxruntime logs to the root logger, unless the user has configured that logger."""
    silent = logging.NullHandler()
    logging.root.addHandler(silent)
    try:
        yield
    finally:
        logging.root.removeHandler(silent)
