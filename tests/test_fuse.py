"""Tests `fuse`: plain convolutions give the same outputs."""

import keras
import numpy as np
import pytest

from conftest import ROOT
from keras_bit import BiT, BiTBackbone, BitConfig, from_pretrained, fuse, save_pretrained
from keras_bit.network.layers import StdConv2D
from keras_bit.network.transforms import fuse_in_float32

CHECKPOINT = ROOT / "tests" / "checkpoints" / "bit-tiny-cifar10"
SMALL = {"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (2, 1), "num_groups": 4, "num_labels": 5}
BATCH = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")


def numbers(outputs):
    named = outputs if isinstance(outputs, dict) else {"": outputs}
    return {name: keras.ops.convert_to_numpy(keras.ops.cast(values, "float32")) for name, values in named.items()}


def random_model(**changes):
    keras.utils.set_random_seed(0)
    return BiT(BitConfig(**SMALL | changes))


def around():
    """Builds a model with a BiT inside, layers of Keras' own that hold what they learned, and operations."""
    inner = random_model()
    normalization = keras.layers.Normalization()
    normalization.adapt(BATCH)
    inputs = keras.Input((64, 64, 3))
    shared = StdConv2D(3, 3, padding="same", use_bias=True, bias_initializer="random_normal")
    x = shared(shared(normalization(inputs)) * 2 - 1)
    return keras.Model(inputs, keras.layers.Dense(2)(inner(keras.layers.RandomFlip(seed=1)(x))))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: from_pretrained(CHECKPOINT), id="trained"),
        pytest.param(lambda: random_model(layer_type="bottleneck", global_padding="same"), id="bottleneck"),
        pytest.param(
            lambda: BiTBackbone(weights=None, config=BitConfig(**SMALL), out_features=["stem", "stage2"]), id="backbone"
        ),
        pytest.param(around, id="around"),
    ],
)
def test_a_fused_model_has_the_same_outputs_without_a_standardized_kernel(make):
    model = make()
    fused = fuse(model)
    assert type(fused) is type(model)
    assert not any(isinstance(layer, StdConv2D) for layer in fused._flatten_layers())
    expected, found = numbers(model(BATCH)), numbers(fused(BATCH))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        # The same kernels by the same operations; the rest is the order in which a convolution adds up.
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5 * np.abs(values).max())


def test_names_configuration_and_dtypes_stay_and_the_weights_are_copies():
    model = random_model()
    fused = fuse(model)
    assert (fused.name, fused.config) == (model.name, model.config)
    assert [layer.name for layer in fused.layers] == [layer.name for layer in model.layers]
    before = numbers(model(BATCH))[""]
    for variable in fused.weights:
        variable.assign(keras.ops.zeros_like(variable))
    np.testing.assert_array_equal(numbers(model(BATCH))[""], before)


def test_fuse_keeps_the_result_of_low_rank_adaptation():
    model = random_model()
    for layer in model.layers:
        if isinstance(layer, StdConv2D):
            layer.enable_lora(2)
            layer.lora_kernel_b.assign(keras.random.normal(layer.lora_kernel_b.shape, seed=1))
    fused = fuse(model)
    expected = numbers(model(BATCH))[""]
    np.testing.assert_allclose(numbers(fused(BATCH))[""], expected, rtol=1e-4, atol=1e-5)  # rounding
    assert not any("lora" in weight.path for weight in fused.weights)


def test_engines_get_keras_own_convolutions_fused_before_or_not():
    model = random_model()
    for given in (model, fuse(model)):
        fused = fuse_in_float32(given)
        convolutions = [layer for layer in fused.layers if isinstance(layer, keras.layers.Conv2D)]
        assert {type(layer) for layer in convolutions} == {keras.layers.Conv2D}
        assert len(convolutions) == 12
        expected = numbers(model(BATCH))[""]
        np.testing.assert_allclose(numbers(fused(BATCH))[""], expected, rtol=1e-4, atol=1e-5)  # rounding


def test_mixed_precision_stays_mixed():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = random_model()
    finally:
        keras.config.set_dtype_policy("float32")
    fused = fuse(model)
    assert fused.get_layer("stem_conv").compute_dtype == "bfloat16"
    np.testing.assert_array_equal(numbers(fused(BATCH))[""], numbers(model(BATCH))[""])


def test_a_fused_model_is_saved_as_keras_and_not_in_transformers_layout(tmp_path):
    fused = fuse(random_model())
    fused.save(tmp_path / "fused.keras")
    again = keras.saving.load_model(tmp_path / "fused.keras")
    np.testing.assert_array_equal(numbers(again(BATCH))[""], numbers(fused(BATCH))[""])
    with pytest.raises(ValueError, match=r"`model` is fused: .* Save before fusing"):
        save_pretrained(fused, tmp_path / "fused")


def test_models_without_a_graph_are_refused():
    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match="`model` must be a functional or sequential Keras model, got Own"):
        fuse(Own())
    with pytest.raises(ValueError, match="`model` must be a functional or sequential Keras model, got str"):
        fuse("google/bit-50")
    with pytest.raises(ValueError, match="`model` must be built"):
        fuse(keras.Sequential([keras.layers.Dense(2)]))


def test_a_checkpoint_is_loaded_fused_with_the_weights_that_fuse_gives(tmp_path):
    plain, loaded = from_pretrained(CHECKPOINT), from_pretrained(CHECKPOINT, fused=True)
    fused = fuse(plain)
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in fused.layers]
    for one, other in zip(loaded.weights, fused.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)
    assert loaded.config == plain.config
    with pytest.raises(ValueError, match="fuse"):
        save_pretrained(loaded, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
