"""Tests config.py: defaults and dictionaries against transformers' BitConfig, and the message of every error."""

import dataclasses
import json
import os
import re

import numpy as np
import pytest

from keras_bit import BitConfig
from keras_bit.network.architectures import ARCHITECTURES
from keras_bit.network.config import PUBLISHED

# The smallest widths that eight groups divide, quarters included.
TINY = {"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (1, 2), "num_groups": 8}
SHARED = tuple(field.name for field in dataclasses.fields(BitConfig) if field.name != "pretrained_arguments")


def tiny(**arguments):
    return BitConfig(**{**TINY, **arguments})


# Dictionaries and files


def test_the_defaults_are_those_of_the_published_bit_50():
    config = BitConfig()
    assert (config.stem_width, config.stage_widths, config.depths) == (64, (256, 512, 1024, 2048), (3, 4, 6, 3))
    assert (config.num_labels, config.num_groups, config.layer_type) == (1000, 32, "preactivation")
    assert config.stage_names == ("stem", "stage1", "stage2", "stage3", "stage4")


CONFIGS = {
    "the defaults": {},
    "a bottleneck with SAME padding": {
        "layer_type": "bottleneck",
        "global_padding": "same",
        "embedding_dynamic_padding": True,
        "hidden_act": "gelu",
        "output_stride": 16,
        "drop_path_rate": 0.25,
        "num_channels": 1,
        "width_factor": 2,
    },
    "the stem of a hybrid ViT, with a width to spare": {
        "layer_type": "bottleneck",
        "global_padding": "same",
        "embedding_dynamic_padding": True,
        "hidden_sizes": (32, 64, 96),
        "out_features": ("stage2",),
    },
    "labels of its own": {"id2label": {0: "cat", 1: "dög", 2: "snake"}},
    "labels and their inverse": {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}},
    "two classes of one name": {"id2label": {0: "crane", 1: "maillot", 2: "crane"}},
    "several labels per image": {"num_labels": 5, "problem_type": "multi_label_classification"},
    "a regression": {"num_labels": 1, "problem_type": "regression"},
    "two classes": {"num_labels": 2},
    "no head": {"num_labels": 0},
    "backbone features by name": {"out_features": ("stem", "stage2")},
    "backbone features by index": {"out_indices": (1, -1)},
    "backbone features both ways": {"out_features": ["stage1"], "out_indices": [1]},
}


@pytest.mark.parametrize("arguments", CONFIGS.values(), ids=CONFIGS)
def test_a_config_comes_back_from_its_dictionary_and_from_its_file(arguments, tmp_path):
    config = tiny(**arguments)
    assert BitConfig.from_dict(config.to_dict()) == config
    config.save_pretrained(tmp_path / "new" / "folder")
    written = json.loads((tmp_path / "new" / "folder" / "config.json").read_text(encoding="utf-8"))
    assert written == config.to_dict()  # the dictionary is JSON as it stands: lists, and strings for keys
    assert BitConfig.from_pretrained(tmp_path / "new" / "folder") == config


def test_a_dictionary_without_labels_means_two_of_them():
    config = BitConfig.from_dict({"model_type": "bit"})
    assert config.num_labels == 2
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_unknown_keys_are_left_out():
    config = BitConfig.from_dict({**tiny().to_dict(), "torch_dtype": "float32", "stage_names": ["stem"], "_x": 1})
    assert config == tiny()
    assert not {"torch_dtype", "stage_names", "_x"} & set(config.to_dict())


def test_generic_labels_are_distinguished_from_named_ones():
    assert not tiny(num_labels=3).has_named_labels
    assert tiny(id2label={0: "cat", 1: "dog"}).has_named_labels


def test_another_number_of_labels_forgets_the_old_ones():
    config = tiny(id2label={0: "cat", 1: "dog"}, drop_path_rate=0.5)
    assert config.with_num_labels(2) is config
    changed = config.with_num_labels(3)
    assert changed.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert changed.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert changed.drop_path_rate == 0.5


def test_label2id_without_id2label_is_ignored_as_transformers_does():
    config = BitConfig.from_dict({"num_labels": 2, "label2id": {"stale": 7}})
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1}


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny().num_groups = 4


