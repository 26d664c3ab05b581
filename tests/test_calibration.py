"""Tests the calibration of a temperature: against torch's LBFGS and scipy, what it changes, and what it refuses."""

import dataclasses
import importlib.util

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as numpy_of

from conftest import absent
from keras_bit import (
    BiT,
    BiTClassifier,
    BitConfig,
    BitImageProcessor,
    calibrate,
    from_pretrained,
    fuse,
    save_pretrained,
)
from keras_bit.evaluation import evaluate
from keras_bit.training import calibration

pytestmark = pytest.mark.usefixtures("eagerly")
SMALL = {"embedding_size": 16, "hidden_sizes": (32,), "depths": (1,), "num_groups": 4}
SEVERAL = "multi_label_classification"
ALL_RIGHT = np.array([[2.0, 1.0], [0.0, 3.0]])


def case(several, sharpness, seed=0, count=400, classes=5):
    """Returns logits and the labels that `softmax(logits / sharpness)`, or a sigmoid, would give by chance."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes)) * 2
    if several:
        labels = generator.random(logits.shape) < 1 / (1 + np.exp(-logits))
    else:
        gumbel = -np.log(-np.log(generator.random(logits.shape)))
        labels = (logits + gumbel).argmax(axis=1)
    return logits * sharpness, labels


def by_scipy(logits, labels):
    if importlib.util.find_spec("scipy") is None:
        absent("scipy not installed: pip install -e '.[examine]'")
    from scipy import optimize, special

    def loss(logarithm):
        scaled = logits / np.exp(logarithm)
        if labels.ndim == 2:
            return -special.log_expit(np.where(labels, scaled, -scaled)).mean()
        return -special.log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].mean()

    found = optimize.minimize_scalar(loss, bounds=(-9, 9), method="bounded", options={"xatol": 1e-9})
    return float(np.exp(found.x))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("sharpness", [0.02, 1.0, 3.0, 500.0])
def test_the_temperature_is_the_one_that_scipy_finds(several, sharpness):
    logits, labels = case(several, sharpness)
    found = calibration.fit_temperature(logits, labels)
    # scipy stops where the loss, whose digits end at 1e-16, no longer changes: at the root of that.
    assert found == pytest.approx(by_scipy(logits, labels), rel=1e-6)
    assert found == pytest.approx(sharpness, rel=0.25)  # 400 examples


@pytest.mark.live
@pytest.mark.parametrize("several", [False, True])
def test_the_temperature_is_the_one_that_torch_finds(several):
    """Minimizes as gpleiss/temperature_scaling does: with LBFGS on the temperature."""
    import torch

    logits, labels = case(several, 3.0, seed=1)
    scores, wanted = torch.tensor(logits), torch.tensor(labels)
    temperature = torch.ones(1, dtype=torch.float64, requires_grad=True)
    loss_of = torch.nn.BCEWithLogitsLoss() if several else torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.LBFGS(
        [temperature], lr=0.1, max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def step():
        optimizer.zero_grad()
        loss = loss_of(scores / temperature, wanted.double() if several else wanted)
        loss.backward()
        return loss

    optimizer.step(step)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(temperature.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels", "reason"),
    [
        (ALL_RIGHT, np.array([0, 1]), "all answers to 2 images are right"),
        (ALL_RIGHT, np.array([[True, True], [False, True]])[:, ::1], "all answers to 2 images are right"),
        (ALL_RIGHT, np.array([1, 0]), "not better than chance"),
        (np.zeros((3, 2)), np.array([0, 1, 0]), "not better than chance"),
    ],
)
def test_logits_without_a_best_temperature_raise_an_error(logits, labels, reason):
    if labels.ndim == 2:
        logits = np.where(labels, 1.0, -1.0)
    with pytest.raises(calibration.NoTemperatureError, match=reason):
        calibration.fit_temperature(logits, labels)


def new_model(problem_type=None, activation="auto", classes=3, scale=40.0):
    """Builds a model of random weights with a head that is too sure."""
    keras.utils.set_random_seed(0)
    model = BiT(BitConfig(**SMALL, num_labels=classes, problem_type=problem_type), classifier_activation=activation)
    head = model.get_layer("predictions")
    head.kernel.assign(numpy_of(head.kernel) * scale)
    head.bias.assign(np.linspace(-0.5, 0.5, classes, dtype=np.float32))
    return model


IMAGES = np.random.default_rng(0).uniform(-1, 1, (24, 32, 32, 3)).astype(np.float32) * np.linspace(0.2, 1, 24)[
    :, None, None, None
].astype(np.float32)


def labels_for(problem_type, model=None):
    """Returns labels by chance. With a model, two in three are its own answers: more than chance, and too few."""
    generator = np.random.default_rng(3)
    if problem_type == SEVERAL:
        labels = generator.random((len(IMAGES), 3)) < 0.5
        right = labels if model is None else logits_of(model) > 0
    else:
        labels = generator.integers(0, 3, len(IMAGES))
        right = labels if model is None else logits_of(model).argmax(axis=1)
    labels[::3], labels[1::3] = right[::3], right[1::3]
    return labels.astype(np.float32) if problem_type == SEVERAL else labels


def batches(labels, size=10):
    for start in range(0, len(labels), size):
        yield IMAGES[start : start + size], labels[start : start + size]


def logits_of(model):
    body = keras.Model(model.input, model.get_layer("predictions").input)
    head = model.get_layer("predictions")
    return numpy_of(body(IMAGES)).astype(np.float64) @ numpy_of(head.kernel) + numpy_of(head.bias)


@pytest.mark.parametrize("problem_type", [None, SEVERAL])
@pytest.mark.parametrize("activation", ["auto", None])
def test_the_head_is_divided_and_everything_is_measured_as_evaluate_does(problem_type, activation):
    # `evaluate` sees a sigmoid in float32, which from a logit of 17 on is exactly 1: the logits stay below.
    model = new_model(problem_type, activation, scale=8.0 if problem_type == SEVERAL else 40.0)
    labels = labels_for(problem_type, model)
    assert problem_type != SEVERAL or np.abs(logits_of(model)).max() < 16
    before, report_before = logits_of(model), evaluate(model, batches(labels)).report
    kernel = numpy_of(model.get_layer("predictions").kernel)
    found = calibrate(model, batches(labels))
    report_after = evaluate(model, batches(labels)).report
    assert found.examples == len(IMAGES)
    assert found.temperature > 1
    np.testing.assert_allclose(numpy_of(model.get_layer("predictions").kernel), kernel / found.temperature, rtol=1e-6)
    # The features are summed in batches of another size: float32.
    np.testing.assert_allclose(logits_of(model), before / found.temperature, rtol=1e-4, atol=1e-5)
    assert (logits_of(model).argmax(axis=1) == before.argmax(axis=1)).all()
    for quality, report in ((found.before, report_before), (found.after, report_after)):
        # The model's probabilities are float32.
        assert quality.log_loss == pytest.approx(report["log_loss"], rel=1e-4)
        error = report["calibration"]["expected_calibration_error"]
        assert quality.expected_calibration_error == pytest.approx(error, abs=1e-5)
    assert found.after.log_loss < found.before.log_loss
    again = calibrate(model, batches(labels))
    assert again.temperature == pytest.approx(1, abs=1e-4)
    assert dataclasses.is_dataclass(found)
    assert found.to_dict()["after"] == found.after._asdict()


def test_every_file_holds_the_temperature(tmp_path):
    model = new_model()
    save_pretrained(model, tmp_path / "before")
    found = calibrate(model, batches(labels_for(None, model)))
    save_pretrained(model, tmp_path / "after")
    model.save(tmp_path / "after.keras")
    expected = numpy_of(model(IMAGES))
    for source in (tmp_path / "after", tmp_path / "after.keras"):
        np.testing.assert_allclose(numpy_of(from_pretrained(source)(IMAGES)), expected, atol=1e-6)
    np.testing.assert_allclose(numpy_of(fuse(model)(IMAGES)), expected, atol=1e-5)
    kernels = [from_pretrained(tmp_path / name).get_layer("predictions").kernel for name in ("before", "after")]
    np.testing.assert_allclose(numpy_of(kernels[0]) / found.temperature, numpy_of(kernels[1]), rtol=1e-6)


def test_one_hot_rows_are_classes():
    labels = labels_for(None, new_model())
    found = calibrate(new_model(), batches(np.eye(3, dtype=np.float32)[labels])).temperature
    assert found == pytest.approx(calibrate(new_model(), batches(labels)).temperature, rel=1e-9)


def test_a_model_without_a_best_temperature_is_left_as_it_was():
    model = new_model()
    kernel = numpy_of(model.get_layer("predictions").kernel)
    right = logits_of(model).argmax(axis=1)
    with pytest.warns(calibration.NotCalibratedWarning, match="The temperature stays 1: all answers to 24 images"):
        found = calibrate(model, batches(right))
    assert found.temperature == 1
    assert found.before == found.after
    assert np.array_equal(numpy_of(model.get_layer("predictions").kernel), kernel)


def quantized():
    model = new_model()
    model.get_layer("predictions").quantize("int8")
    return model


def with_lora():
    model = new_model()
    model.get_layer("predictions").enable_lora(2)
    return model


@pytest.mark.parametrize(
    ("make", "labels", "message"),
    [
        (lambda: new_model("regression"), labels_for(None), "got one that predicts numbers"),
        (lambda: BiT(BitConfig(**SMALL, num_labels=1)), labels_for(None), "got one that predicts numbers"),
        (lambda: BiT(BitConfig(**SMALL), include_top=False), labels_for(None), "must have the head `predictions`"),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), labels_for(None), "a model of keras_bit.*got Sequential"),
        (
            lambda: BiTClassifier(new_model(), BitImageProcessor(size=32, crop_size=32)),
            labels_for(None),
            "pass `classifier.model`",
        ),
        (quantized, labels_for(None), r"quantized one \(int8\)\. Calibrate it before `quantize`"),
        (with_lora, labels_for(None), "without LoRA"),
        (new_model, labels_for(None) + 1, r"whole numbers \(batch,\) in \[0, 3\), got int64 of shape"),
        (new_model, labels_for(SEVERAL), r"whole numbers \(batch,\) in \[0, 3\), got float32 of shape"),
        (lambda: new_model(SEVERAL), labels_for(None), r"rows of 0 and 1 \(batch, 3\), got int64 of shape"),
        (new_model, labels_for(None)[:0], "at least one image, got none"),
    ],
)
def test_models_without_a_temperature_are_refused(make, labels, message):
    with pytest.raises(ValueError, match=message):
        calibrate(make(), batches(labels))


def test_images_without_labels_are_refused():
    with pytest.raises(ValueError, match="images and labels, got only images"):
        calibrate(new_model(), [IMAGES])
