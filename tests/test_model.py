"""Tests model.py: the graph's names and shapes, and with oracles each part that transformers cannot confirm."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_bit import BiT, BitConfig
from keras_bit.network.layers import StdConv2D
from keras_bit.network.model import Ends, ZeroPaddedToSame, _stride_and_dilations, build, stage_outputs
from keras_bit.network.weights import weights_of

ROOT = Path(__file__).resolve().parent.parent

# Two stages, the second of two blocks: every kind of block with the least to compute.
TINY = {"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (1, 2), "num_groups": 8, "num_labels": 3}
# As many stages as BiT has.
FOUR = {**TINY, "hidden_sizes": (32, 32, 64, 64), "depths": (1, 2, 1, 1)}
BOTTLENECK = {**TINY, "layer_type": "bottleneck"}


def tiny(arguments=TINY, **changed):
    return BitConfig(**{**arguments, **changed})


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def values_of(tensor):
    return keras.ops.convert_to_numpy(tensor)


# Names and shapes

WEIGHTED_LAYERS = {
    "pre-activation": (
        TINY,
        """stem_conv
        stage1_block0_norm1 stage1_block0_shortcut_conv
        stage1_block0_conv1 stage1_block0_norm2 stage1_block0_conv2 stage1_block0_norm3 stage1_block0_conv3
        stage2_block0_norm1 stage2_block0_shortcut_conv
        stage2_block0_conv1 stage2_block0_norm2 stage2_block0_conv2 stage2_block0_norm3 stage2_block0_conv3
        stage2_block1_norm1
        stage2_block1_conv1 stage2_block1_norm2 stage2_block1_conv2 stage2_block1_norm3 stage2_block1_conv3
        norm predictions""",
    ),
    "bottleneck": (
        BOTTLENECK,
        """stem_conv stem_norm
        stage1_block0_shortcut_conv stage1_block0_shortcut_norm
        stage1_block0_conv1 stage1_block0_norm1 stage1_block0_conv2 stage1_block0_norm2 stage1_block0_conv3
        stage1_block0_norm3
        stage2_block0_shortcut_conv stage2_block0_shortcut_norm
        stage2_block0_conv1 stage2_block0_norm1 stage2_block0_conv2 stage2_block0_norm2 stage2_block0_conv3
        stage2_block0_norm3
        stage2_block1_conv1 stage2_block1_norm1 stage2_block1_conv2 stage2_block1_norm2 stage2_block1_conv3
        stage2_block1_norm3
        predictions""",
    ),
}


@pytest.mark.parametrize(("arguments", "names"), WEIGHTED_LAYERS.values(), ids=WEIGHTED_LAYERS)
def test_a_layers_name_is_its_address(arguments, names):
    model = BiT(BitConfig(**arguments))
    assert sorted(layer.name for layer in model.layers if layer.weights) == sorted(names.split())
    assert model.layers[0].name == "pixel_values"


def test_only_the_head_has_a_bias():
    model = BiT(tiny())
    biased = [layer.name for layer in model.layers if getattr(layer, "bias", None) is not None]
    assert biased == ["predictions"]


SIZES = [(32, 32), (33, 47), (64, 64), (65, 63), (95, 130)]


@pytest.mark.parametrize("layer_type", ["preactivation", "bottleneck"])
@pytest.mark.parametrize("padding", [None, "same"])
@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.slow
def test_feature_maps_are_a_32th_of_the_image_rounded_up(layer_type, padding, static):
    config = tiny(FOUR, layer_type=layer_type, global_padding=padding)
    # With SAME but without a pad before the pool, the last, incomplete window is left out.
    pooled = (lambda size: math.ceil(size / 4)) if padding is None else (lambda size: (math.ceil(size / 2) - 1) // 2)
    dynamic = BiT(config, include_top=False)
    for height, width in SIZES[:2] if static else SIZES:
        model = BiT(config, include_top=False, input_shape=(height, width, 3)) if static else dynamic
        expected = (*(math.ceil(pooled(size) / 8) for size in (height, width)), 64)
        assert model.output_shape == ((None, *expected) if static else (None, None, None, 64))
        assert model(random(0, 2, height, width, 3)).shape == (2, *expected)


@pytest.mark.parametrize(
    ("arguments", "shape", "last_layer"),
    [
        ({}, (2, 3), "predictions"),
        ({"pooling": "max"}, (2, 3), "predictions"),  # as in keras.applications: only for include_top=False
        ({"include_top": False}, (2, 9, 8, 64), "norm"),
        ({"include_top": False, "pooling": "avg"}, (2, 64), "avg_pool"),
        ({"include_top": False, "pooling": "max"}, (2, 64), "max_pool"),
    ],
    ids=str,
)
def test_the_end_of_the_network_is_the_one_asked_for(arguments, shape, last_layer):
    model = BiT(tiny(), **arguments)
    assert model.layers[-1].name == last_layer
    assert model(random(0, 2, 65, 61, 3)).shape == shape


def test_the_pooled_ends_pool_the_feature_map():
    x = random(0, 2, 64, 64, 3)
    ends = [BiT(tiny(), include_top=False, pooling=pooling) for pooling in (None, "avg", "max")]
    for model in ends[1:]:
        model.set_weights(ends[0].get_weights())
    feature_map, average, largest = (values_of(model(x)) for model in ends)
    np.testing.assert_allclose(average, feature_map.mean(axis=(1, 2)), rtol=0, atol=1e-6)  # another order of adding
    np.testing.assert_array_equal(largest, feature_map.max(axis=(1, 2)))


def test_a_config_without_labels_ends_in_the_pooled_features():
    model = BiT(tiny(num_labels=0))
    assert model.layers[-1].name == "avg_pool"
    assert model.output_shape == (None, 64)


PROBLEMS = [
    # problem_type, labels, classifier_activation, activation
    (None, 3, "auto", "softmax"),
    ("single_label_classification", 3, "auto", "softmax"),
    ("multi_label_classification", 3, "auto", "sigmoid"),
    ("regression", 3, "auto", "linear"),
    (None, 1, "auto", "linear"),  # transformers takes one label for a regression
    ("single_label_classification", 1, "auto", "softmax"),
    (None, 3, None, "linear"),
    (None, 3, "sigmoid", "sigmoid"),
]


@pytest.mark.parametrize(("problem", "labels", "asked", "activation"), PROBLEMS, ids=str)
def test_the_head_has_the_activation_of_its_problem(problem, labels, asked, activation):
    model = BiT(tiny(problem_type=problem, num_labels=labels), classifier_activation=asked)
    assert keras.activations.serialize(model.get_layer("predictions").activation) == activation


# Input


def test_a_keras_tensor_becomes_the_input():
    images = keras.Input((64, 64, 3), name="images")
    model = BiT(tiny(), input_tensor=images)
    assert model.input is images  # a tensor, not a list of one: the model is called the same way as any other
    assert model(random(0, 2, 64, 64, 3)).shape == (2, 3)


def test_a_chained_input_tensor_is_followed_to_its_source():
    images = keras.Input((None, None, 3), name="bytes")
    model = BiT(tiny(), input_tensor=keras.layers.Rescaling(1 / 127.5, offset=-1.0)(images))
    assert model.input is images
    assert model.config == tiny()
    plain = BiT(tiny())
    plain.set_weights(model.get_weights())
    x = random(0, 2, 45, 64, 3)
    np.testing.assert_allclose(model(x), plain(x / 127.5 - 1.0), rtol=0, atol=1e-6)  # scores of size 1


def test_two_sources_of_an_input_tensor_are_both_inputs():
    left, right = keras.Input((64, 32, 3), name="left"), keras.Input((64, 32, 3), name="right")
    model = BiT(tiny(), input_tensor=keras.layers.Concatenate(axis=2)([left, right]))
    assert [tensor.name for tensor in model.inputs] == ["left", "right"]
    assert model([random(0, 1, 64, 32, 3), random(1, 1, 64, 32, 3)]).shape == (1, 3)


CHANNELS = "must be channels-last with 3 channels, (height, width, 3) per image, got {}."
SMALL = "must be at least 32 px high and wide, got {}. Enlarge the images first, as `BitImageProcessor` does."
REFUSED = {
    "channels first": ({"input_shape": (3, 64, 64)}, "`input_shape` " + CHANNELS.format((3, 64, 64))),
    "no channels": ({"input_shape": (64, 64)}, "`input_shape` " + CHANNELS.format((64, 64))),
    "unknown channels": ({"input_shape": (64, 64, None)}, "`input_shape` " + CHANNELS.format((64, 64, None))),
    "too low": ({"input_shape": (31, 64, 3)}, "`input_shape` " + SMALL.format("31x64")),
    "too narrow": ({"input_shape": (None, 16, 3)}, "`input_shape` " + SMALL.format("Nonex16")),
    "a tensor of four channels": (
        {"input_tensor": lambda: keras.Input((64, 64, 4))},
        "`input_tensor` " + CHANNELS.format((64, 64, 4)),
    ),
    "a small tensor": ({"input_tensor": lambda: keras.Input((64, 31, 3))}, "`input_tensor` " + SMALL.format("64x31")),
    "values for a tensor": (
        {"input_tensor": lambda: np.zeros((1, 64, 64, 3))},
        "`input_tensor` must be a symbolic Keras tensor, as `keras.Input` and layers called on it give, got ndarray. "
        "Call the model on values instead.",
    ),
    "pooling": ({"pooling": "mean"}, "`pooling` must be one of None, 'avg', 'max', got 'mean'."),
    "a head's activation": (
        {"classifier_activation": "softmx"},
        "`classifier_activation` must be 'auto', None for logits, a function, or Keras' name of one (celu, elu, ",
    ),
    "a head's activation that is a number": (
        {"classifier_activation": 5},
        "`classifier_activation` must be 'auto', None for logits, a function, or Keras' name of one (celu, elu, ",
    ),
}


@pytest.mark.parametrize(("arguments", "text"), REFUSED.values(), ids=REFUSED)
def test_impossible_inputs_are_refused_when_the_network_is_built(arguments, text):
    made = {name: value() if callable(value) else value for name, value in arguments.items()}
    with pytest.raises(ValueError, match="^" + re.escape(text)):
        BiT(tiny(), **made)


def test_images_below_32_px_are_refused_when_they_come():
    model = BiT(tiny())
    text = re.escape("`pixel_values` " + SMALL.format("64x31"))
    with pytest.raises(ValueError, match=text):
        model(random(0, 1, 64, 31, 3))
    with pytest.raises(ValueError, match=text):
        model.predict(random(0, 1, 64, 31, 3), verbose=0)
    with pytest.raises(ValueError, match=text):
        model(keras.Input((64, 31, 3)))


def test_images_of_another_number_of_channels_are_refused_when_they_come():
    with pytest.raises(ValueError, match=r"expected shape=\(None, None, None, 3\), found shape=\(1, 64, 64, 4\)"):
        BiT(tiny())(random(0, 1, 64, 64, 4))


# Padding, strides, activations


def padded_to_same(x):
    """Pads by TensorFlow's rule for a 3x3 window with stride 2, with zeros: the odd pixel goes after."""
    pads = [(0, 0)]
    for size in x.shape[1:3]:
        total = max((math.ceil(size / 2) - 1) * 2 + 3 - size, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(x, [*pads, (0, 0)])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 7), (8, 9), (9, 8), (1, 2), (2, 1)])
