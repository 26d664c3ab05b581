"""`keras-bit finetune` as a person runs it: what is shown, and how it goes on after a kill."""

import csv
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import absent
from image_files import make_folders
from keras_bit import BitImageProcessor
from keras_bit.cli import main
from tiny_bit import random_tensors, write_checkpoint

OLD_RUN = Path(__file__).with_name("checkpoints") / "commit-88449c7"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Data and checkpoint: those of the run in `OLD_RUN`."""
    folder = tmp_path_factory.mktemp("finetune")
    make_folders(folder / "data", dict.fromkeys(["ant", "bee", "cat"], 6))
    tensors = {name: values * (0.1 if values.ndim > 1 else 1) for name, values in random_tensors().items()}
    checkpoint = write_checkpoint(folder / "checkpoint", tensors)
    BitImageProcessor(size=(32, 32), resample=2, image_mean=0.5, image_std=0.5).save_pretrained(checkpoint)
    return [str(folder / "data"), "--weights", str(checkpoint), "--batch-size", "8", "--seed", "1"]


def test_a_person_is_told_what_will_happen_and_what_happens(arguments, tmp_path, capsys):
    """With TensorBoard where it is installed."""
    more = ["--steps", "1", "--tensorboard"] if importlib.util.find_spec("tensorboard") else ["--steps", "1"]
    assert main.main(["finetune", *arguments, *more, "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    for line in (
        "classes             │ 3 (ant, bee, cat)",
        "training images     │ 15, typically 33x50 px",
        "of each class       │ 5",
        "validation images   │ 3",
        "resize, random crop │ 160 px, 128 px",
        "batch               │ 8",
        "A new head of zeros for 3 classes.",
        "step 1/1  loss 1.0986  accuracy",
        "accuracy 33.33% on 3 validation images",
        "keras-bit classify IMAGE --weights",
    ):
        assert line in out
    assert "fine-tune: 100%" in err
    assert "images/s=" in err
    if "--tensorboard" not in more:
        absent("tensorboard not installed: pip install -e '.[tensorboard]'")
    assert list((tmp_path / "out" / "tensorboard" / "train").glob("events.*"))


def test_tensorboard_is_asked_for_before_training(arguments, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main.main(["finetune", *arguments, "--tensorboard", "--out", str(tmp_path / "out")]) == 1
    assert "keras_bit[tensorboard]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_with_the_losses_of_the_whole_run(arguments, tmp_path):
    """By the signal that no process can catch, in the middle of a step after the first state was written."""
    out = tmp_path / "killed"
    recipe = ["--steps", "6", "--evaluate-every", "2", "--out", str(out)]
    command = [sys.executable, "-m", "keras_bit.cli.main", "finetune", *arguments, *recipe]
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
    assert any(f"Going on after step {step} of 6." in again.stdout for step in (2, 4))
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
