"""Tests how folder names become a model's classes: exact matches, class maps, and errors that list every mismatch."""

import json
import re

import pytest

from keras_bit import BitConfig
from keras_bit.evaluation import class_map
from keras_bit.labels import imagenet_labels

PETS = BitConfig(id2label=dict(enumerate(["cat", "dog", "fox, red fox", "crane", "crane"])))
IMAGENET = BitConfig(id2label=dict(enumerate(name for _, name in imagenet_labels())))
UNNAMED = BitConfig(num_labels=1000)
OTHERS = BitConfig(id2label={index: f"flower {index}" for index in range(1000)})


@pytest.mark.parametrize(
    ("folders", "config", "said", "expected"),
    [
        (["cat", "dog"], PETS, None, [(0,), (1,)]),
        (["dog", "cat"], PETS, {}, [(1,), (0,)]),
        (["kitten", "dog"], PETS, {"kitten": "cat"}, [(0,), (1,)]),
        (["pets", "x"], PETS, {"pets": ["dog", "cat"], "x": None}, [(1, 0), None]),
        (["cat"], PETS, {"cat": "dog"}, [(1,)]),  # what is said counts more than the name
        (["bird"], PETS, {"bird": 3}, [(3,)]),
        (["0", "1"], PETS, {"0": 0, "1": 1}, [(0,), (1,)]),
        # macOS writes an accent as a separate character.
        (["cafe\u0301"], BitConfig(id2label={0: "tea", 1: "caf\xe9"}), None, [(1,)]),
        (["caf\xe9"], BitConfig(id2label={0: "cafe\u0301", 1: "tea"}), {"cafe\u0301": "cafe\u0301"}, [(0,)]),
        (["birds"], PETS, {"birds": [3, 4, "cat"]}, [(3, 4, 0)]),
        (["n01440764", "goldfish, Carassius auratus"], IMAGENET, None, [(0,), (1,)]),
        (["n01440764", "tench, Tinca tinca"], UNNAMED, None, [(0,), (0,)]),
        (["fish"], IMAGENET, {"fish": ["n01440764", "goldfish, Carassius auratus"]}, [(0, 1)]),
        (["LABEL_1"], BitConfig(num_labels=3), None, [(1,)]),
    ],
)
def test_a_folder_is_what_the_map_says_or_the_class_of_its_name(folders, config, said, expected):
    assert class_map.match(folders, config, said) == expected


@pytest.mark.parametrize(
    ("folders", "config", "said", "problems"),
    [
        (
            ["kat", "cat", "bird"],
            PETS,
            {"kat": ["cat", "doge"], "catt": "dog"},
            "'catt' is not a folder (closest: 'cat'); 'kat' is mapped to 'doge', which is not a label (closest: "
            "'dog'); 'bird' matches no label. The model's classes: ",
        ),
        (["Dog"], PETS, None, "'Dog' matches no label (closest: 'dog')"),
        (["red_fox"], PETS, None, "'red_fox' matches no label (closest: 'fox, red fox')"),
        (["x"], PETS, {"x": 5}, "'x' is mapped to 5, which is not a label"),
        (
            ["crane"],
            PETS,
            None,
            "'crane' is 'crane', the name of the classes 3 and 4 (use the number in a class map)",
        ),
        (["n01440764"], OTHERS, None, "'n01440764' matches no label"),
        (
            [f"q{index}" for index in range(30)],
            PETS,
            None,
            "'q19' matches no label and 10 more. The model's classes: 'cat', ",
        ),
    ],
)
def test_all_that_matches_nothing_is_one_error_with_the_closest_labels(folders, config, said, problems):
    with pytest.raises(ValueError, match=re.escape(problems)) as error:
        class_map.match(folders, config, said)
    assert str(error.value).startswith("Every folder must be a class of the model. ")
    assert class_map.ALLOWED in str(error.value)
    assert '{"folder": "label", "another": 7, "any of two": ["label", 8], "left out": null}' in str(error.value)


