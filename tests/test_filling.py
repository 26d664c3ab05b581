"""Tests filling.py: reading numbers from a file into memory in Keras' axis order, bit by bit, with threads."""

import os
import threading
import time
import tracemalloc

import keras
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from keras_bit.checkpoints import filling, safetensors_file
from keras_bit.checkpoints.layouts import GOOGLE, KERAS, TIMM, TRANSFORMERS
from keras_bit.checkpoints.lazy import LazyTensor
from keras_bit.checkpoints.readers import open_file

HALF = ml_dtypes.bfloat16
# Kernels in Keras' order that are turned, that need no turning, and that have more rows than fit one step or part.
SHAPES = [(7, 7, 3, 16), (1, 1, 40, 50), (3, 3, 5, 33), (1, 1, 1, 64), (1, 1, 64, 1), (70, 21), (64, 1), (1, 5), (64,)]


def numbers(shape, dtype, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    values.flat[0], values.flat[-1] = -0.0, np.finfo(np.float16).tiny / 4  # a sign, and what flushing would lose
    return values


def in_rows(values, rows):
    """Returns a tensor that comes in parts of some rows, all in one buffer. It cannot be read as a whole."""

    def parts():
        buffer = np.empty((rows, *values.shape[1:]), values.dtype)
        for start in range(0, len(values), rows):
            part = buffer[: len(values[start : start + rows])]
            part[...] = values[start : start + rows]
            yield part
        buffer[...] = 7  # no one may read the buffer from here on

    return LazyTensor(values.shape, lambda: pytest.fail("read whole"), parts)


def whole(values):
    return LazyTensor(values.shape, lambda: values)


def bits(array):
    return np.ascontiguousarray(array).view(np.uint8).tolist()


# What is read


@pytest.mark.parametrize("target", ["f2", "f4", "f8", HALF], ids=str)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", HALF], ids=str)
@pytest.mark.parametrize("layout", [TRANSFORMERS, TIMM, GOOGLE, KERAS], ids=lambda layout: layout.title)
def test_every_bit_is_that_of_a_plain_transposition(layout, dtype, target):
    for shape in SHAPES:
        name = layout.tensor_name("predictions" if len(shape) < 4 else "stem_conv", "kernel")
        in_file = numbers(layout.file_shape(name, shape), dtype)
        expected = layout.to_keras(name, in_file.astype(target))
        assert expected.shape == shape
        for tensor in (whole(in_file), in_rows(in_file, 16), in_rows(in_file, 3)):
            found = filling.aligned(shape, target)
            assert filling.fill(layout.to_file(name, found), tensor) is None
            assert bits(found) == bits(expected)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found_at_any_place(bad):
    values = numbers((35, 2, 3, 1), "f4")
    for place in range(values.size):
        spoilt = values.copy()
        spoilt.flat[place] = bad
        turned, plain = np.empty((3, 1, 2, 35), "f4").transpose(3, 2, 0, 1), np.empty(values.shape, "f4")
        assert filling.fill(turned, whole(spoilt)) == "holds NaN or infinity"
        assert filling.fill(plain, in_rows(spoilt, 4)) == "holds NaN or infinity"


@pytest.mark.filterwarnings("error")
def test_the_largest_numbers_are_filled_and_larger_ones_are_refused():
    for dtype in ("f2", "f4", "f8", HALF):
        largest = np.full((40, 2), ml_dtypes.finfo(dtype).max, dtype)
        assert filling.fill(np.empty((40, 2), dtype), whole(largest)) is None
        assert filling.fill(np.empty((2, 40), dtype).T, whole(-largest)) is None
        if dtype != "f2":
            assert filling.fill(np.empty((2, 40), "f2").T, whole(largest)) == "holds NaN or infinity"


@pytest.mark.parametrize("dtype", ["i8", "?", "u1", "c8"])
def test_tensors_of_other_types_than_floating_point_are_named(dtype):
    values = np.zeros((4, 2), dtype)
    assert filling.fill(np.empty((4, 2), "f4"), whole(values)) == f"holds {values.dtype}, expected floating point"


CHANGED = {
    "fewer rows": ([(4, 2)], r"\(5, 2\) and now has \(4, 2\)"),
    "more rows": ([(6, 2)], r"\(5, 2\) and now has \(6, 2\)"),
    "fewer parts": ([(2, 2), (2, 2)], r"\(5, 2\) and now has \(4, 2\)"),
    "no parts": ([], r"\(5, 2\) and now has \(0, 2\)"),
    "other rows": ([(5, 3)], r"\(5, 2\) and now has \(5, 3\)"),
    "another rank": ([(5,)], r"\(5, 2\) and now has \(5,\)"),
    "a number": ([()], r"\(5, 2\) and now has \(\)"),
    "one row for all": ([(1, 2)], r"\(5, 2\) and now has \(1, 2\)"),  # which numpy would repeat
}


@pytest.mark.parametrize(("shapes", "message"), CHANGED.values(), ids=CHANGED)
def test_other_shapes_than_the_file_had_before_are_refused(shapes, message):
    tensor = LazyTensor((5, 2), lambda: pytest.fail("read whole"), lambda: map(np.zeros, shapes))
    for target in (np.empty((5, 2)), np.empty((2, 5)).T):
        with pytest.raises(ValueError, match=f"^it had shape {message}, so the file has changed$"):
            filling.fill(target, tensor)


def test_a_tensor_on_its_way_is_in_memory_once(tmp_path):
    values = numbers((512, 1024, 3, 3), "f4")  # 19 MB
    safetensors.numpy.save_file({"kernel": values}, tmp_path / "model.safetensors")
    (_, tensor), *_ = open_file(tmp_path / "model.safetensors")
    target = np.empty((3, 3, 1024, 512), "f4").transpose(3, 2, 0, 1)
    tracemalloc.start()
    try:
        filling.fill(target, tensor)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(target, values)
    assert peak < values.nbytes / 6


# How safetensors are read


@pytest.mark.parametrize("size", [1, 100, 5000, 2**20])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", HALF], ids=str)
def test_the_parts_of_a_file_are_its_numbers_in_order(tmp_path, monkeypatch, dtype, size):
    monkeypatch.setattr(safetensors_file, "_PART", size)
    tensors = {str(shape): numbers(shape, dtype, seed) for seed, shape in enumerate([*SHAPES, (100, 3), (1,)])}
    safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    for name, tensor in open_file(tmp_path / "a.safetensors"):
        parts = [part.copy() for part in tensor.parts()]
        assert all(len(part) % 16 == 0 for part in parts[:-1])  # whole lines of numbers, however small
        assert len(parts) > 1 or len(tensors[name]) <= 16 or tensors[name].nbytes <= size
        assert bits(np.concatenate(parts)) == bits(tensors[name]) == bits(tensor.read())
        assert parts[0].dtype == tensors[name].dtype


def test_a_file_changed_after_it_was_opened_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    before, after = numbers((40, 3), "f4", 1), numbers((40, 3), "f4", 2)
    safetensors.numpy.save_file({"a": before}, path)
    (_, tensor), *_ = open_file(path)
    safetensors.numpy.save_file({"a": after, "b": before}, path)  # `a` has another place in it
    os.utime(path, ns=(0, 0))
    target = np.empty((40, 3), "f4")
    assert filling.fill(target, tensor) is None
    np.testing.assert_array_equal(target, after)

    safetensors.numpy.save_file({"a": before}, path)
    (_, tensor), *_ = open_file(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4)
    with pytest.raises(safetensors.SafetensorError):
        filling.fill(target, tensor)

    def shrinks_later(file):
        return tensor.in_parts.args[0].version

    monkeypatch.setattr(safetensors_file, "_file_version", shrinks_later)
    with pytest.raises(ValueError, match="the file ends before it"):
        filling.fill(target, tensor)


def test_empty_tensors_and_single_numbers_are_read_through_the_library(tmp_path):
    tensors = {"none": np.zeros((0, 3), "f4"), "one": np.array(5, "f4"), "whole": np.arange(3)}
    safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors")
    for name, tensor in open_file(tmp_path / "a.safetensors"):
        (part,) = tensor.parts()
        np.testing.assert_array_equal(part, tensors[name])
        assert tensor.shape == part.shape == tensors[name].shape


# To the backend


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_the_backend_takes_the_memory_over_and_may_change_it(dtype):
    array = filling.aligned((3, 5), dtype)
    array[...] = expected = numbers((3, 5), dtype)
    address = array.ctypes.data
    assert address % filling.ALIGNMENT == 0
    tensor = filling.to_backend(array)
    assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    if keras.backend.backend() == "tensorflow" and dtype != "bfloat16":
        assert np.from_dlpack(tensor).ctypes.data == address
    variable = keras.Variable(tensor, dtype=dtype)
    del tensor, array
    assert bits(keras.ops.convert_to_numpy(variable)) == bits(expected)
    variable.assign_add(keras.ops.ones((3, 5), dtype))
    changed = keras.ops.convert_to_numpy(variable).astype("f4")
    np.testing.assert_array_equal(changed, (expected + np.ones((3, 5), dtype)).astype("f4"))


@pytest.mark.parametrize("shape", [(1,), (3, 3, 5, 7), (1025, 1024)])
def test_arrays_begin_where_a_line_of_the_cache_does(shape):
    for dtype in ("float16", "float32", "float64", "bfloat16"):
        array = filling.aligned(shape, dtype)
        assert (array.shape, array.dtype.name) == (shape, dtype)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.ctypes.data % filling.ALIGNMENT == 0


# Threads


def ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("keras_bit")]


