"""Class names: the table against Keras' own published index, `decode_predictions` against Keras' own."""

import doctest
import hashlib
import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from convert import labels as convert_labels
from keras_bit import labels as labels_module
from keras_bit.labels import decode_predictions, imagenet_labels

# md5 of https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json, as keras 3.15 has it in
# `applications/imagenet_utils.py`: equal bytes mean the same 1000 ids, names and order as Keras' file.
KERAS_CLASS_INDEX_MD5 = "c2c37ea517e94d9795004a39431a14cb"


def one_hot(index, classes=1000):
    return np.eye(classes, dtype="float32")[[index]]


def keras_names():
    """`{"0": [wordnet_id, name], ...}` as `decode_predictions` gives it, class by class."""
    decoded = decode_predictions(np.eye(1000), top=1)
    return {str(index): list(best[:2]) for index, (best,) in enumerate(decoded)}


# The table


def test_ids_names_and_order_are_those_of_keras_class_index_file():
    assert hashlib.md5(json.dumps(keras_names()).encode()).hexdigest() == KERAS_CLASS_INDEX_MD5


def test_table_has_1000_unique_wordnet_ids_in_ascending_order():
    ids = [wordnet_id for wordnet_id, _ in imagenet_labels()]
    assert len(ids) == len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert all(len(wordnet_id) == 9 and wordnet_id[0] == "n" and wordnet_id[1:].isdigit() for wordnet_id in ids)


def test_names_are_clean_text():
    for _, names in imagenet_labels():
        assert names
        assert names == " ".join(names.split())
        assert "_" not in names


def test_only_the_name_crane_is_given_twice():
    names = [names for _, names in imagenet_labels()]
    assert [index for index, name in enumerate(names) if names.count(name) > 1] == [134, 517]
    assert names[134] == "crane"


@pytest.mark.parametrize(
    ("index", "wordnet_id", "names", "keras_name"),
    [
        (0, "n01440764", "tench, Tinca tinca", "tench"),
        (
            2,
            "n01484850",
            "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias",
            "great_white_shark",
        ),
        (281, "n02123045", "tabby, tabby cat", "tabby"),
        (400, "n02669723", "academic gown, academic robe, judge's robe", "academic_gown"),
        (639, "n03710721", "maillot, tank suit", "maillot"),
        (657, "n03773504", "missile", "missile"),
        (744, "n04008634", "projectile, missile", "projectile"),
        (999, "n15075141", "toilet tissue, toilet paper, bathroom tissue", "toilet_tissue"),
    ],
)
def test_well_known_classes(index, wordnet_id, names, keras_name):
    assert imagenet_labels()[index] == (wordnet_id, names)
    assert decode_predictions(one_hot(index), top=1) == [[(wordnet_id, keras_name, 1.0)]]


@pytest.mark.data
def test_every_photograph_is_named_as_its_class(photos):
    names = dict(keras_names().values())
    assert photos
    for photo in photos:
        wordnet_id, name = photo.stem.split("_", maxsplit=1)
        assert names[wordnet_id] == name


def test_table_is_read_once():
    assert imagenet_labels() is imagenet_labels()


def test_docstring_examples_run():
    result = doctest.testmod(labels_module)
    assert result.attempted == 2
    assert result.failed == 0


# Decoding


@pytest.mark.parametrize("top", [1, 5, 1000, 2000])
def test_decodes_as_keras_does(top, monkeypatch):
    # Keras' function with our table in place of its download; a permutation has no ties, which Keras leaves open.
    reference = keras.applications.imagenet_utils.decode_predictions
    monkeypatch.setitem(reference.__globals__, "CLASS_INDEX", keras_names())
    rng = np.random.default_rng(0)
    preds = np.stack([rng.permutation(1000) for _ in range(3)]).astype("float32") / 1000 - 0.5
    assert decode_predictions(preds, top=top) == reference(preds, top=top)


def test_top_is_five_unless_told():
    assert len(decode_predictions(one_hot(7))[0]) == 5


@pytest.mark.parametrize("labels", [["a", "b", "c"], ("a", "b", "c"), np.array(["a", "b", "c"])])
def test_labels_of_ones_own_come_with_their_index(labels):
    decoded = decode_predictions([[0.25, 0.5, -1.0], [0.0, 1.0, 2.0]], labels=labels)
    assert decoded == [
        [("1", "b", 0.5), ("0", "a", 0.25), ("2", "c", -1.0)],
        [("2", "c", 2.0), ("1", "b", 1.0), ("0", "a", 0.0)],
    ]
    assert [type(entry) for entry in decoded[0][0]] == [str, str, float]