@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
def test_the_dynamic_pad_is_tensorflows_rule_with_zeros(height, width, static):
    x = random(0, 2, height, width, 4) - 5  # negative: a pad of minus infinity or a repeated pixel would show
    inputs = keras.Input((height, width, 4) if static else (None, None, 4))
    outputs = ZeroPaddedToSame()(inputs)
    expected = padded_to_same(x)
    assert outputs.shape == ((None, *expected.shape[1:]) if static else (None, None, None, 4))
    np.testing.assert_array_equal(values_of(ZeroPaddedToSame()(x)), expected)
    np.testing.assert_array_equal(keras.Model(inputs, outputs).predict(x, verbose=0), expected)


def timms_stride_and_dilations(output_stride, stages=4):
    """Runs the loop of timm 1.0's `ResNetV2.__init__`, with the first line of its `ResNetStage.__init__`."""
    current_stride, dilation, found = 4, 1, []
    for stage in range(stages):
        stride = 1 if stage == 0 else 2
        if current_stride >= output_stride:
            dilation *= stride
            stride = 1
        found.append((stride, dilation, 1 if dilation in (1, 2) else 2))
        current_stride *= stride
    return found


# Stride, dilation, and dilation of the first block, worked out by hand from the same rule.
STRIDES = {
    64: [(1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)],
    32: [(1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)],
    16: [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 2, 1)],
    8: [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 4, 2)],
    4: [(1, 1, 1), (1, 2, 1), (1, 4, 2), (1, 8, 2)],
}


