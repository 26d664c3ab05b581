"""Google's `.npz` files, written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Writes arrays without compression, as Google's files are; numpy has no bfloat16, which becomes float32.

    Raises:
        OSError: it cannot be written: a full disk, no permission.
    """
    widened: dict[str, Any] = {
        name: values.astype(np.float32) if values.dtype.name == "bfloat16" else values
        for name, values in tensors.items()
    }
    np.savez(path, **widened)
