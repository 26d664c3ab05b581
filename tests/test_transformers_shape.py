"""Compares `BitModel`, `BitForImageClassification` and `BitBackbone` with transformers' for the same weights.

What only Keras sees is compared with a `BiT` from the same file.
"""

import contextlib
import shutil
import types

import keras
import numpy as np
import pytest

import keras_bit
from conftest import ROOT
from keras_bit import BitBackbone, BitConfig, BitForImageClassification, BitModel, from_pretrained
from keras_bit.checkpoints.building import NewHead
from keras_bit.checkpoints.layouts import TRANSFORMERS
from keras_bit.network.layers import StdConv2D
from keras_bit.network.model import BiTModel
from keras_bit.network.raw_pixels import RawPixelsWarning
from keras_bit.transformers_shape.losses import loss_of, problem_type_of
from reference_models import TINY, saved_with_random_weights
from tiny_bit import BOTTLENECK, BOTTLENECK_CONFIG, CONFIG, random_tensors, write_checkpoint

pytestmark = [
    pytest.mark.usefixtures("eagerly"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option"),
]
CHECKPOINT = ROOT / "tests" / "checkpoints" / "bit-tiny-cifar10"
CLASSES = (BitModel, BitForImageClassification, BitBackbone)
LAYER_TYPES = {"pre-activation": {}, "bottleneck": {"layer_type": "bottleneck"}}
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 45, 60, 3)).astype("float32")
# Float32 through ten convolutions, each library summing in its own order; of the largest value.
CLOSE = 1e-5


@pytest.fixture(scope="module", params=["pre-activation", pytest.param("bottleneck", marks=pytest.mark.slow)])
def folder(request, tmp_path_factory):
    """Writes a checkpoint of five classes with random weights."""
    rows, config = {
        "pre-activation": (random_tensors(), CONFIG),
        "bottleneck": (random_tensors(BOTTLENECK), BOTTLENECK_CONFIG),
    }[request.param]
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), rows, config | {"out_features": ["stem", "stage2"]})


def arrays(outputs):
    """Converts the tensors of any structure to numpy arrays."""
    if isinstance(outputs, dict):
        return {name: arrays(values) for name, values in outputs.items()}
    if isinstance(outputs, list | tuple):
        return tuple(map(arrays, outputs))
    return keras.ops.convert_to_numpy(outputs)


def assert_equal(found, expected):
    """Asserts equality up to rounding, because a graph may sum the same numbers in another order."""
    found, expected = arrays(found), arrays(expected)
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = [found[name] for name in expected], list(expected.values())
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert_equal(ours, theirs)
        return
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE * np.abs(expected).max())


def tensors_of(model):
    """Returns the tensors that Keras sees of a model, by Keras' own model of its graph."""
    return keras.Model(model.input, model.output)(IMAGES)


# Comparisons with transformers.


def channels_last(values):
    """Converts transformers' value of an output to the form of keras_bit. The pool's has two more axes of one."""
    if isinstance(values, tuple):
        return tuple(map(channels_last, values))
    values = values.detach().numpy()
    if values.ndim == 4:
        values = values.transpose(0, 2, 3, 1)
    return values[:, 0, 0, :] if values.shape[1:3] == (1, 1) else values


