"""Tests fine_tune against the recipe written by hand and against torch, and what it refuses."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as numpy_of

from image_files import PROCESSOR, pixels
from keras_bit import (
    BiT,
    BitConfig,
    HyperRule,
    Recipe,
    fine_tune,
    freeze,
    from_pretrained,
    image_dataset,
    save_pretrained,
)
from keras_bit.training.units import units_for
from tiny_bit import variables

pytestmark = [
    pytest.mark.usefixtures("eagerly"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option"),
]
SMALL = {"embedding_size": 16, "hidden_sizes": (32,), "depths": (1,), "num_groups": 4}
SIDE = 32


def small_model(classes=3, activation="auto", **config):
    keras.utils.set_random_seed(0)
    return BiT(BitConfig(**SMALL, num_labels=classes, **config), classifier_activation=activation)


def images_of(count):
    return np.random.default_rng(0).uniform(-1, 1, (count, SIDE, SIDE, 3)).astype(np.float32)


def batches(labels, size=4):
    labels = np.asarray(labels)
    return tf.data.Dataset.from_tensor_slices((images_of(len(labels)), labels)).batch(size)


NUMBERS = [0, 1, 2, 1, 0, 2, 2, 1]
ROWS = np.eye(3, dtype=np.float32)[NUMBERS]


def rule(steps=3, **options):
    return HyperRule(8, SIDE, steps=steps, base_learning_rate=0.05, **{"batch_size": 4} | options)


def test_labels_of_several_classes_are_rows_of_0_to_1():
    model = small_model(problem_type="multi_label_classification")
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"Labels of several classes must be rows of numbers in \[0, 1\], got:"
    ):
        fine_tune(model, batches(ROWS * 2), rule=rule(2), verbose=0)


@pytest.mark.usefixtures("graphs")
def test_it_is_what_a_person_does_by_hand_in_keras():
    ours, by_hand = small_model(), small_model()
    history = fine_tune(ours, batches(NUMBERS), batches(NUMBERS), rule=rule(5), steps_per_epoch=5, verbose=0)
    by_hand.compile(rule(5).optimizer(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    expected = by_hand.fit(
        batches(NUMBERS).repeat(), validation_data=batches(NUMBERS), steps_per_epoch=5, shuffle=False, verbose=0
    )
    assert history.history == {name: pytest.approx(values) for name, values in expected.history.items()}
    for key, value in variables(by_hand).items():
        # Threads may add up a gradient in another order.
        np.testing.assert_allclose(variables(ours)[key], value, rtol=1e-5, atol=1e-6)


# Names of classes


def named(labels, *names):
    data = batches(labels)
    data.class_names = list(names)
    return data


CAT_DOG_EEL = ("cat", "dog", "eel")


def labeled_as(*names):
    return {"id2label": dict(enumerate(names))}


def test_the_classes_get_the_names_of_the_images_and_can_be_weighted_by_them():
    model = small_model()
    recipe = Recipe(rule(1), class_weight={"eel": 2.0})
    fine_tune(model, named(NUMBERS, *CAT_DOG_EEL), recipe=recipe, verbose=0)
    assert list(model.config.id2label.values()) == list(CAT_DOG_EEL)
    assert model.config.label2id == {"cat": 0, "dog": 1, "eel": 2}


def test_a_head_of_other_classes_is_trained_with_a_warning_and_gets_the_new_names():
    model = small_model(**labeled_as("ant", "bee", "cow"))
    with pytest.warns(
        UserWarning, match=r"classes were 'ant', 'bee', 'cow'\. .* gets their names, 'cat', 'dog', 'eel'"
    ):
        fine_tune(model, named(NUMBERS, *CAT_DOG_EEL), rule=rule(1), verbose=0)
    assert list(model.config.id2label.values()) == list(CAT_DOG_EEL)


@pytest.mark.parametrize(
    ("model", "validation", "teacher", "message"),
    [
        ((), ("cat", "eel"), None, r"`validation` must have the classes of `train` .*; got 'cat', 'eel'\."),
        ((), ("dog", "cat", "eel"), None, r"`validation` must have the classes of `train` in their order"),
        (
            ("dog", "cat", "eel"),
            None,
            None,
            r"`model` must have the classes of the images in their order, 'cat', 'dog'",
        ),
        ((), None, ("ant", "bee", "cow"), r"`teacher` must have the classes of the images .*; got 'ant', 'bee', 'cow'"),
    ],
)
def test_data_sets_and_models_of_different_classes_are_refused(model, validation, teacher, message):
    model = small_model(**(labeled_as(*model) if model else {}))
    before = model.config
    with pytest.raises(ValueError, match=message):
        fine_tune(
            model,
            named(NUMBERS, *CAT_DOG_EEL),
            None if validation is None else named([0, 1], *validation),
            teacher=None if teacher is None else small_model(**labeled_as(*teacher)),
            rule=rule(1),
            verbose=0,
        )
    assert model.config is before


@pytest.mark.parametrize(("steps", "per_epoch", "epochs"), [(5, 2, 3), (4, 2, 2), (3, 9, 1), (7, None, 4)])
@pytest.mark.slow
def test_the_last_step_is_the_rules_also_within_an_epoch(steps, per_epoch, epochs):
    model = small_model()
    history = fine_tune(model, batches(NUMBERS), rule=rule(steps), steps_per_epoch=per_epoch, verbose=0)
    assert int(model.optimizer.iterations) == steps
    assert len(history.history["loss"]) == epochs  # None: one pass over the two batches


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_the_whole_batch():
    whole, parts = small_model(), small_model()
    fine_tune(whole, batches(NUMBERS, 8), rule=rule(4, batch_size=8), verbose=0)
    history = fine_tune(
        parts,
        batches(NUMBERS, 2),
        rule=rule(4, batch_size=8),
        gradient_accumulation_steps=4,
        steps_per_epoch=2,
        verbose=0,
    )
    assert int(parts.optimizer.iterations) == 4
    assert len(history.history["loss"]) == 2
    for key, value in variables(whole).items():
        # A mean of means in float32, and the momentum of four steps of it.
        np.testing.assert_allclose(variables(parts)[key], value, atol=2e-6, err_msg=str(key))


@pytest.mark.parametrize("activation", ["auto", None])
@pytest.mark.parametrize("labels", [NUMBERS, ROWS], ids=["numbers", "rows"])
@pytest.mark.slow
def test_one_of_several_classes_is_cross_entropy(activation, labels):
    model = small_model(activation=activation)
    reference = small_model(activation=None)(images_of(8))
    history = fine_tune(
        model, batches(labels, 8), batches(NUMBERS, 8), rule=rule(batch_size=8), steps_per_epoch=1, verbose=0
    )
    logits = numpy_of(reference).astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -log_probabilities[np.arange(8), NUMBERS].mean()
    found = {name: values[0] for name, values in history.history.items()}
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == NUMBERS).mean())
    # The first step has a rate of 0: validation sees the weights of the beginning, and numbers as rows.
    assert found["val_loss"] == pytest.approx(expected, rel=1e-5)


def test_top_five_is_measured_for_more_than_five_classes():
    history = fine_tune(small_model(6), batches(NUMBERS), rule=rule(1), verbose=0)
    assert sorted(history.history) == ["accuracy", "loss", "top_5_accuracy"]


@pytest.mark.parametrize("activation", ["auto", None])
def test_several_classes_at_once_are_binary_cross_entropy(activation):
    model = small_model(activation=activation, problem_type="multi_label_classification")
    logits = numpy_of(small_model(activation=None, problem_type="multi_label_classification")(images_of(8)))
    logits = logits.astype(np.float64)
    rows = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]] * 2, np.float32)
    history = fine_tune(model, batches(rows, 8), rule=rule(batch_size=8), steps_per_epoch=1, verbose=0)
    # torch.nn.BCEWithLogitsLoss, which transformers takes: the mean over images and classes.
    expected = (np.log1p(np.exp(logits)) - rows * logits).mean()
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert history.history["binary_accuracy"][0] == pytest.approx(((logits > 0) == rows).mean())
    assert 0 < history.history["auc"][0] <= 1


def test_integers_are_targets_if_the_model_is_for_regression():
    numbers = np.array([20, 35, 61, 8, 44, 90, 33, 50])
    losses = []
    for labels in (numbers, numbers.astype(np.float32)):
        data = batches(labels, 8)
        model = small_model(1, problem_type="regression")
        history = fine_tune(model, data, data, rule=rule(1, batch_size=8), steps_per_epoch=1, verbose=0)
        losses.append(history.history["loss"] + history.history["val_loss"])
    assert losses[0] == pytest.approx(losses[1])
    data.class_names = ["old", "young"]
    assert fine_tune(model, data, rule=rule(1, batch_size=8), verbose=0)  # its labels are floats
    data = batches(NUMBERS)
    data.class_names = ["old", "young", "other"]
    with pytest.raises(ValueError, match=r"`train` must have labels that are numbers, .* the classes 'old', 'young'"):
        fine_tune(model, data, rule=rule(), verbose=0)


def test_one_output_is_a_regression():
    model = small_model(1)
    numbers = np.linspace(-2, 2, 8, dtype=np.float32)
    outputs = numpy_of(small_model(1)(images_of(8)))[:, 0]
    history = fine_tune(model, batches(numbers, 8), rule=rule(batch_size=8), steps_per_epoch=1, verbose=0)
    errors = outputs - numbers
    # The loss is in units of the numbers' deviation, the error in their own.
    assert history.history["loss"][0] == pytest.approx((errors**2).mean() / numbers.var(), rel=1e-5)
    assert history.history["mean_absolute_error"][0] == pytest.approx(np.abs(errors).mean(), rel=1e-5)


def with_zero_head(model):
    for weight in model.get_layer("predictions").weights:
        weight.assign(np.zeros(weight.shape, "float32"))
    return model


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (1e5, 3e5), (1e-4, 0), (-20, 7)])
@pytest.mark.parametrize("outputs", [1, 2])
def test_numbers_of_any_range_are_learned_as_standardized_ones(scale, offset, outputs):
    known = np.random.default_rng(1).normal(size=(8, outputs))
    standardized = (known - known.mean(axis=0)) / known.std(axis=0)
    by_hand = with_zero_head(small_model(outputs, problem_type="regression"))
    by_hand.compile(rule(20, batch_size=8).optimizer(), "mean_squared_error")
    data = batches(standardized.astype("float32"), 8)
    expected = by_hand.fit(data.repeat(), steps_per_epoch=5, epochs=4, shuffle=False, verbose=0).history["loss"]

    model, seen = with_zero_head(small_model(outputs, problem_type="regression")), []
    numbers = (known * scale + offset).astype("float32")
    data = batches(numbers, 8)
    looks = keras.callbacks.LambdaCallback(on_train_end=lambda logs: seen.append(numpy_of(model(images_of(8)))))
    history = fine_tune(
        model, data, data, rule=rule(20, batch_size=8), steps_per_epoch=5, callbacks=[looks], verbose=0
    ).history
    # float32 has seven digits, of which an offset of three deviations takes one.
    assert history["loss"] == pytest.approx(expected, rel=1e-3)
    predicted = numpy_of(model(images_of(8)))
    np.testing.assert_allclose(predicted, seen[0] * numbers.std(axis=0) + numbers.mean(axis=0), rtol=1e-4)
    errors = np.abs(predicted - numbers).mean()
    assert history["val_mean_absolute_error"][-1] == pytest.approx(errors, rel=1e-3)
    assert model.evaluate(data, verbose=0, return_dict=True)["mean_absolute_error"] == pytest.approx(errors, rel=1e-3)


@pytest.mark.parametrize("numbers", [[3.0, 5.0, 10.0], [[3.0, 2.0], [5.0, 2.0], [10.0, 2.0]]])
def test_a_data_set_notes_mean_and_deviation_of_its_numbers(numbers):
    labels = np.array(numbers, np.float32)
    images = [pixels(number, 40, 40) for number in range(3)]
    data = image_dataset((images, labels), processor=PROCESSOR, batch_size=2, label_mode="numbers")
    mean, deviation = data.number_units
    np.testing.assert_allclose(mean, labels.reshape(3, -1).mean(axis=0))
    # A number that is always the same keeps its unit.
    np.testing.assert_allclose(deviation, [np.std([3, 5, 10]), 1][: labels.ndim])
    assert image_dataset((images, [0, 1, 1]), processor=PROCESSOR, batch_size=2).number_units is None
    # The labels of other data are measured; an endless one is not read to its end.
    model = small_model(labels.reshape(3, -1).shape[1], problem_type="regression")
    found = units_for(model, tf.data.Dataset.from_tensor_slices((images_of(3), labels)).batch(2).repeat(400))
    np.testing.assert_allclose(found.mean, mean, rtol=1e-2)
    np.testing.assert_allclose(found.deviation, deviation, rtol=1e-2)


def test_a_model_predicts_in_its_own_unit_after_an_error_too():
    model = small_model(1)
    before = numpy_of(model(images_of(8)))

    def stop(batch, logs):
        raise RuntimeError("stopped")

    numbers = np.linspace(1e3, 5e3, 8, dtype=np.float32)
    stopping = keras.callbacks.LambdaCallback(on_train_batch_begin=stop)
    with pytest.raises(RuntimeError, match="stopped"):
        fine_tune(model, batches(numbers, 8), rule=rule(1, batch_size=8), callbacks=[stopping], verbose=0)
    # The numbers are far from the predictions, which lose digits of float32 on the way.
    np.testing.assert_allclose(numpy_of(model(images_of(8))), before, atol=1e-3)


def test_a_head_without_bias_learns_the_numbers_as_they_are():
    config = BitConfig(**SMALL, num_labels=1, problem_type="regression")
    body = BiT(config, include_top=False, pooling="avg")
    head = keras.layers.Dense(1, use_bias=False, name="predictions")(body.output)
    model = type(body)(body.input, head)
    model.config = config
    numbers = np.linspace(-2, 2, 8, dtype=np.float32)
    outputs = numpy_of(model(images_of(8)))[:, 0]
    history = fine_tune(model, batches(numbers, 8), rule=rule(1, batch_size=8), verbose=0)
    assert history.history["loss"][0] == pytest.approx(((outputs - numbers) ** 2).mean(), rel=1e-5)


def test_frozen_layers_stay_as_they_are():
    model = small_model()
    frozen = freeze(model)
    before = variables(model)
    fine_tune(model, batches(NUMBERS), rule=rule(), verbose=0)
    changed = {layer for (layer, name), value in variables(model).items() if (value != before[layer, name]).any()}
    assert changed == {"predictions"}
    assert frozen


def test_mixed_precision_trains_with_a_head_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_model()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("predictions").compute_dtype == "float32"
    assert model.get_layer("stem_conv").compute_dtype == "bfloat16"
    history = fine_tune(model, batches(NUMBERS), rule=rule(), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.slow
def test_the_data_set_of_a_directory_with_mixup_is_taken_as_it_is():
    source = ([pixels(index, 40, 40) for index in range(6)], ["a", "b", "c"] * 2)
    mixed = HyperRule(20_000, 32, batch_size=3, steps=2)
    train = image_dataset(source, processor=PROCESSOR, batch_size=3, training=True, rule=mixed, seed=0, repeat=True)
    processor = dataclasses.replace(PROCESSOR, size={"height": 32, "width": 32})
    validation = image_dataset(source, processor=processor, batch_size=3)
    with pytest.warns(UserWarning, match=r"images of `validation` are 32x32 px, but the recipe trains on crops of 128"):
        history = fine_tune(small_model(), train, validation, rule=mixed, steps_per_epoch=2, verbose=0)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_a_loss_of_nan_ends_training_and_names_the_step():
    steep = HyperRule(8, SIDE, batch_size=4, steps=50, base_learning_rate=1e30)
    with pytest.raises(
        FloatingPointError, match=r"The loss became (nan|inf) at step \d+, at a learning rate of .*e\+2"
    ):
        fine_tune(small_model(), batches(NUMBERS), rule=steep, steps_per_epoch=7, verbose=0)


def test_a_validation_loss_of_nan_ends_training_too():
    broken = ROWS.copy()
    broken[5] = np.nan  # not an image: XLA's maximum of NaN and 0 is 0
    with pytest.raises(FloatingPointError, match=r"The loss of the validation is nan after step 2\. Lower"):
        fine_tune(small_model(), batches(ROWS), batches(broken), rule=rule(5), steps_per_epoch=2, verbose=0)


@pytest.mark.usefixtures("graphs")  # without graphs, Keras raises its own error if there is no batch
@pytest.mark.parametrize("name", ["train", "validation"])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras', before our error
@pytest.mark.slow
def test_a_data_set_without_a_batch_is_refused(name, known):
    whole = batches(NUMBERS)
    # A batch of nine for eight images, and a data set of unknown length.
    empty = whole.unbatch().batch(9, drop_remainder=True) if not known else batches(NUMBERS, 8).take(0)
    data = {"train": whole, "validation": whole} | {name: empty}
    with pytest.raises(ValueError, match=rf"`{name}` must have at least one batch, got an empty data set\. With drop"):
        fine_tune(small_model(), **data, rule=rule(), verbose=0)


def test_a_label_outside_of_the_classes_ends_training():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must be classes of the model, \[0, 3\), got:\] \[3\]"):
        fine_tune(small_model(), batches([0, 1, 2, 3]), rule=rule(), verbose=0)


REFUSED = {
    "arrays": (
        lambda: (small_model(), (images_of(4), NUMBERS[:4])),
        r"`train` must be a tf.data.Dataset or keras.utils.PyDataset of \(images, labels\), .* got tuple. Convert",
    ),
    "not batched": (
        lambda: (small_model(), batches(NUMBERS).unbatch()),
        r"`train` must give batches of images \(batch, height, width, channels\), got \(32, 32, 3\). Batch it",
    ),
    "floats for classes": (
        lambda: (small_model(), batches(np.float32(NUMBERS))),
        r"must be whole numbers \(batch,\) or rows \(batch, 3\), for single_label_classification with 3 outputs, "
        r"got float32 \(None,\). Load the model with `classes=`",
    ),
    "rows of another length": (
        lambda: (small_model(), batches(np.zeros((8, 4), np.float32))),
        r"rows \(batch, 3\), .* got float32 \(None, 4\)",
    ),
    "numbers for several classes": (
        lambda: (small_model(problem_type="multi_label_classification"), batches(NUMBERS)),
        r"Labels must be rows of 0 and 1 \(batch, 3\), for multi_label_classification",
    ),
    "numbers for a regression": (
        lambda: (small_model(1), batches(NUMBERS)),
        r"Labels must be floats \(batch,\), for regression with 1 outputs.* For two classes, use two outputs",
    ),
    "another activation": (
        lambda: (small_model(activation="sigmoid"), batches(NUMBERS)),
        "`model` must have a head that gives softmax or logits for single_label_classification, got sigmoid.",
    ),
    "no head": (
        lambda: (BiT(BitConfig(**SMALL), include_top=False), batches(NUMBERS)),
        "`model` must be a model that keras_bit built, with its head, got one without the layer predictions.",
    ),
    "no BiT": (lambda: (keras.Sequential(), batches(NUMBERS)), "with its head, got Sequential."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_conflicting_arguments_are_refused(case):
    prepare, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        fine_tune(*prepare(), rule=rule(), verbose=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": 3}, "`rule`.* keras_bit.HyperRule.* int"),
        ({"steps_per_epoch": 0}, "`steps_per_epoch`.* at least 1.* 0"),
        ({"initial_epoch": -1}, "`initial_epoch`.* at least 0.* -1"),
        (
            {"gradient_accumulation_steps": 3},
            "`gradient_accumulation_steps` must divide the rule's batch_size 4, got 3.",
        ),
    ],
)
@pytest.mark.slow
def test_impossible_arguments_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        fine_tune(small_model(), batches(NUMBERS), **{"rule": rule(), **options})


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.usefixtures("graphs")
def test_fifty_steps_from_the_same_weights_have_the_losses_of_transformers(tmp_path):
    """Uses the recipe's own rate with a warm-up of ten steps. Every image differs, and so does every batch."""
    import torch
    from transformers import BitForImageClassification

    config = BitConfig(
        embedding_size=32, hidden_sizes=(128, 256), depths=(1, 1), num_groups=8, num_labels=10, hidden_act="gelu"
    )
    keras.utils.set_random_seed(0)
    model = BiT(config)
    save_pretrained(model, tmp_path)
    reference = BitForImageClassification.from_pretrained(tmp_path).train()
    generator = np.random.default_rng(0)
    # Each class has its own color, so that the model can learn something.
    labels = generator.integers(0, 10, 800)
    images = generator.normal(generator.uniform(-1, 1, (10, 1, 1, 3))[labels], 0.5, (800, SIDE, SIDE, 3))
    images = images.astype(np.float32)
    recipe = HyperRule(800, SIDE, batch_size=16, steps=50)
    history = fine_tune(
        from_pretrained(tmp_path),
        tf.data.Dataset.from_tensor_slices((images, labels)).batch(16),
        rule=recipe,
        steps_per_epoch=1,
        verbose=0,
    )
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.0, momentum=0.9)
    losses = []
    for step in range(50):
        batch = slice(16 * step, 16 * step + 16)
        optimizer.param_groups[0]["lr"] = float(recipe.schedule()(step))
        loss = reference(
            torch.tensor(images[batch].transpose(0, 3, 1, 2)), labels=torch.tensor(labels[batch], dtype=torch.long)
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    difference = np.abs(np.array(history.history["loss"]) - losses)
    print(f"\nloss {losses[0]:.4f} to {losses[-1]:.4f}; largest difference from transformers {difference.max():.2e}")
    assert losses[-1] < losses[0] - 0.1
    assert difference.max() < 1e-3
