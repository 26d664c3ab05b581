"""Stores the kernels of an ONNX model in 16 or 8 bits. They become float32 when the file is loaded."""

from collections.abc import Callable
from typing import Any

import numpy as np

WITH_KERNELS = ("Conv", "Gemm")  # operators whose second input is a kernel, with the outputs on its first axis
MOST = 127  # the largest 8-bit integer, with as many below 0 as above, so that 0 stays 0


def make_smaller(model: Any, quantize: str | None) -> None:
    """Stores the kernels of an `onnx.ModelProto` in fewer bits, in place; everything else stays float32.

    `"float16"` rounds them. `"int8"` gives each output channel its own scale, so that its largest weight is 127.

    Raises:
        ValueError: a weight is too large for float16.
    """
    if quantize is None:
        return
    store = {"float16": _in_half_precision, "int8": _in_8_bits}[quantize]
    graph = model.graph
    used = {node.input[1] for node in graph.node if node.op_type in WITH_KERNELS}
    before = []
    for tensor in [one for one in graph.initializer if one.name in used]:
        before.append(_stored(graph, tensor, store))
        graph.initializer.remove(tensor)
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


Store = Callable[[np.ndarray, str], tuple[dict[str, np.ndarray], Any]]  # to tensors, and the node that restores it


def _stored(graph: Any, tensor: Any, store: Store) -> Any:
    from onnx import numpy_helper

    tensors, node = store(numpy_helper.to_array(tensor), tensor.name)
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in tensors.items())
    return node


def _in_half_precision(kernel: np.ndarray, name: str) -> tuple[dict[str, np.ndarray], Any]:
    from onnx import TensorProto, helper

    if np.abs(kernel).max(initial=0) > np.finfo(np.float16).max:
        raise ValueError("`model` has weights above 65,504, which float16 cannot hold. Use another `quantize`.")
    half = f"{name}/float16"
    return {half: kernel.astype(np.float16)}, helper.make_node("Cast", [half], [name], name=name, to=TensorProto.FLOAT)


def _in_8_bits(kernel: np.ndarray, name: str) -> tuple[dict[str, np.ndarray], Any]:
    from onnx import helper

    rows = kernel.reshape(len(kernel), -1)
    scales = np.abs(rows).max(axis=1) / np.float32(MOST)
    scales[scales == 0] = 1  # a kernel of zeros
    whole = np.rint(rows / scales[:, None]).astype(np.int8).reshape(kernel.shape)
    tensors = {f"{name}/int8": whole, f"{name}/scales": scales}
    return tensors, helper.make_node("DequantizeLinear", list(tensors), [name], name=name, axis=0)