@pytest.mark.parametrize(("output_stride", "expected"), STRIDES.items())
def test_the_output_stride_turns_strides_into_dilation_as_timm_does(output_stride, expected):
    assert [_stride_and_dilations(stage, output_stride) for stage in range(1, 5)] == expected
    assert timms_stride_and_dilations(output_stride) == expected


@pytest.mark.parametrize("layer_type", ["preactivation", "bottleneck"])
@pytest.mark.parametrize("padding", [None, "same"])
@pytest.mark.parametrize("output_stride", STRIDES)
def test_the_3x3_convolutions_of_every_stage_have_that_stride_and_dilation(layer_type, padding, output_stride):
    config = tiny(FOUR, depths=(2, 2, 2, 2), layer_type=layer_type, global_padding=padding, output_stride=output_stride)
    model = BiT(config, include_top=False, input_shape=(128, 96, 3))
    for stage, (stride, dilation, first_dilation) in enumerate(STRIDES[output_stride], start=1):
        first, second = (model.get_layer(f"stage{stage}_block{block}_conv2") for block in (0, 1))
        assert (first.strides, first.dilation_rate) == ((stride,) * 2, (first_dilation,) * 2)
        assert (second.strides, second.dilation_rate) == ((1, 1), (dilation,) * 2)
        assert model.get_layer(f"stage{stage}_block0_shortcut_conv").strides == (stride,) * 2
    pixels = min(output_stride, 32)  # from one position of the last map to the next
    # With SAME padding the stem's pool has none; every later stage rounds up what is lacking.
    lacking = int(padding == "same" and output_stride == 4)
    assert model.output_shape == (None, 128 // pixels - lacking, 96 // pixels - lacking, 64)


def erf(x):
    return np.vectorize(math.erf)(x)


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_new": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
}


