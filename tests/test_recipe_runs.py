"""Tests runs with a recipe: interrupted at any evaluation they end the same, and they note their choices."""

import json

import keras
import numpy as np
import pytest

from image_files import make_folders
from keras_bit import BitImageProcessor, Recipe, from_pretrained
from keras_bit.training import find_rate, planning, run, run_directory
from keras_bit.training.distribution import Workers
from tiny_bit import random_tensors, write_checkpoint

pytestmark = [
    pytest.mark.usefixtures("eagerly"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option"),
]
RECIPE = {"batch_size": 6, "steps": 3, "evaluate_every": 1, "seed": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Writes small random kernels, so that training is calm."""
    tensors = {name: values * (0.1 if values.ndim > 1 else 1) for name, values in random_tensors().items()}
    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoint"), tensors)
    BitImageProcessor(size=(32, 32), resample=2, image_mean=0.5, image_std=0.5).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_folders(folder, {"ant": 5, "bee": 10, "cat": 5})
    return folder


def options_of(data, checkpoint, **changed):
    return planning.Options(data=str(data), weights=str(checkpoint), **{**RECIPE, **changed})


def train(options, out, callbacks=()):
    said = []
    with run_directory.writable(out, options.data):
        plan = planning.plan(options, Workers(), out)
        run.run(plan, out, workers=Workers(), say=said.append, callbacks=callbacks)
    return said


class Interrupt(keras.callbacks.Callback):
    """Ends the process, so to speak, right after an evaluation and the state behind it."""

    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


CHOICES = {
    "averages, the best, an early end, class weights": {
        "ema": 0.5,
        "keep_best": "val_loss",
        "early_stopping": 1,
        "class_weight": "balanced",
    },
    "AdamW, layer decay, augmentation, sampling, smoothing": {
        "optimizer": "adamw",
        "layer_decay": 0.7,
        "augment": ["cut_mix", "random_erasing"],
        "sampling": "balanced",
        "label_smoothing": 0.1,
    },
    "LoRA, the best": {"lora": 2, "keep_best": "val_accuracy"},
}


def test_the_commands_class_weights_are_of_names_or_numbers(data, checkpoint):
    by_name, by_number = (
        planning.plan(options_of(data, checkpoint, choices={"class_weight": weights}), Workers()).recipe.class_weight
        for weights in ({"bee": 2.0}, {"1": 2.0})
    )
    assert by_name == by_number == {"ant": 1.0, "bee": 2.0, "cat": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_a_run_interrupted_at_any_evaluation_ends_like_a_whole_one(data, checkpoint, tmp_path, choices):
    # A rate that is too high for the loss of the validation to fall on and on.
    rate = {} if "optimizer" in choices else {"base_learning_rate": 0.3}
    options = options_of(data, checkpoint, choices=choices, **rate)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    told = train(options, whole)
    rows = (whole / "log.csv").read_text()
    evaluations = len(rows.splitlines()) - 1
    for _ in range(evaluations):
        with pytest.raises(KeyboardInterrupt):
            train(options, parts, [Interrupt()])
    said = train(options, parts)
    assert f"Continuing after step {evaluations} of 3." in said
    assert (parts / "log.csv").read_text() == rows
    assert [line for line in said if line.startswith(("The result is", "Ended after"))] == [
        line for line in told if line.startswith(("The result is", "Ended after"))
    ]
    for mine, other in zip(from_pretrained(parts).get_weights(), from_pretrained(whole).get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)
    if "keep_best" in choices:
        assert any(line.startswith("The result is the model after step ") for line in told)
        last = [from_pretrained(directory / "last").get_weights() for directory in (whole, parts)]
        for mine, other in zip(*last, strict=True):
            np.testing.assert_array_equal(mine, other)
    assert not any("lora" in weight.path for weight in keras.saving.load_model(whole / "model.keras").weights)


def test_a_run_notes_its_recipe_with_the_weights_of_its_classes(data, checkpoint, tmp_path):
    choices = {"class_weight": "balanced", "ema": 0.9}
    noted = planning.plan(options_of(data, checkpoint, choices=choices), Workers()).described
    assert "choices" not in noted["options"]
    weights = dict(noted["plan"]["recipe"].pop("class_weight"))
    # Four fifths of the images train: 4, 8 and 4.
    assert weights == {name: pytest.approx(16 / 3 / count) for name, count in {"ant": 4, "bee": 8, "cat": 4}.items()}
    assert noted["plan"]["recipe"] == {"ema": 0.9}
    plain = planning.plan(options_of(data, checkpoint, freeze_up_to="stem"), Workers()).described
    assert plain["plan"]["recipe"] is None
    again = Recipe.from_dict(json.loads(json.dumps(plain))["recipe"])
    assert (again.freeze_up_to, again.rule.total_steps) == ("stem", plain["plan"]["rule"]["steps"])
    state = tmp_path / "training"
    state.mkdir()
    run_directory.check_same_run(json.loads(json.dumps(noted)), tmp_path)
    (state / "state.safetensors").touch()  # something has been trained
    with pytest.raises(ValueError, match=r"freeze_up_to: null there, .stem. now; recipe.ema: 0.9 there, null now"):
        run_directory.check_same_run(plain, tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"choices": {"keep_best": "val_accuracy"}, "validation_share": 0.0}, "`keep_best` needs validation"),
        ({"choices": {"early_stopping": 2}, "validation_share": 0.0}, "`early_stopping` needs validation"),
        ({"choices": {"class_weight": {"dog": 2.0}}}, "`class_weight` must name classes of the model, got 'dog'"),
        ({"choices": {"lora": 2}, "freeze_up_to": "all"}, "`lora` must be None with freeze_up_to='all'"),
        ({"choices": {"keep_best": "val_top_5"}}, "`keep_best` must be one of 'val_loss', 'val_accuracy', got"),
        ({"freeze_up_to": "stage9"}, "`freeze_up_to` must be None or one of 'stem', .*'all' for this network, got"),
    ],
)
def test_an_impossible_choice_is_an_error_of_the_plan(data, checkpoint, changed, message):
    with pytest.raises(ValueError, match=message):
        planning.plan(options_of(data, checkpoint, **changed), Workers())


def test_the_plan_warns_if_the_best_is_chosen_on_the_test_images(checkpoint, tmp_path):
    for part in ("train", "test"):
        make_folders(tmp_path / part, {"ant": 2, "bee": 2})
    changed = {"choices": {"keep_best": "val_accuracy"}, "batch_size": 4}
    found = planning.plan(options_of(tmp_path, checkpoint, **changed), Workers())
    assert any("chosen on the test images" in note for note in found.notes)
    make_folders(tmp_path / "val", {"ant": 2, "bee": 2})
    found = planning.plan(options_of(tmp_path, checkpoint, **changed), Workers())
    assert not any("chosen on the test images" in note for note in found.notes)


def test_the_range_test_suggests_a_tenth_of_the_rate_of_the_lowest_loss():
    """Uses known losses: they fall until a rate of 0.1, and rise from there."""
    rates = np.geomspace(find_rate.LOWEST, find_rate.HIGHEST, find_rate.STEPS)
    losses = 1 + np.abs(np.log10(rates) + 1) / 10
    found = find_rate.judged(list(losses), find_rate.STEPS)
    np.testing.assert_allclose(found.rates, rates)
    average, smoothed = 0.0, []
    for step, loss in enumerate(losses):  # fastai's `SmoothLoss`, written down once more
        average = 0.98 * average + 0.02 * loss
        smoothed.append(average / (1 - 0.98 ** (step + 1)))
    np.testing.assert_allclose(found.smoothed, smoothed)
    assert found.lowest == rates[10:-5][np.argmin(smoothed[10:-5])] >= 0.1
    assert found.suggested == found.lowest / 10
    with pytest.raises(ValueError, match="The loss was NaN from the first steps on"):
        find_rate.judged([float("nan")], 100)


def test_the_range_test_raises_the_rate_and_keeps_nothing(data, checkpoint):
    plan = planning.plan(options_of(data, checkpoint, choices={"keep_best": "val_loss"}), Workers())
    found = find_rate.find_rate(plan, lambda line: None, steps=4)
    assert len(found.losses) == len(found.rates) <= 4
    assert found.losses[0] == pytest.approx(np.log(3), rel=1e-5)  # a head of zeros
    assert found.rates[0] == pytest.approx(1e-7)
