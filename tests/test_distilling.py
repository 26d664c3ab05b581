"""Tests training with a teacher: the loss, the steps against those on the teacher's answers as labels, and refusals."""

import importlib.util
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as numpy_of

import keras_bit
from conftest import ROOT
from image_files import make_folders
from keras_bit import (
    BiT,
    BitConfig,
    BitImageProcessor,
    HyperRule,
    Recipe,
    fine_tune,
    freeze,
    fuse,
    image_dataset,
    rematerialize,
)
from keras_bit.training import distilling
from keras_bit.training.distilling import divergence
from tiny_bit import variables

SMALL = {"embedding_size": 16, "hidden_sizes": (32,), "depths": (1,), "num_groups": 4}
SIDE = 32
RULE = HyperRule(8, SIDE, batch_size=4, steps=4, base_learning_rate=0.05)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (8, SIDE, SIDE, 3)).astype(np.float32)
NUMBERS = np.array([0, 1, 2, 1, 0, 2, 2, 1])


def model_of(seed, classes=3, activation="auto", **config):
    keras.utils.set_random_seed(seed)
    model = BiT(BitConfig(**SMALL, num_labels=classes, **config), classifier_activation=activation)
    # Answers of an untrained network are nearly the same for all images.
    head = model.get_layer("predictions")
    head.set_weights([3 * weights for weights in head.get_weights()])
    return model


def batches(labels=NUMBERS):
    return tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(4)


@pytest.mark.parametrize("temperature", [1.0, 2.5, 10.0])
def test_the_divergence_is_that_of_its_formula(temperature):
    rows = np.random.default_rng(1).normal(0, 4, (2, 5, 7))
    softened = np.exp(rows / temperature)
    p, q = softened / softened.sum(axis=-1, keepdims=True)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=-1).mean()
    # Computed in float32 here, in float64 there.
    assert float(divergence(*rows.astype(np.float32), temperature)) == pytest.approx(expected, rel=1e-5)
    assert float(divergence(rows[0], rows[0], temperature)) == pytest.approx(0, abs=1e-6)


@pytest.mark.live
@pytest.mark.parametrize("temperature", [1.0, 2.5, 10.0])
def test_the_divergence_is_that_of_torch(temperature):
    import torch
    from torch.nn.functional import kl_div, log_softmax

    rows = np.random.default_rng(1).normal(0, 4, (2, 5, 7)).astype(np.float32)
    p, q = (log_softmax(torch.from_numpy(one) / temperature, dim=-1) for one in rows)
    expected = temperature**2 * float(kl_div(q, p, log_target=True, reduction="batchmean"))
    assert float(divergence(*rows, temperature)) == pytest.approx(expected, rel=1e-5)  # both in float32


def test_the_divergence_is_a_number_for_answers_that_are_certain():
    certain = np.array([[200.0, 0, 0], [0, -300.0, 0]], np.float32)
    assert np.isfinite(float(divergence(certain, certain[::-1], 1.0)))


@pytest.mark.parametrize("teacher_gives", ["auto", None])
def test_a_student_takes_the_steps_of_one_whose_labels_are_the_answers(teacher_gives):
    """At temperature 1 the gradient is that of the cross-entropy: the divergence only lacks a constant."""
    teacher = model_of(1, activation=teacher_gives)
    kept = [numpy_of(variable).copy() for variable in teacher.variables]
    answers = teacher.predict(IMAGES, verbose=0)
    answers = answers if teacher_gives else numpy_of(keras.ops.softmax(answers))
    student, other = model_of(2), model_of(2)
    found = fine_tune(student, batches(), batches(), rule=RULE, teacher=teacher, steps_per_epoch=2, verbose=0).history
    fine_tune(other, batches(answers), rule=RULE, steps_per_epoch=2, verbose=0)
    for ours, theirs in zip(variables(student).values(), variables(other).values(), strict=True):
        # Kernels of a fused teacher are rounded otherwise, and so are logits and probabilities.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(np.abs(theirs).max(), 1))
    assert {"loss", "val_loss", "val_accuracy"} <= found.keys()
    assert "accuracy" not in found  # the labels are not used
    assert all(np.array_equal(numpy_of(now), before) for now, before in zip(teacher.variables, kept, strict=True))
    # As it was, and ready to be evaluated.
    assert student.get_layer("predictions").activation is keras.activations.softmax
    loss, accuracy = student.evaluate(batches(), verbose=0)
    assert (loss, accuracy) == pytest.approx((found["val_loss"][-1], found["val_accuracy"][-1]), abs=1e-5)