@pytest.mark.live
@pytest.mark.parametrize("layer_type", LAYER_TYPES)
@pytest.mark.parametrize("ours", CLASSES, ids=lambda kind: kind.__name__)
def test_every_output_is_that_of_transformers(ours, layer_type, tmp_path):
    import torch
    import transformers

    config = {**TINY, **LAYER_TYPES[layer_type], "out_features": ["stem", "stage2", "stage4"]}
    saved_with_random_weights(config, tmp_path)
    images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    labels = {"labels": [0, 3, 6]} if ours is BitForImageClassification else {}
    theirs = getattr(transformers, ours.__name__).from_pretrained(tmp_path).eval()
    model = ours.from_pretrained(tmp_path)
    for options in (
        {},
        {"output_hidden_states": True},
        {"return_dict": False},
        labels | {"output_hidden_states": True},
    ):
        with torch.no_grad():
            expected = theirs(
                images,
                **{
                    name: torch.tensor(value) if value == labels.get("labels") else value
                    for name, value in options.items()
                },
            )
        found = model(IMAGES, **options)
        names = range(len(expected)) if isinstance(expected, tuple) else list(expected)
        assert len(found) == len(expected)
        if not isinstance(expected, tuple):
            assert list(found) == list(expected)
        assert isinstance(found, tuple) == isinstance(expected, tuple)
        for place, name in enumerate(names):
            assert_equal(found[name], channels_last(expected[name]))
            assert found[place] is found[name]
            differences = _difference(found[name], channels_last(expected[name]))
            print(f"{ours.__name__}, {layer_type}, {options}: {name} {differences:.1e} relative")


def _difference(found, expected):
    if isinstance(expected, tuple):
        return max(map(_difference, found, expected))
    return np.abs(arrays(found) - expected).max() / np.abs(expected).max()


RANDOM = np.random.default_rng(1)
LOSSES = {
    "one class, inferred": ({"num_labels": 10}, np.array([1, 0, 9])),
    "one class, int32": ({"num_labels": 10}, np.array([1, 0, 9], np.int32)),
    "one class, a column": ({"num_labels": 10}, np.array([[1], [0], [9]])),
    "one class, one image ignored": ({"num_labels": 10}, np.array([1, -100, 9])),
    "one class, said": ({"num_labels": 4, "problem_type": "single_label_classification"}, np.array([1, 0, 3])),
    "two labels": ({"num_labels": 2}, np.array([1, 0, 1])),
    "several labels, inferred": ({"num_labels": 4}, RANDOM.integers(0, 2, (3, 4)).astype(np.float32)),
    "several labels, soft": ({"num_labels": 4}, RANDOM.uniform(0, 1, (3, 4)).astype(np.float32)),
    "several labels, said": (
        {"num_labels": 4, "problem_type": "multi_label_classification"},
        RANDOM.integers(0, 2, (3, 4)).astype(np.float32),
    ),
    "one number, inferred": ({"num_labels": 1}, RANDOM.normal(0, 1, 3).astype(np.float32)),
    "one number, a column": ({"num_labels": 1}, RANDOM.normal(0, 1, (3, 1)).astype(np.float32)),
    "several numbers": (
        {"num_labels": 4, "problem_type": "regression"},
        RANDOM.normal(0, 1, (3, 4)).astype(np.float32),
    ),
}


QUICK = ("one class, one image ignored", "several labels, inferred", "one number, inferred", "several numbers")


@pytest.mark.live
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in LOSSES]
)
def test_loss_and_gradients_are_torchs(case, tmp_path):
    import torch
    import transformers

    config, labels = LOSSES[case]
    torch.manual_seed(0)
    theirs = transformers.BitForImageClassification.from_pretrained(CHECKPOINT, ignore_mismatched_sizes=True, **config)
    theirs.save_pretrained(tmp_path)
    # torch takes int32 for classes, and then has no cross entropy of them.
    for_torch = torch.from_numpy(labels.astype(np.int64) if labels.dtype == np.int32 else labels)
    expected = theirs(torch.from_numpy(IMAGES).permute(0, 3, 1, 2), labels=for_torch).loss
    expected.backward()
    expected = expected.item()
    ours = BitForImageClassification.from_pretrained(tmp_path)
    loss, gradients = loss_and_gradients(ours, labels)
    assert loss == pytest.approx(expected, rel=1e-5)
    wanted = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == wanted.keys()
    differences = {
        name: float(np.abs(gradients[name] - wanted[name]).max() / np.abs(wanted[name]).max()) for name in wanted
    }
    worst = max(differences, key=differences.get)
    print(f"{case}: loss {loss:.6f}, torch {expected:.6f}; gradients {differences[worst]:.1e} ({worst})")
    assert differences[worst] < 1e-4  # of the largest entry of each, as in test_gradients_live.py


