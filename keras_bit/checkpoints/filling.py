"""From a file's tensors to arrays in Keras' axis order: checked and turned in pieces that fit a processor's cache.

Most of the time of loading is memory's, not arithmetic's. Turned in one go, a kernel takes a cache line of 16 numbers
for every single one: 0.3 GB/s. Piece by piece each line is written whole, while what was read of the file is still in
the cache for the check: 1.5 GB/s for each processor, and no second copy of a tensor exists.
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

MOST_THREADS = 4  # more do not make memory faster; each may hold a whole tensor of a file that has no parts
ALIGNMENT = 64  # bytes: what TensorFlow and JAX need to take an array as their own
_ROWS = 16  # numbers of float32 in a cache line of 64 bytes
_NUMBERS = 2**18  # at a time where nothing is turned
_MAPPED = 2**22  # bytes, from which on numpy asks for huge pages

Given = TypeVar("Given")
Result = TypeVar("Result")


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array that begins at a multiple of `ALIGNMENT`; its numbers are whatever was there."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size >= _MAPPED and hasattr(mmap, "MAP_PRIVATE"):  # not on Windows
        # As TensorFlow gets its memory. numpy asks for huge pages, which the system may first have to make room for:
        # that took three times the time of all the rest where the page cache filled the memory.
        memory = np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE), np.uint8)
        return memory.view(dtype).reshape(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def fill(target: np.ndarray, tensor: LazyTensor) -> str | None:
    """Copies the numbers of `tensor` to `target`, a view of its shape whose axes may lie in memory in any order.

    Returns:
        What is wrong with the numbers, such as `"holds NaN or infinity"`; then `target` must not be used. `None` if all
        of them are finite, also in `target`'s type.

    Raises:
        ValueError: the tensor has another shape than its file said before; and what `tensor.parts` raises.
    """
    # Where no axis is turned, the first axis may be 1: then the pieces are taken from the numbers as one long line.
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
    """`map` on the processors that this process may use; the results, or the first error, in the order of `work`.

    At the end, also after an error, no thread is running, and work that was not begun is cancelled.
    """
    with ThreadPoolExecutor(min(MOST_THREADS, processors()), "keras_bit") as pool:
        try:
            waiting = [pool.submit(function, given) for given in work]
            waiting.reverse()
            while waiting:
                yield waiting.pop().result()  # taken out: nothing is kept here
        finally:
            pool.shutdown(cancel_futures=True)


def processors() -> int:
    """The processors that this process may use, which a container or `taskset` can make fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows


def to_backend(array: np.ndarray) -> Any:
    """The backend's tensor of an array that nobody else uses: without a copy where its memory can be taken over."""
    if keras.backend.backend() != "tensorflow":
        return keras.ops.convert_to_tensor(array, array.dtype.name)  # JAX and PyTorch do so by themselves
    import tensorflow as tf

    # TensorFlow's own conversion copies an array to be safe from changes to it. numpy cannot hand over bfloat16.
    half = array.dtype.name == "bfloat16"
    tensor = tf.experimental.dlpack.from_dlpack((array.view(np.uint16) if half else array).__dlpack__())
    return tf.bitcast(tensor, tf.bfloat16) if half else tensor
