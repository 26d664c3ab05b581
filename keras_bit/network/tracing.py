"""TensorFlow-only speed-ups: shared graphs for layers of the same shapes, and 1x1 convolutions as products."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras

GRAPHS = 256  # graphs kept of each function

_in_a_step: contextvars.ContextVar[bool] = contextvars.ContextVar("in_a_step", default=False)


@contextlib.contextmanager
def step() -> Iterator[None]:
    """A context for tracing the graphs of `predict` and `evaluate`, which are never exported."""
    token = _in_a_step.set(True)
    try:
        yield
    finally:
        _in_a_step.reset(token)


def in_a_step() -> bool:
    """Returns whether the graph that is being traced belongs to one of Keras' own steps."""
    return _in_a_step.get()


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps `function` so that TensorFlow traces it once for all layers of the same shapes.

    Otherwise Keras' operations are traced in each layer, and norms and standardization are most of the nodes of a
    training step. Sharing them halves the nodes, and the time before the first step.

    Args:
        function: takes tensors by position and hashable options by name. It must not read variables.
    """
    if keras.backend.backend() != "tensorflow":
        return function

    import tensorflow as tf

    @functools.wraps(function)
    def call(*tensors: Any, **options: Any) -> Any:
        if tf.executing_eagerly():
            return function(*tensors, **options)
        signature = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
        return graph_of(signature, tuple(options.items()))(*tensors)

    # Only the latest graphs are kept, in case there are thousands of shapes. A graph that is in use stays alive.
    @functools.lru_cache(maxsize=GRAPHS)
    def graph_of(signature: Any, options: Any) -> Callable[..., Any]:
        def with_options(*tensors: Any) -> Any:
            return function(*tensors, **dict(options))

        with_options.__name__ = function.__name__
        # If TensorFlow inlined the function, all nodes would be back before the first step.
        return tf.function(with_options, autograph=False, experimental_attributes={"_noinline": True})

    return call


def tensor_of(variable: Any) -> Any:
    """Returns a variable's value: a variable cannot be an argument of a function or part of a custom gradient."""
    if keras.backend.backend() != "tensorflow":
        return keras.ops.reshape(variable, variable.shape)
    import tensorflow as tf

    return tf.convert_to_tensor(variable)  # `keras.ops.convert_to_tensor` gives TensorFlow's variable


def gradients_are_recorded() -> bool:
    """Returns whether PyTorch records the gradient that is computed now, so that it can be differentiated again.

    In PyTorch the forward part of a custom gradient runs without a graph, and what it keeps counts as constant. For
    second derivatives the gradient must compute it again from the arguments. A plain training step needs none.
    """
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.is_grad_enabled()


@functools.cache
def products_are_faster() -> bool:
    """Returns whether to compute a convolution with a 1x1 kernel as a matrix product.

    It speeds up training steps on CPUs and does not slow down other calls noticeably
    (docs/explanation/performance-details.md). On GPUs TensorFlow does it by itself, and other backends have compilers
    for it.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")
