"""Tests every key of every configuration with values of every type: read, or refused with the names of file and key."""

import json
import pickle
import tracemalloc

import pytest

from keras_bit import BitConfig, BitImageProcessor, from_pretrained
from keras_bit.cli import main
from keras_bit.network.config import LARGEST
from keras_bit.network.unnamed_labels import UnnamedIndices, UnnamedLabels
from tiny_bit import CONFIG, assert_holds, random_tensors, write_checkpoint

VALUES = [
    *(None, True, False, 0, -1, 1, 1.5, -1e-9, 1e300, float("nan"), float("inf"), 10**9, 2**63, 10**20, 10**400),
    *("", "x", "5", "x" * 5000, [], [1], [10**400], [[]], [None], ["a", {}], [1e308] * 3, [0, 0, 0], [-1] * 3),
    *({}, {"a": 1}, {"0": "a"}, {"0": 10**400}, {"a": 1e999}, {"1" * 400: "a"}, {"height": 10**30, "width": 1}),
    *({"shortest_edge": 100_000}, {"height": 1, "width": 2**63}, {"height": [], "width": {}}),
]
TIMM = {
    "architecture": "resnetv2_50x1_bit",
    "num_classes": 2,
    "label_names": ["a", "b"],
    "label_descriptions": {"a": "an a"},
    "model_args": {"in_chans": 3},
    "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.9, "crop_mode": "center"},
}
TIMM_ARGUMENTS = ["in_chans", "num_classes", "output_stride", "drop_path_rate", "act_layer", "preact", "depths"]
TIMM_PRETRAINED = [
    *("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std"),
    *("num_classes", "label_names", "label_descriptions"),
]
# Whose file, its keys, and what reads it.
READERS = {
    "transformers": ("config.json", CONFIG, [*CONFIG, *BitConfig().to_dict(), "unknown"], BitConfig.from_pretrained),
    "timm": ("config.json", TIMM, list(TIMM), BitConfig.from_pretrained),
    "timm's processor": ("config.json", TIMM, list(TIMM), BitImageProcessor.from_pretrained),
    "a processor": (
        "preprocessor_config.json",
        BitImageProcessor().to_dict(),
        list(BitImageProcessor().to_dict()),
        BitImageProcessor.from_pretrained,
    ),
}


LISTS = ("hidden_sizes", "depths")


def read(folder, file, values, reader, key):
    """Returns what `reader` gives for a file of these values; `None` if it refuses them in the expected way."""
    (folder / file).write_text(json.dumps(values))
    try:
        return reader(folder)
    except FileNotFoundError:
        return None  # timm's without its processor
    except ValueError as refusal:
        error = str(refusal)
    assert str(folder) in error
    assert file in error
    if key is not None:
        assert key in error
    assert len(error) < 20_000
    return None


@pytest.mark.parametrize("case", READERS)
def test_every_value_of_every_key_is_read_or_refused_by_name(tmp_path, case):
    file, values, keys, reader = READERS[case]
    assert read(tmp_path, file, values, reader, None) is not None
    tracemalloc.start()
    try:
        for key in dict.fromkeys(keys):
            for value in VALUES:
                named = None if key in ("model_type", "architecture", "pretrained_cfg") else key
                found = read(tmp_path, file, values | {key: value}, reader, named)
                if found is not None:
                    json.dumps(found.to_dict())
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", ["model_args", "pretrained_cfg"])
@pytest.mark.parametrize("reader", [BitConfig.from_pretrained, BitImageProcessor.from_pretrained])
def test_the_same_within_timms_objects(tmp_path, key, reader):
    for inner in TIMM_ARGUMENTS if key == "model_args" else TIMM_PRETRAINED:
        for value in VALUES:
            read(tmp_path, "config.json", TIMM | {key: TIMM[key] | {inner: value}}, reader, None)