def test_results_come_in_the_order_of_the_work(monkeypatch):
    monkeypatch.setattr(filling, "processors", lambda: 64)
    running, most = [], []

    def slow(number):
        running.append(number)
        most.append(len(running))
        time.sleep(0.02 * (number % 3 == 0))
        running.remove(number)
        return number * 10

    assert list(filling.in_threads(slow, range(20))) == [number * 10 for number in range(20)]
    assert max(most) <= filling.MOST_THREADS
    assert ours() == []


def test_the_first_error_in_the_order_of_the_work_is_raised(monkeypatch):
    monkeypatch.setattr(filling, "processors", lambda: 2)

    def failing(number):
        time.sleep(0.1 * (number == 1))
        if number in (1, 2):
            raise ValueError(f"number {number}")
        return number

    for _ in range(3):
        results = filling.in_threads(failing, range(50))
        assert next(results) == 0
        with pytest.raises(ValueError, match="number 1"):
            next(results)
        assert ours() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_stopping_early_leaves_no_thread_and_begins_no_work(monkeypatch, error):
    monkeypatch.setattr(filling, "processors", lambda: 2)
    begun = []

    def work(number):
        begun.append(number)
        time.sleep(0.01)

    def consume():
        results = filling.in_threads(work, range(1000))
        try:
            next(results)
            raise error
        finally:
            results.close()

    with pytest.raises(error):
        consume()
    assert ours() == []
    count = len(begun)
    assert count < 100
    time.sleep(0.05)
    assert len(begun) == count


def test_an_interrupt_inside_of_a_thread_ends_all_of_them(monkeypatch):
    def work(number):
        if number == 3:
            raise KeyboardInterrupt
        return number

    with pytest.raises(KeyboardInterrupt):
        list(filling.in_threads(work, range(100)))
    assert ours() == []


def test_the_processors_are_those_that_the_process_may_use(monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 9, 11} if process == 0 else None)
        assert filling.processors() == 3
        monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert filling.processors() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)  # where the system does not say
    assert filling.processors() == 1
