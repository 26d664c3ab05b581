"""Tests a fine-tuning run: what it writes, how it resumes, what it refuses."""

import csv
import gzip
import hashlib
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from conftest import needs_matplotlib
from image_files import encoded, make_folders, pixels, write_records
from keras_bit import BitConfig, BitImageProcessor, Recipe, from_pretrained, versions
from keras_bit.data.named_batches import NoImageError, UnreadableImageError
from keras_bit.files import claims, old_names
from keras_bit.hub.finding import HubOptions
from keras_bit.training import planning, run, run_directory
from keras_bit.training.distribution import Workers
from tiny_bit import CONFIG, random_tensors, write_checkpoint

NAMES = ["ant", "bee", "cat"]
RECIPE = {"batch_size": 8, "steps": 2, "evaluate_every": 1, "seed": 1}
OLD_RUN = Path(__file__).with_name("checkpoints") / "commit-88449c7"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Writes small random kernels, so that training is calm."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(
        folder, {name: values * (0.1 if values.ndim > 1 else 1) for name, values in random_tensors().items()}
    )
    BitImageProcessor(size=(32, 32), resample=2, image_mean=0.5, image_std=0.5).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_folders(folder, dict.fromkeys(NAMES, 6))
    return folder


@pytest.fixture(scope="module")
def told():
    """Collects the lines that the run of `trained` prints."""
    return []


@pytest.fixture(scope="module")
def trained(data, checkpoint, told, tmp_path_factory):
    """Returns the directory of a finished run. A test that changes it copies it first."""
    out = tmp_path_factory.mktemp("runs") / "trained"
    told += train(data, checkpoint, out)
    return out


def options_of(data, weights, **changed):
    return planning.Options(data=str(data), weights=str(weights), **{**RECIPE, **changed})


def train(data, weights, out, **changed):
    """Plans a run and runs it; returns the messages to the user."""
    options = options_of(data, weights, **changed)
    with run_directory.writable(out, options.data):
        plan = planning.plan(options, Workers())
        said = list(plan.notes)
        run.run(plan, out, workers=Workers(), say=said.append)
    return said


