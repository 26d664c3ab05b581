"""Tests class names: the tables against indices that others published, `decode_predictions` against Keras'."""

import doctest
import hashlib
import importlib.util
import json
import zipfile
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest

from convert import labels as convert_labels
from keras_bit import labels as labels_module
from keras_bit.labels import decode_predictions, imagenet_labels, labels_of_checkpoint

# md5 of https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json, as keras 3.15 has it in
# `applications/imagenet_utils.py`: equal bytes mean the same 1000 ids, names and order as Keras' file.
KERAS_CLASS_INDEX_MD5 = "c2c37ea517e94d9795004a39431a14cb"
# md5 of `imagenet21k_class_index.json`, with which keras_cv_attention_models 1.4.3 decodes Google's 21,843 outputs, as
# it has it in `imagenet/eval_func.py`: equal bytes mean the same ids, names and order as that file.
KECAM_21K_CLASS_INDEX_MD5 = "a07173727548feaea3cc855ed6341a4f"


def one_hot(index, classes=1000):
    scores = np.zeros((1, classes), dtype="float32")
    scores[0, index] = 1
    return scores


def ids_of(classes):
    return [wordnet_id for wordnet_id, _ in imagenet_labels(classes)]


def keras_names():
    """Returns `{"0": [wordnet_id, name], ...}` as `decode_predictions` gives it, class by class."""
    decoded = decode_predictions(np.eye(1000), top=1)
    return {str(index): list(best[:2]) for index, (best,) in enumerate(decoded)}


# The table


def test_ids_names_and_order_are_those_of_keras_class_index_file():
    assert hashlib.md5(json.dumps(keras_names()).encode()).hexdigest() == KERAS_CLASS_INDEX_MD5


def test_classes_of_21k_equal_those_of_keras_cv_attention_models():
    # That file has all the names, each with its own underscores: "great_white_shark, white_shark".
    index = {
        str(index): [wordnet_id, ", ".join(name.replace(" ", "_") for name in names.split(", "))]
        for index, (wordnet_id, names) in enumerate(imagenet_labels(21843))
    }
    assert hashlib.md5(json.dumps(index).encode()).hexdigest() == KECAM_21K_CLASS_INDEX_MD5


@pytest.mark.parametrize("classes", [1000, 21843])
def test_table_has_unique_wordnet_ids_in_ascending_order(classes):
    ids = ids_of(classes)
    assert len(ids) == len(set(ids)) == classes
    assert ids == sorted(ids)
    assert all(len(wordnet_id) == 9 and wordnet_id[0] == "n" and wordnet_id[1:].isdigit() for wordnet_id in ids)


@pytest.mark.parametrize("classes", [1000, 21843])
def test_names_have_no_underscores_or_extra_spaces(classes):
    for _, names in imagenet_labels(classes):
        assert names
        assert names == " ".join(names.split())
        assert "_" not in names


def test_1k_is_21k_thinned_out_but_for_the_teddy_bear():
    common = set(ids_of(1000)) & set(ids_of(21843))
    assert set(ids_of(1000)) - common == {"n04399382"}
    assert dict(imagenet_labels())["n04399382"] == "teddy, teddy bear"
    assert [pair for pair in imagenet_labels(21843) if pair[0] in common] == [
        pair for pair in imagenet_labels() if pair[0] in common
    ]


def test_21k_has_the_two_classes_that_are_googles_only():
    # https://github.com/google-research/big_transfer/issues/18: not among ImageNet's own 21,841.
    googles = {"n03931044", "n09859684"}
    assert {index: pair for index, pair in enumerate(imagenet_labels(21843)) if pair[0] in googles} == {
        9205: ("n03931044", "picture, image, icon, ikon"),
        15027: ("n09859684", "bleacher"),
    }


def test_only_the_name_crane_is_given_twice():
    names = [names for _, names in imagenet_labels()]
    assert [index for index, name in enumerate(names) if names.count(name) > 1] == [134, 517]
    assert names[134] == "crane"


def test_1128_classes_of_21k_have_the_names_of_another():
    times = Counter(names for _, names in imagenet_labels(21843))
    assert sum(count for count in times.values() if count > 1) == 1128


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
def test_well_known_classes_of_1k_have_their_numbers(index, wordnet_id, names, keras_name):
    assert imagenet_labels()[index] == (wordnet_id, names)
    assert decode_predictions(one_hot(index), top=1) == [[(wordnet_id, keras_name, 1.0)]]


