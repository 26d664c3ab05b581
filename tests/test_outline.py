"""Tests outline.py: a file gives the same as Keras' own loader, or an error that names the layer and the value."""

import dataclasses
import re

import keras
import numpy as np
import pytest
from keras.src.saving.serialization_lib import SafeModeScope

from keras_bit import BiT, BiTBackbone, BitConfig, from_pretrained, fuse, save_pretrained
from keras_bit.network import outline
from keras_bit.network.model import BiTModel
from store import SMALLEST, smallest

pytestmark = pytest.mark.usefixtures("eagerly")
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 37, 45, 3)).astype(np.float32)
FORMS = {
    "pre-activation": {},
    "bottleneck": {"layer_type": "bottleneck"},
    "every layer there is": {
        "layer_type": "bottleneck",
        "embedding_dynamic_padding": True,
        "drop_path_rate": 0.25,
        "hidden_act": "gelu_new",
    },
    "TensorFlow's padding": {"global_padding": "SAME", "hidden_act": "selu"},
    "dilated": {"output_stride": 8, "hidden_sizes": (16, 32, 64), "depths": (1, 1, 1)},
    "no head": {"num_labels": 0},
    "wider": {"width_factor": 2, "hidden_act": "gelu"},
}


def changed(model, **changes):
    """Returns a clone with the same weights. Some layers have other arguments: `layer={"argument": value}`."""

    def clone(layer):
        return layer.__class__.from_config(layer.get_config() | changes.get(layer.name, {}))

    cloned = keras.models.clone_model(model, clone_function=clone)
    cloned.set_weights(model.get_weights())
    return cloned


def outputs(model):
    return keras.ops.convert_to_numpy(model(IMAGES))


@pytest.mark.parametrize("form", FORMS)
def test_a_model_of_every_form_is_what_its_configuration_describes(tmp_path, form):
    model = smallest(**FORMS[form])
    model.save(tmp_path / "bit.keras")
    for one in (model, keras.models.clone_model(model), keras.saving.load_model(tmp_path / "bit.keras")):
        assert outline.differences(one) == []
    np.testing.assert_array_equal(outputs(from_pretrained(tmp_path / "bit.keras")), outputs(model))


ENDS = {
    "no top": lambda: BiT(BitConfig(**SMALLEST), include_top=False),
    "averaged": lambda: BiT(BitConfig(**SMALLEST), include_top=False, pooling="avg"),
    "the largest": lambda: BiT(BitConfig(**SMALLEST), include_top=False, pooling="max"),
    "logits": lambda: BiT(BitConfig(**SMALLEST), classifier_activation=None),
    "a fixed size": lambda: BiT(BitConfig(**SMALLEST), input_shape=(40, 50, 3)),
    "an input of another name": lambda: BiT(BitConfig(**SMALLEST), input_tensor=keras.Input((40, 50, 3), name="x")),
    "layers before it": lambda: BiT(
        BitConfig(**SMALLEST), input_tensor=keras.layers.Rescaling(2.0)(keras.Input((40, 50, 3)))
    ),
    "a backbone": lambda: BiTBackbone(None, config=BitConfig(**SMALLEST), out_features=["stem", "stage2"]),
    "the first stage": lambda: BiTBackbone(None, config=BitConfig(**SMALLEST), out_features=["stage1"]),
}


@pytest.mark.parametrize("ends", ENDS)
def test_a_model_of_any_ends_is_what_its_configuration_describes(ends):
    model = ENDS[ends]()
    assert outline.differences(model) == []
    model(np.zeros((1, 40, 50, 3), np.float32))  # calls, also symbolic ones, change nothing
    keras.Model(again := keras.Input((40, 50, 3)), model(again))
    assert outline.differences(model) == []


def renamed(model):
    model.config = dataclasses.replace(model.config, id2label={index: f"class {index}" for index in range(5)})


