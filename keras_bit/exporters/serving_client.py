"""Sends images to a TensorFlow Serving with an export of keras_bit, by gRPC or REST."""

import base64
import contextlib
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from keras_bit import packages

SIGNATURE, INPUT = "serve_bytes", "image_bytes"  # of `keras_bit.export` with a processor
TIMEOUT = 60.0  # seconds for one request
MESSAGE_LIMIT = 256 << 20  # bytes; gRPC's own is 4 MiB, which a few photographs exceed
ATTEMPTS = 3  # tries for a single image, which the server may batch with another client's corrupt one
CORRUPT = re.compile(r"the image at index (\d{1,9}) (.*?)(?= the image at index \d|$)", re.DOTALL)
ASSERTED = "assertion failed: ["  # the beginning and the end of TensorFlow's message for a graph's assertion:
ASSERTED_END = re.compile(r"\]\s*(\n|\t|\[\[|$)")
LONGEST_ERROR = 2**20  # limits of a refusal's text:
SHOWN = 2000  # characters

Answer = list[tuple[str, float]]  # label and score, best first


class ImageError(ValueError):
    """Images that the server cannot read, by their places in its batch.

    The batch is the request or, with `--enable_batching`, several requests that came at the same time.
    """

    def __init__(self, problems: dict[int, str]) -> None:
        super().__init__("; ".join(f"the image at index {index} {problem}" for index, problem in problems.items()))
        self.problems = problems


def connect(address: str, model_name: str) -> Callable[[Sequence[bytes]], list[Answer]]:
    """Returns a function from encoded images to their labels and scores, best first.

    Args:
        address: `grpc://host:port` (TF Serving's is 8500), or `http://host:port` or `https://` (8501).
        model_name: the model's name on the server.

    Returns:
        The function. It raises an `ImageError` for refused images, a `ConnectionError` if the server does not answer,
        and a `ValueError` if the server has no such model, or one that does not take images.

    Raises:
        ValueError: `address` is of another form.
        ImportError: gRPC's messages are not installed.

    Checked against the `PredictionService` of tensorflow-serving-api and TF Serving's REST documentation.
    """
    parts = urllib.parse.urlsplit("" if "@" in address else address)  # an error would show a password
    if parts.scheme not in ("grpc", "http", "https") or not parts.netloc or parts.path.strip("/"):
        got = "one with an '@'" if "@" in address else repr(address)
        raise ValueError(f"`address` must be grpc://HOST:PORT or http://HOST:PORT, without a user, got {got}.")
    if parts.scheme == "grpc":
        return _grpc(address, parts.netloc, model_name)
    return lambda images: _rest(address.rstrip("/"), model_name, images)


def classify_each(
    classify: Callable[[Sequence[bytes]], list[Answer]], images: Sequence[bytes]
) -> Sequence[Answer | str]:
    """Returns for each image its answer, or what is wrong with it.

    A refused request is repeated image by image, because a batching server may name places in, or refuse because of,
    another request. An image that is refused by itself `ATTEMPTS` times is the problem.
    """
    try:
        return classify(images)
    except ImageError:
        return [_alone(classify, image) for image in images]


def _alone(classify: Callable[[Sequence[bytes]], list[Answer]], image: bytes) -> Answer | str:
    problem = ""
    for _ in range(ATTEMPTS):
        try:
            return classify([image])[0]
        except ImageError as error:
            problem = error.problems.get(0) or next(iter(error.problems.values()))
    return problem


def _grpc(address: str, target: str, model_name: str) -> Callable[[Sequence[bytes]], list[Answer]]:
    import tensorflow as tf

    with packages.needing("serving", "A grpc:// `address` (unlike http://)"):
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    options = [("grpc.max_send_message_length", MESSAGE_LIMIT), ("grpc.max_receive_message_length", MESSAGE_LIMIT)]
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(target, options))

    def classify(images: Sequence[bytes]) -> list[Answer]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model_name, SIGNATURE
        request.inputs[INPUT].CopyFrom(tf.make_tensor_proto(list(images), tf.string))
        try:
            response = stub.Predict(request, TIMEOUT)
        except grpc.RpcError as error:
            lost = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            raise _refusal(address, model_name, error.details() or str(error.code()), lost) from None
        outputs = {name: tf.make_ndarray(values) for name, values in response.outputs.items()}
        return _answers(address, outputs, len(images))

    return classify


def _rest(address: str, model_name: str, images: Sequence[bytes]) -> list[Answer]:
    instances = [{INPUT: {"b64": base64.b64encode(image).decode("ascii")}} for image in images]
    body = json.dumps({"signature_name": SIGNATURE, "instances": instances}).encode("ascii")
    url = f"{address}/v1/models/{urllib.parse.quote(model_name)}:predict"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            rows = json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        text = error.read(LONGEST_ERROR).decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            text = json.loads(text)["error"]
        raise _refusal(address, model_name, str(text), lost=error.code in (502, 503, 504)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _refusal(address, model_name, str(error), lost=True) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _other_model(address, "something that is not TF Serving's JSON") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        # If a signature has one output, such as a regression's, its values come without a name.
        raise _other_model(address, "values without names")
    names = set.intersection(*map(set, rows)) if rows else set()
    return _answers(address, {name: [row[name] for row in rows] for name in names}, len(images))


def _answers(address: str, outputs: dict[str, Any], count: int) -> list[Answer]:
    """Returns the `labels` and `scores` of `count` images; another shape means a foreign model."""
    if not {"labels", "scores"} <= outputs.keys():
        raise _other_model(address, ", ".join(sorted(outputs)) or "nothing")

    def text(label: Any) -> str:
        return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)

    try:
        both = list(zip(outputs["labels"], outputs["scores"], strict=True))
        answers = [[(text(label), float(score)) for label, score in zip(*row, strict=True)] for row in both]
    except (TypeError, ValueError):
        answers = []
    if len(answers) != count:
        raise _other_model(address, "labels and scores in another shape")
    return answers


def _other_model(address: str, found: str) -> ValueError:
    return ValueError(
        f"The server {address} answers with {found}, not with a row of labels and scores for each image. Its model has "
        "no classes, or was not exported by keras_bit. Serve another model, or check the address."
    )


def _refusal(address: str, model_name: str, text: str, lost: bool) -> Exception:
    if lost:
        return ConnectionError(
            f"The server {address} does not answer: {_shown(text)}. Check that it is running and ready."
        )
    problems = {int(index): problem.strip() for index, problem in CORRUPT.findall(_asserted(text))}
    if problems:
        return ImageError(problems)
    return ValueError(
        f"The server {address} refuses: {_shown(text)}. Check that it serves a model named {model_name!r} that was "
        f"exported with its processor and so has the signature {SIGNATURE}."
    )


def _asserted(text: str) -> str:
    """Returns the graph's own message without TensorFlow's words around it; the whole text if no assertion failed.

    In two steps, because one expression for both would search for an end after every beginning.
    """
    _, asserted, rest = text.partition(ASSERTED)
    end = ASSERTED_END.search(rest) if asserted else None
    return rest[: end.start()] if end else text


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."
