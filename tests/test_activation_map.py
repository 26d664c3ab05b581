"""Tests class activation maps: their mean is the logit; their values are the head's on transformers' feature map."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from keras_bit import BiT, BitConfig, fuse
from keras_bit.evaluation.activation_map import activation_maps, centers, check_model, interpolated
from keras_bit.network.layers import StdConv2D

SMALL = BitConfig(embedding_size=16, hidden_sizes=(32, 64), depths=(2, 1), num_groups=4, num_labels=5)
BOTTLENECK = dataclasses.replace(
    SMALL, layer_type="bottleneck", global_padding="same", embedding_dynamic_padding=True, hidden_act="gelu_new"
)
CONFIGS = {"preactivation": SMALL, "bottleneck": BOTTLENECK}


def images(count=2, height=72, width=104):
    return np.random.default_rng(0).uniform(-1, 1, (count, height, width, 3)).astype(np.float32)


def model_of(config, **arguments):
    """Builds a model with a bias that is not zero."""
    keras.utils.set_random_seed(1)
    model = BiT(config, **arguments)
    model.get_layer("predictions").bias.assign(np.linspace(-2, 3, config.num_labels))
    return model


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_mean_of_a_map_and_the_bias_are_the_logit(config):
    model = model_of(config, classifier_activation=None)
    logits = ops.convert_to_numpy(model(images()))
    found = activation_maps(model, images(), range(5))
    assert found.maps.shape[0] == 2
    assert found.maps.shape[3] == 5
    # The map is summed in float64, the model's logits in float32 over 64 channels: some units in the last place.
    np.testing.assert_allclose(found.maps.mean(axis=(1, 2)) + found.biases, logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.scores, logits, rtol=1e-5, atol=1e-5)


def test_the_map_does_not_depend_on_the_activation_or_on_fusing():
    expected = activation_maps(model_of(SMALL, classifier_activation=None), images(), [3])
    model = model_of(SMALL)
    for other in (model, fuse(model), model_of(SMALL, classifier_activation="sigmoid")):
        found = activation_maps(other, images(), [3])
        # A fused kernel is standardized once, and convolutions of other kernels sum in another order.
        np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-4, atol=1e-5)
    # Softmax forgets a constant, which differences do not have.
    scores = activation_maps(model, images(), [0, 4])
    difference = np.log(scores.scores[:, 4] / scores.scores[:, 0])
    np.testing.assert_allclose(scores.logits[:, 1] - scores.logits[:, 0], difference, rtol=1e-4)


def test_without_classes_each_image_gets_the_map_of_its_answer():
    model = model_of(SMALL)
    batch = images(4)
    bias = model.get_layer("predictions").bias
    bias.assign(bias - activation_maps(model, batch, range(5)).logits.mean(axis=0))  # now images decide, not the bias
    found = activation_maps(model, batch)
    best = ops.convert_to_numpy(model(batch)).argmax(axis=1)
    np.testing.assert_array_equal(found.classes[:, 0], best)
    assert len(set(best)) > 1  # or the test says nothing
    for index, number in enumerate(best):
        alone = activation_maps(model, batch[index : index + 1], [number])
        np.testing.assert_allclose(found.maps[index], alone.maps[0], rtol=1e-4, atol=1e-5)


def test_half_precision_has_the_logit_to_its_own_rounding():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = model_of(SMALL, classifier_activation=None)
    finally:
        keras.config.set_dtype_policy(policy)
    found = activation_maps(model, images(), range(5))
    # The model takes the mean in bfloat16, which has 8 bits.
    np.testing.assert_allclose(found.logits, found.scores, atol=0.02 * np.abs(found.scores).max())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BiT(SMALL, include_top=False), r"must end in its classification head.*got a model with the output"),
        (lambda: BiT(SMALL, include_top=False, pooling="avg"), "got a model with the output"),
        (
            lambda: BiT(dataclasses.replace(SMALL, num_labels=0, id2label={}, label2id={})),
            "must end in its classification head",
        ),
        (
            lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
            "must be a model of keras_bit.*Sequential",
        ),
    ],
)
def test_a_model_without_the_head_is_refused(build, message):
    with pytest.raises(ValueError, match="(?i)" + message):
        check_model(build())


def test_a_model_whose_output_is_another_than_its_head_s_is_refused():
    model = model_of(SMALL)
    other = type(model)(model.input, {"map": model.get_layer("norm").output, "scores": model.output})
    with pytest.raises(ValueError, match="must end in its classification head"):
        check_model(other)


@pytest.mark.parametrize("classes", [[], [5], [0, -1]])
def test_a_missing_class_is_refused(classes):
    with pytest.raises(ValueError, match="`classes` must be numbers from 0 to 4"):
        activation_maps(model_of(SMALL), images(), classes)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [0, 8, 16]),
        ({"global_padding": "same"}, [3.5, 11.5, 19.5]),
        ({"depths": (1, 1, 1, 1), "hidden_sizes": (16, 16, 16, 16)}, [0, 32, 64]),
        ({"depths": (1, 1, 1, 1), "hidden_sizes": (16, 16, 16, 16), "output_stride": 8}, [0, 8, 16]),
    ],
)
def test_the_positions_of_a_map_have_the_expected_places(changed, expected):
    config = BitConfig(**{"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (2, 1), "num_groups": 4} | changed)
    np.testing.assert_array_equal(centers(config, 3), expected)
    positions = BiT(config, include_top=False, input_shape=(64, 96, 3)).output_shape[1:3]
    # As many as there is room for.
    assert positions == tuple(-(-side // round(centers(config, 2)[1] - centers(config, 2)[0])) for side in (64, 96))


def test_a_spot_moves_the_map_where_the_spot_is():
    """Finds the middle of what a spot changes, with kernels that are their own mirror images.

    It is the oracle for `centers`.
    """
    model = BiT(SMALL, include_top=False)
    generator = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, StdConv2D):
            kernel = generator.standard_normal(layer.kernel.shape)
            kernel += kernel[::-1]
            layer.kernel.assign(kernel + kernel[:, ::-1])
    background = np.full((1, 136, 136, 3), 0.1, np.float32)
    for y, x in ((48, 72), (64, 64), (88, 56), (68, 60)):
        changed = background.copy()
        changed[:, y - 3 : y + 4, x - 3 : x + 4] += 3
        before, after = (ops.convert_to_numpy(model(batch))[0] for batch in (background, changed))
        moved = np.square(after - before).sum(axis=-1)
        moved -= np.median(moved)  # group norm spreads a little of it everywhere
        moved[:4], moved[-4:], moved[:, :4], moved[:, -4:] = 0, 0, 0, 0
        for axis, place in ((1, y), (0, x)):
            weights = moved.sum(axis=axis)
            middle = (weights * centers(SMALL, len(weights))).sum() / weights.sum()
            # Found off by 0.01 px, for the outermost positions are left out; middles of tiles would be off by 3.5.
            assert abs(middle - place) < 0.1, (y, x)


def test_between_positions_the_map_is_linear_and_beyond_them_constant():
    heat = np.array([[0.0, 8.0], [16.0, 24.0]])
    found = interpolated(heat, np.array([-5.0, 0, 4, 8, 30]), np.array([0.0, 2, 8]), SMALL)
    np.testing.assert_allclose(found, [[0, 2, 8], [0, 2, 8], [8, 10, 16], [16, 18, 24], [16, 18, 24]])


@pytest.mark.live
@pytest.mark.parametrize("config", [SMALL, dataclasses.replace(SMALL, layer_type="bottleneck")], ids=CONFIGS)
def test_the_map_is_numpy_s_from_transformers_feature_map(config, tmp_path):
    import torch
    import transformers

    from keras_bit import save_pretrained

    model = model_of(config)
    save_pretrained(model, tmp_path)
    theirs = transformers.BitForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        output = theirs.bit(torch.from_numpy(images().transpose(0, 3, 1, 2).copy()))
    head = theirs.classifier[1]
    kernel, bias = (parameter.detach().numpy() for parameter in (head.weight, head.bias))
    expected = np.einsum("bkyx,ck->byxc", output.last_hidden_state.numpy(), kernel)
    found = activation_maps(model, images(), range(5))
    # Two frameworks' float32 through six convolutions; the maps' numbers are about 1.
    np.testing.assert_allclose(found.maps, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.biases, np.tile(bias, (2, 1)), rtol=1e-6)
