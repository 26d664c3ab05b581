"""Compares layers.py with float64 oracles in numpy and (live) with torch."""

import re

import keras
import numpy as np
import pytest

from keras_bit.network.layers import WEIGHT_STANDARDIZATION_EPSILON, Conv2D, GroupNormalization, StdConv2D
from keras_bit.network.normalization import standardize_kernel

HALF_PRECISION = ("mixed_float16", "mixed_bfloat16")
# One unit in the last place at 1.0: what rounding the result to the type costs relative to its size.
ULP = {"mixed_float16": 2.0**-10, "mixed_bfloat16": 2.0**-7}


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def standardized(kernel, epsilon=1e-8):
    """Gives each output channel the mean 0 and the variance 1, in float64."""
    kernel = kernel.astype("float64")
    mean, variance = kernel.mean(axis=(0, 1, 2)), kernel.var(axis=(0, 1, 2))
    return (kernel - mean) / np.sqrt(variance + epsilon)


def group_normalized(x, groups, gamma=1.0, beta=0.0, epsilon=1e-5):
    """Normalizes by the textbook: reshapes to five dimensions, and computes moments in float64."""
    batch, height, width, channels = x.shape
    grouped = x.astype("float64").reshape(batch, height, width, groups, channels // groups)
    mean, variance = grouped.mean(axis=(1, 2, 4), keepdims=True), grouped.var(axis=(1, 2, 4), keepdims=True)
    return ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * gamma + beta


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float64"))


# Conv2D


@pytest.mark.parametrize(
    ("arguments", "product"),
    [
        ({"kernel_size": 1}, True),
        ({"kernel_size": 1, "use_bias": True, "activation": "relu", "padding": "same", "dilation_rate": 2}, True),
        ({"kernel_size": 1, "strides": 2}, False),
        ({"kernel_size": 1, "groups": 2}, False),
        ({"kernel_size": (1, 3)}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("known", [(2, 5, 7, 4), (None, 5, 7, 4), (None, None, None, 4), (None,) * 4], ids=str)
def test_a_convolution_has_the_values_and_gradients_of_keras_own(arguments, product, known):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a matrix product under TensorFlow alone")
    x = random(0, 2, 5, 7, 4)
    own, plain = Conv2D(6, **arguments), keras.layers.Conv2D(6, **arguments)
    for layer in (own, plain):
        layer.build((None, None, None, 4))
        layer.set_weights([random(1 + len(weight.shape), *weight.shape) for weight in layer.weights])
    graphs = {}
    for layer in (own, plain):

        @tf.function(input_signature=[tf.TensorSpec(known)])
        def run(x, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = layer(x)
                loss = tf.reduce_sum(outputs**2)
            return outputs, *tape.gradient(loss, [x, *(weight.value for weight in layer.weights)])

        graphs[layer] = run
    for found, expected in zip(graphs[own](x), graphs[plain](x), strict=True):
        # Sums of 4 products, and in the kernel's gradient of 70, in another order.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    operations = {operation.type for operation in graphs[own].get_concrete_function().graph.get_operations()}
    assert ("MatMul" in operations) == product
    concrete, expected = (graphs[layer].get_concrete_function().structured_outputs[0].shape for layer in (own, plain))
    assert concrete.as_list() == expected.as_list()


# StdConv2D

CONVOLUTIONS = {
    "1x1": {"kernel_size": 1},
    "3x3": {"kernel_size": 3},
    "oblong kernel": {"kernel_size": (1, 3)},
    "stride 2, valid": {"kernel_size": 3, "strides": 2},
    "stride 2, same": {"kernel_size": 3, "strides": 2, "padding": "same"},
    "7x7, stride 2, same": {"kernel_size": 7, "strides": 2, "padding": "same"},
    "dilated, valid": {"kernel_size": 3, "dilation_rate": 2},
    "dilated, same": {"kernel_size": 3, "dilation_rate": 4, "padding": "same"},
    "groups": {"kernel_size": 3, "groups": 2},
    "bias and activation": {"kernel_size": 3, "use_bias": True, "activation": "relu"},
    "another epsilon": {"kernel_size": 3, "epsilon": 0.5},
}


@pytest.mark.parametrize("arguments", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_standardized_convolution_equals_keras_with_that_kernel(arguments):
    x = random(0, 2, 13, 12, 4)
    layer = StdConv2D(6, **arguments)
    layer.build(x.shape)
    kernel = 0.3 * random(1, *layer.kernel.shape) + 0.1
    biases = [random(2, 6)] if layer.use_bias else []
    layer.set_weights([kernel, *biases])

    plain_arguments = {name: value for name, value in arguments.items() if name != "epsilon"}
    plain = keras.layers.Conv2D(6, **{"use_bias": False, **plain_arguments})
    plain.build(x.shape)
    plain.set_weights([standardized(kernel, arguments.get("epsilon", 1e-8)), *biases])
    # 1e-4: sums of up to 196 products of size 1 in float32, whose rounding is 1e-7 each.
    np.testing.assert_allclose(to_numpy(layer(x)), to_numpy(plain(x)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 64, 16), (3, 3, 16, 8), (7, 7, 3, 64)], ids=str)
@pytest.mark.parametrize("mean_over_spread", [0, 1, 100])
def test_the_standardized_kernel_is_that_of_float64(shape, mean_over_spread):
    kernel = 0.02 * (random(3, *shape) + np.float32(mean_over_spread))
    # float32 holds the kernel to 6e-8 of its mean, so to `mean_over_spread` times that of its spread.
    np.testing.assert_allclose(
        to_numpy(standardize_kernel(kernel, WEIGHT_STANDARDIZATION_EPSILON)),
        standardized(kernel),
        rtol=0,
        atol=2e-6 * (1 + mean_over_spread),
    )


def test_a_constant_kernel_becomes_zero_and_not_nan():
    kernel = np.full((3, 3, 4, 2), 0.125, "float32")
    np.testing.assert_array_equal(to_numpy(standardize_kernel(kernel, WEIGHT_STANDARDIZATION_EPSILON)), 0)


@pytest.mark.parametrize("policy", HALF_PRECISION)
@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
def test_statistics_of_tiny_kernels_are_float32s_under_mixed_precision(policy, spread):
    # 1e-8, and the squares of 1e-4, are below the least float16 of 6e-8: there the variance would be 0, and with
    # epsilon 0 as well the quotient NaN.
    layer = StdConv2D(8, 3, dtype=policy)
    x = random(4, 2, 7, 7, 16)
    layer.build(x.shape)
    kernel = spread * random(5, 3, 3, 16, 8)
    layer.set_weights([kernel])
    got = layer(x)
    assert keras.backend.standardize_dtype(got.dtype) == policy.removeprefix("mixed_")
    assert layer.kernel.dtype == "float32"

    plain = keras.layers.Conv2D(8, 3, use_bias=False)
    plain.build(x.shape)
    plain.set_weights([standardized(kernel)])
    expected = to_numpy(plain(x))
    assert np.isfinite(to_numpy(got)).all()
    # Input, kernel and result are each rounded to the half type.
    assert np.abs(to_numpy(got) - expected).max() < 2 * ULP[policy] * np.abs(expected).max()


def test_a_half_precision_kernel_is_standardized_in_float32():
    kernel = (1e-3 * random(6, 3, 3, 16, 8)).astype("float16")
    got = standardize_kernel(keras.ops.convert_to_tensor(kernel), WEIGHT_STANDARDIZATION_EPSILON)
    assert keras.backend.standardize_dtype(got.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(got), standardized(kernel), rtol=0, atol=1e-5)


def test_the_raw_kernel_is_what_is_stored_and_the_layer_has_no_bias():
    layer = StdConv2D(4, 3)
    layer.build((None, 8, 8, 2))
    kernel = random(7, 3, 3, 2, 4)
    layer.set_weights([kernel])
    layer(random(8, 1, 8, 8, 2))
    np.testing.assert_array_equal(layer.get_weights()[0], kernel)
    assert [weight.path.split("/")[-1] for weight in layer.weights] == ["kernel"]


# GroupNormalization

SHAPES = [
    ((2, 7, 7, 32), 32),
    ((1, 56, 56, 64), 32),
    ((1, 224, 224, 64), 32),  # the largest sums: 50,176 pixels a channel
    ((3, 9, 14, 64), 8),
    ((2, 28, 28, 128), 1),
    ((2, 1, 1, 64), 8),
]


def spread_around(mean_over_spread, seed, shape, groups):
    """Returns random values. Every group has the spread 1 and this mean, every second group with a minus."""
    signs = np.where(np.arange(groups) % 2, -1, 1).repeat(shape[-1] // groups)
    values = group_normalized(random(seed, *shape), groups, epsilon=0)
    return (values + mean_over_spread * signs).astype("float32")


@pytest.mark.parametrize(("shape", "groups"), SHAPES, ids=str)
@pytest.mark.parametrize("mean_over_spread", [0, 1, 100])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_group_norm_equals_float64_if_the_mean_is_100_spreads(shape, groups, mean_over_spread, seed):
    x = spread_around(mean_over_spread, seed, shape, groups)
    got = to_numpy(GroupNormalization(groups)(x))
    # 1e-4 absolute, for values of size 1: the mean, and `x * scale + shift`, which cancels two numbers of
    # `mean_over_spread`, are good to a few times 6e-8 of it. Measured: 2.5e-5 at most.
    np.testing.assert_allclose(got, group_normalized(x, groups), rtol=0, atol=1e-4)


def test_group_norm_where_the_mean_is_1000_times_the_spread_is_reported():
    for shape, groups in SHAPES:
        x = spread_around(1000, 0, shape, groups)
        difference = np.abs(to_numpy(GroupNormalization(groups)(x)) - group_normalized(x, groups)).max()
        print(f"mean 1000 times the spread, {shape} in {groups} groups: off by {difference:.1e}")
        assert np.isfinite(difference)  # no more is promised there


def test_scale_shift_epsilon_and_activation_apply_in_this_order():
    x, gamma, beta = random(1, 2, 5, 6, 16), random(2, 16), random(3, 16)
    layer = GroupNormalization(4, epsilon=0.25, activation="relu")
    layer.build(x.shape)
    layer.set_weights([gamma, beta])
    expected = np.maximum(group_normalized(x, 4, gamma, beta, epsilon=0.25), 0)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=0, atol=1e-5)  # float32, values up to 5


def test_a_constant_image_is_normalized_to_zero():
    np.testing.assert_array_equal(to_numpy(GroupNormalization(4)(np.full((1, 8, 8, 16), 3.0, "float32"))), 0)


@pytest.mark.parametrize("policy", HALF_PRECISION)
def test_group_norm_statistics_are_float32s_under_mixed_precision(policy):
    # The squares of 300 overflow float16, and sums of 3136 values of this size lose everything in bfloat16.
    x = to_numpy(keras.ops.cast(300 + 30 * random(0, 2, 56, 56, 32), policy.removeprefix("mixed_")))
    layer = GroupNormalization(8, dtype=policy)
    got = layer(keras.ops.cast(x, policy.removeprefix("mixed_")))
    assert keras.backend.standardize_dtype(got.dtype) == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    expected = group_normalized(x, 8)
    assert np.abs(to_numpy(got) - expected).max() < ULP[policy] * np.abs(expected).max()


def test_group_norm_of_float64_is_exact_to_float64():
    x = random(0, 2, 9, 7, 32).astype("float64") + 100
    layer = GroupNormalization(8, dtype="float64")
    np.testing.assert_allclose(to_numpy(layer(x)), group_normalized(x, 8), rtol=0, atol=1e-11)  # 100 * 1e-16 * some 10


def test_group_norm_takes_any_batch_height_and_width():
    inputs = keras.Input((None, None, 16))
    outputs = GroupNormalization(4)(inputs)
    assert outputs.shape == (None, None, None, 16)
    model = keras.Model(inputs, outputs)
    for shape in [(1, 5, 8, 16), (3, 8, 5, 16), (2, 1, 1, 16)]:
        x = random(0, *shape)
        np.testing.assert_allclose(model.predict(x, verbose=0), group_normalized(x, 4), rtol=0, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="reads TensorFlow's graph")
@pytest.mark.parametrize("shape", [(2, 8, 8, 64), (None, None, None, 64)], ids=str)
def test_no_tensor_of_the_traced_group_norm_has_more_than_four_dimensions(shape):
    import tensorflow as tf

    layer = GroupNormalization(32, activation="relu")
    layer.build(shape)
    graph = tf.function(layer, autograph=False).get_concrete_function(tf.TensorSpec(shape)).graph
    ranks = {output.name: output.shape.rank for operation in graph.get_operations() for output in operation.outputs}
    assert len(ranks) > 10  # the graph was found
    # TFLite's GPU delegate refuses five dimensions.
    assert [name for name, rank in ranks.items() if rank is None or rank > 4] == []


REFUSED = {
    "three dimensions": (
        {},
        (None, 8, 32),
        "The input of `GroupNormalization` must be (batch, height, width, channels) with a known number of channels, "
        "got shape (None, 8, 32).",
    ),
    "five dimensions": ({}, (None, 2, 8, 8, 32), "got shape (None, 2, 8, 8, 32)."),
    "unknown channels": ({}, (None, 8, 8, None), "got shape (None, 8, 8, None)."),
    "not dividing": ({"groups": 32}, (None, 8, 8, 48), "`groups` 32 does not divide the 48 channels of the input."),
    "no groups": ({"groups": 0}, (None, 8, 8, 32), "`groups` must be a positive whole number, got 0."),
    "negative groups": ({"groups": -1}, (None, 8, 8, 32), "`groups` must be a positive whole number, got -1."),
    "half a group": ({"groups": 0.5}, (None, 8, 8, 32), "`groups` must be a positive whole number, got 0.5."),
}


@pytest.mark.parametrize(("arguments", "shape", "text"), REFUSED.values(), ids=REFUSED)
def test_group_norm_refuses_what_it_cannot_normalize(arguments, shape, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        GroupNormalization(**arguments).build(shape)


def test_group_norm_once_built_refuses_another_number_of_channels():
    layer = GroupNormalization(4)
    layer(random(0, 1, 4, 4, 16))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 16"):
        layer(random(0, 1, 4, 4, 8))


@pytest.mark.live
@pytest.mark.parametrize(("shape", "groups"), SHAPES, ids=str)
@pytest.mark.parametrize("mean_over_spread", [0, 1, 100])
def test_group_norm_is_torchs_or_nearer_to_float64(shape, groups, mean_over_spread):
    import torch

    x = spread_around(mean_over_spread, 0, shape, groups)
    gamma, beta = 1 + 0.3 * random(1, shape[-1]), 0.3 * random(2, shape[-1])
    layer = GroupNormalization(groups)
    layer.build(shape)
    layer.set_weights([gamma, beta])
    ours = to_numpy(layer(x))

    def torchs(dtype):
        images, scale, shift = (torch.from_numpy(array).to(dtype) for array in (x, gamma, beta))
        result = torch.nn.functional.group_norm(images.permute(0, 3, 1, 2), groups, scale, shift, 1e-5)
        return result.permute(0, 2, 3, 1).double().numpy()

    exact, single = torchs(torch.float64), torchs(torch.float32)
    off, torchs_off = np.abs(ours - exact).max(), np.abs(single - exact).max()
    print(f"{shape} in {groups} groups, mean {mean_over_spread}: off float64 by {off:.1e}, torch by {torchs_off:.1e}")
    np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-4)
    if mean_over_spread <= 1:
        np.testing.assert_allclose(ours, single, rtol=0, atol=1e-4)
    else:  # torch computes E[x^2] - E[x]^2, which loses the variance in float32, so it is no oracle here
        assert off < torchs_off


@pytest.mark.live
@pytest.mark.parametrize("stride", [1, 2])
def test_a_standardized_convolution_is_that_of_transformers(stride):
    import torch
    from transformers.models.bit.modeling_bit import WeightStandardizedConv2d

    x, kernel = random(0, 2, 11, 12, 16), 0.3 * random(1, 3, 3, 16, 8) + 0.1
    theirs = WeightStandardizedConv2d(16, 8, 3, stride=stride, padding=None, eps=1e-8)
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
        expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    layer = StdConv2D(8, 3, strides=stride)
    layer.build((None, None, None, 16))
    layer.set_weights([kernel])
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    np.testing.assert_allclose(to_numpy(layer(padded)), expected, rtol=0, atol=1e-4)  # sums of 144 products, float32


# Serialization


LAYERS = {
    "StdConv2D": (
        lambda: StdConv2D(
            8, 3, strides=2, padding="same", groups=2, use_bias=True, epsilon=1e-10, kernel_initializer="he_normal"
        ),
        {"filters": 8, "kernel_size": (3, 3), "strides": (2, 2), "padding": "same", "groups": 2, "use_bias": True}
        | {"epsilon": 1e-10},
    ),
    "GroupNormalization": (
        lambda: GroupNormalization(4, epsilon=1e-3, activation="gelu", dtype="mixed_bfloat16"),
        {"groups": 4, "epsilon": 1e-3, "activation": "gelu"},
    ),
}


@pytest.mark.parametrize(("make", "arguments"), LAYERS.values(), ids=LAYERS)
def test_a_layer_comes_back_from_its_config(make, arguments):
    layer = make()
    config = layer.get_config()
    assert {name: config[name] for name in arguments} == arguments
    copy = type(layer).from_config(config)
    assert type(copy) is type(layer)
    assert copy.get_config() == config


@pytest.mark.parametrize(("make", "arguments"), LAYERS.values(), ids=LAYERS)
def test_a_layer_survives_a_keras_file_without_custom_objects(make, arguments, tmp_path):
    inputs = keras.Input((None, None, 16))
    model = keras.Model(inputs, make()(inputs))
    model.set_weights([random(seed, *weight.shape) for seed, weight in enumerate(model.get_weights())])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    x = random(9, 2, 8, 9, 16)
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


@pytest.mark.parametrize("layer", [StdConv2D, GroupNormalization], ids=lambda layer: layer.__name__)
def test_a_layer_is_registered_under_the_package(layer):
    assert keras.saving.get_registered_name(layer) == f"keras_bit>{layer.__name__}"
    assert keras.saving.get_registered_object(f"keras_bit>{layer.__name__}") is layer