def log_of(file):
    with open(file, newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


# What a run writes


def test_the_result_is_a_model_that_classifies_at_once(trained, data):
    model = from_pretrained(trained)
    assert list(model.config.id2label.values()) == NAMES
    assert model.config.problem_type == "single_label_classification"
    processor = BitImageProcessor.from_pretrained(trained)
    assert (processor.size, processor.do_center_crop) == ({"height": 128, "width": 128}, False)
    batch = processor(data / "bee" / "000.jpg")
    scores = np.asarray(model(batch))[0]
    assert scores.sum() == pytest.approx(1)
    # The same weights in the same layers, twice.
    np.testing.assert_allclose(keras.saving.load_model(trained / "model.keras")(batch)[0], scores, atol=1e-6)


def test_the_directory_of_a_run_without_a_result_is_reported(trained, tmp_path):
    """Copies only the training state, which an interrupted run leaves."""
    begun = tmp_path / "begun"
    shutil.copytree(trained / run_directory.STATE_FOLDER, begun / run_directory.STATE_FOLDER)
    not_yet = rf" {begun} is the directory of a `keras-bit finetune` run that has not written its result yet. Start"
    for read, lacks in (
        (from_pretrained, "holds no weights. These names were tried:"),
        (BitConfig.from_pretrained, "has no config"),
        (BitImageProcessor.from_pretrained, "has no preprocessor_config"),
    ):
        with pytest.raises(FileNotFoundError, match=f"{lacks}.*{not_yet}"):
            read(begun)
    state = begun / run_directory.STATE_FOLDER
    is_state = f"{state} is the training state of a `keras-bit finetune` run, whose result is {begun}."
    with pytest.raises(FileNotFoundError, match=f"holds no weights. These names were tried:.*{is_state}"):
        from_pretrained(state)
    with pytest.raises(ValueError, match=f"holds no BiT. Expected tensors.*{is_state}"):
        from_pretrained(state / run_directory.STATE_NAME)
    # Each of its two kinds of file is enough.
    shutil.copy(trained / run_directory.MODEL_NAME, begun)
    assert list(from_pretrained(begun).config.id2label.values()) == NAMES


def test_the_log_has_a_row_per_evaluation(trained):
    rows = log_of(trained / "log.csv")
    assert [row["step"] for row in rows] == [1, 2]
    assert list(rows[0]) == ["step", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy"]
    # A head of zeros knows nothing: the loss before anything was learnt is that of three equal classes.
    assert rows[0]["loss"] == pytest.approx(np.log(3), rel=1e-5)


def test_the_model_is_evaluated_and_drawn(trained):
    report = json.loads((trained / "report.json").read_text())
    assert report["images"] == 3
    assert report["top_1_accuracy"] == pytest.approx(log_of(trained / "log.csv")[-1]["val_accuracy"])
    needs_matplotlib()
    for name in ("curves.png", "confusion.png", "calibration.png", "worst.png"):
        with Image.open(trained / name) as image:
            assert min(image.size) > 200, name


def test_the_run_prints_its_plan_and_progress(trained, told):
    assert told[0] == "The model gets a new head of zeros for 3 classes."
    assert told[1].startswith("step 1/2  loss 1.0986  accuracy ")
    assert told[2].startswith("step 2/2  loss ")
    assert told[3:] == [
        f"accuracy {json.loads((trained / 'report.json').read_text())['top_1_accuracy']:.2%} on 3 validation images"
    ]


def test_the_note_of_a_run_has_the_keys_that_it_always_had_and_no_token(trained):
    """A run that was begun by another version of this package goes on if they are the same."""
    held, old = (json.loads((out / "training" / "run.json").read_text()) for out in (trained, OLD_RUN / "run"))
    assert Recipe.from_dict(held.pop("recipe")).rule.total_steps == held["plan"]["rule"]["steps"]  # is not compared
    assert held["plan"].pop("recipe") is None  # which earlier versions do not have: to a comparison it is the same
    old["plan"] = old_names.renamed(old["plan"])
    assert {group: list(values) for group, values in held.items()} == {
        group: list(values) for group, values in old.items()
    }
    options = planning.Options("data", "google/bit-50", hub=HubOptions("main", Path("cache"), "hf_secret"))
    assert options.described["hub"] == {"revision": "main", "cache_dir": "cache", "local_files_only": False}
    assert "hf_secret" not in json.dumps(options.described)


@pytest.mark.slow
def test_records_few_examples_accumulation_and_half_precision(checkpoint, tmp_path):
    records, out = tmp_path / "a.tfrecord", tmp_path / "out"
    write_records(records, [encoded(pixels(number)) for number in range(18)], [0, 1, 2] * 6)
    said = train(
        records,
        checkpoint,
        out,
        examples_per_class=2,
        gradient_accumulation_steps=2,
        freeze_up_to="stage1",
        mixed_precision="bfloat16",
        rematerialize=not versions.is_older(keras.__version__, versions.CUTS_GRAPHS),
        class_names=["x", "y", "z"],
    )
    assert any("The batch size (8) exceeds the number of training images, so images repeat" in line for line in said)
    assert any("layers, up to stage1, are frozen." in line for line in said)
    described = json.loads((out / "training" / "run.json").read_text())["plan"]
    assert (described["train_images"], described["gradient_accumulation_steps"]) == (6, 2)
    model, before = from_pretrained(out), from_pretrained(checkpoint)
    assert list(model.config.id2label.values()) == ["x", "y", "z"]
    assert {layer.compute_dtype for layer in keras.saving.load_model(out / "model.keras").layers} == {"float32"}
    for name, stays in (("stem_conv", True), ("stage1_block1_conv3", True), ("stage2_block0_conv1", False)):
        kernels = [one.get_layer(name).kernel.numpy() for one in (before, model)]
        assert np.array_equal(*kernels) == stays
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.slow
def test_a_head_with_the_same_classes_is_kept(data, tmp_path):
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: n for n, name in enumerate(NAMES)}}
    tensors = random_tensors()
    tensors["classifier.1.weight"], tensors["classifier.1.bias"] = np.ones((3, 64), "f4"), np.ones(3, "f4")
    write_checkpoint(tmp_path / "c", tensors, CONFIG | names)
    BitImageProcessor(size=(32, 32)).save_pretrained(tmp_path / "c")
    assert "The checkpoint's head has these classes, and training continues with it." in train(
        data, tmp_path / "c", tmp_path / "o", steps=1
    )
    # One step at a rate of 0.003 moves them; a new head would be near 0.
    np.testing.assert_allclose(from_pretrained(tmp_path / "o").get_layer("predictions").kernel, 1, atol=0.01)