@pytest.mark.parametrize(
    "labels",
    [{0: "a", 1: "b c, d"}, {"0": "a", "1": "b c, d"}, {1: "b c, d", 0: "a"}, {np.int64(0): "a", "1": "b c, d"}],
)
def test_labels_may_be_an_id2label_and_stay_as_given(labels):
    assert decode_predictions([[0.0, 1.0]], labels=labels) == [[("1", "b c, d", 1.0), ("0", "a", 0.0)]]


def test_labels_replace_the_names_of_imagenet_too():
    id2label = {index: names for index, (_, names) in enumerate(imagenet_labels())}
    assert decode_predictions(one_hot(0), top=1, labels=id2label) == [[("0", "tench, Tinca tinca", 1.0)]]


def test_equal_scores_go_by_class_index():
    assert [wordnet_id for wordnet_id, _, _ in decode_predictions(np.zeros((1, 1000)), top=4)[0]] == [
        "n01440764", "n01443537", "n01484850", "n01491361",
    ]  # fmt: skip
    decoded = decode_predictions([[0.0, 2.0, -0.0, 2.0, 1.0]], labels=list("abcde"))
    assert [name for _, name, _ in decoded[0]] == ["b", "d", "e", "a", "c"]


def test_infinite_scores_have_a_place():
    decoded = decode_predictions([[-np.inf, 0.0, np.inf]], labels=list("abc"))
    assert decoded == [[("2", "c", np.inf), ("1", "b", 0.0), ("0", "a", -np.inf)]]


def test_an_empty_batch_gives_an_empty_list():
    assert decode_predictions(np.zeros((0, 1000))) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32"])
def test_tensors_of_every_dtype(dtype):
    tensor = keras.ops.convert_to_tensor([[0, 3, 1]], dtype=dtype)
    expected = [[("1", "b", 3.0), ("2", "c", 1.0), ("0", "a", 0.0)]]
    assert decode_predictions(tensor, labels=list("abc")) == expected
    assert decode_predictions(keras.ops.convert_to_numpy(tensor), labels=list("abc")) == expected


def test_float16_scores_are_given_exactly():
    score = np.float16(0.1)
    assert decode_predictions(np.array([[score]]), labels=["a"])[0][0][2] == float(score)


