"""The operations and weights of a network, and the machine's peak speed (`python -m benchmarks.flops`)."""

import json
import math
import re
import time

import numpy as np

from keras_bit import BitConfig
from keras_bit.network.weights import weights_of

MATRIX_SIZE = 2048  # rows and columns; the speed of this product counts as the machine's peak
PEAK = "matrix peak"
PROCESS = ("benchmarks.flops",)  # prints {"flops_per_second": ...}


def flops(config: BitConfig, image_size: int) -> float:
    """Returns the floating-point operations for one image: two for each multiply-add of convolutions and head.

    Norms, activations and pools are left out, as usual; they are about a hundredth of it.

    Raises:
        ValueError: `config` has another output stride than 32.
    """
    if config.output_stride != 32:
        raise ValueError(f"`config` must have an output stride of 32, got {config.output_stride}.")
    total = 0
    for weight in weights_of(config):
        if weight.variable == "kernel":
            total += 2 * math.prod(weight.shape) * _side(weight.layer, image_size) ** 2
    return float(total)


def weights_bytes(config: BitConfig) -> int:
    """Returns the bytes of the weights in float32."""
    return sum(4 * math.prod(weight.shape) for weight in weights_of(config))


def _side(layer: str, image_size: int) -> int:
    """Returns the pixels along a side of a layer's output."""
    if layer == "predictions":
        return 1
    halvings = 1
    if match := re.match(r"stage(\d+)_block(\d+)_(\w+)", layer):
        stage, block, part = int(match[1]), int(match[2]), match[3]
        halvings = 1 + stage
        if stage > 1 and block == 0 and part == "conv1":  # the 3x3 after it has the stride
            halvings -= 1
    return math.ceil(image_size / 2**halvings)


def matrix_peak() -> float:
    """Measures the operations per second of numpy's product of two float32 matrices on all cores: the best of ten."""
    matrix = np.ones((MATRIX_SIZE, MATRIX_SIZE), np.float32)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        np.dot(matrix, matrix)
        times.append(time.perf_counter() - start)
    return 2 * MATRIX_SIZE**3 / min(times)


def share(work: float, seconds: float, peak: float | None) -> str:
    """Describes `work` operations in `seconds` for a table, with the share of the peak if it is known."""
    told = f"{work / 1e9:.3g} GFLOP"
    return told if peak is None else f"{told}, {work / seconds / peak:.0%} of the peak"


if __name__ == "__main__":
    print(json.dumps({"flops_per_second": matrix_peak()}))