@pytest.mark.parametrize(
    ("factor", "stem", "stages"),
    # timm's resnetv2 R50x1, x3 and R152x4
    [(1, 64, (256, 512, 1024, 2048)), (3, 192, (768, 1536, 3072, 6144)), (4, 256, (1024, 2048, 4096, 8192))],
)
def test_the_width_factor_widens_the_stem_and_every_stage(factor, stem, stages):
    config = BitConfig(width_factor=factor)
    assert (config.stem_width, config.stage_widths) == (stem, stages)


def test_widths_round_to_eight_and_never_down_by_more_than_a_tenth():
    # By hand: 18 -> 16 is 11 % down, so 24; 60 -> 64; 28 -> 32, the half rounding up.
    config = BitConfig(embedding_size=18, hidden_sizes=(60, 28), depths=(1, 1), num_groups=8)
    assert (config.stem_width, config.stage_widths) == (24, (64, 32))


def test_a_failed_write_leaves_only_the_old_file(tmp_path, monkeypatch):
    tiny(num_labels=3).save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        tiny(num_labels=4).save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_bytes() == before


def test_the_new_file_is_renamed_into_place_whole(tmp_path, monkeypatch):
    replace, seen = os.replace, []
    monkeypatch.setattr(
        os, "replace", lambda beside, path: (seen.append(json.loads(beside.read_text())), replace(beside, path))
    )
    tiny().save_pretrained(tmp_path)
    assert seen == [tiny().to_dict()]


# Refusals

