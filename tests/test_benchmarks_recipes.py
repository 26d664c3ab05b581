"""Tests `python -m benchmarks recipes`: the images of a run, which options win, and that a second call goes on."""

import dataclasses
import re

import numpy as np
import pytest

from benchmarks import recipe_runs, recipes, report
from benchmarks.recipe_runs import Run, Setting
from benchmarks.recipes import PLAIN, Option
from image_files import make_folders
from keras_bit import Recipe

pytestmark = [
    pytest.mark.usefixtures("eagerly"),  # few steps, and a graph for each model
    pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option"),
]
SMALL = Setting(steps=1, batch_size=2, start_steps=1, test_images=1)


@pytest.fixture
def data(tmp_path):
    for part in ("train", "test"):
        make_folders(tmp_path / "data" / part, dict.fromkeys(("ant", "bee", "cow", "dog"), 6))
    return tmp_path / "data"


def test_the_start_and_the_sets_have_no_class_in_common(data):
    assert recipe_runs.halves(data) == (["ant", "bee"], ["cow", "dog"])


@pytest.mark.parametrize("validates", [False, True])
def test_a_seed_draws_the_same_images_for_every_option(data, validates):
    run = Run("name", (6, 2), 3, 0.01, {}, validates)
    train, held_back = recipe_runs.drawn(data, ["cow", "dog"], run)
    plain, nothing = recipe_runs.drawn(data, ["cow", "dog"], Run("other", (6, 2), 3, 0.1, {"ema": 0.9}))
    assert np.bincount(plain[1]).tolist() == [6, 2]
    assert nothing == ([], [])
    assert sorted(train[0] + held_back[0]) == sorted(plain[0])
    assert len(held_back[0]) == validates  # of six images the fifth one, of two images none
    assert set(train[0]).isdisjoint(held_back[0])
    assert all(f"/train/{['cow', 'dog'][label]}/" in path for path, label in zip(*train, strict=True))


def test_every_option_of_a_recipe_is_measured_or_said_not_to_be():
    measured = {name for option in recipes.OPTIONS for name in option.choices}
    of_adamw = {"learning_rate", "weight_decay"}
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert fields - measured - of_adamw == {"rule", "temperature"}
    assert "`temperature` is for a teacher" in recipes.__doc__


def test_runs_come_seed_by_seed_and_an_uneven_set_turns():
    options = (Option({}, ("a",)), Option({"optimizer": "adamw"}, ("a",)), Option({"ema": 0.9}, ("b",)))
    runs = recipes.option_runs(options, {"a": (3, 2, 1), "b": (1, 1, 1)}, 2, 0.01, 0.001)
    assert [key[2] for key in runs] == [0, 0, 0, 1, 1, 1]
    assert [runs[PLAIN, "a", seed].counts for seed in (0, 1)] == [(3, 2, 1), (1, 3, 2)]
    adamw = runs["optimizer='adamw'", "a", 0]
    assert (adamw.rate, adamw.choices) == (0.01, {"optimizer": "adamw", "learning_rate": 0.001})
    assert len({run.name for run in runs.values()}) == 6


@pytest.mark.parametrize(
    ("found", "plain", "expected"),
    [
        ([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], 1),  # all by the same
        ([0.4, 0.5, 0.6], [0.5, 0.6, 0.7], -1),
        # Differences 0.1, 0.2, 0.3: mean 0.2, standard error 0.1 / sqrt(3), which is 0.0577.
        ([0.5, 0.7, 0.9], [0.4, 0.5, 0.6], 1),
        # Differences 0, 0.1, 0.2: mean 0.1, the same standard error.
        ([0.4, 0.6, 0.8], [0.4, 0.5, 0.6], 0),
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], 0),
    ],
)
def test_an_option_wins_by_more_than_two_standard_errors(found, plain, expected):
    assert recipes.outcome(found, plain) == expected


def test_the_table_marks_who_wins_and_the_sentence_names_who_never_does():
    sets = {"a": (1,), "b": (2,)}
    options = [Option({}, ("a", "b")), Option({"ema": 0.9}, ("a", "b")), Option({"lora": 8}, ("b",))]
    accuracies = {
        (PLAIN, "a"): [0.5, 0.6],
        (PLAIN, "b"): [0.7, 0.8],
        ("ema=0.9", "a"): [0.6, 0.7],
        ("ema=0.9", "b"): [0.6, 0.9],
        ("lora=8", "b"): [0.6, 0.7],
    }
    assert recipes.lines(accuracies, options, sets) == [
        [PLAIN, "55.0 ± 7.1", "75.0 ± 7.1"],
        ["ema=0.9", "65.0 ± 7.1 +", "75.0 ± 21.2"],
        ["lora=8", "", "65.0 ± 7.1 -"],
    ]
    assert recipes.verdict(accuracies, options) == "Options that win on no set: lora=8."
    assert recipes.verdict(accuracies, options[:2]) == "Every option wins on some set."


@pytest.mark.release
def test_options_are_measured_and_a_second_call_trains_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "RATES", (0.01,))
    monkeypatch.setattr(recipes, "ADAMW_RATES", (0.001,))
    options = (Option({}, ("5 per class",)), Option({"keep_best": "val_accuracy"}, ("5 per class",), validates=True))
    given = {"seeds": 2, "processes": 1, "options": options, "sets": {"5 per class": (5, 5)}}
    found = recipes.measure(data, tmp_path / "work", SMALL, **given)
    assert report.columns(found) == ["option", "5 per class"]
    assert [line[0] for line in report.cells(found)] == [PLAIN, "keep_best='val_accuracy'"]
    for rounds in found.measurements.values():
        assert all(share in (0, 0.5, 1) for share in rounds[0]["accuracies"])  # of two test images
    assert re.search(r"The chosen rates are 0\.01 for the rule and 0\.001 for AdamW", found.notes[1])
    made = (tmp_path / "work" / "runs.json").stat().st_mtime_ns
    monkeypatch.setattr(recipe_runs, "accuracy", None)
    assert recipes.measure(data, tmp_path / "work", SMALL, **given) == found
    assert (tmp_path / "work" / "runs.json").stat().st_mtime_ns == made
    with pytest.raises(ValueError, match=r"has runs of the setting .*'steps': 1.*\. Name another directory\."):
        recipes.measure(data, tmp_path / "work", Setting(2, 2, 1, 1), **given)


def test_options_that_cannot_be_measured_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="`seeds` must be at least 2, got 1"):
        recipes.measure(data, tmp_path / "work", SMALL, seeds=1)
    with pytest.raises(ValueError, match="must hold the folders train and test"):
        recipes.measure(tmp_path, tmp_path / "work", SMALL)
    make_folders(tmp_path / "two" / "train", dict.fromkeys("ab", 1))
    make_folders(tmp_path / "two" / "test", dict.fromkeys("ab", 1))
    with pytest.raises(ValueError, match="must have at least 4 classes, got 2"):
        recipes.measure(tmp_path / "two", tmp_path / "work", SMALL)