@pytest.mark.parametrize(
    ("index", "wordnet_id", "names", "name"),
    [
        # The index is the line in timm 1.0.31's imagenet21k_goog_synsets.txt, counted from 0.
        (0, "n00004475", "organism, being", "organism"),
        (359, "n01440764", "tench, Tinca tinca", "tench"),
        (1000, "n01665932", "snapping turtle", "snapping_turtle"),
        (3692, "n02512053", "fish", "fish"),
        (9204, "n03930630", "pickup, pickup truck", "pickup"),
        (9206, "n03931765", "picture frame", "picture_frame"),
        (10921, "n04347754", "submarine, pigboat, sub, U-boat", "submarine"),
        (21842, "n15102894", "knothole", "knothole"),
    ],
)
def test_well_known_classes_of_21k_have_their_numbers(index, wordnet_id, names, name):
    assert imagenet_labels(21843)[index] == (wordnet_id, names)
    assert decode_predictions(one_hot(index, 21843), top=1) == [[(wordnet_id, name, 1.0)]]


@pytest.mark.data
def test_every_photograph_is_named_as_its_class(photos):
    names = dict(keras_names().values())
    assert photos
    for photo in photos:
        wordnet_id, name = photo.stem.split("_", maxsplit=1)
        assert names[wordnet_id] == name


@pytest.fixture
def unread(monkeypatch):
    """Imports a fresh copy of the module that has read no table yet; `tables_read` lists what it reads, in order."""
    spec = importlib.util.spec_from_file_location("unread_labels", labels_module.__file__)
    module = importlib.util.module_from_spec(spec)
    module.tables_read = []
    read_text = Path.read_text

    def noted(self, *arguments, **keywords):
        module.tables_read.append(self.name)
        return read_text(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "read_text", noted)
    spec.loader.exec_module(module)
    return module


def test_a_table_is_read_once_and_only_when_it_is_needed(unread):
    assert unread.tables_read == []
    unread.decode_predictions([[0.5, 0.25]], labels=["a", "b"])
    with pytest.raises(ValueError, match="got 10 classes"):
        unread.decode_predictions(np.zeros((1, 10)))
    assert unread.tables_read == []
    for _ in range(2):
        unread.decode_predictions(np.zeros((1, 1000)))
        assert unread.imagenet_labels() is unread.imagenet_labels(1000) is unread.imagenet_labels(classes=1000)
    assert unread.tables_read == ["imagenet1k.tsv"]
    for _ in range(2):
        unread.decode_predictions(np.zeros((1, 21843)))
        assert unread.imagenet_labels(21843) is unread.imagenet_labels(classes=21843)
    assert unread.tables_read == ["imagenet1k.tsv", "imagenet21k.tsv"]


@pytest.mark.parametrize("classes", [0, 10, 21841, None])
def test_other_numbers_of_classes_have_no_list(classes):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole text is asserted below
        imagenet_labels(classes)
    assert str(caught.value) == f"`classes` must be 1000 (ImageNet-1k) or 21843 (ImageNet-21k); got {classes}."


def test_docstring_examples_run():
    result = doctest.testmod(labels_module)
    assert result.attempted == 3
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


def test_decodes_21k_with_the_first_names():
    rng = np.random.default_rng(0)
    preds = rng.permutation(21843)[None].astype("float32")
    [decoded] = decode_predictions(preds, top=21843)
    pairs = imagenet_labels(21843)
    assert decoded == [
        (pairs[index][0], pairs[index][1].split(", ")[0].replace(" ", "_"), float(preds[0, index]))
        for index in preds[0].argsort()[::-1]
    ]
    assert len(decode_predictions(preds)[0]) == 5


def test_the_default_of_top_is_five():
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
            "`preds` must have 1000 (ImageNet-1k) or 21843 (ImageNet-21k) classes if `labels` is not given; got 10 "
            "classes, shape (2, 10). Pass `labels=`, the 10 class names in the order of the model's outputs, for "
            "instance `model.config.id2label`.",
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
def test_scores_that_are_not_arrays_of_numbers_are_refused(preds, kind):
    expected = rf"`preds` must be scores of shape \(batch, classes\); got a {kind} that is not an array of numbers \("
    with pytest.raises(ValueError, match=expected):
        decode_predictions(preds, labels=["a", "b"])


# The script that writes the tables

IDS_21K = [f"n{index:08d}" for index in range(21843)]
IDS_1K = IDS_21K[:1000]


def wheel(directory, ids=IDS_1K, ids_21k=IDS_21K, named=IDS_21K):
    path = directory / "timm-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for class_list, listed in zip(convert_labels.CLASS_LISTS, (ids, ids_21k), strict=True):
            archive.writestr(class_list.synsets, "\n".join(listed) + "\n")
        archive.writestr(convert_labels.NAMES, "".join(f"{one}\tname of {one}, other\n" for one in reversed(named)))
    return path


@pytest.fixture
def out(tmp_path):
    """Makes a directory with an old table of each list."""
    directory = tmp_path / "out"
    directory.mkdir()
    for name in ("imagenet1k.tsv", "imagenet21k.tsv"):
        (directory / name).write_text("old")
    return directory