def test_labels_of_the_training_change_nothing():
    teacher = model_of(1)
    students = [model_of(2) for _ in range(2)]
    for student, labels in zip(students, (NUMBERS, 0 * NUMBERS), strict=True):
        fine_tune(student, batches(labels), rule=RULE, teacher=teacher, verbose=0)
    for ours, theirs in zip(*(variables(student).values() for student in students), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # threads sum in another order


class Indexed(keras.utils.PyDataset):
    """Batches of images without labels, as `image_dataset` gives them without TensorFlow."""

    num_batches = 2

    def __getitem__(self, number):
        return IMAGES[4 * number : 4 * number + 4]


@pytest.mark.parametrize("kind", ["images alone", "a tuple of one", "another label", "weights", "indexed"])
def test_images_need_no_labels(kind):
    teacher = model_of(1)
    alone = tf.data.Dataset.from_tensor_slices(IMAGES).batch(4)
    train = {
        "images alone": alone,
        "a tuple of one": alone.map(lambda images: (images,)),
        "another label": batches(np.full(8, -1)),  # of no class
        "weights": tf.data.Dataset.from_tensor_slices((IMAGES, NUMBERS, np.zeros(8, np.float32))).batch(4),
        "indexed": Indexed(),
    }[kind]
    student, other = model_of(2), model_of(2)
    found = fine_tune(student, train, batches(), rule=RULE, teacher=teacher, steps_per_epoch=2, verbose=0).history
    expected = fine_tune(other, batches(), batches(), rule=RULE, teacher=teacher, steps_per_epoch=2, verbose=0).history
    assert found == {name: pytest.approx(values, rel=1e-5) for name, values in expected.items()}
    for ours, theirs in zip(variables(student).values(), variables(other).values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # threads sum in another order


@pytest.mark.parametrize("examples", [8, 20_000], ids=["plain", "MixUp"])
def test_folders_of_images_without_classes_are_learned_from(tmp_path, examples):
    make_folders(tmp_path / "labeled", {"ant": 2, "bee": 2})
    make_folders(tmp_path / "others", {"2024": 1, "2025": 3})
    recipe = Recipe(HyperRule(examples, SIDE, batch_size=4, steps=2))
    processor = BitImageProcessor(size=(SIDE, SIDE), do_center_crop=False, image_mean=0.5, image_std=0.5)
    train = image_dataset(
        [tmp_path / "labeled", str(tmp_path / "others")],
        processor=processor,
        batch_size=4,
        training=True,
        recipe=recipe,
        label_mode="unlabeled",
    )
    assert len(train) == 2
    assert train.element_spec.shape.as_list() == [None, 128, 128, 3]
    history = fine_tune(model_of(2), train, recipe=recipe, teacher=model_of(1), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    with pytest.raises(ValueError, match="Images without labels need a `teacher`"):
        fine_tune(model_of(2), train, recipe=recipe, verbose=0)


def test_a_student_that_keeps_less_in_training_learns_the_same():
    teacher = model_of(1)
    students = [model_of(2) for _ in range(2)]
    rematerialize(students[0])
    for student in students:
        fine_tune(student, batches(), rule=RULE, teacher=teacher, verbose=0)
    forward = students[0].training_forward
    assert forward is distilling.Student(students[0], None, 1.0).training_forward
    for ours, theirs in zip(*(variables(student).values() for student in students), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # sums in another order


def test_lora_learns_from_a_teacher():
    teacher, student = model_of(1), model_of(2)
    kernel = student.get_layer("stem_conv").get_weights()[0]
    answers = teacher.predict(IMAGES, verbose=0)
    before = np.abs(student.predict(IMAGES, verbose=0) - answers).mean()
    recipe = Recipe(HyperRule(8, SIDE, batch_size=4, steps=40, base_learning_rate=0.02), lora=2)
    fine_tune(student, batches(), recipe=recipe, teacher=teacher, verbose=0)
    assert np.abs(student.predict(IMAGES, verbose=0) - answers).mean() < before / 2
    assert np.array_equal(numpy_of(student.get_layer("stem_conv")._kernel), kernel)


def test_a_student_whose_classes_nobody_named_takes_those_of_its_teacher():
    fine_tune(model_of(2), batches(), rule=RULE, teacher=model_of(1, **named("cat", "dog", "ant")), verbose=0)


def test_a_student_comes_closer_to_its_teacher_at_every_temperature():
    teacher = model_of(1)
    answers = teacher.predict(IMAGES, verbose=0)
    for temperature in (1.0, 4.0):
        student = model_of(2)
        before = np.abs(student.predict(IMAGES, verbose=0) - answers).mean()
        recipe = Recipe(HyperRule(8, SIDE, batch_size=4, steps=40, base_learning_rate=0.02), temperature=temperature)
        fine_tune(student, batches(), recipe=recipe, teacher=teacher, verbose=0)
        assert np.abs(student.predict(IMAGES, verbose=0) - answers).mean() < before / 2


def test_frozen_stages_and_a_fused_teacher():
    teacher, student = fuse(model_of(1)), model_of(2)
    freeze(student, up_to="stem")
    stem = student.get_layer("stem_conv").get_weights()[0]
    fine_tune(student, batches(), rule=RULE, teacher=teacher, verbose=0)
    assert np.array_equal(student.get_layer("stem_conv").get_weights()[0], stem)


def named(first, second, third):
    return {"id2label": {0: first, 1: second, 2: third}}


@pytest.mark.parametrize(
    ("teacher", "student", "recipe", "facts"),
    [
        (lambda: "bit", model_of, {}, ("`teacher`", "str")),
        (lambda: keras.Sequential([keras.Input((3,))]), model_of, {}, ("`teacher`", "Sequential")),
        (lambda: BiT(BitConfig(**SMALL), include_top=False), model_of, {}, ("`teacher`", "predictions")),
        (lambda: model_of(1, classes=4), model_of, {}, ("`teacher`", "4", "3")),
        (
            lambda: model_of(1, **named("cat", "dog", "ant")),
            lambda seed: model_of(seed, **named("ant", "cat", "dog")),
            {},
            ("`teacher`", "'cat'", "'ant'", "class_names"),
        ),
        (lambda: model_of(1, num_channels=1), model_of, {}, ("`teacher`", "3 channels", "1")),
        (lambda: model_of(1, problem_type="regression"), model_of, {}, ("`teacher`", "regression")),
        (lambda: model_of(1), lambda seed: model_of(seed, problem_type="multi_label_classification"), {}, ("`model`",)),
        (lambda: model_of(1), model_of, {"class_weight": {0: 2.0}}, ("`class_weight`", "teacher")),
        (lambda: model_of(1), model_of, {"label_smoothing": 0.1}, ("`label_smoothing`", "teacher")),
        (lambda: None, model_of, {"temperature": 2.0}, ("`temperature`", "teacher")),
    ],
)
def test_conflicting_arguments_are_refused_before_anything_is_computed(teacher, student, recipe, facts):
    student = student(2)
    before = [numpy_of(variable).copy() for variable in student.variables]
    activation = student.get_layer("predictions").activation
    with pytest.raises(ValueError, match=re.escape(facts[0])) as caught:
        fine_tune(student, batches(), recipe=Recipe(RULE, **recipe), teacher=teacher(), verbose=0)
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)
    assert student.get_layer("predictions").activation is activation
    assert all(np.array_equal(numpy_of(now), then) for now, then in zip(student.variables, before, strict=True))


def test_a_run_that_fails_leaves_the_head_as_it_was():
    student = model_of(2)
    broken = batches().map(lambda images, labels: (images * float("nan"), labels))
    with pytest.raises(FloatingPointError):
        fine_tune(student, broken, rule=RULE, teacher=model_of(1), verbose=0)
    assert student.get_layer("predictions").activation is keras.activations.softmax


PROBE = """
import numpy as np, keras, keras_bit
keras.utils.set_random_seed(0)
config = keras_bit.BitConfig(embedding_size=16, hidden_sizes=(32,), depths=(1,), num_groups=4, num_labels=3)
teacher, student = keras_bit.BiT(config), keras_bit.BiT(config)
for model in (teacher, student):  # answers of an untrained network are nearly the same
    head = model.get_layer("predictions")
    head.set_weights([3 * weights for weights in head.get_weights()])
class Data(keras.utils.PyDataset):
    num_batches = 2
    def __getitem__(self, number):
        images = np.random.default_rng(number).uniform(-1, 1, (4, 32, 32, 3)).astype("float32")
        return images, np.zeros(4, "int32")
images = Data()[0][0]
answers = teacher.predict(images, verbose=0)
before = abs(student.predict(images, verbose=0) - answers).mean()
rule = keras_bit.HyperRule(8, 32, batch_size=4, steps=40, base_learning_rate=0.02)
history = keras_bit.fine_tune(student, Data(), Data(), rule=rule, teacher=teacher, verbose=0).history
print(abs(student.predict(images, verbose=0) - answers).mean() < before / 2, sorted(history))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.release)])
def test_other_backends_teach_too(backend, monkeypatch):
    if importlib.util.find_spec(backend) is None:
        from conftest import absent

        absent(f"{backend} is not installed")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True ['loss', 'val_accuracy', 'val_loss']"


@pytest.mark.slow
def test_fine_tune_has_the_argument_teacher():
    assert "teacher" in keras_bit.fine_tune.__kwdefaults__
