"""Tests runs with a teacher: refusals, notes, and that an interrupted run ends like a whole one."""

import json
import os
import re

import keras
import numpy as np
import pytest

from image_files import make_folders
from keras_bit import BiT, BitConfig, BitImageProcessor, from_pretrained, save_pretrained
from keras_bit.training import find_rate, planning, run, run_directory
from keras_bit.training.distribution import Workers
from tiny_bit import random_tensors, write_checkpoint

pytestmark = [
    pytest.mark.usefixtures("eagerly"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option"),
]
RECIPE = {"batch_size": 6, "steps": 3, "evaluate_every": 1, "seed": 1}
NAMES = ("ant", "bee", "cat")
HALF = {"image_mean": 0.5, "image_std": 0.5}
SMALL = {"embedding_size": 16, "hidden_sizes": (32,), "depths": (1,), "num_groups": 4}


def write_teacher(folder, names=NAMES, processor=HALF, seed=1, **config):
    """Writes a checkpoint with these classes, whose answers differ from image to image."""
    keras.utils.set_random_seed(seed)
    named = {"num_labels": len(names), "id2label": dict(enumerate(names))} if names else {"num_labels": 3}
    model = BiT(BitConfig(**SMALL, **named, **config))
    head = model.get_layer("predictions")
    head.set_weights([3 * weights for weights in head.get_weights()])
    made = None if processor is None else BitImageProcessor(size=(32, 32), resample=2, **processor)
    save_pretrained(model, folder, made)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Writes small random kernels, so that training is calm."""
    tensors = {name: values * (0.1 if values.ndim > 1 else 1) for name, values in random_tensors().items()}
    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoint"), tensors)
    BitImageProcessor(size=(32, 32), resample=2, **HALF).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_folders(folder, dict.fromkeys(NAMES, 5))
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Writes images without classes."""
    folder = tmp_path_factory.mktemp("others")
    make_folders(folder, {"2024": 3, "2025": 4})
    return str(folder)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher"))


def options_of(data, checkpoint, **changed):
    return planning.Options(data=str(data), weights=str(checkpoint), **{**RECIPE, **changed})


def train(options, out, callbacks=()):
    with run_directory.writable(out, *options.images):
        plan = planning.plan(options, Workers(), out)
        said = list(plan.notes)
        run.run(plan, out, workers=Workers(), say=said.append, callbacks=callbacks)
    return said


class Interrupt(keras.callbacks.Callback):
    """Ends the process, so to speak, right after an evaluation and the state behind it."""

    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("choices", [{"keep_best": "val_accuracy"}, {"lora": 2, "ema": 0.5}], ids=["best", "LoRA"])
def test_interrupted_at_every_evaluation_it_is_the_whole_run(data, checkpoint, teacher, others, tmp_path, choices):
    choices = {"temperature": 2.0, **choices}
    options = options_of(data, checkpoint, teacher=teacher, unlabeled=others, choices=choices, base_learning_rate=0.05)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    told = train(options, whole)
    rows = (whole / "log.csv").read_text()
    assert rows.splitlines()[0].startswith("step,learning_rate,loss,val_loss,val_accuracy")
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(options, parts, [Interrupt()])
    said = train(options, parts)
    assert "Continuing after step 3 of 3." in said
    assert (parts / "log.csv").read_text() == rows
    best = [line for line in told if line.startswith("The result is")]
    assert best == [line for line in said if line.startswith("The result is")]
    for mine, other in zip(from_pretrained(parts).get_weights(), from_pretrained(whole).get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert from_pretrained(whole).get_layer("predictions").activation is keras.activations.softmax


@pytest.mark.slow
def test_another_teacher_is_refused_by_name_and_another_file_by_its_digest(data, checkpoint, teacher, others, tmp_path):
    own, out = write_teacher(tmp_path / "own"), tmp_path / "out"
    options = options_of(data, checkpoint, teacher=own, steps=1)
    train(options, out)
    with pytest.raises(ValueError, match="another run") as caught:
        train(options_of(data, checkpoint, teacher=teacher, steps=1), out)
    assert f'teacher: "{own}"'[:50] in str(caught.value)
    write_teacher(tmp_path / "own", seed=2)
    with pytest.raises(ValueError, match=r"another run, which differs in teacher_digest: \"[0-9a-f]{16}\" there"):
        train(options, out)
    with pytest.raises(ValueError, match=r"another run, .*unlabeled: null there, "):
        train(options_of(data, checkpoint, teacher=own, steps=1, unlabeled=others), out)


def test_images_of_both_kinds_are_trained_on_counted_and_noted(data, checkpoint, teacher, others):
    plan = planning.plan(options_of(data, checkpoint, teacher=teacher, unlabeled=others), Workers())
    noted = plan.described
    assert (noted["plan"]["train_images"], noted["plan"]["unlabeled_images"]) == (12, 7)
    assert plan.rule.num_examples == 19
    assert (noted["options"]["teacher"], noted["options"]["unlabeled"]) == (teacher, others)
    assert re.fullmatch("[0-9a-f]{16}", noted["plan"]["teacher_digest"])
    # Three steps of six images see 18 of the 19, no one twice.
    batches = run.training_data(plan, 0, Workers()).take(3).as_numpy_iterator()
    assert len({images.tobytes() for batch in batches for images in batch}) == 18
    plain = planning.plan(options_of(data, checkpoint), Workers()).described
    assert not {"teacher", "unlabeled"} & set(plain["options"])
    assert not {"teacher_digest", "unlabeled_images"} & set(plain["plan"])


def test_images_that_are_labeled_too_are_not_counted_twice(data, checkpoint, teacher, tmp_path):
    """Takes a few examples of each class; the other images remain, also by another name of the folder."""
    (tmp_path / "link").symlink_to(data)
    few = {"teacher": teacher, "examples_per_class": 1, "unlabeled": str(tmp_path / "link")}
    plan = planning.plan(options_of(data, checkpoint, **few), Workers())
    assert (len(plan.splits.train), len(plan.splits.validation), len(plan.splits.unlabeled)) == (3, 3, 9)
    (note,) = (line for line in plan.notes if "unlabeled" in line)
    assert note.startswith("6 of 15 images of ")
    with pytest.raises(ValueError, match=r"`unlabeled` .* but all 15 are in the data set"):
        planning.plan(options_of(data, checkpoint, teacher=teacher, unlabeled=str(data)), Workers())


def test_an_excluded_image_does_not_come_back_as_an_unlabeled_one(data, checkpoint, teacher, tmp_path):
    whole = planning.plan(options_of(data, checkpoint), Workers()).splits
    out = [*whole.train.names[:2], whole.validation.names[0]]
    rows = [f"{os.path.relpath(os.fsdecode(path), data)},yes" for path in out]
    (tmp_path / "audit.csv").write_text("\n".join(["image,exclude", *rows]))
    options = {"teacher": teacher, "exclude": str(tmp_path / "audit.csv")}
    plan = planning.plan(options_of(data, checkpoint, **options, unlabeled=str(data), examples_per_class=1), Workers())
    splits = plan.splits
    names = {os.fsdecode(name) for part in (splits.train, splits.validation, splits.unlabeled) for name in part.names}
    assert len(names) == 12  # of 15
    assert names.isdisjoint(map(os.fsdecode, out))
    assert any(line.startswith("3 of 15 images of ") and "are excluded" in line for line in plan.notes)
    with pytest.raises(ValueError, match=r"all 15 are in the data set or excluded from it \(3\)"):
        planning.plan(options_of(data, checkpoint, **options, unlabeled=str(data)), Workers())


def test_an_unreadable_image_is_left_out_without_changing_the_run(data, checkpoint, teacher, tmp_path):
    make_folders(tmp_path / "others", {"a": 4})
    broken = tmp_path / "others" / "a" / "001.jpg"
    broken.write_bytes(b"no image")
    (tmp_path / "others" / "notes.txt").touch()
    options = options_of(data, checkpoint, teacher=teacher, unlabeled=str(tmp_path / "others"))
    with pytest.raises(ValueError, match=re.escape(str(broken))):
        planning.plan(options, Workers())
    skipping = options_of(data, checkpoint, teacher=teacher, unlabeled=options.unlabeled, on_error="skip")
    plan = planning.plan(skipping, Workers())
    assert (len(plan.splits.unlabeled), len(plan.whole.unlabeled)) == (3, 4)
    assert any("1 .txt" in note for note in plan.notes)
    # Of a run that has begun, a file that has gone since is one that cannot be read.
    out = tmp_path / "out"
    (out / "training").mkdir(parents=True)
    (out / "training" / "state.safetensors").touch()
    run_directory.remember_images(out, run_directory.Images(planning.image_names(plan.whole), []))
    broken.unlink()
    assert planning.plan(skipping, Workers(), out).described == plan.described


def test_the_result_is_not_written_among_the_images(data, checkpoint, teacher, others):
    with pytest.raises(ValueError, match="`out` must not be inside the data"):
        train(options_of(data, checkpoint, teacher=teacher, unlabeled=others), planning.Path(others) / "out")


def nothing(folder):
    return {}


def empty(folder):
    """Makes a directory without images, with a file that is not an image."""
    (folder.parent / "empty").mkdir(exist_ok=True)
    (folder.parent / "empty" / "notes.txt").write_text("none")
    return str(folder.parent / "empty")


TABLE = "\n".join(["path,tags", *(f"{name}/{number:03d}.jpg,{name};x" for name in NAMES for number in range(5))])


def several_labels(folder):
    (folder / "labels.csv").write_text(TABLE)
    return {"data": str(folder / "labels.csv"), "label_separator": ";"}


@pytest.mark.parametrize(
    ("made", "changed", "facts"),
    [
        (nothing, {"teacher": None, "unlabeled": "photos"}, ("`unlabeled`", "'photos'", "`teacher`")),
        (nothing, {"teacher": None, "choices": {"temperature": 2.0}}, ("`temperature`", "2.0", "`teacher`")),
        (nothing, {"choices": {"class_weight": "balanced"}}, ("`class_weight`", "teacher")),
        (nothing, {"choices": {"label_smoothing": 0.1}}, ("`label_smoothing`", "teacher")),
        (nothing, {"choices": {"sampling": "balanced"}, "unlabeled": True}, ("`sampling`", "unlabeled")),
        (nothing, {"unlabeled": "absent"}, ("`unlabeled`", "'absent'")),
        (lambda folder: {"unlabeled": empty(folder)}, {}, ("`unlabeled`", "it holds no images")),
        (nothing, {"teacher": "./absent"}, ("./absent",)),
        (several_labels, {}, ("`teacher`", "multi_label_classification")),
        ({"names": (*NAMES, "dog")}, {}, ("`teacher`", "3 classes", "4 classes")),
        ({"names": ("bee", "ant", "cat")}, {}, ("`teacher`", "another order", "'bee'", "'ant'", "`class_names`")),
        ({"names": ("ant", "bee", "dog")}, {}, ("`teacher`", "1 of 3 differ", "'dog'", "'cat'")),
        ({"names": None}, {}, ("`teacher`", "does not name its classes", "id2label", "'ant'")),
        ({"problem_type": "multi_label_classification"}, {}, ("`teacher`", "multi_label_classification")),
        ({"processor": {"image_mean": 0.4, "image_std": 0.5}}, {}, ("`teacher`", "image_mean", "0.4", "0.5")),
        ({"processor": {**HALF, "rescale_factor": 1 / 127.5}}, {}, ("`teacher`", "rescale_factor")),
    ],
)
def test_conflicting_options_are_refused_before_anything_is_computed(
    data, checkpoint, teacher, others, tmp_path, made, changed, facts
):
    """Tests pairs of options; `made` is a function that writes data, or the changes of the teacher."""
    given = {"teacher": teacher, **(made(data) if callable(made) else {}), **changed}
    if isinstance(made, dict):
        given["teacher"] = write_teacher(tmp_path / "teacher", **made)
    if given.get("unlabeled") is True:
        given["unlabeled"] = others
    with pytest.raises((ValueError, OSError), match=re.escape(facts[0])) as caught:
        train(options_of(given.pop("data", data), checkpoint, **given), tmp_path / "out")
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_teacher_without_a_head_or_on_several_devices_is_refused(data, checkpoint, tmp_path, teacher):
    headless = write_checkpoint(
        tmp_path / "headless", {name: values for name, values in random_tensors().items() if "classifier" not in name}
    )
    with pytest.raises(ValueError, match=r"`teacher` .* has no head"):
        planning.plan(options_of(data, checkpoint, teacher=str(headless)), Workers())
    with pytest.raises(ValueError, match="`teacher` must be left out with a `strategy`"):
        planning.plan(options_of(data, checkpoint, teacher=teacher), Workers(count=2))


def test_other_sizes_and_equal_normalizations_are_said_and_allowed(data, checkpoint, tmp_path, teacher):
    def notes(source):
        return planning.plan(options_of(data, checkpoint, teacher=source), Workers()).notes

    assert "The teacher is made for images of 224x224 px. Here it answers for crops of 128x128 px." in notes(teacher)
    # (x / 255 - 0.5) / 0.5, written in another way.
    alike = {"do_rescale": False, "image_mean": 127.5, "image_std": 127.5}
    notes(write_teacher(tmp_path / "alike", processor=alike))
    assert any(
        line.startswith("The teacher has no processor")
        for line in notes(write_teacher(tmp_path / "none", processor=None))
    )


def test_the_range_test_has_the_losses_of_the_teacher(data, checkpoint, teacher, others):
    options = options_of(data, checkpoint, teacher=teacher, unlabeled=others)
    plan = planning.plan(options, Workers())
    found = find_rate.find_rate(plan, lambda line: None, steps=3)
    images = next(run.training_data(plan, 0, Workers()).as_numpy_iterator())
    answers = from_pretrained(teacher).predict(images, verbose=0)
    # The divergence from the same answer for all classes, which a head of zeros gives.
    assert found.losses[0] == pytest.approx((answers * np.log(3 * answers)).sum(axis=1).mean(), rel=1e-4)


def test_the_noted_options_are_those_of_json(data, checkpoint, teacher):
    noted = planning.plan(options_of(data, checkpoint, teacher=teacher), Workers()).described
    assert json.loads(json.dumps(noted))["options"]["teacher"] == teacher
