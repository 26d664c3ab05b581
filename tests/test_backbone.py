"""Tests `BiTBackbone` and `freeze`: every choice of feature maps against the whole network and transformers."""

import dataclasses
import inspect
import itertools

import keras
import numpy as np
import pytest
from rich.console import Console

from convert import goldens, parity
from keras_bit import BiT, BiT50, BiTBackbone, BitConfig, freeze, from_pretrained
from keras_bit.checkpoints.layouts import TRANSFORMERS
from keras_bit.network import model as network
from keras_bit.network.model import BiTModel, stage_outputs
from keras_bit.network.weights import weights_of
from reference_models import TINY
from tiny_bit import (
    BOTTLENECK,
    BOTTLENECK_CONFIG,
    CONFIG,
    PREACTIVATION,
    assert_holds,
    in_keras,
    random_tensors,
    variables,
    write_checkpoint,
    write_npz,
    write_shards,
    write_timm,
)

LAYER_TYPES = {"pre-activation": {}, "bottleneck": {"layer_type": "bottleneck"}}
STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")
COMBINATIONS = [names for count in range(1, 6) for names in itertools.combinations(STAGES, count)]
NUMBERED = r"The stages of this network are 0 'stem', 1 'stage1', 2 'stage2', 3 'stage3', 4 'stage4'\."

TENSORS = random_tensors()
REST = ("bit.norm.weight", "bit.norm.bias", "classifier.1.weight", "classifier.1.bias")
STAGE2 = tuple(name for name in TENSORS if ".stages.1." in name)
BODY = {name: tensor for name, tensor in TENSORS.items() if name not in REST}


def config_of(**arguments):
    return BitConfig(**{**TINY, **arguments})


def pixel_values(height=64, width=48, count=2, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, height, width, 3)).astype("float32")


def arrays(maps):
    return {name: keras.ops.convert_to_numpy(values) for name, values in maps.items()}


def assert_same_maps(found, expected):
    found, expected = arrays(found), arrays(expected)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)  # the same operations on the same numbers


@pytest.fixture(scope="module", params=LAYER_TYPES.values(), ids=LAYER_TYPES)
def whole(request, tmp_path_factory):
    """Builds a whole network with random weights, and saves its `.keras` file."""
    model = BiT(config_of(**request.param))
    generator = np.random.default_rng(1)
    for layer in model.layers:  # group norms begin as ones and zeros, which hide a swap
        for variable in layer.weights:
            if variable.name in ("gamma", "beta"):
                variable.assign(generator.normal(float(variable.name == "gamma"), 0.3, variable.shape))
    path = tmp_path_factory.mktemp("whole") / "bit.keras"
    model.save(path)
    return model, path


# Arguments


def test_the_arguments_are_those_of_the_contract_and_all_are_documented():
    parameters = inspect.signature(BiTBackbone).parameters
    assert [name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY] == ["weights"]
    assert {name: p.default for name, p in parameters.items()} == {
        "weights": "google/bit-50",
        "config": None,
        "out_features": None,
        "out_indices": None,
        "input_shape": None,
        "input_tensor": None,
        "name": "bit_backbone",
        "revision": None,
        "cache_dir": None,
        "token": None,
        "local_files_only": False,
    }
    for name in parameters:
        assert f"{name}:" in BiTBackbone.__doc__ or f"{name}," in BiTBackbone.__doc__


CHOICES = {
    "nothing": ({}, {}, ["stage4"]),
    "names": ({}, {"out_features": ["stem", "stage3"]}, ["stem", "stage3"]),
    "a tuple of names": ({}, {"out_features": ("stage2",)}, ["stage2"]),
    "indices": ({}, {"out_indices": [0, 1, 4]}, ["stem", "stage1", "stage4"]),
    "negative indices": ({}, {"out_indices": (-4, -1)}, ["stage1", "stage4"]),
    "the stem from behind": ({}, {"out_indices": [-5]}, ["stem"]),
    "both, agreeing": ({}, {"out_features": ["stage1", "stage4"], "out_indices": [1, -1]}, ["stage1", "stage4"]),
    "the configuration's names": ({"out_features": ["stage2", "stage3"]}, {}, ["stage2", "stage3"]),
    "the configuration's indices": ({"out_indices": [-2]}, {}, ["stage3"]),
    "names over the configuration's": ({"out_features": ["stage2"]}, {"out_features": ["stage1"]}, ["stage1"]),
    "indices over the configuration's names": ({"out_features": ["stage2"]}, {"out_indices": [3]}, ["stage3"]),
}


