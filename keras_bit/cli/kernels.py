"""TensorFlow's oneDNN kernels, on in every command on every processor.

TensorFlow turns them on by itself only where the processor has AVX-512 or better. With AVX2 alone they reduce the work
of a training step to 0.81 and that of eight images to 0.9. They increase that of one fused image to at most 1.19, which
is 20 milliseconds of a command that takes seconds. `python -m benchmarks processors` measures the time.
"""

import os
import sys

SWITCH = "TF_ENABLE_ONEDNN_OPTS"


def turn_on() -> None:
    """Sets the variable that TensorFlow reads when it is imported; what the user has set stays."""
    if "tensorflow" not in sys.modules:
        os.environ.setdefault(SWITCH, "1")