REFUSED = {
    "num_channels": [({"num_channels": 0}, "`num_channels` must be a positive whole number, got 0.")],
    "embedding_size": [({"embedding_size": 16.0}, "`embedding_size` must be a positive whole number, got 16.0.")],
    "num_groups": [
        ({"num_groups": True}, "`num_groups` must be a positive whole number, got True."),
        (
            {"num_groups": 32},
            "`num_groups` 32 does not divide the width 16: every width after `width_factor` (stem 16, stages (32, "
            "64)) and a quarter of every stage's width must be a multiple of it.",
        ),
        ({"num_groups": 16}, "`num_groups` 16 does not divide the width 8: "),  # the quarter of a width counts
    ],
    "width_factor": [({"width_factor": 0.5}, "`width_factor` must be a positive whole number, got 0.5.")],
    "hidden_sizes": [
        ({"hidden_sizes": 32}, "`hidden_sizes` must be a list or a tuple, got 32."),
        ({"hidden_sizes": (32, -64)}, "`hidden_sizes` must be a positive whole number, got -64."),
        (
            {"hidden_sizes": (32,)},
            "`hidden_sizes` must have an entry for each of the stages that `depths` has, got hidden_sizes=(32,) and "
            "depths=(1, 2).",
        ),
    ],
    "depths": [
        ({"depths": None}, "`depths` must be a list or a tuple, got None."),
        ({"depths": ()}, "`depths` must name at least one stage, got ()."),
        ({"depths": (1, 0)}, "`depths` must be a positive whole number, got 0."),
    ],
    "layer_type": [
        ({"layer_type": "basic"}, "`layer_type` must be one of 'preactivation', 'bottleneck', got 'basic'.")
    ],
    "hidden_act": [
        ({"hidden_act": "swish"}, "`hidden_act` must be one of 'relu', 'gelu', 'gelu_new', 'selu', got 'swish'.")
    ],
    "global_padding": [
        (
            {"global_padding": "valid"},
            "`global_padding` 'valid' builds no network: without padding the 3x3 convolution shrinks its branch by two "
            "pixels and the residual sum no longer fits. Use None or 'SAME'.",
        ),
        ({"global_padding": "full"}, "`global_padding` must be one of None, 'SAME', got 'FULL'."),
        ({"global_padding": 3}, "`global_padding` must be one of None, 'SAME', got 3."),
    ],
    "drop_path_rate": [
        ({"drop_path_rate": 1.0}, "`drop_path_rate` must be a number of at least 0 and below 1, got 1.0."),
        ({"drop_path_rate": -0.1}, "`drop_path_rate` must be a number of at least 0 and below 1, got -0.1."),
        ({"drop_path_rate": float("nan")}, "`drop_path_rate` must be a number of at least 0 and below 1, got nan."),
        ({"drop_path_rate": "0.1"}, "`drop_path_rate` must be a number of at least 0 and below 1, got '0.1'."),
    ],
    "embedding_dynamic_padding": [
        ({"embedding_dynamic_padding": 1}, "`embedding_dynamic_padding` must be one of True, False, got 1.")
    ],
    "output_stride": [
        ({"output_stride": 2}, "`output_stride` must be one of 4, 8, 16, 32, 64, got 2."),
        ({"output_stride": 32.0}, "`output_stride` must be one of 4, 8, 16, 32, 64, got 32.0."),
    ],
    "out_features": [
        ({"out_features": "stage1"}, "`out_features` must be a list or a tuple, got 'stage1'."),
        ({"out_features": ("stage3",)}, "`out_features` must be one of 'stem', 'stage1', 'stage2', got 'stage3'."),
        (
            {"out_features": ("stage2", "stem")},
            "`out_features` must name each stage once and in the network's order ('stem', 'stage1', 'stage2'), got "
            "('stage2', 'stem').",
        ),
        (
            {"out_features": ("stem",), "out_indices": (1,)},
            "`out_features` ('stem',) and `out_indices` (1,) must name the same stages. Give only one of them.",
        ),
    ],
    "out_indices": [
        ({"out_indices": (3,)}, "`out_indices` must be whole numbers between -3 and 2 (0 is the stem), got 3."),
        ({"out_indices": (1.0,)}, "`out_indices` must be whole numbers between -3 and 2 (0 is the stem), got 1.0."),
        ({"out_indices": (2, -1)}, "`out_indices` must name each stage once and in the network's order"),
    ],
    "num_labels": [
        ({"num_labels": -1}, "`num_labels` must be a whole number of at least 0, got -1."),
        ({"num_labels": 2.0}, "`num_labels` must be a whole number of at least 0, got 2.0."),
    ],
    "id2label": [
        (
            {"num_labels": 3, "id2label": {0: "a", 1: "b"}},
            "`id2label` must name every class from 0 to 2 (`num_labels` is 3), got 2 labels for [0, 1].",
        ),
        (
            {"id2label": dict.fromkeys(range(1, 11), "x")},
            "`id2label` must name every class from 0 to 9 (`num_labels` is 10), got 10 labels for [1, 2, ... 10].",
        ),
        (
            {"id2label": ["a"]},
            '`id2label` must map class indices to labels, such as {0: "cat", 1: "dog"}, got [\'a\'].',
        ),
        ({"id2label": {"cat": 0}}, '`id2label` must map class indices to labels, such as {0: "cat", 1: "dog"}, got '),
    ],
    "label2id": [
        (
            {"id2label": {0: "a"}, "label2id": {"a": "first"}},
            "`label2id` must map labels to class indices, such as {\"cat\": 0, \"dog\": 1}, got {'a': 'first'}.",
        )
    ],
    "problem_type": [
        (
            {"problem_type": "ranking"},
            "`problem_type` must be one of None, 'single_label_classification', 'multi_label_classification', "
            "'regression', got 'ranking'.",
        )
    ],
    "output_hidden_states": [
        ({"output_hidden_states": 1}, "`output_hidden_states` must be one of True, False, got 1.")
    ],
    "return_dict": [({"return_dict": None}, "`return_dict` must be one of True, False, got None.")],
}
REFUSED_CASES = [(arguments, text) for cases in REFUSED.values() for arguments, text in cases]


@pytest.mark.parametrize(("arguments", "text"), REFUSED_CASES, ids=[str(arguments) for arguments, _ in REFUSED_CASES])
def test_an_argument_out_of_its_range_is_refused_with_what_is_allowed(arguments, text):
    with pytest.raises(ValueError, match="^" + re.escape(text)):
        tiny(**arguments)


def test_every_argument_has_a_refusal_in_the_table():
    assert sorted(REFUSED) == sorted(SHARED)