def loss_and_gradients(model, labels):
    """Returns the loss, and the gradients by transformers' names, with the tools of the current backend."""
    variables = model.trainable_variables
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = model(IMAGES, labels=labels, training=True).loss
        gradients = tape.gradient(loss, [variable.value for variable in variables])
    elif keras.backend.backend() == "torch":
        loss = model(IMAGES, labels=labels, training=True).loss
        loss.backward()
        gradients = [variable.value.grad for variable in variables]
    else:
        import jax

        def of(values):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return model(IMAGES, labels=labels, training=True).loss

        loss, gradients = jax.value_and_grad(of)([variable.value for variable in variables])
    found = {}
    for variable, gradient in zip(variables, gradients, strict=True):
        tensor = TRANSFORMERS.tensor_name(*variable.path.split("/")[-2:])
        found[tensor] = TRANSFORMERS.to_file(tensor, keras.ops.convert_to_numpy(gradient))
    return float(keras.ops.convert_to_numpy(loss)), found


@pytest.mark.live
def test_the_problem_type_is_inferred_as_transformers_does():
    import torch
    import transformers

    for num_labels in (1, 2, 5):
        for dtype in ("int64", "int32", "int16", "uint8", "bool", "float32", "float64"):
            labels = torch.ones((1, num_labels), dtype=getattr(torch, dtype))
            config = transformers.BitConfig(num_labels=num_labels)
            # The labels may not fit the loss, but by then it is set how they were understood.
            with contextlib.suppress(RuntimeError, ValueError):
                transformers.loss.loss_utils.ForSequenceClassificationLoss(labels, torch.ones(1, num_labels), config)
            assert problem_type_of(num_labels, dtype) == config.problem_type, (num_labels, dtype)


# A direct call


def test_an_output_is_read_by_attribute_key_and_index(folder):
    outputs = BitForImageClassification.from_pretrained(folder)(IMAGES)
    assert outputs.loss is None
    assert outputs.hidden_states is None
    assert list(outputs) == ["logits"]
    assert outputs.logits is outputs["logits"] is outputs[0] is outputs[-1]
    assert len(outputs) == len(outputs.to_tuple()) == len(outputs[:2]) == 1
    with pytest.raises(KeyError):
        _ = outputs["loss"]
    with pytest.raises(AttributeError, match=r"'logit'\. Its fields are loss, logits, hidden_states"):
        _ = outputs.logit


def test_the_shapes_are_channels_last(folder):
    outputs = BitModel.from_pretrained(folder)(IMAGES, output_hidden_states=True)
    assert tuple(outputs.last_hidden_state.shape) == (3, 6, 8, 64)
    assert tuple(outputs.pooler_output.shape) == (3, 64)
    assert [tuple(values.shape) for values in outputs.hidden_states] == [
        (3, 12, 15, 16),
        (3, 12, 15, 32),
        (3, 6, 8, 64),
    ]


@pytest.mark.parametrize("ours", CLASSES, ids=lambda kind: kind.__name__)
def test_the_configuration_says_what_a_call_leaves_open(ours, folder, monkeypatch):
    model = ours.from_pretrained(folder)
    asked = {**vars(model.config), "return_dict": False, "output_hidden_states": True}
    asked["stage_names"] = model.config.stage_names
    expected = model(IMAGES, output_hidden_states=True)
    monkeypatch.setattr(BiTModel, "config", property(lambda self: types.SimpleNamespace(**asked)))
    assert_equal(model(IMAGES), expected.to_tuple())
    assert list(model(IMAGES, output_hidden_states=False, return_dict=True)) == [
        name for name in expected if name != "hidden_states"
    ]


