"""TensorFlow's oneDNN kernels, on in every command on every processor.

TensorFlow turns them on by itself only where the processor has AVX-512 or better. Where it has AVX2 alone, a training
step takes 0.7 of its time by them and a batch of eight images 0.9; one image, fused, takes up to 1.15 of it, ten
milliseconds of a command that lasts seconds. `python -m benchmarks processors` measures both.
"""

import os
import sys

SWITCH = "TF_ENABLE_ONEDNN_OPTS"


def turn_on() -> None:
    """Sets the variable that TensorFlow reads when it is imported; what the user has set stays."""
    if "tensorflow" not in sys.modules:
        os.environ.setdefault(SWITCH, "1")
