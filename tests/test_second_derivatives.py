"""Compares second derivatives in training mode, as gradient penalties need them, with finite differences."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_bit.network import normalization
from keras_bit.network.layers import GroupNormalization, StdConv2D

BACKEND = keras.backend.backend()
STEP = 1e-5
# Of a difference of two penalties, which are known to 1e-15 of themselves. Measured: 3e-10 at most.
TOLERANCE = 1e-7
ARGUMENTS = {"x": (2, 5, 6, 8), "kernel": (3, 3, 8, 16), "gamma": (16,), "beta": (16,)}


@pytest.fixture(autouse=True)
def in_float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    if BACKEND == "jax":
        jax.config.update("jax_enable_x64", False)


def values(*names):
    rng = np.random.default_rng(0)
    drawn = {name: rng.standard_normal(shape) for name, shape in ARGUMENTS.items()}
    return [drawn[name] for name in names]


def tensors(arrays):
    if BACKEND != "torch":
        return [ops.convert_to_tensor(array) for array in arrays]
    import torch

    return [torch.tensor(array, requires_grad=True) for array in arrays]


def gradients(function, arguments):
    """Returns the gradient of a number with respect to each argument, which can be differentiated again."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(arguments)
            number = function(*arguments)
        return tape.gradient(number, arguments)
    if BACKEND == "jax":
        import jax

        return jax.grad(function, argnums=tuple(range(len(arguments))))(*arguments)
    import torch

    return torch.autograd.grad(function(*arguments), arguments, create_graph=True)


def penalty_of(function):
    """Returns the squared gradient of the sum of cubes, of which no derivative is 0."""

    def cubes(*arguments):
        return ops.sum(function(*arguments) ** 3)

    return lambda *arguments: sum(ops.sum(ops.square(one)) for one in gradients(cubes, list(arguments)))


def number(tensor):
    return float(ops.convert_to_numpy(tensor))


def in_a_block(x, kernel, gamma, beta):
    kernel = normalization.standardize_kernel_in_training(kernel, 1e-8)
    x = ops.conv(x, kernel, padding="same", data_format="channels_last")
    return normalization.normalize_groups_in_training(x, gamma, beta, 4, 1e-5)


def in_layers(training=True):
    keras.utils.set_random_seed(0)
    convolution, norm = StdConv2D(16, 3), GroupNormalization(4)
    return lambda x: norm(convolution(x, training=training), training=training)


def as_it_is(function):
    return function


def in_a_graph(function):
    import tensorflow as tf

    return tf.function(function, autograph=False)


CASES = {
    "the functions": (lambda: in_a_block, tuple(ARGUMENTS), as_it_is),
    "the layers": (in_layers, ("x",), as_it_is),
    **({"in a graph": (lambda: in_a_block, tuple(ARGUMENTS), in_a_graph)} if BACKEND == "tensorflow" else {}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_a_gradient_penalty_is_how_the_penalty_changes(case):
    make, names, compiled = CASES[case]
    penalty = compiled(penalty_of(make()))
    arguments = values(*names)
    found = gradients(penalty, tensors(arguments))
    for place, name in enumerate(names):
        direction = np.random.default_rng(1).standard_normal(arguments[place].shape)
        ends = [
            number(
                penalty(*tensors([*arguments[:place], arguments[place] + step * direction, *arguments[place + 1 :]]))
            )
            for step in (STEP, -STEP)
        ]
        expected = (ends[0] - ends[1]) / (2 * STEP)
        along = float(np.sum(ops.convert_to_numpy(found[place]) * direction))
        print(f"{BACKEND}, {case}, {name}: {abs(along - expected) / abs(expected):.1e}")
        assert along == pytest.approx(expected, rel=TOLERANCE)


def test_jax_computes_forward_derivatives_outside_of_training():
    if BACKEND != "jax":
        return  # the others derive backwards
    import jax

    (x,) = values("x")
    direction = np.random.default_rng(2).standard_normal(x.shape)
    layers = in_layers(training=False)
    _, found = jax.jvp(layers, (x,), (direction,))
    expected = (layers(x + STEP * direction) - layers(x - STEP * direction)) / (2 * STEP)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    in_training = in_layers(training=True)
    np.testing.assert_array_equal(in_training(x), layers(x))
    with pytest.raises(TypeError, match="jvp"):
        jax.jvp(in_training, (x,), (direction,))
    # Forward over backward goes through both.
    cubes = jax.grad(lambda x: ops.sum(in_training(x) ** 3))
    _, found = jax.jvp(cubes, (x,), (direction,))
    expected = (cubes(x + STEP * direction) - cubes(x - STEP * direction)) / (2 * STEP)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
