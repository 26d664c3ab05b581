"""Tests `keras-bit finetune` as a user runs it: its output, and how it goes on after it was killed."""

import csv
import dataclasses
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from conftest import absent, needs_matplotlib
from image_files import make_folders
from keras_bit import BiT, BitConfig, BitImageProcessor, Recipe, from_pretrained, save_pretrained
from keras_bit.cli import found_rate, main, recipe_options
from keras_bit.training import planning
from keras_bit.training.distribution import Workers
from keras_bit.training.find_rate import FoundRate
from tiny_bit import random_tensors, write_checkpoint

OLD_RUN = Path(__file__).with_name("checkpoints") / "commit-88449c7"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Returns the data and the checkpoint of the run in `OLD_RUN`, as arguments."""
    folder = tmp_path_factory.mktemp("finetune")
    make_folders(folder / "data", dict.fromkeys(["ant", "bee", "cat"], 6))
    tensors = {name: values * (0.1 if values.ndim > 1 else 1) for name, values in random_tensors().items()}
    checkpoint = write_checkpoint(folder / "checkpoint", tensors)
    BitImageProcessor(size=(32, 32), resample=2, image_mean=0.5, image_std=0.5).save_pretrained(checkpoint)
    return [str(folder / "data"), "--weights", str(checkpoint), "--batch-size", "8", "--seed", "1"]


def test_the_command_prints_the_plan_and_the_progress(arguments, tmp_path, capsys):
    """Uses TensorBoard if it is installed."""
    more = ["--steps", "1", "--track", "tensorboard"] if importlib.util.find_spec("tensorboard") else ["--steps", "1"]
    assert main.main(["finetune", *arguments, *more, "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    for line in (
        "classes │ 3 (ant, bee, cat)",
        "training images │ 15, typically 33x50 px",
        "images of each class │ 5",
        "validation images │ 3",
        "resize, random crop │ 160 px, 128 px",
        "batch │ 8",
        "The model gets a new head of zeros for 3 classes.",
        "step 1/1 loss 1.0986 accuracy",
        "accuracy 33.33% on 3 validation images",
        "keras-bit classify IMAGE --weights",
    ):
        assert line in re.sub(" +", " ", out)
    assert "fine-tune: 100%" in err
    assert "images/s=" in err
    if "--track" not in more:
        absent("tensorboard not installed: pip install -e '.[tensorboard]'")
    assert list((tmp_path / "out" / "tensorboard" / "train").glob("events.*"))


def test_tensorboard_is_asked_for_before_training(arguments, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main.main(["finetune", *arguments, "--track", "tensorboard", "--out", str(tmp_path / "out")]) == 1
    assert "keras_bit[tensorboard]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_choices_become_a_recipe_and_those_that_are_not_given_stay_none():
    @click.command()
    @recipe_options.choices
    def command(choices):
        click.echo(json.dumps(choices))

    def said(*arguments):
        return CliRunner().invoke(command, arguments)

    assert json.loads(said().output) == {}
    given = ["--class-weight", "ant=2, x=y=0.5", "--augment", "cut_mix,random_erasing", "--weight-decay", "0"]
    assert json.loads(said(*given, "--optimizer", "adamw", "--ema", "0.9", "--lora", "4").output) == {
        "class_weight": {"ant": 2.0, "x=y": 0.5},
        "augment": ["cut_mix", "random_erasing"],
        "weight_decay": 0.0,
        "optimizer": "adamw",
        "ema": 0.9,
        "lora": 4,
    }
    assert json.loads(said("--class-weight", "balanced").output) == {"class_weight": "balanced"}
    for wrong, message in (("ant", "expected balanced or NAME=WEIGHT"), ("ant=much", "got 'ant=much'")):
        assert message in said("--class-weight", wrong).output
    # Every choice is a field of the recipe, under its name, and every field can be chosen here or by an older option.
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert set(recipe_options.SETTINGS) == fields - {"rule", "freeze_up_to"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--augment", "auto"], "--augment must be one of 'rand_augment', 'cut_mix', 'random_erasing', got 'auto'."),
        (["--ema", "1.5"], "--ema must be a number in (0, 1), got 1.5."),
        (["--layer-decay", "2"], "--layer-decay must be a number in (0, 1], got 2.0."),
        (["--keep-best", "f1"], "--keep-best must be a metric of the validation, such as 'val_accuracy' or 'val_loss'"),
        (["--weight-decay", "0.1"], "--weight-decay must be left out for optimizer='sgd', got 0.1: "),
        (["--lora", "4", "--freeze-up-to", "all"], "--lora must be left out with freeze_up_to='all', got 4: "),
    ],
)
def test_a_choice_that_no_recipe_takes_is_wrong_usage(arguments, tmp_path, capsys, given, message):
    assert main.main(["finetune", *arguments, *given, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"keras-bit finetune: {message}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--keep-best", "val_acc"], "--keep-best must be one of 'val_loss', 'val_accuracy', got 'val_acc'."),
        (["--freeze-up-to", "stage9"], "--freeze-up-to must be one of 'stem', "),
        (["--exclude", "absent.csv"], "--exclude 'absent.csv' cannot be read: No such file or directory. Pass the "),
    ],
)
def test_an_error_has_the_names_of_the_options_and_comes_before_the_plan(arguments, tmp_path, capsys, given, message):
    assert main.main(["finetune", *arguments, *given, "--out", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert (out, f"keras-bit finetune: {message}" in err) == ("", True)


@pytest.mark.parametrize(
    ("choices", "option", "value"),
    [({}, "--base-learning-rate", 0.08), ({"optimizer": "adamw"}, "--learning-rate", 0.01)],
)
def test_the_range_test_says_which_option_to_give(arguments, tmp_path, capsys, choices, option, value):
    settings = planning.Options(arguments[0], arguments[2], batch_size=64, scaling="linear", choices=choices)
    found = FoundRate((0.01, 0.1, 1.0), (2.0, 1.0, 3.0), (2.0, 1.5, 2.5), 0.1, 0.01)
    found_rate.show(found, planning.plan(settings, Workers()), tmp_path)
    out = capsys.readouterr().out
    assert f"{option} {value:.2g}" in out
    written = json.loads((tmp_path / "find-lr.json").read_text())
    assert (written["suggested"], written["option"], written["value"]) == (0.01, option, pytest.approx(value))
    needs_matplotlib()
    with Image.open(tmp_path / "find-lr.png") as chart:
        assert min(chart.size) > 200


@pytest.mark.slow
def test_images_that_are_left_out_get_a_line_each_and_exit_code_1(arguments, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(arguments[0], data)
    broken = data / "bee" / "002.jpg"
    broken.write_bytes(b"no image")
    more = ["--on-error", "skip", "--steps", "1", "--out", str(tmp_path / "out")]
    assert main.main(["finetune", str(data), *arguments[1:], *more]) == 1
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if line.startswith(f"keras-bit finetune: {broken} ")]
    assert "images cannot be read and are left out" in out
    assert (tmp_path / "out" / "model.keras").is_file()


def write_teacher(folder):
    """Writes a teacher and images without classes, and returns them as arguments of the command."""
    names = ["ant", "bee", "cat"]
    model = BiT(
        BitConfig(embedding_size=16, hidden_sizes=(32,), depths=(1,), num_groups=4, id2label=dict(enumerate(names)))
    )
    save_pretrained(model, folder / "teacher", BitImageProcessor(size=(32, 32), image_mean=0.5, image_std=0.5))
    if not (folder / "others").exists():
        make_folders(folder / "others", {"2025": 4})
    return ["--teacher", str(folder / "teacher"), "--unlabeled", str(folder / "others"), "--temperature", "2"]


def test_the_plan_names_the_teacher_and_counts_the_unlabeled_images(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")  # the name of the teacher is a long path
    taught = write_teacher(Path(arguments[0]).parent)
    assert main.main(["finetune", *arguments, *taught, "--steps", "1", "--out", str(tmp_path / "out")]) == 0
    out, _ = capsys.readouterr()
    for line in (
        "training images │ 15, typically 33x50 px",
        "unlabeled images │ 4, trained on too",
        "labels of training images are not looked at",
        "temperature │ 2.0",
        "step 1/1 loss 0.",
    ):
        assert line in re.sub(" +", " ", out)
    assert "  accuracy" not in out


def labelled(arguments, kind):
    """Labels the same images by folders, by a teacher, or by a CSV file with a column of several names or numbers."""
    if kind == "classes":
        return arguments
    folder = Path(arguments[0])
    if kind == "a teacher":
        return [*arguments, *write_teacher(folder.parent)]
    rows = [
        f"{path.relative_to(folder)},{'odd;' * (number % 2)}{path.parent.name},{10.5 * number}"
        for number, path in enumerate(sorted(folder.glob("*/*.jpg")))
    ]
    table = folder.parent / "labels.csv"
    table.write_text("\n".join(["path,tags,price", *rows]))
    column = "tags" if kind == "several labels" else "price"
    more = ["--image-folder", str(folder), "--label-columns", column]
    return [str(table), *arguments[1:], *more, *(["--calibrate"] if kind == "several labels" else [])]


@pytest.mark.release  # tests/test_kills.py kills a run with classes at more moments
@pytest.mark.parametrize("kind", ["classes", "a teacher", "several labels", "numbers"])
def test_killed_it_goes_on_and_ends_with_the_losses_of_the_whole_run(arguments, tmp_path, kind):
    """Sends the signal that no process can catch, in the middle of a step after the first state was written."""
    out = tmp_path / "killed"
    recipe = ["--steps", "6", "--evaluate-every", "2", "--out", str(out)]
    command = [sys.executable, "-m", "keras_bit.cli.main", "finetune", *labelled(arguments, kind), *recipe]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if line.startswith("step 2/6"):
            break
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert not (out / "model.safetensors").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert any(f"Continuing after step {step} of 6." in again.stdout for step in (2, 4))
    subprocess.run([*command[:-1], str(tmp_path / "whole")], capture_output=True, check=True)
    found, whole = (
        [*csv.DictReader((folder / "log.csv").read_text().splitlines())] for folder in (out, tmp_path / "whole")
    )
    assert len(found) == 3
    for row, expected in zip(found, whole, strict=True):
        # Float32 sums of several threads, whose order varies.
        assert {name: float(value) for name, value in row.items()} == pytest.approx(
            {name: float(value) for name, value in expected.items()}, rel=1e-5
        )
    weights = [from_pretrained(folder).get_weights() for folder in (out, tmp_path / "whole")]
    for value, expected in zip(*weights, strict=True):
        # The temperature divides the head of trained weights once, however often the command was started. It moves
        # with the loss's last digits.
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-5)