BAD_FILES = {
    "another model": (b'{"model_type": "vit"}', "is not a BiT: config.json has model_type 'vit', expected 'bit'."),
    "no model type": (b"{}", "is not a BiT: config.json has model_type None, expected 'bit'."),
    "not JSON": (b'{"model_type": ', "config.json is not JSON: "),
    "not UTF-8": (b"\xff\xfe", "config.json is not UTF-8 text, which JSON must be: "),
    "a list": (b"[1]", "config.json must hold a JSON object, {...}, but holds a list"),
    "a wrong value": (
        b'{"model_type": "bit", "output_stride": 5}',
        "config.json does not describe a BiT: `output_stride` must be one of 4, 8, 16, 32, 64, got 5.",
    ),
    "labels as a list": (
        b'{"model_type": "bit", "id2label": ["cat", "dog"]}',
        "config.json does not describe a BiT: `id2label` must map class indices to labels",
    ),
    "a number for a list": (
        b'{"model_type": "bit", "depths": 3}',
        "config.json does not describe a BiT: `depths` must be a list or a tuple, got 3.",
    ),
}


@pytest.mark.parametrize(("content", "text"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_config_json_of_another_network_is_refused_by_name(content, text, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(text)) as raised:
        BitConfig.from_pretrained(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_a_directory_without_config_json_says_what_was_expected(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"has no config\.json, .*`BitConfig\(\.\.\.\)\.save_pretrained\(.*\)`\.$"
    ):
        BitConfig.from_pretrained(tmp_path)


# Comparisons with transformers.


def as_plain(value):
    """Makes tuples and lists alike, because transformers keeps lists and keras_bit has tuples."""
    return list(value) if isinstance(value, tuple) else value


def assert_equal_fields(ours, theirs):
    for name in SHARED:
        if name == "out_indices":
            continue  # names the stages of `out_features`; transformers makes negative indices positive
        expected = getattr(theirs, name)
        if name == "label2id" and expected is None:  # transformers leaves it out where only id2label was given
            expected = {label: index for index, label in theirs.id2label.items()}
        assert as_plain(getattr(ours, name)) == as_plain(expected), name


@pytest.mark.live
def test_the_defaults_are_transformers_own_but_for_the_thousand_labels():
    import transformers

    ours = BitConfig()
    assert ours.num_labels == 1000  # transformers' default is 2, which no published BiT has
    assert_equal_fields(ours.with_num_labels(2), transformers.BitConfig())


@pytest.mark.live
def test_every_argument_of_transformers_is_one_of_ours():
    import transformers

    theirs = {field.name.removeprefix("_") for field in dataclasses.fields(transformers.BitConfig)}
    inherited = {field.name.removeprefix("_") for field in dataclasses.fields(transformers.PreTrainedConfig)}
    assert theirs - inherited - set(SHARED) == set()


@pytest.mark.live
@pytest.mark.parametrize("arguments", CONFIGS.values(), ids=CONFIGS)
def test_transformers_reads_what_we_write_as_the_same_config(arguments, tmp_path):
    import transformers

    config = tiny(**arguments)
    config.save_pretrained(tmp_path)
    assert_equal_fields(config, transformers.BitConfig.from_pretrained(tmp_path))
    assert_equal_fields(config, transformers.BitConfig.from_dict(config.to_dict()))
    assert_equal_fields(config, transformers.AutoConfig.from_pretrained(tmp_path))


@pytest.mark.live
@pytest.mark.parametrize("arguments", CONFIGS.values(), ids=CONFIGS)
def test_we_read_what_transformers_writes_as_the_same_config(arguments, tmp_path):
    import transformers

    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in {**TINY, **arguments}.items()}
    theirs = transformers.BitConfig(**lists)
    theirs.save_pretrained(tmp_path)
    assert_equal_fields(BitConfig.from_pretrained(tmp_path), theirs)
    assert_equal_fields(BitConfig.from_dict(theirs.to_dict()), theirs)


@pytest.mark.live
@pytest.mark.parametrize(
    "values",
    [{}, {"num_labels": 3}, {"label2id": {"stale": 7}}, {"num_labels": 3, "label2id": {"stale": 7}}],
    ids=str,
)
def test_incomplete_labels_mean_what_they_mean_in_transformers(values):
    import transformers

    values = {"model_type": "bit", **values}
    assert_equal_fields(BitConfig.from_dict(values), transformers.BitConfig.from_dict(values))


# timm's config.json, and the published architectures

TIMM_CONFIG = {
    "architecture": "resnetv2_101x3_bit",
    "num_classes": 1000,
    "num_features": 6144,
    "pretrained_cfg": {"tag": "goog_in21k_ft_in1k", "input_size": [3, 448, 448], "num_classes": 1000},
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"depths": (3, 4, 23, 3), "width_factor": 3, "num_labels": 1000}),
        ({"architecture": "resnetv2_50x1_bit.goog_in21k", "num_classes": 21843}, {"num_labels": 21843}),
        ({"model_args": {"in_chans": 1, "output_stride": 8}}, {"num_channels": 1, "output_stride": 8}),
        ({"model_args": {"act_layer": "gelu_tanh", "global_pool": "avg"}}, {"hidden_act": "gelu_new"}),
        ({"architecture": "resnetv2_50x1_bitm_in21k"}, {"depths": (3, 4, 6, 3)}),  # before timm 0.9
        ({"architecture": "resnetv2_152x2_bit_teacher_384"}, {"depths": (3, 8, 36, 3), "width_factor": 2}),
        ({"num_classes": 2, "label_names": ["cat", "dog"]}, {"id2label": {0: "cat", 1: "dog"}}),
        (
            {"num_classes": 2, "label_names": ["n1", "n2"], "label_descriptions": {"n1": "cat", "n2": "dog"}},
            {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}},
        ),
    ],
)
def test_a_config_json_of_timm_is_read(change, expected, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TIMM_CONFIG | change))
    config = BitConfig.from_pretrained(tmp_path)
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"act_layer": "silu"}, "`act_layer` must be one of relu, gelu, gelu_tanh, selu, got 'silu'."),
        (
            {"global_pool": "max"},
            "not a BiT: `global_pool` must be 'avg', as in BiT, got 'max'. Supported arguments are in_chans",
        ),
        ({"avg_down": True}, "`avg_down` must be False, as in BiT, got True."),
        ({"stem_chs": 32}, "`stem_chs` must be left out, got 32."),
    ],
)
def test_arguments_of_timm_that_make_another_network_are_refused(arguments, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TIMM_CONFIG | {"model_args": arguments}))
    with pytest.raises(ValueError, match=re.escape(message)):
        BitConfig.from_pretrained(tmp_path)