@pytest.mark.parametrize(("name", "formula"), ACTIVATIONS.items(), ids=ACTIVATIONS)
def test_the_hidden_activation_is_the_one_of_its_name(name, formula):
    x = np.linspace(-4, 4, 33, dtype="float32")
    for layer in (
        BiT(tiny(hidden_act=name)).get_layer("norm"),
        BiT(tiny(BOTTLENECK, hidden_act=name)).get_layer("stage2_block1_out"),
    ):
        # 2e-6: a few roundings of values up to 4. The two forms of GELU are 5e-4 apart.
        np.testing.assert_allclose(values_of(layer.activation(x)), formula(x.astype("float64")), rtol=0, atol=2e-6)


# Stochastic depth


def drop_path_layers(model):
    return {layer.name: layer for layer in model.layers if layer.name.endswith("_drop_path")}


def test_drop_path_grows_linearly_from_nothing_at_the_first_block():
    model = BiT(tiny(FOUR, drop_path_rate=0.4))
    rates = {name: layer.rate for name, layer in drop_path_layers(model).items()}
    assert list(rates) == [f"stage{address}_drop_path" for address in ("2_block0", "2_block1", "3_block0", "4_block0")]
    np.testing.assert_allclose(list(rates.values()), [0.1, 0.2, 0.3, 0.4])
    assert drop_path_layers(BiT(tiny())) == {}


@pytest.mark.parametrize("arguments", [TINY, BOTTLENECK], ids=["pre-activation", "bottleneck"])
def test_drop_path_is_nothing_outside_training_and_something_in_it(arguments):
    model, plain = BiT(tiny(arguments, drop_path_rate=0.6)), BiT(tiny(arguments))
    for layer in plain.layers:  # by name: the added layers change the order of the others
        layer.set_weights(model.get_layer(layer.name).get_weights())
    x = random(0, 8, 32, 32, 3)
    np.testing.assert_array_equal(model(x), plain(x))
    np.testing.assert_array_equal(model(x, training=False), plain(x))
    assert not np.array_equal(model(x, training=True), plain(x))


def test_drop_path_drops_whole_samples_and_keeps_the_expectation():
    keras.utils.set_random_seed(0)
    layer = drop_path_layers(BiT(tiny(FOUR, drop_path_rate=0.4)))["stage4_block0_drop_path"]
    samples = 4000
    dropped = values_of(layer(np.ones((samples, 2, 3, 4), "float32"), training=True)).reshape(samples, -1)
    np.testing.assert_array_equal(dropped, np.repeat(dropped[:, :1], dropped.shape[1], axis=1))
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.6], rtol=1e-6)
    # Four standard errors of the mean of `samples` draws that are 0 or 1 / 0.6.
    assert abs(dropped[:, 0].mean() - 1) < 4 * math.sqrt(0.4 / 0.6 / samples)


