"""What Keras' operations leave to be done under TensorFlow for a network to start and to compute as fast as it can."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras

GRAPHS = 256  # of each function, some 0.4 MB each; a training step of R50x1 has 62 of four functions

_in_a_step: contextvars.ContextVar[bool] = contextvars.ContextVar("in_a_step", default=False)


@contextlib.contextmanager
def step() -> Iterator[None]:
    """A context for the graphs of `predict` and `evaluate`, which are never exported and should be traced quickly."""
    token = _in_a_step.set(True)
    try:
        yield
    finally:
        _in_a_step.reset(token)


def in_a_step() -> bool:
    """Whether the graph that is traced now is one of Keras' own steps."""
    return _in_a_step.get()


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which under TensorFlow becomes one graph for all layers of the same shapes, and not nodes in each.

    What is written in Keras' operations is traced wherever it is called: norms and standardization were 7,500 of the
    9,000 nodes of a training step of R50x1, and to trace and to optimize them was most of the wait for the first step.
    As functions they are made for each shape once, for 31 shapes and not 102 layers, and called: 4,300 nodes, half of
    them the optimizer's, and 1,500 in functions.

    Args:
        function: takes tensors by place and options, which are hashable, by name; reads no variables.
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

    # Who trains with thousands of shapes keeps the latest; others stay where a graph calls them.
    @functools.lru_cache(maxsize=GRAPHS)
    def graph_of(signature: Any, options: Any) -> Callable[..., Any]:
        def with_options(*tensors: Any) -> Any:
            return function(*tensors, **dict(options))

        with_options.__name__ = function.__name__
        # Inlined, the nodes would be back before the first step.
        return tf.function(with_options, autograph=False, experimental_attributes={"_noinline": True})

    return call


def tensor_of(variable: Any) -> Any:
    """The value of a variable. A variable itself cannot be an argument of a function or part of a custom gradient."""
    if keras.backend.backend() != "tensorflow":
        return keras.ops.reshape(variable, variable.shape)
    import tensorflow as tf

    return tf.convert_to_tensor(variable)  # `keras.ops.convert_to_tensor` gives TensorFlow's variable


def gradients_are_recorded() -> bool:
    """Whether PyTorch records how a gradient that is computed now depends on its arguments, to differentiate it again.

    The forward part of a custom gradient runs without a graph there: what it keeps would count as constant. So the
    gradient has to compute it again from the arguments. A training step takes no second derivatives and records none.
    """
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.is_grad_enabled()


@functools.cache
def products_are_faster() -> bool:
    """Whether to compute a convolution with a kernel of 1x1 as a matrix product.

    Of a training step of R50x1 it leaves 0.83 to 0.88 without TensorFlow's oneDNN kernels and 0.92 to 1.01 with them,
    on processors with and without AVX-512; of a fused call for one or eight images 0.97 to 1.01. So it is done on every
    CPU. On GPUs TensorFlow multiplies by itself, but for layouts that it likes better, and other backends have
    compilers for that.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")