def test_a_backbone_gives_the_maps_that_its_configuration_names(folder):
    assert len(BitBackbone.from_pretrained(folder)(IMAGES).feature_maps) == 2
    config = BitConfig.from_dict(CONFIG)
    assert [tuple(values.shape) for values in BitBackbone(config)(IMAGES).feature_maps] == [(3, 6, 8, 64)]
    first = BitBackbone(BitConfig.from_dict(CONFIG | {"out_features": ["stage1"]}))
    assert len(first(IMAGES, output_hidden_states=True).hidden_states) == 2  # the second stage is not there


@pytest.mark.parametrize("asked", [{"out_features": ["stage1"]}, {"out_indices": [1]}, {"out_indices": [-2]}])
def test_a_backbones_stages_can_be_named_as_it_is_read(asked, folder):
    model = BitBackbone.from_pretrained(folder, **asked)
    assert model.config.out_features == ("stage1",)
    (found,) = model(IMAGES).feature_maps
    assert_equal(found, keras_bit.BiTBackbone(folder, out_features=["stage1"])(IMAGES)["stage1"])
    for wrong in ({"out_features": ["stage9"]}, {"out_indices": [9]}, {"out_features": ["stem"], "out_indices": [1]}):
        with pytest.raises(ValueError, match="The stages of this network are 0 'stem', 1 'stage1', 2 'stage2'"):
            BitBackbone.from_pretrained(folder, **wrong)


@pytest.mark.live
def test_the_stages_that_are_named_are_those_of_transformers(tmp_path):
    import torch
    import transformers

    saved_with_random_weights({**TINY, "out_features": ["stage4"]}, tmp_path)
    for asked in ({"out_features": ["stem", "stage3"]}, {"out_indices": [0, 2]}):
        theirs = transformers.BitBackbone.from_pretrained(tmp_path, **asked).eval()
        with torch.no_grad():
            expected = theirs(torch.from_numpy(IMAGES).permute(0, 3, 1, 2)).feature_maps
        assert_equal(BitBackbone.from_pretrained(tmp_path, **asked)(IMAGES).feature_maps, channels_last(expected))


@pytest.mark.parametrize("ours", CLASSES, ids=lambda kind: kind.__name__)
def test_from_pretrained_takes_a_config_and_some_of_its_values(ours, folder, tmp_path):
    expected = ours.from_pretrained(folder)(IMAGES, output_hidden_states=True)
    model = ours.from_pretrained(folder, output_hidden_states=True, return_dict=False)
    assert (model.config.output_hidden_states, model.config.return_dict) == (True, False)
    assert_equal(model(IMAGES), expected.to_tuple())
    config = BitConfig.from_pretrained(folder)
    shutil.copy(folder / "model.safetensors", tmp_path)
    assert_equal(ours.from_pretrained(tmp_path, config=config)(IMAGES), ours.from_pretrained(folder)(IMAGES))
    with pytest.raises(ValueError, match="`config` must be a BitConfig, got dict"):
        ours.from_pretrained(folder, config={})


def test_the_number_of_labels_of_a_configuration_that_is_passed_is_obeyed(folder):
    """Expects transformers' behavior if the number differs from the checkpoint's: an error, or a new head."""
    config = BitConfig.from_pretrained(folder).with_num_labels(3)
    with pytest.raises(ValueError, match="the configuration has 3"):
        BitForImageClassification.from_pretrained(folder, config=config)
    with pytest.warns(NewHead):
        model = BitForImageClassification.from_pretrained(folder, config=config, ignore_mismatched_sizes=True)
    assert model.config.num_labels == 3


def test_images_come_by_name_or_in_a_dict_too(folder):
    model = BitForImageClassification.from_pretrained(folder)
    expected = model(IMAGES)
    for found in (model(pixel_values=IMAGES), model(**{"pixel_values": IMAGES}), model({"pixel_values": IMAGES})):
        assert_equal(found, expected)
    with pytest.raises(ValueError, match="must have only `pixel_values`, got pixel_values, mask"):
        model({"pixel_values": IMAGES, "mask": IMAGES})


