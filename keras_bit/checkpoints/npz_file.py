"""Writes Google's `.npz` files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Writes arrays without compression, as in Google's files; bfloat16, which numpy lacks, becomes float32.

    Raises:
        OSError: it cannot be written: a full disk, no permission.
    """
    widened: dict[str, Any] = {
        name: values.astype(np.float32) if values.dtype.name == "bfloat16" else values
        for name, values in tensors.items()
    }
    np.savez(path, **widened)