# What survives

SURVIVORS = {
    "pre-activation": {"drop_path_rate": 0.1, "id2label": {0: "cat", 1: "dög", 2: "snake"}},
    "bottleneck": {
        "layer_type": "bottleneck",
        "embedding_dynamic_padding": True,
        "hidden_act": "gelu_new",
        "global_padding": "same",
    },
}


@pytest.mark.parametrize("arguments", SURVIVORS.values(), ids=SURVIVORS)
def test_config_and_numbers_survive_a_keras_file_without_custom_objects(arguments, tmp_path):
    model = BiT(tiny(**arguments))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.config == model.config == tiny(**arguments)
    x = random(0, 2, 33, 64, 3)
    np.testing.assert_array_equal(loaded(x), model(x))


LOAD = """
import json, sys
import keras, numpy as np
import keras_bit
model = keras.saving.load_model(sys.argv[1])
scores = keras.ops.convert_to_numpy(model(np.load(sys.argv[2])))
print(json.dumps({"backend": keras.backend.backend(), "config": model.config.to_dict(), "scores": scores.tolist()}))
"""


def loaded_in_a_new_process(model, x, tmp_path, backend):
    """Returns the result of a process that loads only the file of `model` and calls it on `x`."""
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "model.keras"), str(tmp_path / "x.npy")],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["backend"] == backend
    assert answer["config"] == model.config.to_dict()
    return np.array(answer["scores"])


@pytest.mark.slow
def test_a_new_process_reads_config_and_numbers_from_the_file(tmp_path):
    model, x = BiT(tiny(**SURVIVORS["bottleneck"])), random(0, 2, 33, 64, 3)
    got = loaded_in_a_new_process(model, x, tmp_path, keras.backend.backend())
    np.testing.assert_allclose(got, model(x), rtol=0, atol=1e-6)  # equal but for a thread's order of adding


@pytest.mark.live
def test_keras_torch_backend_gives_the_same_numbers_from_the_same_file(tmp_path):
    model, x = BiT(tiny(**SURVIVORS["bottleneck"])), random(0, 2, 33, 64, 3)
    np.testing.assert_allclose(loaded_in_a_new_process(model, x, tmp_path, "torch"), model(x), rtol=0, atol=1e-5)


def test_a_clone_has_the_config_and_its_own_weights():
    model = BiT(tiny(**SURVIVORS["pre-activation"]))
    clone = keras.models.clone_model(model)
    assert type(clone) is type(model)
    assert clone.config == model.config
    assert not np.array_equal(clone.get_layer("stem_conv").kernel, model.get_layer("stem_conv").kernel)
    clone.set_weights(model.get_weights())
    x = random(0, 1, 40, 40, 3)
    np.testing.assert_array_equal(clone(x), model(x))


@pytest.mark.parametrize("arguments", [TINY, BOTTLENECK], ids=["pre-activation", "bottleneck"])
def test_stage_outputs_are_the_pooled_stem_and_stages_before_the_norm(arguments):
    model = BiT(tiny(arguments), include_top=False)
    outputs = stage_outputs(model)
    assert list(outputs) == ["stem", "stage1", "stage2"]
    x = random(0, 2, 64, 65, 3)
    maps = {name: values_of(values) for name, values in keras.Model(model.input, outputs)(x).items()}
    assert {name: values.shape for name, values in maps.items()} == {
        "stem": (2, 16, 17, 16),
        "stage1": (2, 16, 17, 32),
        "stage2": (2, 8, 9, 64),
    }
    last = maps["stage2"]
    if arguments is TINY:
        assert last.min() < 0  # nothing activates a pre-activation stage's sum
        last = values_of(model.get_layer("norm")(last))
    np.testing.assert_allclose(values_of(model(x)), last, rtol=0, atol=1e-5)  # values of size 1 to 10, float32


# Initialization and training


def test_every_layer_draws_numbers_of_its_own():
    model = BiT(tiny(depths=(1, 4)))
    kernels = [values_of(model.get_layer(f"stage2_block{block}_conv3").kernel) for block in range(4)]
    for index, kernel in enumerate(kernels):
        assert not any(np.array_equal(kernel, other) for other in kernels[:index])


