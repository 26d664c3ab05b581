"""Compares layouts.py with a table of transformers' names, written out by hand, and (live) with transformers."""

import re

import numpy as np
import pytest

from keras_bit.checkpoints.layouts import (
    FILE_LAYOUTS,
    GOOGLE,
    KERAS,
    TIMM,
    TRANSFORMERS,
    TRANSFORMERS_BASE,
    adapt_channels,
    is_part_of_bit,
    plain_google_name,
    recognized,
    saved_tensor_name,
)
from keras_bit.network import model as network
from keras_bit.network.config import BitConfig
from tiny_bit import BOTTLENECK, BOTTLENECK_CONFIG, CONFIG, GOOGLE_NAMES, PREACTIVATION, TIMM_NAMES

FORMS = {"preactivation": (CONFIG, PREACTIVATION), "bottleneck": (BOTTLENECK_CONFIG, BOTTLENECK)}
forms = pytest.mark.parametrize(("config", "rows"), FORMS.values(), ids=FORMS)


def build(config):
    return network.build(config, network.Ends(), values={})


def named_variables(model, layout=TRANSFORMERS):
    return [(layout.tensor_name(layer.name, v.name), v) for layer in model.layers for v in layer.weights]


@pytest.fixture(scope="module")
def bit50():
    return build(BitConfig())


@forms
def test_every_variable_has_transformers_name_and_shape(config, rows):
    model = build(BitConfig.from_dict(config))
    found = {name: (TRANSFORMERS.file_shape(name, v.shape), v.path.split("/")) for name, v in named_variables(model)}
    assert found == {name: (shape, [layer, variable]) for name, shape, layer, variable in rows}


@forms
@pytest.mark.live
def test_the_table_of_names_is_that_of_transformers(config, rows):
    import transformers

    theirs = transformers.BitForImageClassification(transformers.BitConfig(**config))
    assert {name: tuple(t.shape) for name, t in theirs.state_dict().items()} == {name: s for name, s, _, _ in rows}
    assert theirs.base_model_prefix == "bit"


def test_bit50_has_153_tensors_with_25549352_parameters(bit50):
    assert len({name for name, _ in named_variables(bit50)}) == len(bit50.weights) == 153
    assert bit50.count_params() == 25_549_352


@pytest.mark.live
def test_bit50_has_the_names_and_shapes_of_transformers(bit50):
    import torch
    import transformers

    with torch.device("meta"):  # only names and shapes
        theirs = transformers.BitForImageClassification(transformers.BitConfig(num_labels=1000)).state_dict()
    assert len(theirs) == 153
    assert sum(tensor.numel() for tensor in theirs.values()) == 25_549_352
    ours = {name: TRANSFORMERS.file_shape(name, v.shape) for name, v in named_variables(bit50)}
    assert ours == {name: tuple(tensor.shape) for name, tensor in theirs.items()}


@pytest.mark.parametrize(
    ("layer", "variable", "name"),
    [
        ("stage1_block0_conv1", "kernel", "bit.encoder.stages.0.layers.0.conv1.weight"),
        ("stage3_block35_norm2", "beta", "bit.encoder.stages.2.layers.35.norm2.bias"),
        ("stage10_block0_conv3", "kernel", "bit.encoder.stages.9.layers.0.conv3.weight"),
        ("stage4_block0_shortcut_conv", "kernel", "bit.encoder.stages.3.layers.0.downsample.conv.weight"),
        ("stage4_block0_shortcut_norm", "gamma", "bit.encoder.stages.3.layers.0.downsample.norm.weight"),
    ],
)
def test_stages_in_the_file_count_from_0_and_may_have_two_digits(layer, variable, name):
    assert TRANSFORMERS.tensor_name(layer, variable) == name
    assert TRANSFORMERS_BASE.tensor_name(layer, variable) == name.removeprefix("bit.")


@forms
def test_exactly_one_rule_names_each_layer(config, rows):
    for layer in {layer for _, _, layer, _ in rows}:
        assert sum(re.fullmatch(pattern, layer) is not None for pattern, _ in TRANSFORMERS.rules) == 1


@pytest.mark.parametrize("layer", ["avg_pool", "stage1_block0_conv12", "stage1_block0_conv1_pad", "my_norm", "norm1"])
def test_a_layer_that_no_rule_names_is_an_error(layer):
    with pytest.raises(KeyError, match=f"no rule of transformers layout names the layer '{layer}'"):
        TRANSFORMERS.tensor_name(layer, "kernel")