HARMLESS = {
    "frozen": {"stem_conv": {"trainable": False}},
    "a penalty": {"stage1_block0_conv1": {"kernel_regularizer": keras.regularizers.L2(1e-3)}},
    "a constraint": {"predictions": {"kernel_constraint": keras.constraints.NonNeg()}},
    "another beginning": {"predictions": {"kernel_initializer": "zeros"}},
    "half precision": {"stage1_block0_conv1": {"dtype": "mixed_float16"}},
}


@pytest.mark.parametrize("case", HARMLESS)
def test_changes_that_do_not_affect_values_are_saved(tmp_path, case):
    model = changed(smallest(), **HARMLESS[case])
    renamed(model)
    model.compile("sgd", "mse")
    assert outline.differences(model) == []
    save_pretrained(model, tmp_path)
    assert from_pretrained(tmp_path).config.id2label[3] == "class 3"


# The layer, its arguments, what is said of it; the network has drop path.
CHANGES = {
    "a norm's epsilon": ("stage1_block0_norm1", {"epsilon": 1e-3}, "epsilon is 0.001, expected 1e-05"),
    "the last norm's epsilon": ("norm", {"epsilon": 0.5}, "epsilon is 0.5, expected 1e-05"),
    "a convolution's epsilon": ("stem_conv", {"epsilon": 1e-1}, "epsilon is 0.1, expected 1e-08"),
    "a norm's activation": ("norm", {"activation": "tanh"}, "activation is 'tanh', expected 'relu'"),
    "a convolution's activation": ("stage1_block0_conv2", {"activation": "relu"}, "activation is 'relu', expected"),
    "groups of a norm": ("stage2_block0_norm1", {"groups": 2}, "groups is 2, expected 4"),
    "padding": ("stage1_block0_conv1", {"padding": "valid"}, "padding is 'valid', expected 'same'"),  # of 1x1
    "strides": ("stage2_block0_conv2", {"strides": (1, 1)}, r"strides is \[1, 1\], expected \[2, 2\]"),
    "dilation": ("stage1_block1_conv2", {"dilation_rate": (2, 2)}, r"dilation_rate is \[2, 2\], expected \[1, 1\]"),
    "a pool's size": ("stem_pool", {"pool_size": (2, 2)}, r"pool_size is \[2, 2\], expected \[3, 3\]"),
    "a pool's strides": ("stem_pool", {"strides": (1, 1)}, r"strides is \[1, 1\], expected \[2, 2\]"),
    "a pool's padding": ("stem_pool", {"padding": "same"}, "padding is 'same', expected 'valid'"),
    "zeros around it": ("stem_pad", {"padding": ((2, 2), (1, 1))}, r"padding is \[\[2, 2\], \[1, 1\]\], expected"),
    "drop path": ("stage2_block0_drop_path", {"rate": 0.5}, "rate is 0.5, expected 0.25"),
    "what is kept of the average": ("avg_pool", {"keepdims": True}, "keepdims is True, expected False"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CHANGES)
def test_a_layer_of_other_arguments_is_refused_by_name(tmp_path, case):
    layer, arguments, fact = CHANGES[case]
    plain = smallest(drop_path_rate=0.25)
    also = {"stage2_block0_shortcut_conv": arguments} if case == "strides" else {}
    model = changed(plain, **{layer: arguments}, **also)
    model.save(tmp_path / "bit.keras")
    for refused in (
        lambda: from_pretrained(tmp_path / "bit.keras"),
        lambda: save_pretrained(model, tmp_path / "saved"),
    ):
        with pytest.raises(ValueError, match=f"{layer}: .*{fact}"):
            refused()
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path / 'bit.keras'))} .*`keras\.saving\.load_model`"):
        from_pretrained(tmp_path / "bit.keras")
    assert not (tmp_path / "saved").exists()
    # What would have been lost.
    again = outputs(keras.saving.load_model(tmp_path / "bit.keras"))
    np.testing.assert_array_equal(again, outputs(model))
    if case not in ("drop path", "padding"):  # the one is for training, the other of a kernel of 1x1
        assert again.shape != outputs(plain).shape or not np.array_equal(again, outputs(plain))