def test_a_template_marks_uncertain_lines_which_are_errors_if_unedited():
    found = class_map.template(["cat", "Dog", "red_fox", "kat", "crane", "12345", "02"], PETS)
    assert found == {
        "cat": "cat",
        "Dog": "dog",
        "red_fox": "fox, red fox",
        "kat": "? cat",
        "crane": "? crane",
        "12345": "? ",
        "02": "? 2 (fox, red fox)",
    }
    with pytest.raises(ValueError, match=r"'kat' is mapped to '\? cat', which is not a label"):
        class_map.match(list(found), PETS, found)
    found = class_map.template(["n01440764", "great_white_shark"], IMAGENET)
    assert found == {
        "n01440764": "tench, Tinca tinca",
        "great_white_shark": "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias",
    }
    assert class_map.match(list(found), IMAGENET, found) == [(0,), (2,)]


def test_every_label_of_imagenet_matches_itself_or_is_known_to_stand_twice():
    names = [name for _, name in imagenet_labels()]
    twice = {name for name in names if names.count(name) > 1}
    unique = [name for name in names if name not in twice]
    assert class_map.match(unique, IMAGENET) == [(index,) for index, name in enumerate(names) if name not in twice]
    ids = [wordnet_id for wordnet_id, _ in imagenet_labels()]
    template = class_map.template(ids, IMAGENET)
    assert class_map.match(ids, IMAGENET, template) == [(index,) for index in range(1000)]


def test_wordnet_ids_are_shown_after_the_first_name():
    assert class_map.shown_names(["n01440764", "pets"], IMAGENET) == ["tench (n01440764)", "pets"]
    assert class_map.shown_names(["n01440764"], PETS) == ["n01440764"]


def test_a_file_is_read_as_it_is_written(tmp_path):
    said = {"a": "cat", "b": ["cat", 3], "c": None, "d": 1, "é": "dog"}
    (tmp_path / "map.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    assert class_map.read(tmp_path / "map.json") == said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a JSON file: Expecting"),
        ("[1]", "must be a JSON object, got list"),
        ('{"a": []}', "must give 'a' a label, a list of labels, or null, got []"),
        ('{"a": true}', "must give 'a' a label, a list of labels, or null, got True"),
        ('{"a": ["b", null]}', "must give 'a' a label, a list of labels, or null, got ['b', None]"),
        ('{"a": 1.5}', "got 1.5"),
        ('{"a": [["' + "x" * 50_000 + '"]]}', "got [['xxxxxxxxxxxx...xxxxxxxxxxxxx']]."),
        ('{"a": "b", "a": "c"}', "is not a JSON file: 'a' occurs twice"),
        (b"\xff\xfe", "is not a JSON file"),
        # It takes linear time: comparing so many keys in pairs would take minutes.
        ("{" + ", ".join(f'"{key}": 0' for key in [*range(200_000), *range(100_000)]) + "}", "and 99,980 more occurs"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "is not a JSON file: more than 100 nested objects and lists"),
    ],
)
def test_a_file_of_another_kind_than_a_class_map_raises_an_error(tmp_path, text, message):
    file = tmp_path / "map.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        class_map.read(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("name", "config", "number"),
    [
        ("dog", PETS, 1),
        ("Dog", PETS, 1),
        ("red_fox", PETS, 2),
        ("fox, red fox", PETS, 2),
        ("4", PETS, 4),
        ("n01440764", IMAGENET, 0),
        ("Tinca-tinca", UNNAMED, 0),
        ("517", IMAGENET, 517),
        # A label counts more than a number.
        ("2", BitConfig(id2label={0: "2", 1: "1", 2: "0"}), 0),
    ],
)
def test_the_class_that_a_person_means(name, config, number):
    assert class_map.find_class(name, config) == number


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("crane", PETS, "`name` 'crane' means several classes: 3 (crane), 4 (crane). Pass the number"),
        ("Crane", IMAGENET, "means several classes: 134 (crane), 517 (crane). Pass the number"),
        ("dgo", PETS, "a number from 0 to 4, got 'dgo'. The closest: 1 (dog)."),
        ("zzz", PETS, "got 'zzz'. The first: cat, dog, fox, red fox and 2 more."),
        ("5", PETS, "a number from 0 to 4, got 5."),
        ("-1", PETS, "a number from 0 to 4, got '-1'."),
        ("n01440764", OTHERS, "got 'n01440764'."),
        ("", PETS, "got ''."),
    ],
)
def test_a_name_of_no_class_or_of_several_is_an_error_with_those_near_it(name, config, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        class_map.find_class(name, config)