FIELDS = {
    "timm's labels' descriptions": ("config.json", TIMM | {"label_descriptions": ["a"]}, "`label_descriptions`"),
    "timm's arguments": ("config.json", TIMM | {"model_args": "in_chans"}, "`model_args`"),
    "timm's checkpoint": ("config.json", TIMM | {"pretrained_cfg": [1]}, "`pretrained_cfg`"),
    "timm's names": ("config.json", TIMM | {"label_names": "ab"}, "`label_names`"),
    "timm's classes": ("config.json", TIMM | {"num_classes": 1e400}, "`num_classes`"),
    "timm's channels": ("config.json", TIMM | {"model_args": {"in_chans": None}}, "`in_chans` must be a positive"),
    "timm's many channels": ("config.json", TIMM | {"model_args": {"in_chans": 10**9}}, "`in_chans` must be at most"),
    "timm's many classes": (
        "config.json",
        TIMM | {"num_classes": 10**9, "label_names": None},
        "`num_classes` must be at most",
    ),
    "many classes": ("config.json", CONFIG | {"num_labels": 10**9, "id2label": None}, "`num_labels` must be at most"),
    "more classes": ("config.json", CONFIG | {"num_labels": 2**63, "id2label": None}, "`num_labels` must be at most"),
    "a number of 400 digits": ("config.json", CONFIG | {"embedding_size": 10**400}, "`embedding_size` must be at most"),
    "many stages": ("config.json", CONFIG | {"depths": [1] * 10**5, "hidden_sizes": [8] * 10**5}, "at most 16 stages"),
    "labels by a number of infinite size": ("config.json", CONFIG | {"label2id": {"a": 1e999}}, "`label2id`"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_an_error_names_the_wrong_field(tmp_path, case):
    file, values, field = FIELDS[case]
    (tmp_path / file).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=field) as error:
        BitConfig.from_pretrained(tmp_path)
    assert file in str(error.value)


PROCESSORS = {
    "crop_pct": [False, 0, -1, "x", None, 10**400, 1e-300, float("nan")],
    "input_size": [5, [3, 224], [3, "a", "b"], [3, 10**20, 10**20], [3, 100_000, 100_000], {"a": 1}],
    "interpolation": [[], {}, 5, "random"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in PROCESSORS.items() for value in values])
def test_a_wrong_value_of_timms_processor_is_named(tmp_path, key, value):
    values = TIMM | {"pretrained_cfg": TIMM["pretrained_cfg"] | {key: value}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"config\.json.*`({key}|size|crop_size)`"):
        BitImageProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize("option", ["size", "crop_size"])
@pytest.mark.parametrize("pixels", [100_000, 2**63, 10**400])
def test_a_size_of_more_pixels_than_pillow_reads_is_refused(tmp_path, option, pixels, monkeypatch):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({option: pixels}))
    with pytest.raises(ValueError, match=rf"preprocessor_config\.json.*`{option}` must be at most 178,956,970 pixels"):
        BitImageProcessor.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="at most 178,956,970 pixels"):
        BitImageProcessor()([], **{option: {"height": pixels, "width": pixels}})
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", None)  # whoever has turned Pillow's limit off
    assert getattr(BitImageProcessor(**{option: {"height": pixels, "width": 1}}), option)["height"] == pixels


@pytest.mark.parametrize("name", sorted(set(LARGEST) - {"num_groups"}))  # which must divide every width
def test_the_largest_value_is_read_and_one_more_is_not(name):
    def values(number):
        return CONFIG | {"id2label": None, "num_groups": 1} | {name: [number] * 2 if name in LISTS else number}

    BitConfig.from_dict(values(LARGEST[name]))
    with pytest.raises(ValueError, match=f"`{name}` must be at most {LARGEST[name]:,}, got"):
        BitConfig.from_dict(values(LARGEST[name] + 1))


def test_many_unnamed_labels_are_compared_with_the_head_first(tmp_path, capsys):
    folder = write_checkpoint(tmp_path, config=CONFIG | {"id2label": None, "label2id": None, "num_labels": 2**24})
    tracemalloc.start()
    try:
        model = from_pretrained(folder)
        assert main.main(["info", "--weights", str(folder)]) == 0
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert model.config.num_labels == 5
    assert "classes" in capsys.readouterr().out
    assert_holds(model, random_tensors())


@pytest.mark.parametrize("count", [0, 1, 3, 12])
def test_unnamed_labels_are_what_a_dictionary_of_them_is(count):
    labels, indices = UnnamedLabels(count), UnnamedIndices(count)
    plain = {index: f"LABEL_{index}" for index in range(count)}
    inverse = {label: index for index, label in plain.items()}
    for made, expected in ((labels, plain), (indices, inverse)):
        assert made == expected == dict(made)
        assert expected == made == type(made)(count) == pickle.loads(pickle.dumps(made))
        assert made != type(made)(count + 1)
        assert made != {**expected, "more": 1}
        assert made != 5
        assert list(made) == list(expected)
        assert [made[key] for key in expected] == list(expected.values())
        for key in (-1, count, "LABEL_01", "LABEL_-1", f"LABEL_{count}", "LABEL_" + "9" * 5000, None, "LABEL_²", 0.5):
            assert key not in made
    if count:
        assert labels != {**plain, 0: "cat"}


def test_a_configuration_of_unnamed_labels_equals_one_that_writes_them_out():
    unnamed = BitConfig(num_labels=3)
    assert unnamed == BitConfig(id2label={0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"})
    assert not unnamed.has_named_labels
    assert unnamed != BitConfig(id2label={0: "cat", 1: "LABEL_1", 2: "LABEL_2"})
    assert unnamed.to_dict()["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