@pytest.mark.slow
def test_a_loss_of_nan_leaves_the_last_good_model(data, checkpoint, tmp_path):
    # Whichever is seen first: it depends on how fast the weights grow.
    seen = "loss became nan at step|loss of the validation is nan after step|variables hold NaN or inf"
    with pytest.raises(FloatingPointError, match=seen) as error:
        train(data, checkpoint, tmp_path / "out", base_learning_rate=1e30, steps=20)
    assert f"{str(tmp_path / 'out')!r} has the model of the last good state, after step" in str(error.value)
    weights = from_pretrained(tmp_path / "out").get_weights()
    assert len(weights) == 34
    assert all(np.isfinite(values).all() for values in weights)


# Where a run goes on


@pytest.mark.slow
def test_a_finished_run_trains_no_more_and_what_a_kill_left_is_removed(trained, data, checkpoint, tmp_path):
    out = shutil.copytree(trained, tmp_path / "out")
    for left in (".save_pretrained-killed", ".keras-bit-0123abcd", "training/.keras-bit-0123abcd"):
        (out / left).mkdir()
        (out / left / "model.keras").write_bytes(b"half")
    (out / "training" / ".tmp0123ab").write_bytes(b"half")  # safetensors', of an earlier version
    said = train(data, checkpoint, out)
    assert "Continuing after step 2 of 2." in said
    assert not any(line.startswith("step ") for line in said)
    assert log_of(out / "log.csv") == log_of(trained / "log.csv")
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in trained.iterdir())
    assert sorted(path.name for path in (out / "training").iterdir()) == [
        "images.json.gz",
        "run.json",
        "state.safetensors",
    ]


def digest_of(part):
    """Returns the digest that a run has noted since the first version, of the labels and file names of its images."""
    digest = hashlib.sha256(np.asarray(part.labels, np.int32).tobytes())
    for name in part.names:
        digest.update(os.fsencode(name) + b"\0")
    return digest.hexdigest()[:16]


@pytest.mark.slow
def test_a_run_of_an_older_version_goes_on_and_ends_as_it_would_have(data, checkpoint, tmp_path):
    """It was interrupted after step 4 of 6, and had its data and its checkpoint elsewhere."""
    out = shutil.copytree(OLD_RUN / "run", tmp_path / "out")
    note = out / "training" / "run.json"
    described = json.loads(note.read_text())
    assert (described["options"]["data"], described["options"]["weights"]) == ("DATA", "WEIGHTS")
    described["options"] |= {"data": str(data), "weights": str(checkpoint)}
    found = planning.plan(options_of(data, checkpoint), Workers()).splits
    described["plan"] |= {"train_digest": digest_of(found.train), "validation_digest": digest_of(found.validation)}
    note.write_text(json.dumps(described))
    said = train(data, checkpoint, out, steps=6, evaluate_every=2)
    assert "Continuing after step 4 of 6." in said
    found, expected = log_of(out / "log.csv"), log_of(OLD_RUN / "log_when_finished.csv")
    assert [row["step"] for row in found] == [2, 4, 6]
    assert found[:2] == expected[:2]  # as they were stored
    # Two steps in float32, here and on the machine that wrote the file: each sums in another order.
    assert found[2] == pytest.approx(expected[2], rel=1e-5)


# What is refused


def test_another_run_in_the_same_directory_is_refused(trained, data, checkpoint):
    for changed, difference in (
        ({"seed": 2}, "seed: 1 there, 2 now"),
        ({"examples_per_class": 2}, "examples_per_class: null there, 2 now"),
    ):
        with pytest.raises(ValueError, match=r"`out` .* holds another run") as error:
            train(data, checkpoint, trained, **changed)
        assert difference in str(error.value)


def test_an_image_more_is_another_data_set(data, checkpoint, tmp_path):
    copy, out = shutil.copytree(data, tmp_path / "data"), tmp_path / "out"
    (out / "training").mkdir(parents=True)
    run_directory.check_same_run(planning.plan(options_of(copy, checkpoint), Workers()).described, out)
    (out / "training" / "state.safetensors").touch()  # something has been trained
    (copy / "ant" / "more.jpg").write_bytes(encoded(pixels(9)))
    plan = planning.plan(options_of(copy, checkpoint), Workers())
    with pytest.raises(ValueError, match="train_images: 15 there, 16 now"):
        run_directory.check_same_run(plan.described, out)


def test_a_damaged_note_of_the_run_is_named(trained, data, checkpoint, tmp_path):
    out = shutil.copytree(trained, tmp_path / "out")
    (out / "training" / "run.json").write_text('{"options": "')
    with pytest.raises(ValueError, match=r"`out` .* has a training state whose run\.json cannot be read"):
        train(data, checkpoint, out)