def test_only_the_classifier_is_the_head():
    for name, *_ in (*PREACTIVATION, *BOTTLENECK):
        assert TRANSFORMERS.is_head(name) == (name in ("classifier.1.weight", "classifier.1.bias"))
    assert KERAS.is_head("predictions/kernel")
    assert not KERAS.is_head("norm/gamma")


def test_kernels_are_transposed_and_vectors_are_not():
    rng = np.random.default_rng(0)
    convolution, linear, vector = rng.random((2, 3, 5, 7)), rng.random((2, 3)), rng.random(4)
    kernel = TRANSFORMERS.to_keras("bit.a", convolution)
    assert kernel.shape == (5, 7, 3, 2)
    for out, into, row, column in np.ndindex(2, 3, 5, 7):
        assert kernel[row, column, into, out] == convolution[out, into, row, column]
    np.testing.assert_array_equal(TRANSFORMERS.to_keras("bit.a", linear), linear.T)
    np.testing.assert_array_equal(TRANSFORMERS.to_keras("bit.a", vector), vector)
    for tensor in (convolution, linear, vector):
        assert TRANSFORMERS.file_shape("bit.a", TRANSFORMERS.to_keras("bit.a", tensor).shape) == tensor.shape


def test_keras_own_files_are_read_as_they_are():
    kernel = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    assert KERAS.tensor_name("stage1_block0_conv1", "kernel") == "stage1_block0_conv1/kernel"
    assert KERAS.file_shape("stage1_block0_conv1/kernel", (2, 3, 5, 7)) == (2, 3, 5, 7)
    np.testing.assert_array_equal(KERAS.to_keras("stage1_block0_conv1/kernel", kernel), kernel)


# A layer's name and the place of a variable in a `.weights.h5` to the name in Keras' layout; of every other: None.
SAVED = {
    ("stem_conv", "std_conv2d", "0"): "stem_conv/kernel",
    ("stage3_block11_norm2", "group_normalization_40", "0"): "stage3_block11_norm2/gamma",
    ("stage3_block11_norm2", "group_normalization_40", "1"): "stage3_block11_norm2/beta",
    ("predictions", "dense", "1"): "predictions/bias",
    ("predictions", "dense", "2"): "predictions/2",
    ("stem_conv", "std_conv2d", "x"): "stem_conv/x",
    ("stem_conv", "conv2d", "0"): None,
    ("stem_conv", "std_conv2d_a", "0"): None,
    ("my_stem_conv", "std_conv2d", "0"): None,
    ("dense", "dense", "0"): None,
}


@pytest.mark.parametrize(("place", "name"), SAVED.items(), ids=map("-".join, SAVED))
def test_a_variable_that_keras_saved_is_named_by_its_layers_name_and_class(place, name):
    assert saved_tensor_name(*place) == name


@pytest.mark.parametrize(
    ("layer", "group", "part"),
    [
        ("checked_pixel_values", "pixel_values", True),
        ("stage1_block0_shortcut_norm", "group_normalization_3", True),
        ("max_pool", "global_max_pooling2d", True),
        ("mine", "input_layer_1", True),
        ("mine", "input_layers", False),
        ("stage1_conv", "std_conv2d", False),
        ("norms", "group_normalization", False),
        ("rescaling", "rescaling", False),
    ],
)
def test_the_layers_of_bit_are_recognized_by_their_names(layer, group, part):
    assert is_part_of_bit(layer, group) is part


# timm's and Google's layouts


@pytest.mark.parametrize(("layout", "names"), [(TIMM, TIMM_NAMES), (GOOGLE, GOOGLE_NAMES)], ids=["timm", "google"])
def test_every_variable_has_its_name_in_the_other_layouts(layout, names):
    model = build(BitConfig.from_dict(CONFIG))
    found = {
        f"{layer.name}/{v.name}": layout.tensor_name(layer.name, v.name)
        for layer in model.layers
        for v in layer.weights
    }
    assert found == {f"{layer}/{variable}": names[name] for name, _, layer, variable in PREACTIVATION}


