"""What TF Serving and KServe read beside a SavedModel: warm-up requests, batching, how to start them."""

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from keras_bit import files

WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
DEFAULT_SIZE = 224  # px, of a warm-up request where any size may come
LARGEST_BATCH = 8

BATCHING = """\
# For tensorflow_model_server: --enable_batching --batching_parameters_file=/models/{name}/batching.config
# Requests that come within the time-out are run together, up to the largest batch. One of `serve_bytes` with a corrupt
# picture then fails those that it was put together with: batch pixels, or pictures that somebody has checked.
max_batch_size {{ value: {largest} }}
batch_timeout_micros {{ value: 2000 }}
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: 2 }}
{allowed}"""

DOCKER = """\
#!/bin/sh
# gRPC at port 8500, REST at port 8501 (http://127.0.0.1:8501/v1/models/{name}:predict). The server gets the options:
#   serve.sh --enable_batching --batching_parameters_file=/models/{name}/batching.config
docker run --rm -p 8500:8500 -p 8501:8501 \\
  -v "$(cd "$(dirname "$0")" && pwd):/models/{name}" -e MODEL_NAME={name} tensorflow/serving "$@"
"""

KSERVE = """\
# kubectl apply -f inference-service.yaml, after copying this directory to the place that storageUri names.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {host}
spec:
  predictor:
    model:
      modelFormat:
        name: tensorflow
      storageUri: gs://YOUR-BUCKET/{name}
      resources:
        requests: {{cpu: "2", memory: 2Gi}}
"""


def write_beside(base: Path, batch_size: int | None) -> None:
    """Writes what is not there yet: a person may have changed it."""
    name = "".join(character if character.isalnum() or character in "-_" else "-" for character in base.resolve().name)
    host = name.lower().replace("_", "-").strip("-") or "bit"  # Kubernetes' names have no underscores
    largest = batch_size or LARGEST_BATCH
    allowed = f"allowed_batch_sizes: {batch_size}\n" if batch_size else ""
    values = {"name": name, "host": host, "largest": largest, "allowed": allowed}
    texts = {"batching.config": BATCHING, "serve.sh": DOCKER, "inference-service.yaml": KSERVE}
    for file, text in texts.items():
        if not (base / file).exists():
            with files.replacing(base / file) as beside:
                beside.write_text(text.format(**values), encoding="utf-8")
                if file.endswith(".sh"):
                    beside.chmod(beside.stat().st_mode | 0o111)


def write_warmup(
    path: Path, shape: tuple[int | None, ...], channels: int, pictures: bool, tell: Callable[[str], None]
) -> None:
    """One request per signature that computes, which TF Serving runs before it says that it is ready.

    Args:
        path: the SavedModel.
        shape: (batch, height, width) that it takes.
        channels: of its pictures.
        pictures: whether it takes encoded ones.
        tell: is told where the package with the messages is missing.
    """
    if importlib.util.find_spec("tensorflow_serving") is None:
        tell("no warm-up requests: they need tensorflow-serving-api (pip install -e '.[serving]' in a checkout)")
        return
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    batch, height, width = (
        given or default for given, default in zip(shape, (1, DEFAULT_SIZE, DEFAULT_SIZE), strict=True)
    )
    requests = {"serving_default": ("pixel_values", np.zeros((batch, height, width, channels), np.float32))}
    if pictures:
        encoded = io.BytesIO()
        Image.new("RGB", (width, height), "gray").save(encoded, "JPEG")
        requests["serve_bytes"] = ("image_bytes", np.array([encoded.getvalue()] * batch, object))
    (path / WARMUP).parent.mkdir()
    with tf.io.TFRecordWriter(str(path / WARMUP)) as records:
        for signature, (name, values) in requests.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            records.write(log.SerializeToString())
