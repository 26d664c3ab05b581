"""Tests the state from which training resumes: it is complete, in one file, and written whole or not at all."""

import time

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from keras.ops import convert_to_numpy as numpy_of

from keras_bit.recipes.hyperrule import HyperRule
from keras_bit.training import progress
from keras_bit.training.state import TrainingState

IMAGES = np.random.default_rng(0).standard_normal((8, 6, 6, 2)).astype(np.float32)
LABELS = np.arange(8) % 2


def state_in(file, steps_per_epoch, total_steps):
    return TrainingState(file, steps_per_epoch, total_steps, rate_of=lambda step: 0.1 * step)


def compiled(policy=None):
    """Builds a model with everything that has a state: weights, momentum, a random generator, a loss scale."""
    keras.utils.set_random_seed(0)
    begin = [keras.layers.Conv2D(6, 3, dtype=policy), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((6, 6, 2)), *begin, keras.layers.Dropout(0.5), keras.layers.Dense(2)])
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        auto_scale_loss=True,
    )
    return model


def fit(model, state, epochs, first=0):
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4).repeat()
    options = {"steps_per_epoch": 2, "epochs": epochs, "initial_epoch": first, "shuffle": False, "verbose": 0}
    return model.fit(data, callbacks=[state], **options).history["loss"]


@pytest.mark.parametrize("policy", [None, "mixed_float16"])
def test_a_run_in_two_parts_has_the_losses_and_weights_of_the_whole(tmp_path, policy):
    keras.config.set_dtype_policy(policy or "float32")
    try:
        whole, first, second = (compiled(policy) for _ in range(3))
    finally:
        keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(1)  # PyTorch's generator belongs to the process
    losses = fit(whole, state_in(tmp_path / "whole", 2, 8), 4)
    keras.utils.set_random_seed(1)
    fit(first, state_in(tmp_path / "part", 2, 8), 2)
    state = state_in(tmp_path / "part", 2, 8)
    assert (state.epoch, state.step) == (2, 4)
    assert fit(second, state, 4, first=state.epoch) == losses[2:]
    assert [row["loss"] for row in state.rows] == losses
    assert [(row["step"], row["learning_rate"]) for row in state.rows] == [
        (step, pytest.approx(0.1 * (step - 1))) for step in (2, 4, 6, 8)
    ]
    for mine, other in zip(whole.variables, second.variables, strict=True):
        np.testing.assert_array_equal(numpy_of(mine), numpy_of(other))


def test_the_last_step_may_be_within_an_epoch(tmp_path):
    state = state_in(tmp_path / "state", 2, 3)
    fit(compiled(), state, 2)
    assert [row["step"] for row in state.rows] == [2, 3]
    assert state.step == 3


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    model, state = compiled(), state_in(tmp_path / "state", 2, 8)
    fit(model, state, 1)
    before = (tmp_path / "state").read_bytes()

    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.weights[0].assign(np.full((3, 3, 2, 6), np.nan, np.float32))

    with pytest.raises(FloatingPointError, match=r"After step 4 1 of \d+ variables hold NaN or infinity."):
        model.fit(IMAGES, LABELS, epochs=2, initial_epoch=1, callbacks=[Spoil(), state], verbose=0)
    assert (tmp_path / "state").read_bytes() == before
    assert (state.epoch, state.step, len(state.rows)) == (1, 2, 1)


def test_the_state_of_another_model_is_refused(tmp_path):
    fit(compiled(), state_in(tmp_path / "state", 2, 8), 1)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.compile("sgd", "mse")
    other.optimizer.build(other.trainable_variables)
    state = state_in(tmp_path / "state", 2, 8)
    state.set_model(other)
    with pytest.raises(
        ValueError, match=r"The training state '.*state' belongs to another model or optimizer. Remove it."
    ):
        state.restore()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "state").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"The training state '.*state' is damaged \(.*\). Remove its directory"):
        state_in(tmp_path / "state", 2, 8)


LOGS = {
    "no list": "5",
    "a row that is none": "[null]",
    "a row without its step": '[{"loss": 1.5}]',
    "a text": '[{"step": 1, "loss": "low"}]',
    "a list": '[{"step": [1]}]',
    "brackets": "[" * 100_000 + "]" * 100_000,
}


@pytest.mark.parametrize("case", LOGS)
def test_a_log_of_other_values_is_damage(tmp_path, case):
    safetensors.numpy.save_file({"model/0": np.ones(1)}, tmp_path / "state", {"log": LOGS[case]})
    with pytest.raises(ValueError, match=r"The training state '.*state' is damaged \(.*\). Remove its directory"):
        state_in(tmp_path / "state", 2, 8)


@pytest.mark.parametrize("place", [-1, -200, -2000])
def test_a_flipped_bit_is_found_before_training_goes_on(tmp_path, place):
    fit(compiled(), state_in(tmp_path / "state", 2, 8), 1)
    content = bytearray((tmp_path / "state").read_bytes())
    content[place] ^= 4
    (tmp_path / "state").write_bytes(content)
    state = state_in(tmp_path / "state", 2, 8)
    model = compiled()
    state.set_model(model)
    before = [numpy_of(variable) for variable in model.variables]
    with pytest.raises(
        ValueError, match=r"The training state '.*state' is damaged \((model/\d+|optimizer/\d+|torch_generator): its ch"
    ):
        state.restore()
    for variable, values in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(numpy_of(variable), values)


def test_the_file_is_plain_safetensors(tmp_path):
    fit(compiled(), state_in(tmp_path / "state", 2, 8), 1)
    held = safetensors.numpy.load_file(tmp_path / "state")
    # Two layers of a kernel and a bias and the dropout's generator; the step, the rate, and their momentum.
    expected = [f"model/{number}" for number in range(5)] + [f"optimizer/{number}" for number in range(6)]
    assert sorted(set(held) - {"torch_generator"}) == sorted(expected)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        # 497 steps are left after the three that were measured, and 22 until the next state.
        (65.0, ["The remaining 497 steps take about 9 hours at this speed. The run is next saved after step 25, in "]),
        (3.0, []),
    ],
)
def test_a_long_run_says_early_how_long_it_takes(tmp_path, monkeypatch, seconds, told):
    now, said = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    state = state_in(tmp_path / "state", 25, 500)
    shown = progress.Progress(HyperRule(100, 64, batch_size=16), 2, state, tmp_path / "log.csv", said.append, 5)
    shown.on_epoch_begin(0)
    now[0] += 30  # compiles
    for batch in range(20):  # two batches are a step
        now[0] += seconds / 2
        shown.on_train_batch_end(batch, {"loss": 1.0})
    shown.on_test_batch_begin(1)
    assert shown.bar.desc.startswith("validate batch 2/5")
    shown.close()
    assert [line.startswith(begin) for line, begin in zip(said, told, strict=True)] == [True] * len(told)
    assert all("in about 24 minutes" in line for line in said)
