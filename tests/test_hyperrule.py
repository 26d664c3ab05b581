"""Compares the BiT-HyperRule with that of Google's `bit_hyperrule.py`, written out again in plain numbers."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_bit import HyperRule
from keras_bit.recipes.hyperrule import MomentumSGD

# examples, side of the images: resize, crop, boundaries, MixUp
RULES = [
    (1, 95, 160, 128, (100, 200, 300, 400, 500), 0.0),
    (19_999, 96, 512, 480, (100, 200, 300, 400, 500), 0.0),
    (20_000, 32, 160, 128, (500, 3000, 6000, 9000, 10_000), 0.1),
    (499_999, 224, 512, 480, (500, 3000, 6000, 9000, 10_000), 0.1),
    (500_000, 224, 512, 480, (500, 6000, 12_000, 18_000, 20_000), 0.1),
]


@pytest.mark.parametrize(("examples", "side", "resize", "crop", "boundaries", "alpha"), RULES)
def test_the_rule_is_the_table_of_the_paper(examples, side, resize, crop, boundaries, alpha):
    rule = HyperRule(examples, side)
    assert (rule.resize_size, rule.crop_size, rule.boundaries, rule.mixup_alpha) == (resize, crop, boundaries, alpha)
    assert (rule.warmup_steps, rule.total_steps) == (boundaries[0], boundaries[-1])


@pytest.mark.parametrize(("size", "crop"), [((95, 97), 128), ((96, 96), 480), ((1, 9215), 128), ((9216, 1), 480)])
def test_the_area_decides_about_the_size(size, crop):
    assert HyperRule(10, size).crop_size == crop


def rate_of(step, base, boundaries):
    """Computes the rate by the rule in Google's `get_lr`, which ends at the last boundary. It is the oracle."""
    if step < boundaries[0]:
        return base * step / boundaries[0]
    for boundary in boundaries[1:-1]:
        base = base / 10 if boundary < step else base
    return base


@pytest.mark.parametrize("examples", [100, 20_000, 500_000])
@pytest.mark.parametrize("base", [0.003, 0.001])
def test_every_boundary_and_the_steps_around_it_have_googles_rate(examples, base):
    rule = HyperRule(examples, 224, base_learning_rate=base)
    schedule = rule.schedule()
    steps = [0, 1, 2, *(boundary + offset for boundary in rule.boundaries for offset in (-1, 0, 1)), 10**6]
    found = [float(schedule(step)) for step in steps]
    # float32's rounding of the oracle's float64
    np.testing.assert_allclose(found, [rate_of(step, base, rule.boundaries) for step in steps], rtol=3e-7)


def test_the_optimizer_follows_the_schedule_and_survives_its_own_config():
    optimizer = HyperRule(100, 224).optimizer()
    assert (float(optimizer.momentum), optimizer.weight_decay) == (pytest.approx(0.9), None)
    assert float(optimizer.learning_rate) == 0.0  # before the first step
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    optimizer.build([]), again.build([])
    for step in (50, 100, 201, 499, 501):
        optimizer.iterations.assign(step), again.iterations.assign(step)
        assert float(optimizer.learning_rate) == float(again.learning_rate) > 0


# batch size, scaling, steps: the rate after the warm-up, boundaries
SCALED = [
    (512, None, None, 0.003, (100, 200, 300, 400, 500)),
    (64, None, None, 0.003, (100, 200, 300, 400, 500)),
    (64, "linear", None, 0.000375, (800, 1600, 2400, 3200, 4000)),
    (1024, "linear", None, 0.006, (50, 100, 150, 200, 250)),
    (512, None, 50, 0.003, (10, 20, 30, 40, 50)),
    (64, "linear", 50, 0.000375, (10, 20, 30, 40, 50)),
    (512, None, 3, 0.003, (1, 1, 2, 2, 3)),
    (512, None, 2, 0.003, (0, 1, 1, 2, 2)),
    (512, None, 1, 0.003, (0, 1, 1, 1, 1)),
    (10**9, "linear", None, 5859.375, (0, 1, 1, 1, 1)),
]


