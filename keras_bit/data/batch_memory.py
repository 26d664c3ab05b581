"""Reuses the memory of a batch of images once nothing refers to the batch.

The system clears every new page, which slows down the reading of a batch.
"""

import math
from collections import deque
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: TensorFlow takes over an array that begins at such an address, and copies others


class BatchMemory:
    """Creates float32 arrays in the memory of earlier ones that were deleted."""

    def __init__(self) -> None:
        # A deque, because its pop and append are atomic and take no lock: memory comes back when an object is deleted,
        # which can happen anywhere, and a forked process has only one thread.
        self._free: deque[np.ndarray] = deque(maxlen=1)

    def __reduce__(self) -> tuple[type, tuple]:
        # Copies and worker processes start with their own memory.
        return BatchMemory, ()

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """Returns an array with arbitrary values."""
        size = 4 * math.prod(shape)
        try:
            block = self._free.pop()
        except IndexError:
            block = None
        if block is None or block.size < size + ALIGNMENT:
            block = np.empty(size + ALIGNMENT, np.uint8)
        memory = np.asarray(_Loan(self, block))
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + size].view(np.float32).reshape(shape)

    def _take_back(self, block: np.ndarray) -> None:
        self._free.append(block)


class _Loan:
    """Holds the memory of an array; the array and its views keep it alive."""

    def __init__(self, memory: BatchMemory, block: np.ndarray) -> None:
        self.__array_interface__: dict[str, Any] = block.__array_interface__
        self._memory, self._block = memory, block

    def __del__(self) -> None:
        self._memory._take_back(self._block)