@pytest.mark.parametrize(("own", "arguments", "expected"), CHOICES.values(), ids=CHOICES)
def test_the_maps_are_those_that_were_asked_for(own, arguments, expected):
    config = config_of(**own)
    model = BiTBackbone(None, config=config, **arguments)
    assert list(model.output) == expected
    assert list(model(pixel_values())) == expected
    assert model.config == dataclasses.replace(
        config, out_features=expected, out_indices=[STAGES.index(name) for name in expected]
    )
    assert [tensor.name for tensor in model.inputs] == ["pixel_values"]
    assert (model.name, type(model)) == ("bit_backbone", BiTModel)


# What is wrong with each argument by itself is worded in the table of test_config.py.
REFUSED = {
    "an unknown name": ({"out_features": ["stage5"]}, ("`out_features`", "'stage5'")),
    "another word": ({"out_features": ["Stem"]}, ("`out_features`", "'Stem'")),
    "a word by itself": ({"out_features": "stage1"}, ("`out_features`", "a list or a tuple", "'stage1'")),
    "wrong order": ({"out_features": ["stage2", "stem"]}, ("`out_features`", "order", "('stage2', 'stem')")),
    "twice": ({"out_features": ["stem", "stem"]}, ("`out_features`", "once", "('stem', 'stem')")),
    "no names": ({"out_features": []}, ("`out_features`", "at least one", "none")),
    "no indices": ({"out_indices": ()}, ("`out_indices`", "at least one", "none")),
    "too large": ({"out_indices": [5]}, ("`out_indices`", "between -5 and 4", "got 5.")),
    "too small": ({"out_indices": [-6]}, ("`out_indices`", "between -5 and 4", "got -6.")),
    "no number": ({"out_indices": [True]}, ("`out_indices`", "between -5 and 4", "got True.")),
    "a number by itself": ({"out_indices": 1}, ("`out_indices`", "a list or a tuple", "got 1.")),
    "twice by another name": ({"out_indices": [4, -1]}, ("`out_indices`", "once", "(4, -1)")),
    "contradictory": (
        {"out_features": ["stem"], "out_indices": [1]},
        ("`out_features` ('stem',)", "`out_indices` (1,)", "the same"),
    ),
    "of different length": (
        {"out_features": ["stem"], "out_indices": [0, 1]},
        ("`out_features` ('stem',)", "`out_indices` (0, 1)", "the same"),
    ),
}


@pytest.mark.parametrize(("arguments", "facts"), REFUSED.values(), ids=REFUSED)
def test_impossible_maps_are_refused_with_a_list_of_the_possible(tmp_path, arguments, facts):
    config_of().save_pretrained(tmp_path)
    for call in (
        lambda: BiTBackbone(None, config=config_of(), **arguments),
        lambda: BiTBackbone(tmp_path, **arguments),  # before the weights, which this directory lacks
    ):
        with pytest.raises(ValueError, match=f"{NUMBERED}$") as raised:
            call()
        assert [fact for fact in facts if fact not in str(raised.value)] == []


@pytest.mark.parametrize("config", [CONFIG, {}, "bit"], ids=["dict", "empty dict", "str"])
def test_a_config_of_none_is_refused(config):
    with pytest.raises(ValueError, match=f"^`config` must be a BitConfig, got {type(config).__name__}: "):
        BiTBackbone(None, config=config)


def test_without_a_config_and_weights_it_is_bit_50s():
    model = BiTBackbone(None, out_indices=[1])
    assert model.config == BitConfig(out_features=["stage1"], out_indices=[1])
    assert (model.output["stage1"].shape, model.count_params()) == ((None, None, None, 256), 224_320)


# The maps


@pytest.mark.parametrize(
    "names",
    [pytest.param(names, marks=() if len(names) in (1, len(STAGES)) else pytest.mark.slow) for names in COMBINATIONS],
    ids="-".join,
)
@pytest.mark.slow
def test_every_choice_of_maps_is_that_of_the_whole_network(whole, names):
    model, path = whole
    expected = arrays(keras.Model(model.input, stage_outputs(model))(pixel_values(), training=False))
    backbone = BiTBackbone(path, out_features=names)
    assert_same_maps(backbone(pixel_values(), training=False), {name: expected[name] for name in names})
    # The model has nothing that these maps do not need: no later stage, no final norm and no head.
    last = STAGES.index(names[-1])
    needed = [layer.name for layer in model.layers if layer.name.startswith(("pixel", "checked", *STAGES[: last + 1]))]
    assert sorted(layer.name for layer in backbone.layers) == sorted(needed)


