"""Files for TF Serving and KServe beside a SavedModel: warm-up requests, batching, how to start a server."""

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from keras_bit import packages
from keras_bit.files import writing

WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
DEFAULT_SIZE = 224  # px, of a warm-up request if any size is allowed
LARGEST_BATCH = 8

BATCHING = """\
# For tensorflow_model_server: --enable_batching --batching_parameters_file=/models/{name}/batching.config
# Requests that come within the time-out are run together, up to the largest batch. One of `serve_bytes` with a corrupt
# image then fails those that it was put together with (keras-bit classify asks again, image by image): batch
# pixels, or images that somebody has checked.
max_batch_size {{ value: {largest} }}
batch_timeout_micros {{ value: 2000 }}
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: 2 }}
{allowed}"""

DOCKER = """\
#!/bin/sh
# gRPC at port 8500, REST at port 8501 (http://127.0.0.1:8501/v1/models/{name}:predict). The server gets the options:
#   serve.sh --enable_batching --batching_parameters_file=/models/{name}/batching.config
# Version {version} was written by TensorFlow {tensorflow}. A server knows the operations of its own version, which must
# be that one or newer: that of WebP, for one, is young. TF_SERVING_IMAGE=tensorflow/serving:TAG names another image.
# TF_ENABLE_ONEDNN_OPTS is passed on. On a processor without AVX-512, 1 makes batches faster and single images slower.
# docker runs it, or podman where there is no docker; CONTAINER_ENGINE names the one to take, or another.
# The directory of this file, also by a link to it. An x behind a name keeps the newlines at its end.
file=$0
case $file in */*) ;; *) file=./$file ;; esac
while [ -h "$file" ]; do
  link=$(readlink "$file"; echo x)
  link=${{link%?x}}
  case $link in /*) file=$link ;; *) file=${{file%/*}}/$link ;; esac
done
directory=$(CDPATH='' cd -- "${{file%/*}}/" && pwd -P && echo x) || exit 1
directory=${{directory%?x}}
# --mount takes fields between commas, of which a quoted one may hold commas and newlines; -v could hold no colon.
quoted=$(printf '%s\\n' "$directory" | sed 's/"/""/g'; echo x)
quoted=${{quoted%?x}}
engine=${{CONTAINER_ENGINE:-$(command -v docker || command -v podman || echo docker)}}
# podman asks for a registry in an image's name, which docker leaves out.
exec "$engine" run --rm -p 8500:8500 -p 8501:8501 \\
  --mount "type=bind,\\"source=$quoted\\",target=/models/{name}" -e MODEL_NAME={name} -e TF_ENABLE_ONEDNN_OPTS \\
  "${{TF_SERVING_IMAGE:-docker.io/tensorflow/serving}}" "$@"
"""

KSERVE = """\
# kubectl apply -f inference-service.yaml, after copying this directory to the place that storageUri names.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: "{host}"
spec:
  predictor:
    model:
      modelFormat:
        name: tensorflow
      storageUri: "gs://YOUR-BUCKET/{name}"
      resources:
        requests: {{cpu: "2", memory: "{memory}Gi"}}
"""


def write_beside(version: Path, batch_size: int | None) -> None:
    """Writes missing files beside the directory of a version; existing ones may have been edited."""
    import tensorflow as tf

    base = version.parent
    name = re.sub("[^A-Za-z0-9_-]", "-", base.resolve().name) or "bit"
    allowed = f"allowed_batch_sizes: {batch_size}\n" if batch_size else ""
    values = {
        "name": name,
        "host": _host(name),
        "largest": batch_size or LARGEST_BATCH,
        "allowed": allowed,
        "version": version.name,
        "tensorflow": tf.__version__,
        "memory": _memory(sum(file.stat().st_size for file in version.rglob("*") if file.is_file())),
    }
    texts = {"batching.config": BATCHING, "serve.sh": DOCKER, "inference-service.yaml": KSERVE}
    for file, text in texts.items():
        if not (base / file).exists():
            with writing.replacing(base / file) as beside:
                beside.write_text(text.format(**values), encoding="utf-8")
                if file.endswith(".sh"):
                    beside.chmod(beside.stat().st_mode | 0o111)
    if allowed.strip() not in (base / "batching.config").read_text(encoding="utf-8", errors="replace"):
        warnings.warn(
            f"{base / 'batching.config'} is older than this version, which takes batches of "
            f"{batch_size} only. Remove it before an export to get a new one, or add: " + allowed.strip(),
            stacklevel=5,  # to the caller of `export`
        )


def _host(name: str) -> str:
    """Returns a valid Kubernetes name (RFC 1035): letters, digits and hyphens, a letter first, at most 63."""
    host = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    if not re.match("[a-z]", host):
        host = f"bit-{host}"
    return host[:63].rstrip("-")


def _memory(size: int) -> int:
    """Returns the GiB for a server with a model of `size` bytes: two versions and the computation."""
    return 1 + -(-3 * size // 2**30)


def write_warmup(
    path: Path,
    shape: tuple[int | None, ...],
    channels: int,
    dtype: np.dtype,
    images: bool,
    progress: Callable[[str], None],
) -> None:
    """Writes one request per computing signature, which TF Serving runs before it reports that it is ready.

    Args:
        path: the SavedModel.
        shape: its (batch, height, width).
        channels: of its images.
        dtype: of its pixels.
        images: whether it takes encoded images.
        progress: a function that is called with a line if the package with the messages is missing.
    """
    try:
        packages.require("tensorflow_serving", "serving", "no warm-up requests are written: this")
    except packages.MissingPackageError as missing:
        progress(str(missing))
        return
    import tensorflow as tf

    with packages.needing("serving", "Writing warm-up requests"):
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    batch, height, width = (
        given or default for given, default in zip(shape, (1, DEFAULT_SIZE, DEFAULT_SIZE), strict=True)
    )
    requests = {"serving_default": ("pixel_values", np.zeros((batch, height, width, channels), dtype))}
    if images:
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