THREE = [[0.1, 0.2, 0.7]]
ABC = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("preds", "arguments", "message"),
    [
        (
            np.zeros(1000),
            {},
            "`preds` must be scores of shape (batch, classes); got shape (1000,). "
            "For one image add the batch axis: `numpy.expand_dims(preds, 0)`.",
        ),
        (
            np.zeros((1, 7, 7, 2048)),
            {},
            "`preds` must be scores of shape (batch, classes); got shape (1, 7, 7, 2048). "
            "Pass the output of a model with its classification head (`include_top=True`).",
        ),
        (
            np.zeros((2, 10)),
            {},
            "`preds` must have the 1000 classes of ImageNet-1k where `labels` is not given; got 10 classes, shape "
            "(2, 10). Pass `labels=`, the 10 class names in the order of the model's outputs, for instance "
            "`model.config.id2label`.",
        ),
        (
            [[0.0, 1.0], [np.nan, 1.0], [0.0, np.nan]],
            {"labels": ["a", "b"]},
            "`preds` must be numbers that can be ordered; got NaN for 2 of 3 images, first at index 1. "
            "Check the weights and the input, or the range of float16.",
        ),
        (THREE, {"labels": ABC, "top": 0}, "`top` must be a whole number of at least 1; got 0."),
        (THREE, {"labels": ABC, "top": -1}, "`top` must be a whole number of at least 1; got -1."),
        (THREE, {"labels": ABC, "top": 2.5}, "`top` must be a whole number of at least 1; got 2.5."),
        (
            THREE,
            {"labels": ["a", "b"]},
            "`labels` must have a name for each of the 3 classes of `preds`; got 2. "
            "Pass the names of the model that gave these scores.",
        ),
        (
            THREE,
            {"labels": [*ABC, "d"]},
            "`labels` must have a name for each of the 3 classes of `preds`; got 4. "
            "Pass the names of the model that gave these scores.",
        ),
        (
            THREE,
            {"labels": "abc"},
            "`labels` must be a sequence of 3 names or a dict from index to name; got str. "
            "Pass a list in the order of the model's outputs.",
        ),
        (
            THREE,
            {"labels": 3},
            "`labels` must be a sequence of 3 names or a dict from index to name; got int. "
            "Pass a list in the order of the model's outputs.",
        ),
        (
            THREE,
            {"labels": set(ABC)},
            "`labels` must be a sequence of 3 names or a dict from index to name; got set. "
            "Pass a list in the order of the model's outputs.",
        ),
        (
            THREE,
            {"labels": ["a", ("n01440764", "tench"), "c"]},
            "`labels` must be names (strings); got ('n01440764', 'tench') for class 1. Pass one string each.",
        ),
        (
            THREE,
            {"labels": {0: "a", "1": None, 2: "c"}},
            "`labels` must be names (strings); got None for class 1. Pass one string each.",
        ),
        (
            THREE,
            {"labels": {0: "a", 3: "b"}},
            "`labels` must map each index from 0 to 2, once, to a name; without a name: 1, 2; not an index of its "
            "own: 3. Pass the `id2label` of the model that gave these scores (`label2id` is the reverse).",
        ),
        (
            THREE,
            {"labels": {0: "a", 1: "b", 2: "c", "2": "d"}},
            "`labels` must map each index from 0 to 2, once, to a name; not an index of its own: '2'. "
            "Pass the `id2label` of the model that gave these scores (`label2id` is the reverse).",
        ),
        (
            np.zeros((1, 10)),
            {"labels": {"cat": 0}},
            "`labels` must map each index from 0 to 9, once, to a name; without a name: 0, 1, 2, 3, 4, 5, 6, 7 and 2 "
            "more; not an index of its own: 'cat'. Pass the `id2label` of the model that gave these scores "
            "(`label2id` is the reverse).",
        ),
    ],
)
def test_refuses_with_what_was_expected_what_came_and_what_to_do(preds, arguments, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole text is asserted below
        decode_predictions(preds, **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(("preds", "kind"), [([[0.0, 1.0], [2.0]], "list"), ({"logits": THREE}, "dict")])
def test_refuses_what_is_no_array_of_numbers(preds, kind):
    expected = rf"`preds` must be scores of shape \(batch, classes\); got a {kind} that is no array of numbers \("
    with pytest.raises(ValueError, match=expected):
        decode_predictions(preds, labels=["a", "b"])


# The script that writes the table

IDS = [f"n{index:08d}" for index in range(1000)]


def wheel(directory, ids=IDS, named=IDS):
    path = directory / "timm-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(convert_labels.SYNSETS, "\n".join(ids) + "\n")
        archive.writestr(convert_labels.NAMES, "".join(f"{one}\tname of {one}, other\n" for one in reversed(named)))
    return path


def test_script_writes_a_line_per_class_in_model_order(tmp_path, capsys):
    ids = IDS[::-1]
    out = tmp_path / "table.tsv"
    out.write_text("old")
    convert_labels.main([str(wheel(tmp_path, ids)), "--out", str(out)])
    assert out.read_bytes().decode() == "".join(f"{one}\tname of {one}, other\n" for one in ids)
    assert capsys.readouterr().out == f"1000 classes from timm-0-py3-none-any.whl written to {out}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.tsv", "timm-0-py3-none-any.whl"]


def test_script_leaves_the_old_table_when_writing_fails(tmp_path, monkeypatch):
    out = tmp_path / "table.tsv"
    out.write_text("old")

    def full_disk(self, data):
        self.touch()
        raise OSError("No space left on device")

    source = wheel(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(SystemExit):
        convert_labels.main([str(source), "--out", str(out)])
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.tsv", "timm-0-py3-none-any.whl"]


@pytest.mark.parametrize(
    ("ids", "named", "message"),
    [
        (IDS[:-1], IDS, "expected 1000 classes, got 999."),
        (IDS[:-1] + IDS[:1], IDS, "listed more than once: n00000000."),
        (IDS, IDS[1:], "without a name: n00000000."),
        (IDS[:2] + IDS[1:2], IDS[:1], "expected 1000 classes, got 3; listed more than once: n00000001; without a name: "
         "n00000001, n00000001."),
    ],
)  # fmt: skip
def test_script_refuses_lists_that_do_not_fit(tmp_path, capsys, ids, named, message):
    with pytest.raises(SystemExit) as caught:
        convert_labels.main([str(wheel(tmp_path, ids, named)), "--out", str(tmp_path / "table.tsv")])
    assert caught.value.code == 2
    assert (
        f"error: The class list does not fit: {message} Was it read from a release of timm?\n"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "table.tsv").exists()


def test_script_refuses_what_is_not_a_wheel_of_timm(tmp_path, capsys):
    other = tmp_path / "other.whl"
    out = str(tmp_path / "table.tsv")
    other.write_text("not a zip file")
    with pytest.raises(SystemExit):
        convert_labels.main([str(other), "--out", out])
    assert f"Expected a wheel of timm (a zip file); got {other}." in capsys.readouterr().err
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr(convert_labels.NAMES, "")
    with pytest.raises(SystemExit):
        convert_labels.main([str(other), "--out", out])
    assert f"{other} lacks timm/data/_info/imagenet_synsets.txt." in capsys.readouterr().err
