"""Speaks TF Serving's gRPC protocol on 127.0.0.1, with the real stubs of tensorflow-serving-api.

It does not need the server's binary, and does not imitate its batching, scheduling and reloading.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any

MODEL = "bit"  # name of the model on the server
MESSAGE_LIMIT = 2**31 - 1  # bytes, as in TF Serving; a few photographs exceed gRPC's default of 4 MiB


@contextlib.contextmanager
def over_grpc(signatures: Mapping[str, Callable[..., Any]], threads: int = 2) -> Iterator[str]:
    """Serves a SavedModel's signatures within the context, and yields the address, `grpc://127.0.0.1:PORT`.

    Args:
        signatures: the signatures of a model from `tf.saved_model.load`, or functions with the same arguments.
        threads: number of requests that run at the same time.
    """
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - the stub's name
            if request.model_spec.name != MODEL:
                context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request.model_spec.name}")
            name = request.model_spec.signature_name
            if name not in signatures:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f'Serving signature key "{name}" not found.')
            inputs = {key: tf.constant(tf.make_ndarray(values)) for key, values in request.inputs.items()}
            try:
                outputs = signatures[name](**inputs)
            except tf.errors.InvalidArgumentError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            response = predict_pb2.PredictResponse()
            for key, values in outputs.items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(values.numpy()))
            return response

    limits = [("grpc.max_send_message_length", MESSAGE_LIMIT), ("grpc.max_receive_message_length", MESSAGE_LIMIT)]
    server = grpc.server(futures.ThreadPoolExecutor(threads), options=limits)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None)