def test_whole_numbers_of_numpy_are_whole_numbers():
    config = BitConfig(depths=tuple(np.array([3, 4, 6, 3])), out_indices=[np.int64(1)], num_labels=np.int64(7))
    assert config == BitConfig(out_indices=[1], num_labels=7)
    assert config.with_num_labels(np.int64(3)).num_labels == 3
    json.dumps(config.to_dict())


def test_another_architecture_of_timm_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TIMM_CONFIG | {"architecture": "resnetv2_50"}))
    with pytest.raises(ValueError, match=r"`architecture` must be one of resnetv2_50x1_bit, .*, got 'resnetv2_50'"):
        BitConfig.from_pretrained(tmp_path)


# layers in the names, parameters with 1000 classes, with 21,843; as timm and the papers count them
PARAMETERS = {
    "BiT50": ("50x1", 25_549_352, 68_256_659),
    "BiT50x3": ("50x3", 217_319_080, 345_399_315),
    "BiT101": ("101x1", 44_541_480, 87_248_787),
    "BiT101x3": ("101x3", 387_934_888, 516_015_123),
    "BiT152x2": ("152x2", 236_335_208, 321_728_979),
    "BiT152x4": ("152x4", 936_533_224, 1_107_299_923),
}


def test_the_published_architectures_have_their_published_sizes():
    assert {row.title: row.layers for row in ARCHITECTURES} == {title: row[0] for title, row in PARAMETERS.items()}
    assert list(PUBLISHED) == list(PARAMETERS)
    for title, (_, with_1000, with_21843) in PARAMETERS.items():
        assert PUBLISHED[title].num_parameters == with_1000
        assert PUBLISHED[title].with_num_labels(21843).num_parameters == with_21843