@pytest.mark.parametrize(("batch_size", "scaling", "steps", "rate", "boundaries"), SCALED)
def test_nothing_is_scaled_but_what_is_asked_for(batch_size, scaling, steps, rate, boundaries):
    rule = HyperRule(100, 224, batch_size=batch_size, scaling=scaling, steps=steps)
    assert (rule.learning_rate, rule.boundaries, rule.total_steps) == (pytest.approx(rate), boundaries, boundaries[-1])
    assert float(rule.schedule()(boundaries[0])) == pytest.approx(rate, rel=1e-6)
    assert (rule.crop_size, rule.mixup_alpha) == (480, 0.0)


@pytest.mark.parametrize("steps", [1, 2])
def test_one_or_two_steps_have_no_warm_up_and_teach(steps):
    schedule = HyperRule(100, 224, steps=steps).schedule()
    assert [float(schedule(step)) for step in range(steps)] == pytest.approx([0.003] * steps, rel=1e-6)


def test_the_rates_are_computed_in_float64_if_keras_does_so():
    rule = HyperRule(100, 224)
    keras.config.set_floatx("float64")
    try:
        found = [float(rule.schedule()(step)) for step in range(502)]
    finally:
        keras.config.set_floatx("float32")
    # float64's rounding
    np.testing.assert_allclose(found, [rate_of(step, 0.003, rule.boundaries) for step in range(502)], rtol=1e-15)


def test_a_rule_survives_json():
    rule = HyperRule(20_000, (48, 64), batch_size=128, scaling="linear", steps=77)
    assert HyperRule(**json.loads(json.dumps(dataclasses.asdict(rule)))) == rule


def test_accumulating_gradients_changes_no_rate():
    rule = HyperRule(100, 224)
    plain, parts = rule.optimizer(), rule.optimizer(gradient_accumulation_steps=4)
    parts = keras.optimizers.deserialize(keras.optimizers.serialize(parts))
    plain.build([]), parts.build([])
    for step in (0, 1, 50, 100, 200, 201, 500):
        for batch in range(4):
            plain.iterations.assign(step), parts._iterations.assign(4 * step + batch)
            assert float(plain.learning_rate) == float(parts.learning_rate)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-15)])  # the rounding of each
def test_momentum_sums_gradients_as_torch_does(nesterov, dtype, tolerance):
    rates = [0.0, 0.25, 0.5, 0.0625, 0.0625]  # exact in float32, in which Keras' schedule has them
    gradients = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)
    weights, velocity = np.ones(3), 0.0
    variable = keras.Variable(np.ones(3), dtype=dtype)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1, 2], rates[:4])
    optimizer = MomentumSGD(schedule, momentum=0.9, nesterov=nesterov)
    for rate, gradient in zip(rates, gradients, strict=True):
        # The formula of torch.optim.SGD's documentation; test_fine_tuning.py compares with torch itself.
        velocity = 0.9 * velocity + gradient
        weights = weights - rate * (gradient + 0.9 * velocity if nesterov else velocity)
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        np.testing.assert_allclose(variable.numpy(), weights, rtol=tolerance)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_examples": 0, "image_size": 32}, "`num_examples` must be a whole number of at least 1, got 0."),
        ({"num_examples": 1.5, "image_size": 32}, "`num_examples` must be a whole number of at least 1, got 1.5."),
        (
            {"num_examples": 5, "image_size": 32, "batch_size": True},
            "`batch_size` must be a whole number of at least 1",
        ),
        ({"num_examples": 5, "image_size": (32, 0)}, r"`image_size` must be \(height, width\) in whole pixels"),
        ({"num_examples": 5, "image_size": (32, 32, 3)}, r"got \(32, 32, 3\)."),
        (
            {"num_examples": 5, "image_size": 32, "base_learning_rate": 0},
            "`base_learning_rate` must be a number above 0",
        ),
        ({"num_examples": 5, "image_size": 32, "steps": 0}, "`steps` must be a whole number of at least 1, got 0."),
        (
            {"num_examples": 5, "image_size": 32, "scaling": "sqrt"},
            "`scaling` must be one of None, 'linear', got 'sqrt'.",
        ),
    ],
)
def test_impossible_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        HyperRule(**arguments)
