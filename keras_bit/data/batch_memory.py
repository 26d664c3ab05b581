"""The memory of a batch of images, which is used again when nobody holds the batch any more.

The system clears every page that it hands out. For a batch that takes a tenth of the time of reading it.
"""

import math
from collections import deque
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: TensorFlow takes over an array that begins at such an address, and copies others


class BatchMemory:
    """Gives float32 arrays, and takes the memory of the last one back when its array is gone."""

    def __init__(self) -> None:
        # A deque, since its pop and append are each one step to other threads, and neither can wait: memory comes
        # back while an object is deleted, which can happen anywhere, and a forked process has one thread only.
        self._free: deque[np.ndarray] = deque(maxlen=1)

    def __reduce__(self) -> tuple[type, tuple]:
        # A copy, or a worker process, begins with memory of its own.
        return BatchMemory, ()

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array whose numbers are whatever was there."""
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
    """What an array and all its views keep alive; numpy asks it for the memory."""

    def __init__(self, memory: BatchMemory, block: np.ndarray) -> None:
        self.__array_interface__: dict[str, Any] = block.__array_interface__
        self._memory, self._block = memory, block

    def __del__(self) -> None:
        self._memory._take_back(self._block)
