"""`keras-bit finetune` as a person runs it: what it writes, how it goes on after a kill, what it refuses."""

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import keras
import numpy as np
import pytest
from PIL import Image

from conftest import absent, needs_matplotlib
from keras_bit import BitImageProcessor, files, from_pretrained
from keras_bit.cli import main
from keras_bit.training import run_directory
from picture_files import encoded, make_folders, pixels, write_records
from tiny_bit import CONFIG, random_tensors, write_checkpoint

NAMES = ["ant", "bee", "cat"]
RECIPE = ("--batch-size", "8", "--steps", "6", "--evaluate-every", "2", "--seed", "1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Small random kernels, so that training is calm."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tensors = {name: values * (0.1 if values.ndim > 1 else 1) for name, values in random_tensors().items()}
    write_checkpoint(folder, tensors)
    BitImageProcessor(size=(32, 32), resample=2, image_mean=0.5, image_std=0.5).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_folders(folder, dict.fromkeys(NAMES, 6))
    return str(folder)


@pytest.fixture(scope="module")
def whole(data, checkpoint, tmp_path_factory):
    """A run from beginning to end."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main.main(["finetune", data, "--weights", checkpoint, "--out", str(out), *RECIPE]) == 0
    return out


def run(capsys, *arguments):
    code = main.main(["finetune", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def log_of(out):
    with open(out / "log.csv", newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


def test_the_result_is_a_model_that_classifies_at_once(whole, data, capsys):
    model = from_pretrained(whole)
    assert list(model.config.id2label.values()) == NAMES
    assert model.config.problem_type == "single_label_classification"
    processor = BitImageProcessor.from_pretrained(whole)
    assert (processor.size, processor.do_center_crop) == ({"height": 128, "width": 128}, False)
    picture = f"{data}/bee/000.jpg"
    assert main.main(["classify", picture, "--weights", str(whole), "--json"]) == 0
    predictions = json.loads(capsys.readouterr().out)[0]["predictions"]
    assert sorted(one["label"] for one in predictions) == NAMES
    scores = np.asarray(keras.saving.load_model(whole / "model.keras")(processor(picture)))[0]
    assert scores.max() == pytest.approx(predictions[0]["score"], abs=1e-6)


def test_the_log_has_a_row_per_evaluation(whole):
    rows = log_of(whole)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert list(rows[0]) == ["step", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy"]
    # A head of zeros knows nothing: the loss before anything was learnt is that of three equal classes.
    assert rows[0]["loss"] == pytest.approx(np.log(3), rel=0.1)


def test_the_model_is_evaluated_and_drawn(whole):
    report = json.loads((whole / "report.json").read_text())
    assert report["pictures"] == 3
    assert report["top_1_accuracy"] == pytest.approx(log_of(whole)[-1]["val_accuracy"])
    needs_matplotlib()
    for name in ("curves.png", "confusion.png", "calibration.png", "worst.png"):
        with Image.open(whole / name) as picture:
            assert min(picture.size) > 200, name


def test_a_person_is_told_what_will_happen_and_what_happens(data, checkpoint, tmp_path, capsys):
    code, out, err = run(capsys, data, "--weights", checkpoint, "--out", tmp_path / "o", *RECIPE, "--steps", "1")
    assert code == 0
    for line in (
        "classes             │ 3 (ant, bee, cat)",
        "training images   │ 15, typically 33x50 px",
        "validation images │ 3",
        "resize, random crop │ 160 px, 128 px",
        "batch               │ 8",
        "A new head of zeros for 3 classes.",
        "step 1/1  loss 1.0986  accuracy",
    ):
        assert line in out
    assert "keras-bit classify IMAGE --weights" in out
    assert "accuracy 33.33% on 3 validation images" in out
    assert "fine-tune: 100%" in err
    assert "images/s=" in err


def test_the_same_command_again_trains_no_more(whole, data, checkpoint, capsys):
    before = log_of(whole)
    code, out, _ = run(capsys, data, "--weights", checkpoint, "--out", whole, *RECIPE)
    assert code == 0
    assert "Going on after step 6 of 6." in out
    assert log_of(whole) == before


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_with_the_losses_of_the_whole_run(whole, data, checkpoint, tmp_path):
    """By the signal that no process can catch, in the middle of a step after the first state was written."""
    out = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "keras_bit.cli.main",
        "finetune",
        data,
        "--weights",
        checkpoint,
        "--out",
        out,
        *RECIPE,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if line.startswith("step 2/6"):
            break
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert not (out / "model.safetensors").exists()
    (out / "training" / ".01234567.state.safetensors").write_bytes(b"half")  # what a kill within a write leaves
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert any(f"Going on after step {step} of 6." in again.stdout for step in (2, 4))
    assert [entry.name for entry in (out / "training").iterdir()].sort() == ["run.json", "state.safetensors"].sort()
    for row, expected in zip(log_of(out), log_of(whole), strict=True):
        # Another process sums in another order.
        assert row == pytest.approx(expected, rel=1e-5)


def test_another_run_in_the_same_directory_is_refused(whole, data, checkpoint, capsys):
    arguments = (data, "--weights", checkpoint, "--out", whole, *RECIPE)
    for changed, message in (
        (("--seed", "2"), "which differs in seed: 1 there, 2 now"),
        (("--examples-per-class", "2"), "examples_per_class: null there, 2 now"),
    ):
        code, _, err = run(capsys, *arguments, *changed)
        assert code == 1
        assert message in err
        assert "holds another run" in err


def test_a_picture_more_is_another_data_set(data, checkpoint, tmp_path, capsys):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    arguments = (copy, "--weights", checkpoint, "--out", tmp_path / "out", *RECIPE, "--steps", "1")
    assert run(capsys, *arguments)[0] == 0
    (copy / "ant" / "more.jpg").write_bytes(encoded(pixels(9)))
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert "train_pictures: 15 there, 16 now" in err


def test_records_few_examples_accumulation_and_half_precision(checkpoint, tmp_path, capsys):
    labels = [0, 1, 2] * 6
    write_records(tmp_path / "a.tfrecord", [encoded(pixels(number)) for number in range(18)], labels)
    code, out, _ = run(
        capsys,
        tmp_path / "a.tfrecord",
        *("--weights", checkpoint, "--out", tmp_path / "out", "--batch-size", "8", "--steps", "4"),
        *("--examples-per-class", "2", "--gradient-accumulation-steps", "2", "--freeze-up-to", "stage1"),
        *("--mixed-precision", "bfloat16", "--rematerialize", "--class-names", "x,y,z"),
    )
    assert code == 0
    assert "training images   │ 6," in out
    assert "8 in 2 parts, gradients accumulated" in out
    assert "A step takes 8 images, more than there are: each comes several times" in out
    assert "layers, up to stage1, stay as they are." in out
    model = from_pretrained(tmp_path / "out")
    assert list(model.config.id2label.values()) == ["x", "y", "z"]
    assert {layer.compute_dtype for layer in keras.saving.load_model(tmp_path / "out" / "model.keras").layers} == {
        "float32"
    }
    before = from_pretrained(checkpoint)
    for name, stays in (("stem_conv", True), ("stage1_block1_conv3", True), ("stage2_block0_conv1", False)):
        kernels = [one.get_layer(name).kernel.numpy() for one in (before, model)]
        assert np.array_equal(*kernels) == stays
    assert keras.config.dtype_policy().name == "float32"


def test_a_head_with_the_same_classes_is_kept(data, tmp_path, capsys):
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: n for n, name in enumerate(NAMES)}}
    tensors = random_tensors()
    tensors["classifier.1.weight"], tensors["classifier.1.bias"] = np.ones((3, 64), "f4"), np.ones(3, "f4")
    write_checkpoint(tmp_path / "c", tensors, CONFIG | names)
    BitImageProcessor(size=(32, 32)).save_pretrained(tmp_path / "c")
    code, out, _ = run(capsys, data, "--weights", tmp_path / "c", "--out", tmp_path / "o", *RECIPE, "--steps", "1")
    assert code == 0
    assert "The checkpoint's head has these classes, and is trained on." in out
    # One step at a rate of 0.003 moves them; a new head would be near 0.
    np.testing.assert_allclose(from_pretrained(tmp_path / "o").get_layer("predictions").kernel, 1, atol=0.01)


def test_unreadable_pictures_end_it_or_are_left_out(checkpoint, tmp_path, capsys):
    make_folders(tmp_path / "data", dict.fromkeys(NAMES, 4))
    broken = tmp_path / "data" / "bee" / "002.jpg"
    broken.write_bytes(b"no picture")
    arguments = (tmp_path / "data", "--weights", checkpoint, *RECIPE, "--steps", "1", "--validation-share", "0")
    code, _, err = run(capsys, *arguments, "--out", tmp_path / "a")
    assert code == 1
    assert str(broken) in err
    assert "Traceback" not in err
    assert "on_error" in err
    code, out, _ = run(capsys, *arguments, "--out", tmp_path / "b", "--on-error", "skip")
    assert code == 0
    assert "1 images cannot be read and are left out (train):" in out
    assert f"  {broken}" in out
    assert "training images   │ 11," in out


def test_a_loss_that_is_no_number_leaves_the_last_good_model(data, checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    steep = ("--base-learning-rate", "1e30", "--steps", "20", "--evaluate-every", "1", "--batch-size", "8")
    code, _, err = run(capsys, data, "--weights", checkpoint, "--out", out, *steep)
    assert code == 1
    # Whichever is seen first: it depends on how fast the weights grow.
    seen = ("The loss became nan at step", "The loss of the validation is nan after step", "variables hold NaN or inf")
    assert any(words in err for words in seen)
    assert "has the model of the last good state, after step" in err
    assert all(np.isfinite(variable.numpy()).all() for variable in from_pretrained(out).weights)


def test_a_wrong_option_or_a_foreign_checkpoint_is_told_before_training_and_spoils_nothing(
    data, checkpoint, tmp_path, capsys
):
    arguments = (data, "--weights", checkpoint, *RECIPE, "--steps", "1", "--out")
    code, _, err = run(capsys, *arguments, tmp_path / "out", "--gradient-accumulation-steps", "3")
    assert code == 1
    assert "`--gradient-accumulation-steps` must divide the batch size 8, got 3." in err
    code, _, err = run(capsys, *arguments, tmp_path / "out", "--freeze-up-to", "stage9")
    assert code == 1
    assert "`up_to` must be None or one of" in err
    assert run(capsys, f"{data}/", *arguments[1:], tmp_path / "out")[0] == 0  # the same directory, the right options
    assert run(capsys, *arguments, tmp_path / "out")[0] == 0

    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "pytorch_model.bin").write_bytes(b"of somebody")
    code, _, err = run(capsys, *arguments, tmp_path / "foreign")
    assert code == 1
    assert "holds files of another checkpoint" in err
    assert not (tmp_path / "foreign" / "log.csv").exists()


def test_the_result_is_not_put_into_the_data(data, checkpoint, capsys):
    code, _, err = run(capsys, data, "--weights", checkpoint, "--out", f"{data}/out", *RECIPE)
    assert code == 1
    assert "`--out` must not be in the data, where it would be a class" in err


def test_a_checkpoint_without_processor_gets_bits_own_and_leftovers_go(data, checkpoint, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    (copy / "preprocessor_config.json").unlink()
    out = tmp_path / "out"
    (out / ".save_pretrained-killed").mkdir(parents=True)
    (out / ".01234567.model.keras").write_bytes(b"half")
    code, printed, _ = run(capsys, data, "--weights", copy, "--out", out, *RECIPE, "--steps", "1")
    assert code == 0
    assert "The checkpoint has no processor: pixels are scaled to [-1, 1], as for BiT's own." in printed
    assert BitImageProcessor.from_pretrained(out).image_mean == (0.5, 0.5, 0.5)
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_a_damaged_note_of_the_run_is_named(data, checkpoint, tmp_path, capsys):
    arguments = (data, "--weights", checkpoint, *RECIPE, "--steps", "1", "--out", tmp_path / "out")
    assert run(capsys, *arguments)[0] == 0
    (tmp_path / "out" / "training" / "run.json").write_text('{"options": "')
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert "has a training state whose run.json cannot be read" in err


Usage = namedtuple("Usage", "total used free")


def test_tensorboard_gets_its_files_where_it_is_installed(data, checkpoint, tmp_path, capsys, monkeypatch):
    arguments = (data, "--weights", checkpoint, *RECIPE, "--steps", "1", "--tensorboard", "--out")
    with monkeypatch.context() as without:
        without.setattr(importlib.util, "find_spec", lambda name: None)
        code, _, err = run(capsys, *arguments, tmp_path / "without")
    assert code == 1
    assert "--tensorboard needs TensorBoard: pip install 'keras_bit[tensorboard]'." in err
    if importlib.util.find_spec("tensorboard") is None:
        absent("tensorboard not installed: pip install -e '.[tensorboard]'")
    assert run(capsys, *arguments, tmp_path / "with")[0] == 0
    assert list((tmp_path / "with" / "tensorboard" / "train").glob("events.*"))


def test_what_cannot_be_written_is_told_at_the_start(data, checkpoint, tmp_path, capsys, monkeypatch):
    file = tmp_path / "file"
    file.write_text("in the way")
    for out, message in (
        (file, "must be a directory, or a new name for one."),
        (file / "in", "nothing can be written"),
    ):
        code, _, err = run(capsys, data, "--weights", checkpoint, "--out", out)
        assert code == 1
        assert message in err
    monkeypatch.setattr(run_directory.shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    code, _, err = run(capsys, data, "--weights", checkpoint, "--out", tmp_path / "full")
    assert code == 1
    assert "0.00 GB of free space, and this model needs" in err
    assert not (tmp_path / "full").exists()


def test_a_second_process_is_refused_while_one_is_training(data, checkpoint, tmp_path, capsys):
    folder = tmp_path / "out" / run_directory.STATE_FOLDER
    folder.mkdir(parents=True)
    with files.claimed(folder, argument="out"):
        code, _, err = run(capsys, data, "--weights", checkpoint, "--out", tmp_path / "out")
        assert code == 1
        assert f"`--out`: another process ({os.getpid()} on " in err
        assert f") is training in {tmp_path / 'out'}. Wait until it has ended, or choose another directory." in err
        assert {path.name for path in folder.iterdir()} == {files.LOCK_NAME, files.OWNER_NAME}


def test_wrong_data_leaves_no_directory_behind_and_takes_none_away(data, checkpoint, tmp_path, capsys):
    arguments = (tmp_path / "no data", "--weights", checkpoint, "--out")
    code, _, err = run(capsys, *arguments, tmp_path / "new" / "out")
    assert code == 1
    assert "`data` must be an existing directory or TFRecord files" in err
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    assert run(capsys, *arguments, tmp_path / "old" / "out")[0] == 1
    assert list(tmp_path.glob("old/*")) == []
    assert (tmp_path / "old").is_dir()
    (tmp_path / "old" / "note.txt").write_text("of a person")
    assert run(capsys, *arguments, tmp_path / "old")[0] == 1
    assert [path.name for path in tmp_path.glob("old/*")] == ["note.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base-learning-rate", "0"], "--base-learning-rate"),
        (["--validation-share", "1"], "--validation-share"),
        (["--image-size", "64x"], "expected 224 or 224x256"),
    ],
)
def test_wrong_usage_is_explained(arguments, message, capsys):
    assert main.main(["finetune", "data", "--out", "o", *arguments]) == 2
    assert message in capsys.readouterr().err