def test_two_models_differ_and_a_seed_makes_them_alike():
    def kernel(seed):
        keras.utils.set_random_seed(seed)
        return values_of(BiT(tiny()).get_layer("stage1_block0_conv2").kernel)

    assert np.array_equal(kernel(1), kernel(1))
    assert not np.array_equal(kernel(1), kernel(2))


def test_initial_weights_are_drawn_as_in_transformers():
    config = tiny(hidden_sizes=(256, 512), num_groups=16, num_labels=1000)
    model = BiT(config)
    kernel = values_of(model.get_layer("stage2_block1_conv2").kernel)
    # Kaiming normal over the fan out: 3 * 3 * 128 outputs. 147,456 draws have a spread good to 0.2 %.
    assert kernel.std() == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.01)
    assert np.abs(kernel).max() > 3 * kernel.std()  # not truncated
    head = values_of(model.get_layer("predictions").kernel)
    # nn.Linear: uniform within 1 / sqrt(fan in).
    assert np.abs(head).max() == pytest.approx(1 / math.sqrt(512), rel=0.01)
    assert head.std() == pytest.approx(1 / math.sqrt(3 * 512), rel=0.01)


def test_without_values_kernels_are_zero_and_initializers_are_known():
    blank, drawn = (build(tiny(), Ends(), values) for values in ({}, None))
    for layer in blank.layers:
        if hasattr(layer, "kernel"):
            assert not values_of(layer.kernel).any(), layer.name
    # Saved or cloned, it is the same model.
    assert blank.get_config() == drawn.get_config()
    clone = keras.models.clone_model(blank)
    kernels = [values_of(layer.kernel) for layer in clone.layers if isinstance(layer, StdConv2D)]
    assert all(kernel.std() > 0 for kernel in kernels)
    assert values_of(clone.get_layer("predictions").kernel).std() > 0


@pytest.mark.parametrize("arguments", [TINY, BOTTLENECK], ids=["pre-activation", "bottleneck"])
def test_one_step_of_fit_reaches_every_weight_and_lowers_the_loss(arguments):
    keras.utils.set_random_seed(0)
    model = BiT(tiny(arguments), input_shape=(32, 32, 3))
    x, y = random(0, 6, 32, 32, 3), np.arange(6) % 3
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    before, weights = model.evaluate(x, y, verbose=0), model.get_weights()
    model.fit(x, y, batch_size=6, epochs=1, verbose=0)
    assert model.evaluate(x, y, verbose=0) < before
    untouched = [
        variable.path
        for variable, old in zip(model.weights, weights, strict=True)
        if np.array_equal(values_of(variable), old)
    ]
    assert untouched == []


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_gives_the_same_scores_roughly(policy):
    plain = BiT(tiny(FOUR))
    keras.config.set_dtype_policy(policy)
    try:
        mixed = BiT(tiny(FOUR))
    finally:
        keras.config.set_dtype_policy("float32")
    assert {variable.dtype for variable in mixed.weights} == {"float32"}
    mixed.set_weights(plain.get_weights())
    x = random(0, 2, 64, 64, 3)
    # 0.02: bfloat16 holds numbers to 4e-3, and its errors add up through 17 convolutions; scores of three classes.
    np.testing.assert_allclose(values_of(mixed(x)).astype("float32"), values_of(plain(x)), rtol=0, atol=0.02)


@pytest.mark.parametrize("layer_type", ["preactivation", "bottleneck"])
@pytest.mark.parametrize(
    "change", [{}, {"num_channels": 5}, {"depths": (1, 3)}, {"width_factor": 2}, {"num_labels": 0}]
)
def test_a_config_knows_the_weights_of_its_network(layer_type, change):
    config = BitConfig(**{"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (2, 1), "num_groups": 4} | change)
    config = dataclasses.replace(config, layer_type=layer_type)
    model = BiT(config)
    assert model.count_params() == config.num_parameters
    # Keras orders layers by their depth in the graph; the order of the table is a reader's.
    built = [(layer.name, variable.name, tuple(variable.shape)) for layer in model.layers for variable in layer.weights]
    assert sorted(built) == sorted(weights_of(config))
    assert len(set(built)) == len(built)
