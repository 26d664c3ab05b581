"""Adds the head to a BiT without one, as ONNX: the scores, the five best classes, and their class activation maps.

The head's kernel is used twice, on the mean over the positions and on each position, so the file holds it once.
"""

from typing import Any, NamedTuple

import numpy as np

BEST = 5  # classes at most
CLASSES, MAPS = "classes", "maps"  # the outputs in addition to the scores
AXES_ARE_INPUTS = 18  # from this opset on, of ReduceMean


class Head(NamedTuple):
    """The last layer.

    Args:
        kernel: float32 `(classes, channels)`.
        bias: float32 `(classes,)`.
        activation: "Softmax" or "Sigmoid", as ONNX has them.
        scores: the name of the output.
    """

    kernel: np.ndarray
    bias: np.ndarray
    activation: str
    scores: str


def add_head(model: Any, head: Head, shape: tuple[int, int]) -> None:
    """Adds the head to the only output of an ONNX model, `(1, height, width, channels)`, which it replaces.

    The outputs are then `head.scores`, float32 `(1, classes)`; `CLASSES`, int32 `(1, best)`, the best ones in order;
    and `MAPS`, float32 `(1, best, height, width)`, the contributions of each position to their logits.

    Args:
        model: an `onnx.ModelProto`, which is changed.
        head: the head.
        shape: height and width of the last feature map.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    (last,) = graph.output
    count, channels = head.kernel.shape
    best = min(BEST, count)

    def constant(name: str, values: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(values, f"head/{name}"))
        return f"head/{name}"

    def add(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        graph.node.append(helper.make_node(kind, inputs, outputs, name=f"head/{outputs[0]}", **attributes))

    kernel = constant("kernel", np.ascontiguousarray(head.kernel))
    add("Reshape", [last.name, constant("rows", np.array([-1, channels]))], ["head/features"])
    if _opset(model) < AXES_ARE_INPUTS:
        add("ReduceMean", ["head/features"], ["head/pooled"], axes=[0], keepdims=1)
    else:
        add("ReduceMean", ["head/features", constant("axes", np.array([0]))], ["head/pooled"], keepdims=1)
    add("Gemm", ["head/pooled", kernel, constant("bias", head.bias)], ["head/logits"], transB=1)
    add(head.activation, ["head/logits"], [head.scores])

    # By the logits, because several scores may be 1.0.
    add("TopK", ["head/logits", constant("best", np.array([best]))], ["head/values", "head/indices"], axis=1)
    add("Cast", ["head/indices"], [CLASSES], to=TensorProto.INT32)
    add("Reshape", ["head/indices", constant("flat", np.array([-1]))], ["head/chosen"])
    add("Gather", [kernel, "head/chosen"], ["head/kernels"], axis=0)
    add("Gemm", ["head/kernels", "head/features"], ["head/maps"], transB=1)
    add("Reshape", ["head/maps", constant("places", np.array([1, best, *shape]))], [MAPS])

    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info(head.scores, TensorProto.FLOAT, [1, count]),
            helper.make_tensor_value_info(CLASSES, TensorProto.INT32, [1, best]),
            helper.make_tensor_value_info(MAPS, TensorProto.FLOAT, [1, best, *shape]),
        ]
    )


def _opset(model: Any) -> int:
    return next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
