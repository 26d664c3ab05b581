"""Compares the gradients in normalization.py, written by hand, with those that TensorFlow derives, in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bit.network import normalization
from keras_bit.network.layers import GroupNormalization, StdConv2D

EPSILON = 1e-5
# Shape, groups, and the mean of the values in units of their spread.
MAPS = {
    "as in BiT": ((2, 5, 6, 64), 32, 0.5),
    "one group": ((3, 4, 4, 6), 1, -1.0),
    "a group per channel": ((2, 3, 7, 8), 8, 1.0),
    "one pixel": ((2, 1, 1, 64), 4, 0.0),
    "a large mean": ((2, 9, 9, 16), 4, 100.0),
}


def values(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def gradients(function, arguments, upstream, dtype):
    arguments = [tf.constant(argument, dtype) for argument in arguments]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        outputs = function(*arguments)
    found = tape.gradient(outputs, arguments, output_gradients=tf.constant(upstream, outputs.dtype))
    return outputs, [each.numpy().astype("float64") for each in found]


def norm(function, groups):
    return lambda x, gamma, beta: function(x, gamma, beta, groups, EPSILON)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize(("shape", "groups", "mean"), MAPS.values(), ids=MAPS)
def test_a_groups_gradient_is_the_derived_one(shape, groups, mean, graph):
    arguments = [values(0, *shape) + mean, 1 + 0.3 * values(1, shape[-1]), values(2, shape[-1])]
    arguments = [argument.astype("float32").astype("float64") for argument in arguments]
    upstream = values(3, *shape)
    _, expected = gradients(norm(normalization.normalize_groups, groups), arguments, upstream, "float64")
    by_hand = norm(normalization.normalize_groups_in_training, groups)
    # The formula itself, then in float32: what a mean of 100 spreads leaves of its 24 bits is 1e-5.
    for dtype, tolerance in (("float64", 1e-11), ("float32", 2e-6 * (1 + abs(mean)))):
        _, found = gradients(tf.function(by_hand) if graph else by_hand, arguments, upstream, dtype)
        for one, other in zip(found, expected, strict=True):
            # One pixel and one group per channel: the gradient is 0 but for rounding.
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(np.abs(other).max(), 1))


@pytest.mark.parametrize("shape", [(1, 1, 64, 16), (3, 3, 16, 8), (7, 7, 3, 64)], ids=str)
def test_a_kernels_gradient_is_the_derived_one(shape):
    kernel, upstream = 0.02 * values(4, *shape) + 0.01, values(5, *shape)
    _, (expected,) = gradients(lambda k: normalization.standardize_kernel(k, 1e-8), [kernel], upstream, "float64")
    for dtype, tolerance in (("float64", 1e-11), ("float32", 5e-6)):  # float32: sums of up to 1,024 products
        _, (found,) = gradients(
            lambda k: normalization.standardize_kernel_in_training(k, 1e-8), [kernel], upstream, dtype
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32_with_gradients_in_its_type(dtype):
    arguments = [tf.cast(values(0, 2, 5, 5, 8), dtype), tf.ones(8), tf.zeros(8)]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        outputs = norm(normalization.normalize_groups_in_training, 2)(*arguments)
        loss = tf.reduce_sum(tf.square(outputs) * tf.constant(values(3, 2, 5, 5, 8), tf.float32))
    found = tape.gradient(loss, arguments)
    assert [each.dtype.name for each in found] == [dtype, "float32", "float32"]
    with tf.GradientTape() as tape:
        wide = [tf.cast(argument, tf.float32) for argument in arguments]
        tape.watch(wide)
        outputs = norm(normalization.normalize_groups, 2)(*wide)
        loss = tf.reduce_sum(tf.square(outputs) * tf.constant(values(3, 2, 5, 5, 8), tf.float32))
    expected = tape.gradient(loss, wide)
    ulp = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]  # the rounding of the result
    for one, other, tolerance in zip(found, expected, (ulp, 1e-5, 1e-5), strict=True):
        assert np.abs(tf.cast(one, tf.float32) - other).max() <= tolerance * np.abs(other).max()


@pytest.mark.parametrize("training", [False, True, None])
@pytest.mark.parametrize(
    "layer",
    [lambda: GroupNormalization(4, activation="relu"), lambda: StdConv2D(6, 3, use_bias=True, activation="relu")],
    ids=["GroupNormalization", "StdConv2D"],
)
def test_a_layer_computes_the_same_in_training(layer, training):
    x = values(6, 2, 7, 7, 8).astype("float32")
    layer = layer()
    layer.build(x.shape)
    layer.set_weights([values(7, *weight.shape) for weight in layer.weights])
    with tf.GradientTape(persistent=True) as tape:
        plain, trained = layer(x), layer(x, training=training)
        losses = [tf.reduce_sum(tf.square(outputs)) for outputs in (plain, trained)]
    np.testing.assert_array_equal(plain, trained)
    for weight in layer.trainable_weights:
        one, other = (tape.gradient(loss, weight.value) for loss in losses)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(one).max())  # float32, two ways


def test_exports_contain_no_operation_of_a_hand_written_gradient():
    inputs = keras.Input((None, None, 8))
    model = keras.Model(inputs, GroupNormalization(4)(StdConv2D(8, 3)(inputs)))
    counts = [
        sum(
            operation.type == "IdentityN"
            for operation in tf.function(model)
            .get_concrete_function(tf.TensorSpec((None, 9, 9, 8)), training=training)
            .graph.get_operations()
        )
        for training in (False, True)
    ]
    assert counts == [0, 2]


def test_second_derivatives_are_those_that_tensorflow_derives():
    arguments = [values(0, 2, 4, 4, 8), 1 + 0.3 * values(1, 8), values(2, 8)]
    found = []
    for function in (normalization.normalize_groups, normalization.normalize_groups_in_training):
        x, gamma, beta = (tf.constant(argument) for argument in arguments)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(norm(function, 4)(x, gamma, beta) ** 3)
            penalty = tf.reduce_sum(tf.square(inner.gradient(loss, x)))
        found.append(outer.gradient(penalty, x))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-9 * np.abs(found[0]).max())
