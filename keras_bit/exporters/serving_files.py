"""Files for TF Serving and KServe next to a SavedModel: warm-up requests, batching, how to start a server."""

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
# How TensorFlow Serving combines requests into batches. The server reads this file if it starts with the options
#   --enable_batching --batching_parameters_file=/models/{name}/batching.config
# A corrupt image that a request sends to the signature `serve_bytes` fails all requests of its batch. Send images that
# you have checked, or pixels. (The command `keras-bit classify` sends the images of a failed batch again, one by one.)

# The largest number of images in a batch. A larger batch needs more memory.
max_batch_size {{ value: {largest} }}
# How long a request waits for others, in microseconds. A longer time makes larger batches and slower answers.
batch_timeout_micros {{ value: 2000 }}
# How many batches may wait. The server refuses the requests that come after them.
max_enqueued_batches {{ value: 100 }}
# How many batches run at the same time.
num_batch_threads {{ value: 2 }}
{allowed}"""
ALLOWED = """\
# The model takes batches of this size only. The server fills a smaller batch up. Keep it equal to max_batch_size.
"""

DOCKER = """\
#!/bin/sh
# Starts TensorFlow Serving in a container. It serves the model in this directory: gRPC at port 8500, REST at port 8501
# (http://127.0.0.1:8501/v1/models/{name}:predict). The newest version is the directory with the largest number.
#
# The script passes its options to the server. With these, the server combines requests into batches:
#   serve.sh --enable_batching --batching_parameters_file=/models/{name}/batching.config
#
# Three environment variables change what the script does:
# * TF_SERVING_IMAGE is the container image, such as tensorflow/serving:TAG. Without it, tensorflow/serving:latest runs:
#   the image that this machine already has, or the newest one, which is downloaded.
#   Version {version} was written by TensorFlow {tensorflow}. The image must have that version or a newer one, because
#   an older server does not know all operations of the model, such as the decoder of WebP.
# * TF_ENABLE_ONEDNN_OPTS goes to the server. On a processor without AVX-512, 1 makes batches faster and single images
#   slower.
# * CONTAINER_ENGINE is the program that runs the image. Without it, docker runs it, or podman if docker is missing.

# Find the directory of this script, even if a link calls it. The shell drops newlines at the end of a name, so an x
# protects them.
file=$0
case $file in */*) ;; *) file=./$file ;; esac
while [ -h "$file" ]; do
  link=$(readlink "$file"; echo x)
  link=${{link%?x}}
  case $link in /*) file=$link ;; *) file=${{file%/*}}/$link ;; esac
done
directory=$(CDPATH='' cd -- "${{file%/*}}/" && pwd -P && echo x) || exit 1
directory=${{directory%?x}}
# Quote the directory, because its name may contain commas, quotes or newlines. (The option -v cannot take a colon.)
quoted=$(printf '%s\\n' "$directory" | sed 's/"/""/g'; echo x)
quoted=${{quoted%?x}}
# Without this check the shell would only say that it does not find docker.
if [ -z "${{CONTAINER_ENGINE:-}}" ] && ! command -v docker >/dev/null && ! command -v podman >/dev/null; then
  echo "serve.sh: neither docker nor podman is installed. Install one of the two, or name another program that runs" \\
    "container images in the variable CONTAINER_ENGINE." >&2
  exit 1
fi
engine=${{CONTAINER_ENGINE:-$(command -v docker || command -v podman || echo docker)}}
# The image's name starts with its registry (docker.io), because podman needs it.
exec "$engine" run --rm -p 8500:8500 -p 8501:8501 \\
  --mount "type=bind,\\"source=$quoted\\",target=/models/{name}" -e MODEL_NAME={name} -e TF_ENABLE_ONEDNN_OPTS \\
  "${{TF_SERVING_IMAGE:-docker.io/tensorflow/serving}}" "$@"
"""

KSERVE = """\
# Serves the model with KServe, on Kubernetes:
# 1. Copy the directory of this file to your storage.
# 2. Write the address of the copy after storageUri.
# 3. Run: kubectl apply -f inference-service.yaml
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
        # Enough memory for two versions of the model and a batch of images. Large batches may need more.
        requests: {{cpu: "2", memory: "{memory}Gi"}}
"""


def write_beside(version: Path, batch_size: int | None) -> None:
    """Writes the files next to the directory of a version, except those that exist: somebody may have edited them.

    Args:
        version: the directory of the SavedModel.
        batch_size: the only batch size that the SavedModel takes; `None` if it takes any.
    """
    import tensorflow as tf

    base = version.parent
    name = re.sub("[^A-Za-z0-9_-]", "-", base.resolve().name) or "bit"
    allowed = f"allowed_batch_sizes: {batch_size}\n" if batch_size else ""
    values = {
        "name": name,
        "host": _host(name),
        "largest": batch_size or LARGEST_BATCH,
        "allowed": ALLOWED + allowed if allowed else "",
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
            f"{base / 'batching.config'} is older than version {version.name} of the model, which takes batches of "
            f"{batch_size} only. Remove the file and export again, or add this line to it: " + allowed.strip(),
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
        shape: the (batch, height, width) that it takes; `None` for any.
        channels: the number of channels of its images.
        dtype: the dtype of its pixels.
        images: whether it takes encoded images.
        progress: a function that is called with a line if the package with the messages is missing.
    """
    try:
        packages.require("tensorflow_serving", "serving", "no warm-up requests are written, because writing them")
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