@pytest.mark.parametrize(
    ("ours", "misspelt", "closest"),
    [
        (BitForImageClassification, "label", "labels"),
        (BitForImageClassification, "output_hidden_state", "output_hidden_states"),
        (BitModel, "labels", "pixel_values"),
        (BitModel, "return_dicts", "return_dict"),
        (BitBackbone, "train", "training"),
    ],
)
def test_an_unknown_argument_of_a_call_is_refused_with_the_closest(ours, misspelt, closest):
    model = ours(BitConfig.from_dict(CONFIG))
    for images in (IMAGES, keras.Input((64, 64, 3))):
        with pytest.raises(TypeError, match=f"call of {ours.__name__} has no argument '{misspelt}'.*'{closest}'"):
            model(images, **{misspelt: True})
    with pytest.raises(TypeError, match=f"`{ours.__name__}.call`, .* has no argument '{misspelt}'"):
        model.stateless_call(model.trainable_variables, model.non_trainable_variables, IMAGES, **{misspelt: True})


@pytest.mark.parametrize(
    ("config", "labels", "match"),
    [
        ({}, [0, 1, 5], "0 to 4, or -100 .*, got 5"),
        ({}, [0, 1, -1], "0 to 4, or -100 .*, got -1"),
        ({}, [0, 1], r"shape \(3,\) for single_label_classification, got int\d\d \(2,\)"),
        ({}, np.eye(3, 5, dtype=int), r"for single_label_classification, got int\d\d \(3, 5\)\. .*floats, or"),
        ({}, np.array([0, 1, 2], np.uint8), r"shape \(3, 5\) for multi.*uint8 \(3,\)\. Make classes int32 or int64"),
        ({"problem_type": "single_label_classification"}, [0.0, 1.0, 2.0], "whole numbers .* got float"),
        ({"problem_type": "regression"}, [0.0, 1.0, 2.0], r"shape \(3, 5\) for regression, got float\d\d \(3,\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(config, labels, match):
    model = BitForImageClassification(BitConfig.from_dict(CONFIG | config))
    with pytest.raises(ValueError, match=match):
        model(IMAGES, labels=labels)


def test_a_class_out_of_range_in_a_tensor_makes_the_loss_nan():
    config = BitConfig.from_dict(CONFIG)
    logits = keras.ops.ones((2, 5))
    assert np.isfinite(float(loss_of(logits, keras.ops.convert_to_tensor([0, 4]), config)))
    assert np.isnan(float(loss_of(logits, keras.ops.convert_to_tensor([0, 5]), config)))
    assert np.isnan(float(loss_of(logits, keras.ops.convert_to_tensor([-100, -100]), config)))  # as torch's


def test_raw_pixels_are_warned_of_at_the_line_that_calls():
    model = BitModel(BitConfig.from_dict(CONFIG))
    with pytest.warns(RawPixelsWarning) as caught:
        model(np.full((1, 64, 64, 3), 200.0, np.float32))
    assert [warning.filename for warning in caught] == [__file__]


def test_training_reaches_the_paths_that_are_dropped():
    model = BitForImageClassification(BitConfig.from_dict(CONFIG | {"drop_path_rate": 0.9}))
    for options in ({}, {"output_hidden_states": True}):
        still, moving = model(IMAGES, **options).logits, model(IMAGES, training=True, **options).logits
        assert_equal(still, tensors_of(model))
        assert np.abs(arrays(moving) - arrays(still)).max() > 0


# Making one


@pytest.mark.parametrize("ours", CLASSES, ids=lambda kind: kind.__name__)
def test_a_model_of_a_configuration_has_it_and_random_weights(ours):
    config = BitConfig.from_dict(CONFIG)
    model = ours(config)
    assert isinstance(model, BiTModel)
    assert model.config.id2label == config.id2label
    assert np.abs(arrays(model.get_layer("stem_conv").kernel)).max() > 0
    assert ours(config=config).count_params() == model.count_params()
    for wrong in ({}, {"config": "google/bit-50"}, {"config": config, "num_labels": 3}):
        with pytest.raises(ValueError, match=r"takes only `config`, a BitConfig.*from_pretrained"):
            ours(**wrong)


def test_another_number_of_classes_has_to_be_asked_for_twice(folder):
    with pytest.raises(
        ValueError, match=r"has 5 classes, and the model should have 3\. Pass `ignore_mismatched_sizes=True`"
    ):
        BitForImageClassification.from_pretrained(folder, num_labels=3)
    with pytest.warns(NewHead, match="a head of 5 classes: the model gets a new head of zeros for 3") as caught:
        model = BitForImageClassification.from_pretrained(folder, num_labels=3, ignore_mismatched_sizes=True)
    assert [warning.filename for warning in caught] == [__file__]
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert not arrays(model(IMAGES).logits).any()
    assert BitModel.from_pretrained(folder, num_labels=3).config.num_labels == 3  # which has no head


def test_a_checkpoint_without_a_head_gets_a_new_one(folder, tmp_path):
    BitModel.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.warns(NewHead, match="has no head"):
        model = BitForImageClassification.from_pretrained(tmp_path, num_labels=2)
    assert model(IMAGES).logits.shape == (3, 2)


def test_labels_and_problem_type_replace_the_checkpoints(folder):
    names = dict(enumerate("abcde"))
    model = BitForImageClassification.from_pretrained(folder, id2label=names, problem_type="multi_label_classification")
    assert model.config.id2label == names
    assert model.config.label2id == {name: index for index, name in names.items()}
    assert model.config.problem_type == "multi_label_classification"
    given = {name: 4 - index for index, name in names.items()}
    assert BitForImageClassification.from_pretrained(folder, id2label=names, label2id=given).config.label2id == given
    with pytest.raises(ValueError, match="`id2label` must name every class from 0 to 3"):
        BitForImageClassification.from_pretrained(folder, num_labels=4, id2label=names)


@pytest.mark.parametrize("ours", CLASSES, ids=lambda kind: kind.__name__)
def test_a_saved_model_is_loaded_again(ours, folder, tmp_path):
    model = ours.from_pretrained(folder)
    model.save_pretrained(tmp_path / "transformers")
    assert_equal(ours.from_pretrained(tmp_path / "transformers")(IMAGES), model(IMAGES))
    if ours is not BitBackbone:  # which has none of the last norm's weights
        model.save(tmp_path / "bit.keras")
        assert_equal(ours.from_pretrained(tmp_path / "bit.keras")(IMAGES), model(IMAGES))


# What Keras sees


def seen(ours, folder):
    """Returns what Keras must see, by the functions that give plain models of the same file."""
    if ours is BitBackbone:
        return keras_bit.BiTBackbone(folder)(IMAGES)
    if ours is BitForImageClassification:
        return from_pretrained(folder, classifier_activation=None)(IMAGES)
    maps = from_pretrained(folder, include_top=False)(IMAGES)
    return {"last_hidden_state": maps, "pooler_output": keras.ops.mean(maps, axis=(1, 2))}


@pytest.mark.parametrize("ours", CLASSES, ids=lambda kind: kind.__name__)
def test_keras_sees_tensors_wherever_it_calls_the_model(ours, folder, tmp_path):
    model, expected = ours.from_pretrained(folder), seen(ours, folder)
    assert_equal(tensors_of(model), expected)
    assert_equal(model.predict(IMAGES, verbose=0), expected)
    assert_equal(model.predict_on_batch(IMAGES), expected)
    weights = [
        [variable.value for variable in kind] for kind in (model.trainable_variables, model.non_trainable_variables)
    ]
    assert_equal(model.stateless_call(*weights, IMAGES)[0], expected)
    inputs = keras.Input((None, None, 3))
    outer = keras.Model(inputs, model(keras.layers.Rescaling(1.0)(inputs)))
    assert_equal(outer(IMAGES), expected)
    outer.save(tmp_path / "outer.keras")
    loaded = keras.saving.load_model(tmp_path / "outer.keras")
    assert_equal(loaded(IMAGES), expected)
    assert type(loaded.get_layer(model.name)) is ours
    assert_equal(keras.Sequential([keras.Input((None, None, 3)), model])(IMAGES), expected)
    with pytest.raises(ValueError, match="`output_hidden_states` is for images"):
        model(inputs, output_hidden_states=True)


def test_it_learns_from_logits_as_a_plain_model_does(folder):
    losses = []
    labels = np.array([0, 1, 2])
    plain, ours = from_pretrained(folder, classifier_activation=None), BitForImageClassification.from_pretrained(folder)
    for model in (plain, ours):
        model.compile(
            keras.optimizers.SGD(1e-4),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        history = model.fit(IMAGES, labels, batch_size=2, shuffle=False, verbose=0).history
        losses.append(
            [*history["loss"], *model.evaluate(IMAGES, labels, verbose=0), model.train_on_batch(IMAGES, labels)[0]]
        )
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_a_loss_of_its_own_is_what_the_same_loss_of_keras_is(folder):
    model, labels = BitForImageClassification.from_pretrained(folder), np.array([0, 1, 2])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert float(model(IMAGES, labels=labels).loss) == pytest.approx(
        model.evaluate(IMAGES, labels, verbose=0), rel=1e-5
    )


@pytest.mark.parametrize("ours", CLASSES, ids=lambda kind: kind.__name__)
def test_saved_cloned_and_fused_it_answers_as_before(ours, folder, tmp_path):
    model = ours.from_pretrained(folder)
    model.save(tmp_path / "bit.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    fused = keras_bit.fuse(model)
    assert not any(isinstance(layer, StdConv2D) for layer in fused.layers)
    expected = model(IMAGES, output_hidden_states=True)
    for copy in (keras.saving.load_model(tmp_path / "bit.keras"), clone, fused):
        assert type(copy) is ours
        assert copy.config == model.config
        assert_equal(copy(IMAGES, output_hidden_states=True), expected)
    assert len(model.get_weights()) == len(clone.get_weights())  # nothing of the second graph is among them


@pytest.mark.slow
def test_a_graph_of_tensorflow_gives_the_output_too(folder, graphs, caplog):
    import tensorflow as tf

    model = BitForImageClassification.from_pretrained(folder)
    labels = tf.constant([0, 1, 2])

    @tf.function
    def answers(images, labels):
        return model(images, labels=labels, output_hidden_states=True)

    caplog.clear()
    with caplog.at_level("WARNING"):
        found = answers(IMAGES, labels)
    assert (
        "AutoGraph" not in caplog.text
    )  # AutoGraph warns about code that it cannot read, and users cannot change that
    expected = model(IMAGES, labels=labels, output_hidden_states=True)
    assert type(found) is type(expected)
    assert list(found) == ["loss", "logits", "hidden_states"]
    assert_equal(found, expected)
    assert type(tf.function(model)(IMAGES)) is type(expected)
    outer = keras.Model(model.input, keras.layers.Softmax()(model(model.input)))
    assert_equal(tf.function(lambda images: outer(images))(IMAGES), keras.ops.softmax(expected.logits))


def test_a_graph_of_jax_gives_the_output_too(folder):
    if keras.backend.backend() != "jax":
        return  # test_backends.py runs it there
    import jax

    model = BitForImageClassification.from_pretrained(folder)
    found = jax.jit(lambda images: model(images, labels=np.array([0, 1, 2]), output_hidden_states=True))(IMAGES)
    expected = model(IMAGES, labels=np.array([0, 1, 2]), output_hidden_states=True)
    assert type(found) is type(expected)
    assert_equal(found, expected)
    assert_equal(jax.tree.map(np.asarray, found), expected)


def test_a_layer_of_ones_own_gets_the_output():
    class Twice(keras.layers.Layer):
        def __init__(self, bit):
            super().__init__()
            self.bit = bit

        def call(self, images):
            return 2 * self.bit(images).logits

    bit = BitForImageClassification(BitConfig.from_dict(CONFIG))
    assert_equal(Twice(bit)(IMAGES), 2 * bit(IMAGES).logits)


def test_fields_of_an_output_are_given_to_every_caller(folder):
    model = BitForImageClassification.from_pretrained(folder)
    for package in ("keras.src.trainers", "keras_bit.exporters"):
        by_package = eval("lambda function, *args, **kwargs: function(*args, **kwargs)", {"__name__": package})
        assert list(by_package(model, IMAGES, labels=[0, 1, 2])) == ["loss", "logits"]
        assert_equal(by_package(model, IMAGES, training=False), tensors_of(model))


# With the rest of the package


@pytest.mark.slow
@pytest.mark.parametrize("ours", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("format", ["saved_model", "tflite"])
def test_it_is_exported_as_what_keras_sees(ours, format, folder, tmp_path, graphs):
    model = ours.from_pretrained(folder)
    report = keras_bit.export(model, tmp_path / "exported", format, image_size=64)
    assert report.max_abs_diff <= report.limit


@pytest.mark.slow
def test_keras_own_export_serves_tensors(folder, tmp_path, graphs):
    import tensorflow as tf

    model = BitForImageClassification.from_pretrained(folder)
    model.export(str(tmp_path / "served"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    assert_equal(served.serve(IMAGES), model(IMAGES).logits)


def test_other_functions_take_it_for_a_model_with_logits(folder):
    model = BitForImageClassification.from_pretrained(folder)
    processor = keras_bit.BitImageProcessor(size=40, crop_size=40)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), np.uint8)
    plain = from_pretrained(folder)
    found = keras_bit.BiTClassifier(model, processor).classify(list(pixels))
    expected = keras_bit.BiTClassifier(plain, processor).classify(list(pixels))
    assert [[label for label, _ in row] for row in found] == [[label for label, _ in row] for row in expected]
    labels = np.array([0, 1, 2])
    reports = [keras_bit.evaluation.evaluate(one, [(IMAGES, labels)], progress=False).report for one in (model, plain)]
    for name in ("right", "log_loss", "top_k_accuracy"):
        assert reports[0][name] == pytest.approx(reports[1][name], rel=1e-4)


@pytest.mark.slow
def test_it_is_fine_tuned_as_a_plain_model_with_logits(folder):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((IMAGES, [0, 1, 2])).batch(3)
    rule = keras_bit.HyperRule(3, (45, 60), batch_size=3, steps=2, base_learning_rate=1e-3)
    plain, model = (
        from_pretrained(folder, classifier_activation=None),
        BitForImageClassification.from_pretrained(folder),
    )
    histories = [keras_bit.fine_tune(one, data, rule=rule, verbose=0).history for one in (plain, model)]
    assert histories[1] == {name: pytest.approx(values, rel=1e-5) for name, values in histories[0].items()}


def test_labels_given_by_label2id_alone_name_the_classes_of_a_new_head(tmp_path):
    write_checkpoint(tmp_path, random_tensors(), CONFIG)
    with pytest.warns(NewHead):
        model = BitForImageClassification.from_pretrained(
            tmp_path, num_labels=2, label2id={"cat": 1, "dog": 0}, ignore_mismatched_sizes=True
        )
    assert dict(model.config.label2id) == {"cat": 1, "dog": 0}  # as in transformers, which leaves LABEL_0 in id2label
    assert dict(model.config.id2label) == {0: "dog", 1: "cat"}
    with pytest.raises(ValueError, match="`id2label` must name every class"):
        BitForImageClassification.from_pretrained(tmp_path, num_labels=2, label2id={"cat": 5, "dog": 0})
    with pytest.raises(ValueError, match="`label2id` must map labels"):
        BitForImageClassification.from_pretrained(tmp_path, num_labels=2, label2id=["cat"])
