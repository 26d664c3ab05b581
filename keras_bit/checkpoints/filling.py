"""Copies a file's tensors to arrays in Keras' axis order, checked and transposed in pieces that fit a cache.

Loading is bound by memory, not by arithmetic. If a whole kernel is transposed at once, each number touches a cache line
of 16 numbers. Piece by piece, each line is written whole, and the numbers are still in the cache when they are checked.
This is several times faster, and the memory never holds a second copy of a tensor.
"""

import math
import mmap
import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import keras
import numpy as np
from numpy.typing import DTypeLike

from keras_bit.checkpoints.lazy import LazyTensor

MOST_THREADS = 4  # more do not speed up memory; each may hold a whole tensor of a file without parts
ALIGNMENT = 64  # bytes: TensorFlow and JAX can take over an array with this alignment
_ROWS = 16  # numbers of float32 in a cache line of 64 bytes
_NUMBERS = 2**18  # numbers that are copied at a time if nothing is transposed
_MAPPED = 2**22  # bytes from which numpy requests huge pages

Given = TypeVar("Given")
Result = TypeVar("Result")


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Returns an array with arbitrary values that begins at a multiple of `ALIGNMENT`."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size >= _MAPPED and hasattr(mmap, "MAP_PRIVATE"):  # not on Windows
        # TensorFlow allocates its memory in this way too. numpy would request huge pages, for which the system may
        # first have to make room; this is slow if the page cache fills the memory.
        memory = np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE), np.uint8)
        return memory.view(dtype).reshape(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def fill(target: np.ndarray, tensor: LazyTensor) -> str | None:
    """Copies the numbers of `tensor` to `target`, a view of its shape whose axes may have any order in memory.

    Returns:
        What is wrong with the numbers, such as `"holds NaN or infinity"`; then `target` must not be used. `None` if all
        are finite, also in `target`'s type.

    Raises:
        ValueError: the tensor has another shape than its file said before, or `tensor.parts` finds damage.
    """
    # If no axis is transposed, the pieces are cut from the numbers as one long line, because the first axis may be 1.
    turned = not target.flags.c_contiguous
    lines, step = (target, _ROWS) if turned else (target.reshape(-1), _NUMBERS)
    begin, rows, finite = 0, 0, True
    for part in tensor.parts():
        rows += len(part) if part.ndim else 0
        if part.ndim != target.ndim or part.shape[1:] != target.shape[1:] or rows > target.shape[0]:
            raise _changed(target.shape, part.shape)
        if not np.issubdtype(part.dtype, np.floating) and part.dtype.name != "bfloat16":
            return f"holds {part.dtype}, expected floating point"
        values = part if turned else part.reshape(-1)
        for piece in (values[start : start + step] for start in range(0, len(values), step)):
            with np.errstate(over="ignore"):  # values that become infinite are reported below
                converted = piece.astype(target.dtype, copy=False)
            finite = finite and bool(np.isfinite(converted).all())
            lines[begin : begin + len(piece)] = converted
            begin += len(piece)
    if rows != target.shape[0]:
        raise _changed(target.shape, (rows, *target.shape[1:]))
    return None if finite else "holds NaN or infinity"


def _changed(before: tuple[int, ...], now: tuple[int, ...]) -> ValueError:
    return ValueError(f"it had shape {before} and now has {now}, so the file has changed")


def in_threads(function: Callable[[Given], Result], work: Iterable[Given]) -> Generator[Result]:
    """Calls `function` for each item of `work`, on the processors that this process may use.

    Yields the results in order, or raises the first error. At the end, also after an error, no thread is running; work
    that has not begun is cancelled.
    """
    with ThreadPoolExecutor(min(MOST_THREADS, processors()), "keras_bit") as pool:
        try:
            waiting = [pool.submit(function, given) for given in work]
            waiting.reverse()
            while waiting:
                yield waiting.pop().result()  # removed, so that nothing is kept here
        finally:
            pool.shutdown(cancel_futures=True)


def processors() -> int:
    """Returns the number of processors that this process may use, which a container or `taskset` may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows


def to_backend(array: np.ndarray) -> Any:
    """Converts an array that is not used elsewhere to the backend's tensor, without a copy if possible."""
    if keras.backend.backend() != "tensorflow":
        return keras.ops.convert_to_tensor(array, array.dtype.name)  # JAX and PyTorch use the array's own memory
    import tensorflow as tf

    # TensorFlow's own conversion copies an array, in case it changes later. numpy cannot pass on bfloat16.
    half = array.dtype.name == "bfloat16"
    tensor = tf.experimental.dlpack.from_dlpack((array.view(np.uint16) if half else array).__dlpack__())
    return tf.bitcast(tensor, tf.bfloat16) if half else tensor
