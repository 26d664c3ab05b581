"""Tests that the memory of batches is used again, but never while a batch is still in use."""

import copy
import gc
import pickle

import numpy as np
import pytest

from keras_bit.data.batch_memory import ALIGNMENT, BatchMemory

SHAPE = (2, 8, 8, 3)


def test_memory_is_used_again_once_no_view_of_the_array_is_left():
    memory = BatchMemory()
    first = memory.array(SHAPE)
    address = first.ctypes.data
    view = first[1:, ::2]
    del first
    second = memory.array(SHAPE)
    assert second.ctypes.data != address
    assert not np.shares_memory(view, second)
    del view
    gc.collect()
    assert memory.array(SHAPE).ctypes.data == address


def test_a_smaller_batch_fits_and_a_larger_one_gets_memory_of_its_own():
    memory = BatchMemory()
    address = memory.array(SHAPE).ctypes.data
    small = memory.array((1, *SHAPE[1:]))
    assert small.ctypes.data == address
    assert small.shape == (1, 8, 8, 3)
    del small
    large = memory.array((9, *SHAPE[1:]))
    large[...] = 1
    assert large.shape == (9, 8, 8, 3)


def test_arrays_begin_where_tensorflow_takes_them_over():
    memory = BatchMemory()
    held = [memory.array((size, 5, 5, 3)) for size in (1, 2, 3)]
    assert all(array.ctypes.data % ALIGNMENT == 0 and array.dtype == np.float32 for array in held)


def test_arrays_outlive_the_object_that_gave_them():
    array = BatchMemory().array(SHAPE)
    gc.collect()
    array[...] = 7
    assert (array == 7).all()


@pytest.mark.parametrize("copied", [lambda memory: pickle.loads(pickle.dumps(memory)), copy.deepcopy, copy.copy])
def test_a_copy_has_memory_of_its_own(copied):
    memory = BatchMemory()
    address = memory.array(SHAPE).ctypes.data
    assert copied(memory).array(SHAPE).ctypes.data != address
    assert memory.array(SHAPE).ctypes.data == address