DEEP = "[" * 5000 + "]" * 5000


def begun(folder, name, content):
    """Makes a directory with a file of a run that has trained already."""
    (folder / "training").mkdir()
    (folder / "training" / "state.safetensors").touch()
    (folder / "training" / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("note", ["5", "[]", "null", '{"options": null}', '{"plan": [1]}', '{"plan": ' + DEEP + "}"])
def test_a_note_of_the_run_that_holds_other_values_is_named(tmp_path, note):
    out = begun(tmp_path, "run.json", note.encode())
    with pytest.raises(ValueError, match=r"`out` .* has a training state whose run\.json cannot be read") as error:
        run_directory.check_same_run({"options": {"data": "pets"}, "plan": {"steps": 1}}, out)
    assert str(out) in str(error.value)


LISTED = gzip.compress(b'{"names": ["a.jpg"], "left_out": []}', mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        LISTED[:-20] + b"\xff" * 20,
        LISTED[:10] + b"\xff" * 20,
        *(
            gzip.compress(text.encode(), mtime=0)  # or the tests' names would have the time in them
            for text in (
                '{"names": null, "left_out": []}',
                '{"names": [], "left_out": 5}',
                '{"names": [["a"]], "left_out": []}',
                '{"names": "a", "left_out": []}',
                DEEP,
            )
        ),
    ],
)
def test_a_damaged_list_of_the_runs_images_is_ignored(tmp_path, content):
    assert run_directory.remembered_images(begun(tmp_path, "images.json.gz", content)) is None


