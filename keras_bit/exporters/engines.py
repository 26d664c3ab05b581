"""Loads a file in its engine, as a function of a batch, without another engine's threads.

It imports Keras and the engines only when they are used, because a process that measures one must not hold the others.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Call = Callable[[np.ndarray], np.ndarray]
INPUT = "pixel_values"
SCORES = ("logits", "probabilities")  # outputs of a classifier, with the same ranking


class Engine(NamedTuple):
    """A loaded file.

    Args:
        call: a function from a batch of the model's input, `(batch, height, width, channels)`, to the scores
            `(batch, classes)`; these may be integers with the same ranking.
        batch_size: the fixed one of `call`; `None` is any.
    """

    call: Call
    batch_size: int | None


def keras_model(path: Path, threads: int) -> Engine:
    """Loads a `.keras` file for `model.predict`, on the backend of this process."""
    import keras  # which finds the layers of keras_bit, because it is imported

    if keras.backend.backend() == "tensorflow":
        _use_threads(threads)
    model = keras.saving.load_model(path, compile=False)

    def call(batch: np.ndarray) -> np.ndarray:
        return model.predict(batch, batch_size=len(batch), verbose=0)

    return Engine(call, model.input_shape[0])


def saved_model(path: Path, threads: int) -> Engine:
    """Loads a version of a SavedModel, with its signature `serving_default`."""
    import tensorflow as tf

    _use_threads(threads)
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]

    def call(batch: np.ndarray) -> np.ndarray:
        outputs = serve(**{INPUT: tf.constant(batch)})
        return _scores(outputs).numpy()

    call.loaded = loaded  # type: ignore[attr-defined]  # a signature by itself does not keep its variables
    return Engine(call, serve.structured_input_signature[1][INPUT].shape[0])


def tflite(path: Path, threads: int) -> Engine:
    """Loads a TFLite file in LiteRT; the function takes floats even if the file's input is integers."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (taken,), given = interpreter.get_input_details(), interpreter.get_output_details()[0]
    scale, zero = taken["quantization"]

    def call(batch: np.ndarray) -> np.ndarray:
        if scale:
            bounds = np.iinfo(taken["dtype"])
            batch = np.clip(np.rint(batch / scale) + zero, bounds.min, bounds.max).astype(taken["dtype"])
        interpreter.set_tensor(taken["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])

    # The interpreter could be resized, but a fixed batch size is kept.
    return Engine(call, _fixed(taken["shape_signature"][0]))


def onnx(path: Path, threads: int) -> Engine:
    """Loads an ONNX file in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    wanted = next((name for name in SCORES if name in names), names[0])
    return Engine(lambda batch: session.run([wanted], {taken.name: batch})[0], _fixed(taken.shape[0]))


def openvino(path: Path, threads: int) -> Engine:
    """Loads OpenVINO's `.xml` or an ONNX file in OpenVINO on the CPU, in float32 unless the file has fewer bits.

    OpenVINO would use bfloat16 instructions if the processor has them, but that must be the user's choice.
    """
    from keras_bit.exporters.openvino_package import core

    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = core().compile_model(str(path), "CPU", hints)
    shape = compiled.inputs[0].get_partial_shape()
    fixed = None if shape.rank.is_dynamic or shape[0].is_dynamic else shape[0].get_length()

    def call(batch: np.ndarray) -> np.ndarray:
        return _scores({output.any_name: values for output, values in compiled(batch).items() if output.names})

    return Engine(call, fixed)


def _use_threads(threads: int) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)


def _scores(outputs: Mapping[str, Any]) -> Any:
    """Returns the scores of a classifier, or the only output, whatever its name."""
    return next((outputs[name] for name in SCORES if name in outputs), next(iter(outputs.values())))


def _fixed(size: Any) -> int | None:
    """Returns the size of an axis; `None` for any, which engines write as -1, a name or `None`."""
    return int(size) if not isinstance(size, str) and size is not None and int(size) > 0 else None


# Format to the function that loads its files; "keras" is the model itself.
ENGINES: Mapping[str, Callable[[Path, int], Engine]] = {
    "keras": keras_model,
    "saved_model": saved_model,
    "tflite": tflite,
    "onnx": onnx,
    "openvino": openvino,
}