def test_stages_are_listed_and_a_layers_name_gives_any_output(whole):
    model, path = whole
    assert model.config.stage_names == STAGES
    maps = BiTBackbone(path, out_features=STAGES)(pixel_values())
    last = "add" if model.config.layer_type == "preactivation" else "out"  # there the activation follows the sum
    for stage, depth in enumerate(model.config.depths, start=1):
        inside = keras.Model(model.input, model.get_layer(f"stage{stage}_block{depth - 1}_{last}").output)
        np.testing.assert_array_equal(inside(pixel_values()), maps[f"stage{stage}"])
    first = keras.Model(model.input, model.get_layer("stage1_block0_conv1").output)
    assert first(pixel_values()).shape[-1] == model.config.stage_widths[0] // 4


@pytest.mark.parametrize("size", [(32, 32), (45, 61), (64, 96), (33, 200)])
@pytest.mark.slow
def test_one_model_takes_images_of_any_size(whole, size):
    model, path = whole
    images = pixel_values(*size)
    backbone = BiTBackbone(path, out_features=STAGES)
    found = backbone(images, training=False)
    assert_same_maps(found, keras.Model(model.input, stage_outputs(model))(images, training=False))
    for name, divisor, width in zip(STAGES, (4, 4, 8, 16, 32), (16, 32, 64, 96, 128), strict=True):
        assert tuple(found[name].shape) == (2, *(-(-pixels // divisor) for pixels in size), width)


def test_the_maps_keep_their_size_after_the_last_stride():
    backbone = BiTBackbone(None, config=config_of(output_stride=8), out_features=STAGES, input_shape=(64, 96, 3))
    assert [tuple(backbone.output[name].shape[1:3]) for name in STAGES] == [(16, 24)] * 2 + [(8, 12)] * 3


def test_an_input_tensor_and_an_input_shape_are_taken(whole):
    _, path = whole
    assert BiTBackbone(path, input_shape=(64, 96, 3)).output["stage4"].shape == (None, 2, 3, 128)
    adapter = keras.layers.Conv2D(3, 1, name="adapter")
    backbone = BiTBackbone(path, out_indices=[0, 2], input_tensor=adapter(keras.Input((None, None, 1))), name="mine")
    gray = pixel_values()[..., :1]
    plain = BiTBackbone(path, out_indices=[0, 2])
    assert_same_maps(backbone(gray), plain(adapter(gray)))
    assert backbone.name == "mine"
    with pytest.raises(ValueError, match=r"`input_shape`.* 32 px.* 31x64"):
        BiTBackbone(None, config=config_of(), input_shape=(31, 64, 3))
    with pytest.raises(ValueError, match="`input_tensor` must be a symbolic Keras tensor"):
        BiTBackbone(None, config=config_of(), input_tensor=pixel_values())


@pytest.mark.slow
def test_class_config_order_and_numbers_survive_saving_and_cloning(tmp_path, whole):
    _, path = whole
    model = BiTBackbone(path, out_features=("stem", "stage2", "stage3"))
    model.save(tmp_path / "backbone.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for copy in (
        keras.saving.load_model(tmp_path / "backbone.keras"),
        BiTBackbone(tmp_path / "backbone.keras"),  # its config knows its maps
        clone,
    ):
        assert (type(copy), copy.config, copy.name) == (BiTModel, model.config, "bit_backbone")
        assert_same_maps(copy(pixel_values()), model(pixel_values()))
    assert list(BiTBackbone(tmp_path / "backbone.keras", out_indices=[1]).output) == ["stage1"]
    with pytest.raises(ValueError, match=r"missing from the checkpoint \(\d+\): stage4_block0_"):
        BiTBackbone(tmp_path / "backbone.keras", out_indices=[4])


def test_random_weights_are_random_and_loaded_ones_are_drawn_by_no_one(monkeypatch, tmp_path):
    one, other = (BiTBackbone(None, config=config_of()) for _ in range(2))
    assert not np.array_equal(one.get_layer("stem_conv").kernel, other.get_layer("stem_conv").kernel)
    drawn = []
    draw = keras.initializers.VarianceScaling.__call__
    spy = lambda self, shape, dtype=None: drawn.append(shape) or draw(self, shape, dtype)  # noqa: E731
    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", spy)
    BiTBackbone(write_checkpoint(tmp_path))
    assert drawn == []
    # Nor is anything drawn that no map needs: of 4 stages the stem and the first block.
    BiTBackbone(None, config=config_of(), out_indices=[1])
    assert len(drawn) == 1 + 4


# Checkpoints


def under(prefix, tensors):
    return {prefix + name.removeprefix("bit."): tensor for name, tensor in tensors.items()}


SOURCES = {
    "a whole network": lambda folder: write_checkpoint(folder),
    "a file": lambda folder: write_checkpoint(folder) / "model.safetensors",
    "shards": lambda folder: write_shards(folder),
    "BitBackbone's": lambda folder: write_checkpoint(folder, {n: TENSORS[n] for n in TENSORS if n not in REST[2:]}),
    "BitModel's": lambda folder: write_checkpoint(folder, under("", {n: TENSORS[n] for n in TENSORS if n in BODY})),
    "timm's": lambda folder: write_timm(folder),
    "Google's": lambda folder: write_npz(folder / "BiT.npz"),
    "ours": lambda folder: saved(from_pretrained(write_checkpoint(folder)), folder / "bit.keras"),
}


def saved(model, path):
    model.save(path)
    return path


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("write", SOURCES.values(), ids=SOURCES)
def test_every_layout_is_read_as_far_as_it_is_needed(tmp_path, write, stage):
    tmp_path = tmp_path / "bit"
    tmp_path.mkdir()
    source = write(tmp_path)
    # timm's and Google's files need a config here: theirs name only the published sizes.
    config = BitConfig.from_dict(CONFIG) if write in (SOURCES["timm's"], SOURCES["Google's"]) else None
    model = BiTBackbone(source, config=config, out_indices=[stage])
    assert_holds(model, needed_for(stage, TENSORS))
    assert dict(model.config.id2label) == {0: "apple", 1: "bee", 2: "cat", 3: "dog", 4: "egg"}


def needed_for(stage, tensors):
    marks = ("bit.embedder", "bit.encoder.stages.0.", "bit.encoder.stages.1.")[: stage + 1]
    return {name: tensor for name, tensor in tensors.items() if name.startswith(marks)}


def test_a_bottleneck_is_read_as_far_as_it_is_needed(tmp_path):
    tensors = random_tensors(BOTTLENECK)
    folder = write_checkpoint(tmp_path, tensors, BOTTLENECK_CONFIG)
    for stage in (0, 1, 2):
        assert_holds(BiTBackbone(folder, out_indices=[stage]), needed_for(stage, tensors), BOTTLENECK)


def test_a_bottleneck_that_googles_layout_has_no_names_for_is_refused(tmp_path):
    path = write_npz(tmp_path / "BiT.npz")
    with pytest.raises(
        ValueError,
        match=rf"^The checkpoint {str(path)!r} does not fit the model: no rule of Google's \.npz layout names the "
        r"layer 'stem_norm'\. Nothing was loaded\. Load it with the configuration that it was saved with\.$",
    ):
        BiTBackbone(path, config=BitConfig.from_dict(BOTTLENECK_CONFIG), out_indices=[0])


def without(*names):
    return {name: tensor for name, tensor in TENSORS.items() if name not in names}


IGNORED = {
    "no head": (without(*REST[2:]), 2),
    "half a head": (without(REST[3]), 2),
    "no final norm": (without(*REST[:2]), 2),
    "no end at all": (BODY, 2),
    "no later stage": (without(*STAGE2), 1),
    "half a later stage": (without(*STAGE2[:4]), 1),
    "a head of another shape": (TENSORS | {REST[2]: np.zeros((9, 9))}, 2),
    "a final norm of NaN": (TENSORS | {REST[0]: np.full(64, np.nan)}, 2),
    "a later stage of NaN": (TENSORS | {name: TENSORS[name] * np.nan for name in STAGE2}, 1),
    "all but the stem": (needed_for(0, TENSORS), 0),
}


@pytest.mark.parametrize(("tensors", "stage"), IGNORED.values(), ids=IGNORED)
def test_the_rest_of_the_network_may_be_there_or_not_and_is_not_read(tmp_path, tensors, stage):
    folder = write_checkpoint(tmp_path, {name: np.float32(tensor) for name, tensor in tensors.items()})
    assert_holds(BiTBackbone(folder, out_indices=[stage]), needed_for(stage, TENSORS))


MISFITS = {
    "a stranger": (TENSORS | {"extra": np.zeros(1)}, 1, r"not part of the model \(1\): extra\n"),
    "a stranger in the head": (
        TENSORS | {"classifier.2.weight": np.zeros(1)},
        2,
        r"not part of the model \(1\): classifier\.2\.weight\n",
    ),
    "a stage too many": (
        TENSORS | {"bit.encoder.stages.2.layers.0.conv1.weight": np.zeros(1)},
        1,
        r"not part of the model \(1\): bit\.encoder\.stages\.2\.layers\.0\.conv1\.weight\n",
    ),
    "a block too many in a later stage": (
        TENSORS | {"bit.encoder.stages.1.layers.1.conv1.weight": np.zeros(1)},
        1,
        r"not part of the model \(1\): bit\.encoder\.stages\.1\.layers\.1\.conv1\.weight\n",
    ),
    "a projection too many in a later stage": (
        TENSORS | {"bit.encoder.stages.1.layers.0.downsample.norm.weight": np.zeros(1)},
        1,
        r"not part of the model \(1\): bit\.encoder\.stages\.1\.layers\.0\.downsample\.norm\.weight\n",
    ),
    "no stem": (
        without("bit.embedder.convolution.weight"),
        0,
        r"missing from the checkpoint \(1\): bit\.embedder\.convolution\.weight\n",
    ),
    "a hole": (
        without(STAGE2[0]),
        2,
        r"missing from the checkpoint \(1\): bit\.encoder\.stages\.1\.layers\.0\.downsample\.conv\.weight\n",
    ),
    "a wrong shape": (
        TENSORS | {"bit.encoder.stages.0.layers.0.norm1.bias": np.zeros(7)},
        1,
        r"wrongly shaped \(1\): bit\.encoder\.stages\.0\.layers\.0\.norm1\.bias expected \(16,\), got \(7,\)\n",
    ),
}


@pytest.mark.parametrize(("tensors", "stage", "message"), MISFITS.values(), ids=MISFITS)
def test_missing_and_foreign_tensors_raise_an_error(tmp_path, tensors, stage, message):
    folder = write_checkpoint(tmp_path, {name: np.float32(tensor) for name, tensor in tensors.items()})
    with pytest.raises(ValueError, match=message) as error:
        BiTBackbone(folder, out_indices=[stage])
    assert str(error.value).startswith(f"The checkpoint {str(folder)!r} ")
    assert "Nothing was loaded." in str(error.value)


def test_a_bottleneck_does_not_contain_the_final_norm(tmp_path):
    tensors = random_tensors(BOTTLENECK) | {"bit.norm.weight": np.ones(64, "float32")}
    with pytest.raises(ValueError, match=r"not part of the model \(1\): bit\.norm\.weight"):
        BiTBackbone(write_checkpoint(tmp_path, tensors, BOTTLENECK_CONFIG))


@pytest.mark.parametrize("stage", range(5))
@pytest.mark.slow
def test_it_has_the_weights_up_to_its_last_stage_and_no_others(whole, stage):
    model, path = whole
    used = tuple(f"{name}_" for name in model.config.stage_names[: stage + 1])
    expected = [key for key in variables(model) if key[0].startswith(used)]
    assert sorted(variables(BiTBackbone(path, out_indices=[stage]))) == sorted(expected)


def test_a_config_replaces_the_checkpoints_and_one_is_required(tmp_path):
    bare = write_checkpoint(tmp_path / "bare", config=None)
    config = BitConfig.from_dict(CONFIG | {"out_features": ["stage1"]})
    model = BiTBackbone(bare, config=config)
    assert model.config == dataclasses.replace(config, out_indices=[1])
    assert_holds(model, needed_for(1, TENSORS))
    with pytest.raises(FileNotFoundError, match=r"bare'.*config\.json.*`config="):
        BiTBackbone(bare)


def test_a_published_architecture_is_known_by_its_shapes(tmp_path):
    # Of the whole network: the shapes of all its stages tell it.
    tensors = {}
    for weight in weights_of(BitConfig()):
        name = TRANSFORMERS.tensor_name(weight.layer, weight.variable)
        tensors[name] = np.zeros(TRANSFORMERS.file_shape(name, weight.shape), "float16")
    model = BiTBackbone(write_checkpoint(tmp_path, tensors, config=None), out_indices=[-3])
    assert model.config == BitConfig(out_features=["stage2"], out_indices=[2])
    assert not any(np.any(values) for values in model.get_weights())
    # A part of the file is enough for a part of the network, however large the rest of it is.
    BitConfig().save_pretrained(tmp_path)
    write_checkpoint(tmp_path, needed_for(1, tensors), config=None)
    assert BiTBackbone(tmp_path, out_indices=[1]).count_params() == 224_320


def test_a_config_of_a_far_larger_network_is_refused_before_it_is_built(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path, config=CONFIG | {"hidden_sizes": [32, 4096]})
    assert_holds(BiTBackbone(folder, out_indices=[1]), needed_for(1, TENSORS))
    monkeypatch.setattr(network, "build_backbone", None)
    with pytest.raises(
        ValueError, match=r"describes a network of [\d,]+ \(stem 16, stages .32, 4096., depths .2, 1.\)"
    ):
        BiTBackbone(folder)


@pytest.mark.parametrize("given", ["input_shape", "input_tensor"])
def test_images_of_other_channels_adapt_the_first_kernel_with_one_warning(tmp_path, given):
    folder = write_checkpoint(tmp_path)
    shape = (None, None, 1)
    with pytest.warns(UserWarning, match="its first kernel was adapted to 1. Train the model") as caught:
        model = BiTBackbone(folder, **{given: shape if given == "input_shape" else keras.Input(shape)})
    assert [warning.filename for warning in caught] == [__file__]  # the line that asked for it
    assert model.config.num_channels == 1
    expected = in_keras(TENSORS["bit.embedder.convolution.weight"]).sum(2, keepdims=True)
    np.testing.assert_allclose(model.get_layer("stem_conv").kernel, expected, rtol=1e-5, atol=1e-6)


# Freezing


def preactivation_names(*addresses):
    return [layer for _, _, layer, variable in PREACTIVATION if layer.startswith(addresses) and variable != "beta"]


FREEZES = {
    "nothing said": ({}, ("stem", "stage1", "stage2", "norm")),
    "None": ({"up_to": None}, ("stem", "stage1", "stage2", "norm")),
    "all": ({"up_to": "all"}, ("stem", "stage1", "stage2", "norm")),
    "stem": ({"up_to": "stem"}, ("stem",)),
    "stage1": ({"up_to": "stage1"}, ("stem", "stage1")),
    "stage2": ({"up_to": "stage2"}, ("stem", "stage1", "stage2")),
}


@pytest.mark.parametrize(("arguments", "addresses"), FREEZES.values(), ids=FREEZES)
def test_the_stages_up_to_the_named_one_are_frozen_and_the_rest_is_not(arguments, addresses):
    config = BitConfig.from_dict(CONFIG)
    backbone = BiTBackbone(None, config=config)
    for model in (BiT(config), BiT(config, include_top=False, pooling="avg"), BiT50(weights=None, config=config)):
        frozen = freeze(model, **arguments)
        assert sorted(frozen) == sorted(preactivation_names(*addresses))
        assert_frozen(model, addresses)
    assert sorted(freeze(backbone, **arguments)) == sorted(set(preactivation_names(*addresses)) - {"norm"})
    assert_frozen(backbone, addresses)


def assert_frozen(model, addresses):
    for layer in model.layers:
        if layer.weights:
            assert layer.trainable == (not layer.name.startswith(addresses)), layer.name
    trained = {variable.path for variable in model.trainable_variables}
    assert trained == {v.path for layer in model.layers if not layer.name.startswith(addresses) for v in layer.weights}


def test_the_last_call_of_freeze_decides(whole):
    model = BiTBackbone(whole[1])
    everything = freeze(model)
    assert len(everything) == len([layer for layer in model.layers if layer.weights])
    assert model.trainable_variables == []
    stem = [layer for layer in everything if layer.startswith("stem_")]
    assert list(freeze(model, "stem")) == stem
    assert_frozen(model, ("stem_",))
    model.trainable = False
    assert list(freeze(model, "stem")) == stem
    assert_frozen(model, ("stem_",))


@pytest.mark.slow
def test_layers_in_front_of_the_network_are_left_alone(whole):
    for trainable in (True, False):
        adapter = keras.layers.Conv2D(3, 1, name="stem_adapter", trainable=trainable)
        model = BiTBackbone(whole[1], input_tensor=adapter(keras.Input((None, None, 1))))
        for up_to in ("stem", "all"):
            assert "stem_adapter" not in freeze(model, up_to)
            assert adapter.trainable == trainable


def test_layers_in_front_stay_frozen_after_the_whole_model_was(whole):
    adapter = keras.layers.Conv2D(3, 1, name="stem_adapter", trainable=False)
    model = BiTBackbone(whole[1], input_tensor=adapter(keras.Input((None, None, 1))))
    model.trainable = False
    freeze(model, "stem")
    assert not adapter.trainable


def test_a_loaded_model_and_its_copies_are_frozen_too(tmp_path):
    model = from_pretrained(write_checkpoint(tmp_path))
    expected = freeze(model, "stage1")
    model.save(tmp_path / "frozen.keras")
    copy = keras.saving.load_model(tmp_path / "frozen.keras")
    assert_frozen(copy, ("stem", "stage1"))
    assert freeze(keras.models.clone_model(model), "stage1") == expected


@pytest.mark.parametrize(
    ("up_to", "out_features", "allowed"),
    [
        ("stage5", ["stage4"], "'stem', 'stage1', 'stage2', 'stage3', 'stage4', 'all'"),
        ("head", ["stage4"], "'stem', 'stage1', 'stage2', 'stage3', 'stage4', 'all'"),
        ("stage3", ["stem", "stage2"], "'stem', 'stage1', 'stage2', 'all'"),  # this one ends before
        (1, ["stem"], "'stem', 'all'"),
    ],
)
def test_a_stage_that_the_model_does_not_have_is_refused(up_to, out_features, allowed):
    model = BiTBackbone(None, config=config_of(), out_features=out_features)
    with pytest.raises(
        ValueError, match=f"^`up_to` must be None or one of {allowed} for this model, got {up_to!r}\\.$"
    ):
        freeze(model, up_to)
    assert all(layer.trainable for layer in model.layers)


def test_another_model_is_refused():
    with pytest.raises(
        ValueError,
        match=r"^`model` must be one that keras_bit built, got Sequential\. If it is a part of your model, freeze "
        r"that part\.$",
    ):
        freeze(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))


@pytest.mark.parametrize("up_to", [None, "stem", "stage1", "stage2"])
@pytest.mark.parametrize("config", [CONFIG, BOTTLENECK_CONFIG], ids=LAYER_TYPES)
@pytest.mark.slow
def test_training_moves_what_is_not_frozen_and_no_bit_of_what_is(config, up_to):
    model = BiT(BitConfig.from_dict(config))
    frozen = freeze(model, up_to)
    before = variables(model)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01), "sparse_categorical_crossentropy", run_eagerly=True
    )
    model.fit(pixel_values(count=4), np.arange(4), batch_size=2, epochs=2, verbose=0)
    for (layer, variable), values in variables(model).items():
        same = values.tobytes() == before[layer, variable].tobytes()
        assert same == (layer in frozen), (layer, variable)