def test_unreadable_images_are_found_at_once_or_left_out(checkpoint, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    make_folders(data, dict.fromkeys(NAMES, 4))
    broken = data / "bee" / "002.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match="1 of 12 images cannot be read: ") as error:
        train(data, checkpoint, out, validation_share=0.0)
    assert str(broken) in str(error.value)
    assert "on_error='skip'" in str(error.value)
    assert not out.exists()
    plan = planning.plan(options_of(data, checkpoint, validation_share=0.0, on_error="skip"), Workers())
    assert len(plan.splits.train) == 11
    assert "1 of 12 images cannot be read and are left out (train)." in plan.notes
    assert [line.startswith(f"{broken} ") for line in plan.skipped] == [True]
    for name in NAMES:
        for file in (data / name).iterdir():
            file.write_bytes(b"")
    with pytest.raises(NoImageError, match=r"None of the images for train can be read. The first: .* is empty\."):
        planning.plan(options_of(data, checkpoint, image_size=(32, 32), on_error="skip"), Workers())


@pytest.fixture
def go_on(checkpoint, tmp_path):
    """Makes a run after one step of two. Gives its data and directory, and a function that only looks at it."""
    data, out = tmp_path / "data", tmp_path / "out"
    make_folders(data, dict.fromkeys(NAMES, 6))
    (out / "training").mkdir(parents=True)

    def start(**changed):
        """Starts a run up to its first step, and returns what it prints."""
        said = []
        plan = planning.plan(options_of(data, checkpoint, **changed), Workers(), out)
        run_directory.check_same_run(plan.described, out)
        run.remember_images(plan, out, said.append)
        return plan, said

    start()
    (out / "training" / "state.safetensors").touch()  # something has been trained
    return start


def test_a_run_continues_without_broken_or_missing_images_and_reports_them(go_on):
    whole, said = go_on()
    assert (len(whole.splits.train), said) == (15, [])
    train = whole.splits.train.names
    cut, gone = (Path(train[place]) for place in (1, 8))
    cut.write_bytes(cut.read_bytes()[:-300])
    assert go_on()[1] == []  # its header exists
    gone.unlink()
    with pytest.raises(
        UnreadableImageError, match=rf"1 of 18 images .*{gone} cannot be read: there is no such file\."
    ) as error:
        go_on()
    assert "on_error='skip'" in str(error.value)
    plan, said = go_on(on_error="skip")
    assert plan.splits.train.names == [name for name in train if name not in (str(cut), str(gone))]
    assert plan.splits.validation.names == whole.splits.validation.names
    assert plan.rule == whole.rule
    assert len(said) == 1
    assert said[0].startswith("Continuing without ")
    assert str(cut) in said[0]
    assert str(gone) in said[0]
    assert go_on(on_error="skip")[1] == []  # it has been said
    gone.write_bytes(encoded(pixels(8)))
    (line,) = go_on(on_error="skip")[1]
    assert line.startswith(f"Continuing again with {gone}")
    gone.with_name("more.jpg").write_bytes(gone.read_bytes())
    with pytest.raises(ValueError, match="train_images: 15 there, 16 now"):
        go_on(on_error="skip")


@pytest.mark.slow
def test_an_image_that_is_damaged_further_on_ends_a_run_that_can_go_on(checkpoint, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    make_folders(data, dict.fromkeys(NAMES, 6))
    recipe = {"steps": 4, "validation_share": 0.0}
    cut = data / "bee" / "002.jpg"
    cut.write_bytes(cut.read_bytes()[:-300])
    with pytest.raises(UnreadableImageError) as error:
        train(data, checkpoint, out, **recipe)
    assert str(error.value).startswith(f"{cut} ")
    assert "on_error='skip'" in str(error.value)
    said = train(data, checkpoint, out, on_error="skip", **recipe)
    assert any(line.startswith("step 4/4") for line in said)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"gradient_accumulation_steps": 3},
            r"`gradient_accumulation_steps` must divide the batch size 8, got 3\.",
        ),
        ({"freeze_up_to": "stage9"}, "`freeze_up_to` must be None or one of .* got 'stage9'"),
    ],
)
def test_a_wrong_option_is_an_error_before_training_and_leaves_nothing(data, checkpoint, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        train(data, checkpoint, tmp_path / "out", **changed)
    assert not (tmp_path / "out").exists()


def test_a_directory_of_another_checkpoint_is_refused(data, checkpoint, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"of somebody")
    with pytest.raises(FileExistsError, match="holds files of another checkpoint"):
        train(data, checkpoint, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_the_result_is_not_put_into_the_data(data, checkpoint):
    with pytest.raises(ValueError, match="`out` must not be inside the data, where it would become a class"):
        train(data, checkpoint, data / "out")


def test_a_checkpoint_without_processor_gets_bits_own(data, checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "preprocessor_config.json").unlink()
    plan = planning.plan(options_of(data, copy), Workers())
    assert plan.notes == (
        "The checkpoint has no processor, so pixels are scaled to [-1, 1], as for BiT's own checkpoints.",
    )
    assert plan.processor.image_mean == (0.5, 0.5, 0.5)
    assert plan.processor.size == {"height": 128, "width": 128}


@pytest.mark.parametrize(
    ("image_size", "workers", "parts"),
    [
        ((64, 64), Workers(), 1),  # 512 images of 128 px
        ((300, 400), Workers(), 16),  # 32 of 480 px are the most that divide 512
        ((300, 400), Workers(count=2), 8),  # each takes a half
        ((300, 400), Workers(accumulates=False), 1),
    ],
)
def test_a_step_is_divided_where_its_images_are_too_large(data, checkpoint, image_size, workers, parts):
    plan = planning.plan(options_of(data, checkpoint, batch_size=512, image_size=image_size), workers)
    assert plan.accumulation == parts


Usage = namedtuple("Usage", "total used free")


def test_a_directory_that_cannot_be_written_raises_an_error_at_the_start(data, checkpoint, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("in the way")
    for out, message in ((file, "`out` must be a directory, or a new name for one"), (file / "in", "`out`: nothing")):
        with pytest.raises(OSError, match=message):
            train(data, checkpoint, out)
    monkeypatch.setattr(run_directory.shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(OSError, match=r"0\.00 GB of free space, but this model needs"):
        train(data, checkpoint, tmp_path / "full")
    assert not (tmp_path / "full").exists()


def test_a_second_process_is_refused_while_one_is_training(data, checkpoint, tmp_path):
    folder = tmp_path / "out" / run_directory.STATE_FOLDER
    with claims.claimed(folder, argument="out"):
        there = sorted(folder.iterdir())
        with pytest.raises(BlockingIOError, match=rf"`out`: another process \({os.getpid()} on .*{tmp_path}"):
            train(data, checkpoint, tmp_path / "out")
        assert sorted(folder.iterdir()) == there


@pytest.mark.parametrize("there", [[], ["old"], ["old", "old/note.txt"]])
def test_wrong_data_leaves_no_directory_behind_and_takes_none_away(checkpoint, tmp_path, there):
    for name in there:
        (tmp_path / name).touch() if name.endswith(".txt") else (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match="`data` must be an existing directory, CSV file or TFRecord files"):
        train(tmp_path / "no data", checkpoint, tmp_path / "old" / "out")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == there