def behind(model):
    return BiTModel(model.input, keras.layers.Rescaling(0.5, name="halved")(model.output))


def between(model):
    """Puts a layer between the pool and the head."""
    pooled = keras.layers.Dropout(0.5, name="dropped")(model.get_layer("avg_pool").output)
    return BiTModel(model.input, model.get_layer("predictions")(pooled))


def skipped(model):
    """Makes the head read the sum that leaves the last stage, not the norm."""
    x = model.get_layer("avg_pool")(model.get_layer("stage2_block0_add").output)
    return BiTModel([model.input], [model.get_layer("predictions")(x), model.get_layer("norm").output])


def other_head(model):
    return BiTModel(model.input, keras.layers.Dense(5, name="new_head")(model.get_layer("avg_pool").output))


def other_class(model):
    def clone(layer):
        if layer.name != "stem_conv":
            return layer.__class__.from_config(layer.get_config())
        return keras.layers.Conv2D(layer.filters, 7, strides=2, use_bias=False, name=layer.name)

    return keras.models.clone_model(model, clone_function=clone)


OTHERS = {
    "a layer behind the head": (behind, r"halved \(a Rescaling\) is an extra layer"),
    "a layer before the head": (between, r"dropped \(a Dropout\) is an extra layer"),
    "other ways": (skipped, "avg_pool: reads stage2_block0_add, expected norm"),
    "another head": (other_head, "new_head|predictions"),
    "another class": (other_class, "stem_conv(: is | is )a Conv2D"),
    "fused": (fuse, "stem_conv(: is | is )a Conv2D"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS)
def test_other_layers_are_refused_by_name(tmp_path, case):
    change, fact = OTHERS[case]
    model = change(smallest())
    model.save(tmp_path / "bit.keras")
    with pytest.raises(ValueError, match=fact):
        save_pretrained(model, tmp_path / "saved")
    with pytest.raises(ValueError, match=fact) as error:
        from_pretrained(tmp_path / "bit.keras")
    assert "keras.saving.load_model" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [None, "linear", "softmax", "sigmoid", "relu"])
@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
def test_the_head_of_a_keras_file_keeps_its_activation_by_default(tmp_path, activation, problem_type):
    model = BiT(BitConfig(**SMALLEST, problem_type=problem_type), classifier_activation=activation)
    model.save(tmp_path / "bit.keras")
    expected = outputs(keras.saving.load_model(tmp_path / "bit.keras"))
    np.testing.assert_array_equal(outputs(from_pretrained(tmp_path / "bit.keras")), expected)
    other = from_pretrained(tmp_path / "bit.keras", classifier_activation="tanh")
    assert other.get_layer("predictions").activation is keras.activations.tanh


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("safe", [True, False, None])
def test_code_in_a_keras_file_is_refused_in_any_safe_mode(tmp_path, safe):
    model = smallest()
    BiTModel(model.input, keras.layers.Lambda(lambda x: x * 2)(model.output)).save(tmp_path / "bit.keras")
    # Keras has no way back from `enable_unsafe_deserialization`, which sets what this scope sets.
    with SafeModeScope(safe), pytest.raises(ValueError, match=r"not a model that Keras can load: .*[Ll]ambda"):
        from_pretrained(tmp_path / "bit.keras")


def test_a_network_around_a_bit_is_refused_whatever_its_class_is(tmp_path):
    inner = smallest()
    images = keras.Input((48, 48, 3))
    around = type(inner)(images, inner(keras.layers.Rescaling(2.0)(images)))
    with pytest.raises(ValueError, match=r"`model` must be a model that keras_bit built, got BiTModel without its"):
        save_pretrained(around, tmp_path / "saved")
    around.save(tmp_path / "around.keras")
    with pytest.raises(ValueError, match=r"around.keras holds a network around a BiT, expected a model that keras_bit"):
        from_pretrained(tmp_path / "around.keras")
