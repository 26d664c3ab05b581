"""Tests evaluation: numbers worked out by hand, every form of labels and batches, and the files that it writes."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from conftest import needs_matplotlib
from image_files import HALF, PROCESSOR, collect, make_folders
from keras_bit import BiT, BitConfig, BitImageProcessor, image_dataset
from keras_bit.data.named_batches import NoImageError, folder_batches
from keras_bit.drawing import charts, contact_sheet
from keras_bit.evaluation import class_map, evaluate, metrics, write
from keras_bit.evaluation.asking import WORST
from keras_bit.images import pillow_steps

SMALL = {"embedding_size": 16, "hidden_sizes": (32,), "depths": (1,), "num_groups": 4}
CONFIG = BitConfig(**SMALL, id2label={0: "cat", 1: "dog", 2: "fox"})
SEVERAL = BitConfig(**SMALL, id2label=CONFIG.id2label, problem_type="multi_label_classification")
NUMBERS = BitConfig(**SMALL, id2label=CONFIG.id2label, problem_type="regression")
PROCESSOR_48 = BitImageProcessor(size={"height": 48, "width": 32}, do_center_crop=False, **HALF)
# Six images of three classes: right are the first, the second and the last.
PROBABILITIES = np.array(
    [[0.82, 0.09, 0.09], [0.29, 0.42, 0.29], [0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]],
    np.float32,
)
LABELS = np.array([0, 1, 1, 2, 2, 2])


class Scripted:
    """A model that answers as written, whatever the images: their first value says which answer."""

    def __init__(self, outputs, config=CONFIG, activation="softmax"):
        self.config, self.outputs = config, np.asarray(outputs, np.float32)
        self.layers = [keras.layers.Dense(config.num_labels, activation=activation, name="predictions")]

    def predict_on_batch(self, images):
        return self.outputs[images[:, 0, 0, 0].astype(int)]


def batches(labels=LABELS, size=4, shapes=((32, 32),)):
    """Makes images that hold their number in every value."""
    for start in range(0, len(labels), size):
        part = range(start, min(start + size, len(labels)))
        shape = shapes[start % len(shapes)]
        images = np.array([np.full((*shape, 3), index, np.float32) for index in part])
        yield images, np.asarray(labels)[start : start + size]


@pytest.mark.parametrize("logits", [False, True])
def test_the_numbers_of_a_table_by_hand(logits):
    outputs = np.log(np.maximum(PROBABILITIES, 1e-30)) + 3 if logits else PROBABILITIES
    found = evaluate(Scripted(outputs, activation=None if logits else "softmax"), batches())
    np.testing.assert_allclose(found.probabilities, PROBABILITIES, atol=1e-6)
    assert found.labels.tolist() == LABELS.tolist()
    assert found.predicted.tolist() == [0, 1, 0, 0, 1, 2]
    assert found.class_names == ("cat", "dog", "fox")
    report = found.report
    assert json.loads(json.dumps(report)) == report
    assert (report["images"], report["classes"], report["classes_that_occur"], report["right"]) == (6, 3, 3, 3)
    assert (report["top_1_accuracy"], report["top_k"], report["top_k_accuracy"]) == (0.5, 3, 1.0)
    assert report["top_1_interval"] == pytest.approx(metrics.wilson_interval(3, 6))
    assert report["mean_recall"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    if not logits:  # there the impossible answer has 1e-30
        assert report["log_loss"] == pytest.approx(-np.log([0.82, 0.42, 0.3, 1.2e-38, 0.1, 0.7]).mean(), abs=0.01)
    assert report["per_class"][2] == {
        "class": "fox",
        "examples": 3,
        "predicted": 1,
        "right": 1,
        "precision": 1.0,
        "recall": 1 / 3,
        "f1": 0.5,
    }
    # Confidences 0.82, 0.42, 0.5, 0.9, 0.7, 0.7: of the bins (2/3, 11/15] has two, half of them right.
    calibration = report["calibration"]
    error = (0.18 + 0.58 + 0.5 + 0.9 + abs(2 * 0.5 - 1.4)) / 6
    assert calibration["expected_calibration_error"] == pytest.approx(error, abs=1e-6)
    assert calibration["mean_confidence"] == pytest.approx(4.04 / 6, abs=1e-6)
    assert [part["count"] for part in calibration["bins"]] == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 2, 0, 1, 1, 0]
    assert report["confusions"] == [
        {"true": "dog", "predicted": "cat", "count": 1},
        {"true": "fox", "predicted": "cat", "count": 1},
        {"true": "fox", "predicted": "dog", "count": 1},
    ]
    assert [mistake["name"] for mistake in report["worst"]] == ["3", "4", "2"]
    assert report["worst"][0]["probability"] == pytest.approx(0.9)
    assert report["worst"][1]["true_probability"] == pytest.approx(0.1)
    assert [mistake.image[0, 0, 0] for mistake in found.worst] == [3, 4, 2]
    matrix, rows, columns = found.confusion()
    assert (matrix.tolist(), rows, columns) == ([[1, 0, 0], [1, 1, 0], [1, 1, 1]], found.class_names, found.class_names)


def test_any_of_an_images_classes_counts_as_right():
    # Two classes of data: pets (cat or dog, labels 0) and foxes; and no image of the third, bears.
    outputs = np.array([[0.1, 0.6, 0.3, 0], [0.5, 0.4, 0.1, 0], [0.2, 0.1, 0.1, 0.6], [0, 0.4, 0.35, 0.25]])
    config = BitConfig(**SMALL, id2label={0: "cat", 1: "dog", 2: "fox", 3: "owl"})
    found = evaluate(
        Scripted(outputs, config),
        batches([0, 0, 0, 1]),
        class_names=["pets", "foxes", "bears"],
        label_map=[(1, 0), [2], (2,)],
        top_k=2,
    )
    assert found.predicted.tolist() == [0, 0, 3, 0]
    assert found.report["classes_that_occur"] == 2
    assert found.report["top_1_accuracy"] == 0.5
    assert found.report["top_k_accuracy"] == 1.0  # the third has a cat in second place
    assert found.report["log_loss"] == pytest.approx(-np.log([0.6, 0.5, 0.2, 0.35]).mean(), rel=1e-6)
    matrix, rows, columns = found.confusion()
    assert matrix.tolist() == [[2, 0, 1], [1, 0, 0]]
    assert (rows, columns) == (("pets", "foxes"), ("pets", "foxes", "(another class)"))
    assert found.report["per_class"] == [
        {**dict(zip(("class", "examples", "predicted", "right"), ("pets", 3, 3, 2), strict=True)), **scores}
        for scores in [{"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}]
    ] + [{"class": "foxes", "examples": 1, "predicted": 0, "right": 0, "precision": None, "recall": 0.0, "f1": 0.0}]
    assert found.report["confusions"] == [
        {"true": "foxes", "predicted": "pets", "count": 1},
        {"true": "pets", "predicted": "owl", "count": 1},
    ]


@pytest.mark.parametrize("shapes", [((32, 32),), ((32, 40), (50, 32))])
def test_the_worst_mistakes_are_the_surest_and_the_sheet_shows_them(tmp_path, shapes):
    generator = np.random.default_rng(0)
    confidence = generator.permutation(np.linspace(0.4, 0.99, 60)).astype(np.float32)
    outputs = np.stack([confidence, (1 - confidence) / 2, (1 - confidence) / 2], axis=1)
    found = evaluate(Scripted(outputs), batches(np.full(60, 1), 7, shapes), names=[f"a/{i}.png" for i in range(60)])
    order = np.argsort(-confidence)[:WORST]
    assert [mistake.name for mistake in found.worst] == [f"a/{index}.png" for index in order]
    assert [mistake.image[0, 0, 0] for mistake in found.worst] == order.tolist()
    assert (found.worst[0].true, found.worst[0].predicted) == ("dog", "cat")
    files = write(found, tmp_path, processor=BitImageProcessor(do_rescale=False, do_normalize=False))
    with Image.open(files[1]) as sheet:
        sheet = np.asarray(sheet)
    for number in order:  # each image is of one color, its number
        assert (sheet == number).all(axis=-1).sum() > 1000


def test_of_equally_sure_mistakes_the_first_stay():
    found = evaluate(Scripted(np.tile([[0.8, 0.1, 0.1]], (100, 1))), batches(np.ones(100, int), 8))
    assert [mistake.name for mistake in found.worst] == [str(index) for index in range(WORST)]


@pytest.mark.parametrize("matplotlib", [True, False])
def test_the_files_are_written_and_a_sheet_reports_no_mistakes(tmp_path, monkeypatch, matplotlib):
    if matplotlib:
        needs_matplotlib()
    monkeypatch.setattr(charts, "available", lambda: matplotlib)
    found = evaluate(Scripted(np.eye(3)), batches([0, 1, 2]))
    titles = []
    drawn = contact_sheet.draw
    monkeypatch.setattr(contact_sheet, "draw", lambda *arguments: (titles.append(arguments[2]), drawn(*arguments))[1])
    directory = tmp_path / "deep" / "report"
    files = write(found, directory, processor=PROCESSOR, title=["mine"])
    names = ["report.json", "worst.png", "confusion.png", "calibration.png"][: 4 if matplotlib else 2]
    assert [file.name for file in files] == names
    assert sorted(path.name for path in directory.iterdir()) == sorted(names)
    assert json.loads((directory / "report.json").read_text()) == found.report
    assert titles == [["mine", "No mistakes: all 3 images are right."]]
    assert write(found, directory, processor=PROCESSOR) == files  # replaced


ELSEWHERE = "Read other images outside of the graph with `processor(path)`."


@pytest.fixture
def pets(tmp_path):
    make_folders(tmp_path / "pets", {"cat": 5, "dog": 4, "fox": 3})
    return tmp_path / "pets"


@pytest.mark.parametrize("activation", ["auto", None])
@pytest.mark.slow
def test_a_model_of_keras_bit_on_folders_says_what_predict_says(pets, activation):
    keras.utils.set_random_seed(0)
    model = BiT(CONFIG, classifier_activation=activation)
    data = image_dataset(pets, processor=PROCESSOR_48, batch_size=5)
    images, labels = collect(data)
    expected = model.predict(images, verbose=0)
    if activation is None:
        expected = keras.ops.convert_to_numpy(keras.ops.softmax(expected))
    named, _ = folder_batches(pets, ["cat", "dog", "fox"], processor=PROCESSOR_48, batch_size=5)
    for given in (data, named):
        found = evaluate(model, given)
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
        np.testing.assert_array_equal(found.labels, labels)
        assert found.report["right"] == (expected.argmax(1) == labels).sum()
    assert {mistake.name.split("/")[0] == mistake.true for mistake in found.worst} == {True}


@pytest.mark.slow
def test_folders_in_another_order_than_the_labels_are_an_error_or_a_map(pets):
    config = BitConfig(**SMALL, id2label={0: "fox", 1: "dog", 2: "cat"})
    data = image_dataset(pets, processor=PROCESSOR_48, batch_size=5)
    with pytest.raises(
        ValueError, match=r"must have the model's classes \('fox', 'dog', 'cat'\), got other class names "
    ):
        evaluate(BiT(config), data)
    found = evaluate(BiT(config), data, label_map=class_map.match(data.class_names, config))
    assert found.class_names == ("cat", "dog", "fox")
    assert found.report["right"] == (2 - found.probabilities.argmax(1) == found.labels).sum()


@pytest.mark.parametrize(
    ("class_names", "own", "config", "expected"),
    [
        (None, None, CONFIG, ("cat", "dog", "fox")),
        (None, ["0", "1", "2"], CONFIG, ("cat", "dog", "fox")),
        (["a", "b", "c"], ["0", "1", "2"], CONFIG, ("a", "b", "c")),
        (["a", "b", "c"], ["x", "y", "z"], CONFIG, ("a", "b", "c")),
        (None, ["x", "y", "z"], BitConfig(**SMALL, num_labels=3), ("x", "y", "z")),
        (None, None, BitConfig(**SMALL, num_labels=3), ("LABEL_0", "LABEL_1", "LABEL_2")),
    ],
)
def test_the_classes_have_the_names_of_the_model(class_names, own, config, expected):
    class Data(list):
        pass

    data = Data(batches([0, 1, 2]))
    data.class_names = own
    assert evaluate(Scripted(np.eye(3), config), data, class_names=class_names).class_names == expected


def test_a_model_of_imagenet_without_labels_has_imagenets():
    found = evaluate(Scripted(np.eye(1000)[:3], BitConfig(**SMALL)), batches([0, 1, 1]))
    assert found.class_names[0] == "tench, Tinca tinca"
    assert [row["class"] for row in found.report["per_class"]] == [
        "tench, Tinca tinca",
        "goldfish, Carassius auratus",
    ]
    assert found.report["worst"][0]["predicted"].startswith("great white shark")


def test_classes_of_one_name_are_distinguished_by_their_numbers():
    config = BitConfig(**SMALL, id2label={0: "crane", 1: "dog", 2: "crane"})
    found = evaluate(Scripted(np.eye(3)[[0, 0, 2]], config), batches([0, 1, 2]))
    assert [row["class"] for row in found.report["per_class"]] == ["crane (0)", "dog", "crane (2)"]
    assert found.report["confusions"] == [{"true": "dog", "predicted": "crane (0)", "count": 1}]


def nan_at(place):
    outputs = PROBABILITIES.copy()
    outputs[place, 1] = np.nan
    return outputs


GOOD = Scripted(PROBABILITIES)
ROWS = [(np.zeros((2, 32, 32, 3), np.float32), np.eye(3)[:2])]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate(GOOD, []), "`batches` must give at least one image, got none"),
        (lambda: evaluate(GOOD, ROWS), r"a whole number for each image, \(2,\), got float64 of shape \(2, 3\)"),
        (lambda: evaluate(GOOD, batches([0, 3])), r"labels in \[0, 3\), got 0 to 3: there are 3 class names"),
        (lambda: evaluate(GOOD, batches([-1, 2])), r"labels in \[0, 3\), got -1 to 2"),
        (lambda: evaluate(GOOD, batches(), top_k=0), "`top_k`.* at least 1.* 0"),
        (lambda: evaluate(GOOD, batches(), names=["a"] * 7), "`names` must be one for each of the 6 images, got 7"),
        (lambda: evaluate(GOOD, batches(), class_names=["a"]), "one for each of the model's classes, 3, got 1: 'a'"),
        (
            lambda: evaluate(GOOD, batches(), label_map=[[0], [1]], class_names=["a"]),
            "one for each of the labels in `label_map`, 2, got 1",
        ),
        (
            lambda: evaluate(GOOD, batches(), label_map=[[0], [], [1]]),
            r"`label_map` must give '1' at least one class, each in \[0, 3\), got \[\]",
        ),
        (lambda: evaluate(GOOD, batches(), label_map=[[0], [3], [1]]), r"'1' at least one class, .* got \[3\]"),
        (
            lambda: evaluate(Scripted(nan_at(4)), batches(), names=list("abcdef")),
            "`model` gives NaN for the image e. Check its weights",
        ),
        (
            lambda: evaluate(BiT(CONFIG, include_top=False), batches()),
            "`model` must have the head `predictions`, got a model without it. Build it with include_top=True",
        ),
        (
            lambda: evaluate(BiT(CONFIG, classifier_activation="sigmoid"), batches()),
            "by a softmax, or logits, for single_label_classification, got a head with sigmoid. "
            "Build it with classifier_activation='softmax'",
        ),
        (
            lambda: evaluate(BiT(BitConfig(**SMALL, num_labels=1, problem_type="single_label_classification")), []),
            "`model` must have at least two classes, got one",
        ),
        (
            lambda: evaluate(Scripted(PROBABILITIES, SEVERAL, "softmax"), batches()),
            "by a sigmoid, or logits, for multi_label_classification, got a head with softmax",
        ),
        (
            lambda: evaluate(Scripted(PROBABILITIES, NUMBERS, "sigmoid"), batches()),
            "plain numbers for regression, got a head with sigmoid. Build it with classifier_activation=None",
        ),
        (
            lambda: evaluate(Scripted(PROBABILITIES, SEVERAL, "sigmoid"), batches()),
            r"must give rows of 0 and 1, \(4, 3\), got int64 of shape \(4,\)",
        ),
        (
            lambda: evaluate(Scripted(PROBABILITIES, SEVERAL, "sigmoid"), batches(PROBABILITIES)),
            r"must give rows of 0 and 1, \(4, 3\), got float32 of shape \(4, 3\). Shares",
        ),
        (
            lambda: evaluate(Scripted(PROBABILITIES, NUMBERS, None), batches()),
            r"must give 3 finite numbers for each image, got int64 of shape \(4,\)",
        ),
        (
            lambda: evaluate(Scripted(PROBABILITIES, NUMBERS, None), batches(), label_map=[[0]] * 3),
            "`label_map` is for one class per image, got a model for regression",
        ),
        (
            lambda: evaluate(Scripted(PROBABILITIES, SEVERAL, "sigmoid"), batches(), class_names=["a", "b"]),
            r"the model's labels in their order \('cat', 'dog', 'fox'\), got 'a', 'b'",
        ),
    ],
)
def test_wrong_batches_and_models_raise_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_folders_give_names_without_the_images_that_were_left_out(pets):
    (pets / "cat" / "001.jpg").write_bytes(b"no image")
    (pets / ".hidden").mkdir()
    (pets / "empty").mkdir()
    data, left_out = folder_batches(
        pets, ["fox", "empty", "cat"], processor=PROCESSOR_48, batch_size=3, on_error="skip"
    )
    assert (data.num_images, left_out.empty, data.skipped) == (8, ["empty"], [])
    for _ in range(2):  # each epoch starts from the beginning
        labels = np.concatenate([labels for _, labels in data])
        assert labels.tolist() == [0, 0, 0, 2, 2, 2, 2]
        assert data.names == [f"fox/00{i}.jpg" for i in range(3)] + [f"cat/00{i}.jpg" for i in (0, 2, 3, 4)]
    (line,) = data.skipped
    reason = "is not an image file that Pillow can read. Convert it to JPEG or PNG, or remove it."
    assert line == f"{pets}/cat/001.jpg {reason}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["café's [x].jpg", "caf\udce9.jpg"])
def test_an_image_that_cannot_be_read_is_named(tmp_path, name):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / name).write_bytes(b"no image")
    for on_error, message in (
        ("raise", f"{tmp_path}/cat/{name} is not a"),
        ("skip", "No image can be read. The first: "),
    ):
        data, _ = folder_batches(tmp_path, ["cat"], processor=PROCESSOR_48, batch_size=3, on_error=on_error)
        with pytest.raises(NoImageError if on_error == "skip" else ValueError) as error:
            list(data)
        assert str(error.value).startswith(message)
        assert name in str(error.value)


def test_batches_stay_full_where_images_are_left_out(pets):
    for name in ("cat/001.jpg", "cat/002.jpg", "fox/000.jpg"):
        (pets / name).write_bytes(b"")
    data, _ = folder_batches(pets, ["cat", "fox"], processor=PROCESSOR_48, batch_size=2, on_error="skip")
    sizes = [len(images) for images, _ in data]
    assert sizes == [2, 2, 1]
    assert data.names == ["cat/000.jpg", "cat/003.jpg", "cat/004.jpg", "fox/001.jpg", "fox/002.jpg"]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_other_failures_are_not_reported_as_a_lack_of_images(pets, monkeypatch, on_error):
    def full(*arguments):
        raise MemoryError("no memory")

    monkeypatch.setattr(pillow_steps, "preprocess", full)
    data, _ = folder_batches(pets, ["cat"], processor=PROCESSOR_48, batch_size=3, on_error=on_error)
    with pytest.raises(OSError, match=r"000\.jpg failed, but not because of the image: MemoryError: no mem"):
        list(data)
    assert data.skipped == []


def test_folders_without_an_image_are_an_error(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"None of the evaluated folders of .* holds an image \(.jpg, .png"):
        folder_batches(tmp_path, ["cat"], processor=PROCESSOR_48, batch_size=3)