def written(directory):
    return {path.name: path.read_bytes().decode() for path in directory.iterdir()}


OLD = {"imagenet1k.tsv": "old", "imagenet21k.tsv": "old"}


def test_script_and_package_have_the_same_lists():
    assert {one.classes: f"{one.name}.tsv" for one in convert_labels.CLASS_LISTS} == {
        classes: table for classes, (_, table) in labels_module.CLASS_LISTS.items()
    }


def test_script_writes_a_line_per_class_in_model_order(tmp_path, out, capsys):
    ids, ids_21k = IDS_1K[::-1], IDS_21K[::-1]
    convert_labels.main([str(wheel(tmp_path, ids, ids_21k)), "--out", str(out)])
    assert written(out) == {
        "imagenet1k.tsv": "".join(f"{one}\tname of {one}, other\n" for one in ids),
        "imagenet21k.tsv": "".join(f"{one}\tname of {one}, other\n" for one in ids_21k),
    }
    assert capsys.readouterr().out == (
        f"1000 classes from timm-0-py3-none-any.whl written to {out / 'imagenet1k.tsv'}\n"
        f"21843 classes from timm-0-py3-none-any.whl written to {out / 'imagenet21k.tsv'}\n"
    )


def test_script_leaves_the_old_tables_when_writing_fails(tmp_path, out, monkeypatch, capsys):
    def full_disk(self, data):
        self.touch()
        raise OSError("No space left on device")

    source = wheel(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(SystemExit, match=r"^2$"):
        convert_labels.main([str(source), "--out", str(out)])
    assert "cannot be written: No space left on device." in capsys.readouterr().err
    assert written(out) == OLD


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"ids": IDS_1K[:-1]}, "imagenet1k does not fit: expected 1000 classes, got 999."),
        ({"ids": IDS_1K[:-1] + IDS_1K[:1]}, "imagenet1k does not fit: listed more than once: n00000000."),
        ({"named": IDS_21K[1:]}, "imagenet1k does not fit: without a name: n00000000."),
        (
            {"ids": IDS_1K[:2] + IDS_1K[1:2], "named": IDS_1K[:1]},
            "imagenet1k does not fit: expected 1000 classes, got 3; listed more than once: n00000001; without a name: "
            "n00000001, n00000001.",
        ),
        ({"ids_21k": IDS_21K[:-2]}, "imagenet21k does not fit: expected 21843 classes, got 21841."),
        ({"ids_21k": IDS_21K[:-1] + IDS_21K[:1]}, "imagenet21k does not fit: listed more than once: n00000000."),
        (
            {"named": IDS_1K},
            "imagenet21k does not fit: without a name: n00001000, n00001001, n00001002, n00001003, n00001004, "
            "n00001005, n00001006, n00001007 and 20,835 more.",
        ),
    ],
)
def test_script_refuses_lists_that_do_not_fit_and_writes_none(tmp_path, out, capsys, lists, message):
    with pytest.raises(SystemExit) as caught:
        convert_labels.main([str(wheel(tmp_path, **lists)), "--out", str(out)])
    assert caught.value.code == 2
    assert f"error: The class list {message} Use a wheel of a timm release.\n" in capsys.readouterr().err
    assert written(out) == OLD


def test_script_refuses_what_is_not_a_wheel_of_timm(tmp_path, out, capsys):
    other = tmp_path / "other.whl"
    other.write_text("not a zip file")
    with pytest.raises(SystemExit, match=r"^2$"):
        convert_labels.main([str(other), "--out", str(out)])
    assert f"Expected a wheel of timm (a zip file); got {other}." in capsys.readouterr().err
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr(convert_labels.NAMES, "")
    with pytest.raises(SystemExit, match=r"^2$"):
        convert_labels.main([str(other), "--out", str(out)])
    assert (
        f"{other} lacks timm/data/_info/imagenet21k_goog_synsets.txt, timm/data/_info/imagenet_synsets.txt."
        in capsys.readouterr().err
    )
    assert written(out) == OLD


def test_the_script_refuses_to_write_without_a_directory(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        convert_labels.main([str(wheel(tmp_path)), "--out", str(tmp_path / "table.tsv")])
    assert f"error: --out must be a directory that exists; got {tmp_path / 'table.tsv'}.\n" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["timm-0-py3-none-any.whl"]


@pytest.mark.parametrize("classes", [1000, 21843])
def test_a_checkpoint_without_names_gets_labels_by_number_of_classes(classes):
    assert labels_of_checkpoint({index: f"LABEL_{index}" for index in range(classes)}) is None


@pytest.mark.parametrize("id2label", [{0: "LABEL_0", 1: "LABEL_1"}, {index: f"kind {index}" for index in range(1000)}])
def test_a_checkpoint_with_names_or_another_number_keeps_its_labels(id2label):
    assert labels_of_checkpoint(id2label) is id2label
