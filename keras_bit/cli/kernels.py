"""Turns on TensorFlow's oneDNN kernels for every command on every processor.

TensorFlow turns them on by itself only if the processor has AVX-512 or better. With only AVX2 they speed up training
and batches; they slow down a single image by milliseconds, which does not matter for a command.
docs/explanation/performance-details.md has the figures.
"""

import os
import sys

SWITCH = "TF_ENABLE_ONEDNN_OPTS"


def turn_on() -> None:
    """Sets the variable that TensorFlow reads on import, unless the user has set it."""
    if "tensorflow" not in sys.modules:
        os.environ.setdefault(SWITCH, "1")
