"""The BiT-HyperRule beside the rule of Google's `bit_hyperrule.py`, written out again in plain numbers."""

import keras
import numpy as np
import pytest

from keras_bit import HyperRule

# examples, side of the pictures: resize, crop, boundaries, MixUp
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
    """The oracle: the rule as Google's `get_lr` has it, which ends at the last boundary."""
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
    ],
)
def test_impossible_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        HyperRule(**arguments)