@pytest.mark.slow
def test_a_backbone_inside_a_model_is_trained_behind_its_frozen_stages():
    backbone = BiTBackbone(None, config=config_of(), out_features=["stage1", "stage3"])
    frozen = freeze(backbone, "stage1")
    maps = backbone(images := keras.Input((None, None, 3)))
    pooled = [keras.layers.GlobalAveragePooling2D()(tensor) for tensor in maps.values()]
    model = keras.Model(images, keras.layers.Dense(1)(keras.layers.Concatenate()(pooled)))
    before = variables(backbone)
    model.compile(keras.optimizers.SGD(0.1), "mse")  # a graph here, eager above
    model.fit(pixel_values(count=4), np.arange(4.0), batch_size=2, verbose=0)
    for (layer, variable), values in variables(backbone).items():
        same = values.tobytes() == before[layer, variable].tobytes()
        assert same == (layer in frozen), (layer, variable)


# transformers


def live_model(name, config, directory):
    """Saves a transformers model in which no parameter has its default."""
    import torch
    import transformers

    model = getattr(transformers, name)(transformers.BitConfig(**config)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            # Kernels with neither mean 0 nor variance 1; scales by 1 +- 0.3, shifts by 0 +- 0.3.
            scale, shift = (0.1, 0.05) if parameter.ndim == 4 else (0.3, float(parameter_name.endswith("weight")))
            parameter.copy_(scale * values + shift)
    model.save_pretrained(directory)
    return model


def live_batches():
    """Makes images of 64x64 and 45x61 px, because even and odd sizes take different pads."""
    return [goldens.to_pixel_values(image) for image in goldens.generated_images()]


def live_maps(model, batch):
    """Returns the maps of transformers' `BitBackbone`, channels last, by the name of the stage."""
    import torch

    with torch.no_grad():
        found = model(torch.from_numpy(batch).permute(0, 3, 1, 2)).feature_maps
    return {name: tensor.permute(0, 2, 3, 1).numpy() for name, tensor in zip(model.out_features, found, strict=True)}


def show_and_check(found, expected, title):
    rows = parity.compare(found, expected)
    Console(width=120).print(parity.table(rows, title))
    # Of a row's largest magnitude: two float32 programs drift by some 1e-6 in so few layers.
    assert parity.LIMIT == 1e-4
    assert [row for row in rows if not row.passed] == []


@pytest.mark.live
@pytest.mark.parametrize("arguments", LAYER_TYPES.values(), ids=LAYER_TYPES)
def test_every_choice_of_maps_is_that_of_transformers_backbone(tmp_path, arguments):
    theirs = live_model("BitBackbone", TINY | arguments, tmp_path)
    for names in COMBINATIONS:
        theirs.out_features = list(names)
        ours = BiTBackbone(tmp_path, out_features=names)
        found = [arrays(ours(batch, training=False)) for batch in live_batches()]
        expected = [live_maps(theirs, batch) for batch in live_batches()]
        assert [list(maps) for maps in found] == [list(names)] * 2
        show_and_check(found, expected, " ".join(names))


@pytest.mark.live
@pytest.mark.parametrize(
    "choice",
    [{}, {"out_features": ["stage1", "stage3"]}, {"out_indices": [0, -2]}, {"out_indices": [-1]}],
    ids=["nothing", "names", "indices", "from behind"],
)
def test_a_saved_backbones_outputs_are_the_default_ones(tmp_path, choice):
    theirs = live_model("BitBackbone", TINY | choice, tmp_path)
    ours = BiTBackbone(tmp_path)
    assert list(ours.config.out_features) == theirs.out_features
    batch = live_batches()[1]
    show_and_check([arrays(ours(batch, training=False))], [live_maps(theirs, batch)], str(choice))


# As transformers' DPTConfig has it, and the config.json of google/vit-hybrid-base-bit-384 and Intel/dpt-hybrid-midas:
# three stages, and `hidden_sizes` left at its default of four.
HYBRID = {
    "layer_type": "bottleneck",
    "global_padding": "same",
    "embedding_dynamic_padding": True,
    "depths": [3, 4, 9],
}


@pytest.mark.live
@pytest.mark.parametrize(
    "out_features", [["stage3"], ["stage1", "stage2", "stage3"]], ids=["of hybrid ViT", "of hybrid DPT"]
)
def test_the_stem_of_a_hybrid_at_full_size_is_that_of_transformers(tmp_path, out_features):
    theirs = live_model("BitBackbone", HYBRID | {"out_features": out_features}, tmp_path)
    ours = BiTBackbone(tmp_path)
    assert ours.config.stage_widths == (256, 512, 1024)
    found = [arrays(ours(batch, training=False)) for batch in live_batches()]
    expected = [live_maps(theirs, batch) for batch in live_batches()]
    assert [list(maps) for maps in found] == [out_features] * 2
    show_and_check(found, expected, " ".join(out_features))


@pytest.mark.live
@pytest.mark.parametrize("name", ["BitForImageClassification", "BitModel"])
@pytest.mark.parametrize("arguments", LAYER_TYPES.values(), ids=LAYER_TYPES)
def test_all_maps_at_once_are_the_hidden_states(tmp_path, arguments, name):
    import torch

    theirs = live_model(name, TINY | arguments, tmp_path)
    ours = BiTBackbone(tmp_path, out_features=STAGES)
    found, expected = [], []
    for batch in live_batches():
        found.append(arrays(ours(batch, training=False)))
        with torch.no_grad():
            states = theirs(torch.from_numpy(batch).permute(0, 3, 1, 2), output_hidden_states=True).hidden_states
        maps = [state.permute(0, 2, 3, 1).numpy() for state in states]
        expected.append(dict(zip(STAGES, maps, strict=True)))
    show_and_check(found, expected, f"hidden_states of {name}")