COMPLETED = {
    "neither": ({}, ("stage4",), (4,)),
    "names": ({"out_features": ["stem", "stage2"]}, ("stem", "stage2"), (0, 2)),
    "indices": ({"out_indices": [1, 3]}, ("stage1", "stage3"), (1, 3)),
    "from behind": ({"out_indices": [-2]}, ("stage3",), (-2,)),
}


@pytest.mark.parametrize(("given", "features", "indices"), COMPLETED.values(), ids=COMPLETED)
def test_outputs_complete_each_other(given, features, indices):
    config = BitConfig(**given)
    assert (config.out_features, config.out_indices) == (features, indices)
    assert BitConfig.from_dict(config.to_dict()) == dataclasses.replace(config, num_labels=1000)


@pytest.mark.live
@pytest.mark.parametrize("given", [row[0] for row in COMPLETED.values()], ids=COMPLETED)
def test_outputs_are_completed_as_transformers_does(given):
    from transformers import BitConfig as Theirs

    theirs, ours = Theirs(**given), BitConfig(**given)
    # transformers makes a negative index positive.
    assert list(ours.out_features) == theirs.out_features
    assert [index % 5 for index in ours.out_indices] == [index % 5 for index in theirs.out_indices]


def test_outputs_that_were_completed_follow_a_change():
    changed = dataclasses.replace(BitConfig(), depths=(1, 1))
    assert (changed.out_features, changed.out_indices) == (("stage2",), (2,))
    changed = dataclasses.replace(BitConfig(out_features=["stage1"]), out_features=("stage3",))
    assert changed.out_indices == (3,)


def test_the_documented_arguments_of_every_configuration_are_kept_for_the_file(tmp_path):
    config = BitConfig(torch_dtype="float32", name_or_path="google/bit-50", pad_token_id=None, return_dict=False)
    values = config.to_dict()
    assert {name: values[name] for name in ("torch_dtype", "name_or_path", "pad_token_id", "return_dict")} == {
        "torch_dtype": "float32",
        "name_or_path": "google/bit-50",
        "pad_token_id": None,
        "return_dict": False,
    }
    assert (config.return_dict, config.output_hidden_states) == (False, False)
    changed = dataclasses.replace(config, num_groups=16)
    assert changed.to_dict()["torch_dtype"] == "float32"
    config.save_pretrained(tmp_path)
    assert BitConfig.from_pretrained(tmp_path).return_dict is False


def test_a_model_keeps_what_its_configuration_was_given(tmp_path):
    from keras_bit import BiT, save_pretrained

    config = tiny(output_attentions=True, return_dict=False)
    model = BiT(config)
    assert model.config == config
    save_pretrained(model, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert (values["output_attentions"], values["return_dict"]) == (True, False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"retrun_dict": True}, TypeError, r"no argument `retrun_dict`. Did you mean `return_dict`"),
        ({"hidden_size": [8]}, TypeError, r"no argument `hidden_size`. Did you mean `hidden_sizes`"),
        ({"xyz": 1}, TypeError, r"no argument `xyz`. Its own are num_channels, .*, return_dict\."),
        ({"torch_dtype": np.float32}, ValueError, r"`torch_dtype` is stored in config.json, .* got <class"),
        ({"prefix": float("nan")}, ValueError, r"`prefix` is stored in config.json, .* got nan"),
    ],
)
def test_other_arguments_are_refused_with_the_closest_name(arguments, error, message):
    with pytest.raises(error, match=message):
        BitConfig(**arguments)


@pytest.mark.live
def test_the_kept_fields_are_those_that_transformers_documents():
    from transformers import PreTrainedConfig

    from keras_bit.network.pretrained_arguments import DOCUMENTED

    documented = set(re.findall(r"^ {8}(\w+) \(`", PreTrainedConfig.__doc__, re.MULTILINE))
    assert len(documented) > 10
    ours = {field.name for field in dataclasses.fields(BitConfig)}
    assert documented - ours - set(DOCUMENTED) == set()