@pytest.mark.parametrize("layout", FILE_LAYOUTS, ids=lambda layout: layout.title)
def test_a_layout_is_recognized_by_its_names(layout):
    model = build(BitConfig.from_dict(CONFIG))
    names = [name for name, _ in named_variables(model, layout)]
    assert recognized(names) == [layout]
    stem = layout.tensor_name("stem_conv", "kernel")
    assert recognized([name for name in names if name != stem]) == [layout]  # for `read`, which says what is missing


@pytest.mark.parametrize(
    ("layout", "name", "in_file", "in_keras"),
    [
        (TIMM, "head.fc.weight", (5, 64, 1, 1), (64, 5)),
        (TIMM, "head.fc.bias", (5,), (5,)),
        (TIMM, "stages.0.blocks.0.conv1.weight", (8, 16, 1, 1), (1, 1, 16, 8)),
        (GOOGLE, "resnet/head/conv2d/kernel", (1, 1, 64, 5), (64, 5)),
        (GOOGLE, "resnet/head/conv2d/bias", (5,), (5,)),
        (GOOGLE, "resnet/root_block/standardized_conv2d/kernel", (7, 7, 3, 16), (7, 7, 3, 16)),
    ],
)
def test_a_convolutional_head_becomes_a_linear_one(layout, name, in_file, in_keras):
    tensor = np.arange(np.prod(in_file)).reshape(in_file)
    ours = layout.to_keras(name, tensor)
    assert ours.shape == in_keras
    assert layout.file_shape(name, in_keras) == in_file
    if tensor.size == 320:
        assert ours[3, 4] == (tensor[4, 3, 0, 0] if layout is TIMM else tensor[0, 0, 3, 4])


CONV = "resnet/block1/unit01/a/standardized_conv2d/kernel"
ADDED = {
    "nothing": (CONV, CONV),
    "a convolution's number": ("resnet/block1/unit01/a/standardized_conv2d_12/kernel", CONV),
    "a projection's number": (
        "resnet/block1/unit01/a/proj/standardized_conv2d_1/kernel",
        "resnet/block1/unit01/a/proj/standardized_conv2d/kernel",
    ),
    "a norm's number": ("resnet/block2/unit03/c/group_norm_7/gamma", "resnet/block2/unit03/c/group_norm/gamma"),
    "the final norm's number": ("resnet/group_norm_48/beta", "resnet/group_norm/beta"),
    "the head's number": ("resnet/head/conv2d_1/bias", "resnet/head/conv2d/bias"),
    "a variable's slot": (f"{CONV}:0", CONV),
    "a scope": (f"keras_layer/{CONV}", CONV),
    "two scopes": (f"StatefulPartitionedCall/keras_layer/{CONV}", CONV),
    "all of them": (f"module/{CONV.replace('2d/', '2d_3/')}:0", CONV),
    "of another network": ("myresnet/root_block/standardized_conv2d_1/kernel:0",) * 2,
    "no slot that TensorFlow writes": (f"{CONV}:1", f"{CONV}:1"),
}


@pytest.mark.parametrize(("name", "plain"), ADDED.values(), ids=ADDED)
def test_suffixes_that_tensorflow_adds_to_a_name_are_removed(name, plain):
    assert plain_google_name(name) == plain


# Other channels


def test_one_channel_gets_the_sum_so_gray_gives_the_output_of_rgb():
    kernel = np.random.default_rng(0).standard_normal((16, 3, 7, 7)).astype(np.float32)
    adapted = adapt_channels(kernel, 1, axis=1)
    assert adapted.shape == (16, 1, 7, 7)
    np.testing.assert_allclose(adapted[:, 0], kernel[:, 0] + kernel[:, 1] + kernel[:, 2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [2, 4, 5, 7])
@pytest.mark.parametrize("axis", [1, 2])
def test_other_numbers_repeat_the_channels_and_keep_the_sum(channels, axis):
    kernel = np.random.default_rng(0).standard_normal((4, 3, 3, 6)).astype(np.float16)
    adapted = adapt_channels(kernel, channels, axis)
    before = kernel.shape[axis]
    assert adapted.dtype == np.float16
    assert adapted.shape[axis] == channels
    for channel in range(channels):
        expected = kernel.take(channel % before, axis=axis).astype(np.float32) * before / channels
        np.testing.assert_allclose(adapted.take(channel, axis=axis), expected, rtol=1e-3)  # float16 rounds at 5e-4
