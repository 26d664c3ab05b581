"""Serves a SavedModel by both protocols of TF Serving on 127.0.0.1, without the binary of the server.

The gRPC side is that of `benchmarks.serving`, with the real stubs. The REST side follows TF Serving's documentation.
"""

import base64
import contextlib
import functools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import tensorflow as tf

from benchmarks import prediction_service
from benchmarks.prediction_service import MODEL


class Merging:
    """A signature that runs its first two requests as one, as `--enable_batching` does; an error is everyone's."""

    def __init__(self, signature):
        self._signature = signature
        self._lock, self._both = threading.Lock(), threading.Barrier(2, timeout=60)
        self._waiting = []
        self._result = None

    def __call__(self, image_bytes):
        with self._lock:
            place = len(self._waiting)
            if place < 2:
                self._waiting.append(image_bytes)
        if place == 2:
            return self._signature(image_bytes=image_bytes)
        if self._both.wait() == 0:
            try:
                self._result = self._signature(image_bytes=tf.concat(self._waiting, 0))
            except tf.errors.InvalidArgumentError as error:
                self._result = error
        self._both.wait()
        if isinstance(self._result, Exception):
            raise self._result
        start = len(self._waiting[0]) if place else 0
        return {key: values[start : start + len(image_bytes)] for key, values in self._result.items()}


_loaded = functools.cache(tf.saved_model.load)


def _signatures(path, merging):
    signatures = dict(_loaded(path).signatures)
    return {name: Merging(one) for name, one in signatures.items()} if merging else signatures


@contextlib.contextmanager
def over_grpc(path: str, merging: bool = False) -> Iterator[str]:
    with prediction_service.over_grpc(_signatures(path, merging)) as address:
        yield address


@contextlib.contextmanager
def over_rest(path: str, merging: bool = False) -> Iterator[str]:
    signatures = _signatures(path, merging)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != f"/v1/models/{MODEL}:predict":
                return self._answer(404, {"error": f"Servable not found for request: {self.path}"})
            name = request["signature_name"]
            if name not in signatures:
                return self._answer(400, {"error": f'Serving signature key "{name}" not found.'})
            images = [base64.b64decode(instance["image_bytes"]["b64"]) for instance in request["instances"]]
            try:
                outputs = signatures[name](image_bytes=tf.constant(images))
            except tf.errors.InvalidArgumentError as error:
                return self._answer(400, {"error": error.message})
            columns = {key: values.numpy().tolist() for key, values in outputs.items()}
            if "labels" in columns:
                columns["labels"] = [[label.decode() for label in row] for row in columns["labels"]]
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            if len(columns) == 1:  # "If there is only one named output, the output tensor name is omitted"
                (rows,) = columns.values()
            return self._answer(200, {"predictions": rows})

        def _answer(self, code, content):
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
