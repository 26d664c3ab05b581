"""Tests Recipe: what it refuses, its JSON form, and its optimizers, weights and losses against others."""

import dataclasses
import importlib
import importlib.util
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as numpy_of

from conftest import absent
from image_files import PROCESSOR, pixels
from keras_bit import BiT, BitConfig, HyperRule, Recipe, fine_tune, freeze, image_dataset, save_pretrained
from keras_bit.applications import from_pretrained
from keras_bit.data.balanced import balanced_order
from keras_bit.network.plain_weights import LOW_RANK
from keras_bit.recipes.adamw import AdamW
from keras_bit.recipes.layer_rates import layer_rates
from keras_bit.recipes.optimizers import highest_rate, optimizer, schedule
from keras_bit.training.feeding import Labels
from keras_bit.training.objective import metric_names, objective, problem_type
from keras_bit.training.watch import Watch, best_place
from keras_bit.training.weighting import balanced_weights
from tiny_bit import variables

pytestmark = [
    pytest.mark.usefixtures("eagerly"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option"),
]
SMALL = {"embedding_size": 16, "hidden_sizes": (32,), "depths": (1,), "num_groups": 4}
SIDE = 32
NUMBERS = [0, 1, 2, 1, 0, 2, 2, 1]
ROWS = np.eye(3, dtype=np.float32)[NUMBERS]
RULE = HyperRule(8, SIDE, batch_size=4, steps=4, base_learning_rate=0.05)


def needed(module):
    """Imports a module that is the oracle of a test."""
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        absent(f"{package} is not installed")
    return importlib.import_module(module)


def small_model(classes=3, **config):
    keras.utils.set_random_seed(0)
    return BiT(BitConfig(**SMALL, num_labels=classes, **config))


def batches(labels=NUMBERS, size=4):
    images = np.random.default_rng(0).uniform(-1, 1, (len(labels), SIDE, SIDE, 3)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((images, np.asarray(labels))).batch(size)


def tuned(recipe, model=None, train=None, validation=None, **options):
    """Trains a model for four steps, and returns it with its history."""
    model = model or small_model()
    options = {"steps_per_epoch": 2, "verbose": 0} | options
    return model, fine_tune(model, train or batches(), validation, recipe=recipe, **options).history


# What it is


RECIPES = [
    Recipe(RULE),
    Recipe(HyperRule(30_000, (32, 48), scaling="linear"), class_weight={0: 2, "dog": 0.5}, augment="cut_mix"),
    Recipe(
        RULE,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.0,
        layer_decay=0.7,
        class_weight="balanced",
        label_smoothing=0.1,
        ema=0.9,
        augment=["rand_augment", "random_erasing"],
        early_stopping=3,
        keep_best="val_accuracy",
        lora=4,
        freeze_up_to="stage1",
    ),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_comes_back_from_json(recipe):
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert Recipe(recipe.rule, **json.loads(json.dumps(recipe.choices))) == recipe


def test_by_default_it_is_its_rule():
    assert Recipe(RULE).choices == {}
    assert not Recipe(RULE).mixes
    assert Recipe(HyperRule(20_000, 32)).mixes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimiser": "sgd"}, r"`Recipe` must have only the keys rule, optimizer, .*, got 'optimiser'\. Remove"),
        ({"rule": {"examples": 3}}, r"`rule` must have only the keys num_examples, image_size.*, got 'examples'"),
        ({"rule": {"num_examples": 3}}, "`rule` must have image_size, got num_examples"),
        ({"rule": None}, "`rule` must be a keras_bit.HyperRule, got NoneType"),
        ({"optimizer": "adam"}, r"`optimizer` must be one of 'sgd', 'adamw', got 'adam'"),
        ({"learning_rate": 0.1}, "`learning_rate` must be None for optimizer='sgd', got 0.1"),
        ({"weight_decay": 0.1}, "`weight_decay` must be None for optimizer='sgd', got 0.1"),
        ({"optimizer": "adamw", "learning_rate": 0}, "`learning_rate` must be a number above 0, got 0"),
        ({"optimizer": "adamw", "weight_decay": -1}, "`weight_decay` must be a number of at least 0, got -1"),
        ({"layer_decay": 0}, r"`layer_decay` must be a number in \(0, 1\], got 0"),
        ({"layer_decay": 1.5}, r"`layer_decay` must be a number in \(0, 1\], got 1.5"),
        ({"label_smoothing": 1}, r"`label_smoothing` must be a number in \[0, 1\), got 1"),
        ({"label_smoothing": None}, "`label_smoothing` must be a number in .* got None"),
        ({"ema": float("nan")}, r"`ema` must be a number in \(0, 1\), got nan"),
        ({"sampling": "random"}, "`sampling` must be one of None, 'balanced', got 'random'"),
        ({"augment": "randaugment"}, "`augment` must be one of 'rand_augment', 'cut_mix', 'random_erasing', got"),
        ({"augment": ["cut_mix", "cut_mix"]}, "`augment` must name each layer once"),
        ({"early_stopping": 0}, "`early_stopping` must be a whole number of at least 1, got 0"),
        ({"lora": 1.5}, "`lora` must be a whole number of at least 1, got 1.5"),
        ({"keep_best": "accuracy"}, "`keep_best` must be a metric of the validation, such as 'val_accuracy'"),
        ({"keep_best": 1}, "`keep_best` must be a string or None, got 1"),
        ({"class_weight": "even"}, "`class_weight` must be None, 'balanced', or a dict .*got 'even'"),
        ({"class_weight": {"cat": 0}}, "`class_weight` must be .*got 0 for 'cat'"),
        ({"class_weight": {-1: 1.0}}, "`class_weight` must be .*got 1.0 for -1"),
        ({"class_weight": 3}, "`class_weight` must be .*got 3"),
        ({"class_weight": "balanced", "sampling": "balanced"}, "must not both be 'balanced'"),
        ({"lora": 2, "freeze_up_to": "all"}, "`lora` must be None with freeze_up_to='all', got 2"),
    ],
)
def test_contradictory_recipes_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict({"rule": dataclasses.asdict(RULE)} | values)


SEVERAL = {"problem_type": "multi_label_classification"}
REGRESSION = {"problem_type": "regression"}


@pytest.mark.parametrize(
    ("choice", "config", "message"),
    [
        ({"keep_best": "val_accuracy"}, {}, "`keep_best` needs validation data, got 'val_accuracy' without it"),
        ({"early_stopping": 2}, {}, "`early_stopping` needs validation data, got 2 without it"),
        ({"class_weight": "balanced"}, SEVERAL, "`class_weight` must be None for multi_label_classification"),
        ({"sampling": "balanced"}, REGRESSION, "`sampling` must be None for regression"),
        ({"label_smoothing": 0.1}, REGRESSION, "`label_smoothing` must be 0 for regression, got 0.1"),
        ({"augment": "cut_mix"}, REGRESSION, "`augment` must not contain 'cut_mix' for regression"),
        ({"augment": "cut_mix"}, {}, r"`recipe` has augment=\('cut_mix',\), which `image_dataset` applies"),
        ({"class_weight": "balanced"}, {}, "`class_weight` must be a dict for this `train`"),
        ({"class_weight": {"horse": 2}}, {}, "`class_weight` must name classes of the model, got 'horse'"),
        ({"class_weight": {3: 2}}, {}, "`class_weight` must name classes of the model, got 3. They are 0 to 2"),
        ({"class_weight": {0: 2, "LABEL_0": 2}}, {}, "`class_weight` must name each class once"),
        ({"freeze_up_to": "stage9"}, {}, "`freeze_up_to` must be None or one of"),
    ],
)
def test_options_that_do_not_fit_model_or_data_are_refused_at_once(choice, config, message):
    model = small_model(**config)
    before, count = variables(model), len(model.trainable_weights)
    with pytest.raises(ValueError, match=message):
        fine_tune(model, batches(), recipe=Recipe(RULE, **choice))
    assert len(model.trainable_weights) == count
    assert all((before[key] == value).all() for key, value in variables(model).items())


def test_a_misspelt_metric_gives_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="`keep_best` must be one of 'val_loss', 'val_accuracy', got 'val_acc'"):
        fine_tune(small_model(), batches(), batches(), recipe=Recipe(RULE, keep_best="val_acc"))


@pytest.mark.parametrize(("config", "labels"), [({}, "int32"), (SEVERAL, "float32"), (REGRESSION, "float32")])
@pytest.mark.parametrize("classes", [3, 6])
def test_the_metrics_that_are_named_are_those_that_are_measured(config, labels, classes):
    model = small_model(classes, **config)
    if config == REGRESSION:
        model = BiT(BitConfig(**SMALL, num_labels=classes, **config), classifier_activation=None)
    shape = (None,) if labels == "int32" else (None, classes)
    named = metric_names(problem_type(model), classes, "float32")
    assert named == [one.name for one in objective(model, [Labels(labels, shape)]).metrics]


def test_a_head_that_is_frozen_leaves_lora_nothing():
    model = small_model()
    model.get_layer("predictions").trainable = False
    with pytest.raises(ValueError, match="`lora` needs a trainable head, got 2"):
        fine_tune(model, batches(), recipe=Recipe(RULE, lora=2))
    model = small_model()
    freeze(model)
    with pytest.raises(ValueError, match="`lora` needs trainable convolutions, got 2"):
        fine_tune(model, batches(), recipe=Recipe(RULE, lora=2))


@pytest.mark.parametrize(("given", "got"), [({}, "none of them"), ({"rule": RULE, "recipe": Recipe(RULE)}, "both")])
def test_one_of_rule_and_recipe_is_given(given, got):
    with pytest.raises(ValueError, match=f"`fine_tune` takes one of `rule` and `recipe`, got {got}"):
        fine_tune(small_model(), batches(), **given)


# What it computes


@pytest.mark.usefixtures("graphs")
def test_a_recipe_of_a_rule_alone_gives_exactly_its_numbers():
    (ours, history), by_rule = tuned(Recipe(RULE), validation=batches()), small_model()
    expected = fine_tune(by_rule, batches(), batches(), rule=RULE, steps_per_epoch=2, verbose=0).history
    assert history == expected
    assert all((variables(ours)[key] == value).all() for key, value in variables(by_rule).items())


def test_balanced_weights_are_scikit_learns():
    compute = needed("sklearn.utils.class_weight").compute_class_weight
    labels = np.array([0] * 5 + [1] * 2 + [3])
    expected = compute("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(balanced_weights([5, 2, 0, 1])[[0, 1, 3]], expected, rtol=1e-12)
    assert balanced_weights([5, 2, 0, 1])[2] == 1


WEIGHTS = np.array([0.5, 2.0, 3.0], np.float32)
MIXED = (0.7 * ROWS + 0.3 * ROWS[::-1]).astype(np.float32)


@pytest.mark.parametrize("labels", [NUMBERS, ROWS, MIXED], ids=["numbers", "rows", "mixed"])
def test_an_image_counts_what_its_classes_count(labels):
    """The loss is torch's for whole labels, `mean(weight * loss)`, and linear in mixed ones."""
    model = small_model()
    scores = np.asarray(model.predict(batches(labels), verbose=0))
    rows = np.asarray(labels) if np.ndim(labels) == 2 else ROWS
    expected = np.mean(rows @ WEIGHTS * -(rows * np.log(scores)).sum(1))
    recipe = Recipe(HyperRule(8, SIDE, batch_size=8, steps=1), class_weight=dict(enumerate(map(float, WEIGHTS))))
    _, history = tuned(recipe, model, batches(labels, 8), steps_per_epoch=1)
    assert history["loss"] == [pytest.approx(expected, rel=1e-5)]  # float32, in another order
    if np.ndim(labels) == 1:
        torch = needed("torch")
        theirs = torch.nn.CrossEntropyLoss(torch.tensor(WEIGHTS), reduction="none")
        losses = theirs(torch.log(torch.tensor(scores)), torch.tensor(labels))
        assert expected == pytest.approx(float(losses.mean()), rel=1e-5)


def test_class_names_weigh_as_their_numbers():
    names = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    _, by_name = tuned(Recipe(RULE, class_weight={"b": 4.0}), small_model(**names))
    _, by_number = tuned(Recipe(RULE, class_weight={1: 4.0}), small_model(**names))
    assert by_name == by_number
    assert by_name["loss"] != tuned(Recipe(RULE))[1]["loss"]


def test_smoothed_labels_have_torchs_loss():
    torch = needed("torch")
    model = small_model()
    scores = torch.tensor(np.asarray(model.predict(batches(), verbose=0)))
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.2)(torch.log(scores), torch.tensor(NUMBERS))
    recipe = Recipe(HyperRule(8, SIDE, batch_size=8, steps=1), label_smoothing=0.2)
    _, history = tuned(recipe, model, batches(size=8), steps_per_epoch=1)
    assert history["loss"] == [pytest.approx(float(expected), rel=1e-5)]


GRADIENTS = np.random.default_rng(1).standard_normal((12, 3, 2)).astype(np.float32)
START = np.random.default_rng(2).standard_normal((3, 2)).astype(np.float32)
ADAMW = Recipe(HyperRule(8, SIDE, steps=12), optimizer="adamw", learning_rate=0.1, weight_decay=0.3)


def stepped(chosen, gradients=GRADIENTS):
    """Returns a kernel after each step of an optimizer."""
    kernel = keras.Variable(START, name="kernel")
    seen = []
    for gradient in gradients:
        chosen.apply([keras.ops.convert_to_tensor(gradient)], [kernel])
        seen.append(numpy_of(kernel).copy())
    return np.array(seen)


def test_adamw_with_warm_up_and_cosine_is_torchs_step_by_step():
    torch = needed("torch")
    steps, warmup = ADAMW.rule.total_steps, ADAMW.rule.warmup_steps
    assert (steps, warmup) == (12, 2)
    weight = torch.nn.Parameter(torch.tensor(START))
    theirs = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.3, eps=1e-8)
    warm = torch.optim.lr_scheduler.LambdaLR(theirs, lambda step: step / warmup)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, steps - warmup)
    scheduler = torch.optim.lr_scheduler.SequentialLR(theirs, [warm, cosine], [warmup])
    expected = []
    for gradient in GRADIENTS:
        weight.grad = torch.tensor(gradient)
        theirs.step()
        scheduler.step()
        expected.append(weight.detach().numpy().copy())
    # Keras adds epsilon before the correction of the variance, torch after it; and float32.
    np.testing.assert_allclose(stepped(optimizer(ADAMW, ())), expected, rtol=2e-5, atol=2e-6)


def test_adamw_is_keras_own_where_all_variables_decay():
    theirs = keras.optimizers.AdamW(schedule(ADAMW), weight_decay=0.3, epsilon=1e-8)
    np.testing.assert_allclose(stepped(optimizer(ADAMW, ())), stepped(theirs), rtol=1e-6, atol=1e-7)


def test_biases_and_norms_do_not_decay():
    chosen = AdamW(0.1, kernel_decay=0.5)
    kernel, bias = keras.Variable(np.ones((2, 2), "f4")), keras.Variable(np.ones(2, "f4"))
    chosen.apply([keras.ops.zeros((2, 2)), keras.ops.zeros(2)], [kernel, bias])
    np.testing.assert_allclose(numpy_of(kernel), 0.95, rtol=1e-6)
    np.testing.assert_array_equal(numpy_of(bias), 1)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_each_stage_learns_slower_than_the_next(kind):
    """A first step of SGD moves a weight by rate times gradient, of AdamW by the rate."""
    assert layer_rates(("stem", "stage1", "stage2"), 0.5) == {"stem": 0.125, "stage1": 0.25, "stage2": 0.5}
    rule = HyperRule(8, SIDE, steps=1)
    given = {} if kind == "sgd" else {"optimizer": kind, "weight_decay": 0.0}
    moved = {}
    for decay in (None, 0.5):
        chosen = optimizer(Recipe(rule, layer_decay=decay, **given), ("stem", "stage1"))
        model = small_model()
        before = [numpy_of(weight).copy() for weight in model.trainable_weights]
        gradients = [keras.ops.ones_like(weight) for weight in model.trainable_weights]
        chosen.apply(gradients, model.trainable_weights)
        moved[decay] = {
            weight.path: (old - numpy_of(weight)).mean()
            for weight, old in zip(model.trainable_weights, before, strict=True)
        }
    for path, rate in (("stem_conv/kernel", 0.25), ("stage1_block0_conv2/kernel", 0.5), ("predictions/kernel", 1)):
        assert moved[0.5][path] == pytest.approx(rate * moved[None][path], rel=1e-2), path  # float32 differences


@pytest.mark.parametrize("choice", [{"layer_decay": 0.5}, {"optimizer": "adamw"}, {"ema": 0.9}])
@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_an_optimizer_comes_back_from_its_config(choice, batches_per_step):
    chosen = optimizer(Recipe(RULE, **choice), ("stem", "stage1"), batches_per_step)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(chosen))
    gradients = np.repeat(GRADIENTS[:4], batches_per_step, axis=0)
    np.testing.assert_array_equal(stepped(chosen, gradients), stepped(again, gradients))


@pytest.mark.parametrize("choice", [{}, {"optimizer": "adamw"}, {"optimizer": "adamw", "ema": 0.9}])
def test_a_step_of_several_batches_has_the_rate_and_the_weights_of_one(choice):
    recipe = Recipe(HyperRule(8, SIDE, steps=6), **choice)
    whole = stepped(optimizer(recipe, ()), GRADIENTS[:6])
    parts = stepped(optimizer(recipe, (), 2), np.repeat(GRADIENTS[:6], 2, axis=0))[1::2]
    np.testing.assert_allclose(parts, whole, rtol=1e-6, atol=1e-7)
    assert highest_rate(Recipe(RULE)) == 0.05


def test_averaged_weights_are_those_of_a_loop():
    recipe = Recipe(RULE, ema=0.8)
    seen = []

    class See(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([numpy_of(weight).copy() for weight in self.model.trainable_weights])

    model, _ = tuned(recipe, callbacks=[See()])
    average = seen[0]
    for weights in seen[1:]:
        average = [0.8 * old + 0.2 * new for old, new in zip(average, weights, strict=True)]
    assert len(seen) == 4
    for weight, expected in zip(model.trainable_weights, average, strict=True):
        np.testing.assert_allclose(numpy_of(weight), expected, rtol=1e-5, atol=1e-6, err_msg=weight.path)


def test_the_averages_are_what_is_validated_and_kept():
    model, history = tuned(Recipe(RULE, ema=0.8, keep_best="val_loss"), validation=batches())
    model.compile(loss="sparse_categorical_crossentropy")
    # TensorFlow's swap adds and subtracts, in float32.
    found = model.evaluate(batches(), verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(min(history["val_loss"]), rel=1e-5)


def test_training_ends_without_improvement_and_keeps_the_best_model():
    """The labels of this validation are wrong: the more is learned, the higher is its loss."""
    wrong = batches([(number + 1) % 3 for number in NUMBERS])
    rule = HyperRule(8, SIDE, batch_size=4, steps=20, base_learning_rate=0.5)
    recipe = Recipe(rule, keep_best="val_loss", early_stopping=2)
    model, history = tuned(recipe, validation=wrong, steps_per_epoch=1)
    losses = history["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 20
    model.compile(loss="sparse_categorical_crossentropy")
    found = model.evaluate(wrong, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(losses[best], rel=1e-5)


@pytest.mark.parametrize(
    ("metric", "values", "best", "over"),
    [
        ("val_loss", [3, 2, 2, 2.5], 1, True),
        ("val_loss", [3, 2, 2.5, 1], 3, False),
        ("val_accuracy", [0.1, 0.5, 0.5, 0.4], 1, True),
        ("val_mean_absolute_error", [3, 4], 0, False),
    ],
)
def test_the_first_of_equal_values_is_the_best_and_patience_counts_from_it(metric, values, best, over):
    watch = Watch(metric, patience=2, keeps=True)
    watch.resume(values, None)
    assert (best_place(values, metric), watch.is_over) == (best, over)


def test_lora_learns_factors_and_the_head_and_is_saved_merged(tmp_path):
    model, _ = tuned(Recipe(RULE, lora=2))
    learned = {weight.path.split("/")[-1] for weight in model.trainable_weights if "predictions" not in weight.path}
    assert learned == set(LOW_RANK)
    assert all(np.any(numpy_of(w)) for w in model.weights if w.path.endswith("lora_kernel_b"))
    images = next(iter(batches()))[0]
    save_pretrained(model, tmp_path)
    plain = from_pretrained(tmp_path)
    assert not any("lora" in weight.path for weight in plain.weights)
    # The merged kernel is the sum that the layer computes in each call: the same numbers, in float32.
    np.testing.assert_allclose(numpy_of(plain(images)), numpy_of(model(images)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="`lora` must be the model's rank, 2, got 4"):
        fine_tune(model, batches(), recipe=Recipe(RULE, lora=4))


# Its data


SOURCE = ([pixels(index, 40, 40) for index in range(8)], ["a", "b", "c", "b", "a", "b", "b", "b"])


def data_of(recipe, **options):
    options = {"processor": PROCESSOR, "batch_size": 4, "training": True, "seed": 0} | options
    return image_dataset(SOURCE, recipe=recipe, **options)


@pytest.mark.parametrize("repeat", [False, True])
def test_balanced_sampling_shows_classes_equally_often_from_any_step(repeat):
    recipe = Recipe(RULE, sampling="balanced")
    labels = np.concatenate([np.asarray(batch[1]) for batch in data_of(recipe, repeat=repeat).take(6)])
    passes = labels[: len(labels) // 8 * 8].reshape(-1, 8)
    for counts in (np.bincount(one, minlength=3) for one in passes):
        assert sorted(counts) == [2, 3, 3]
    assert [*data_of(recipe).class_counts] == [2, 5, 1]
    if repeat:
        later = [np.asarray(batch[1]) for batch in data_of(recipe, repeat=True, initial_step=2).take(4)]
        np.testing.assert_array_equal(np.concatenate(later), labels[8:])


def test_balanced_sampling_repeats_few_images_and_varies_many():
    labels = np.array([0] * 9 + [1] * 3)
    orders = [balanced_order(labels, np.random.default_rng(seed)) for seed in range(30)]
    for order in orders:
        assert len(order) == 12
        assert [*np.bincount(order, minlength=12)[9:]] == [2, 2, 2]
        assert np.bincount(order, minlength=12)[:9].max() == 1
    assert len(set(np.concatenate(orders))) == 12


@pytest.mark.parametrize("augment", ["cut_mix", "rand_augment", ("random_erasing", "cut_mix")])
def test_keras_layers_change_pixels_and_a_seed_and_a_step_decide_how(augment):
    if not hasattr(keras.layers, "RandomErasing"):
        absent("this Keras has no RandomErasing")
    plain, recipe = Recipe(RULE), Recipe(RULE, augment=augment)
    changed = [(np.asarray(x), np.asarray(y)) for x, y in data_of(recipe, repeat=True).take(3)]
    before = [(np.asarray(x), np.asarray(y)) for x, y in data_of(plain, repeat=True).take(3)]
    assert any((one[0] != other[0]).any() for one, other in zip(changed, before, strict=True))
    for (images, labels), (_, numbers) in zip(changed, before, strict=True):
        assert images.dtype == np.float32
        assert -1 <= images.min() < images.max() <= 1
        if "cut_mix" in recipe.augment:
            np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
        else:
            np.testing.assert_array_equal(labels, numbers)
    for (images, labels), (x, y) in zip(changed[1:], data_of(recipe, repeat=True, initial_step=1).take(2), strict=True):
        np.testing.assert_array_equal(np.asarray(x), images)
        np.testing.assert_array_equal(np.asarray(y), labels)


def test_cut_mix_trains_on_the_rows_that_it_makes():
    recipe = Recipe(RULE, augment="cut_mix", class_weight="balanced")
    _, history = tuned(recipe, train=data_of(recipe, repeat=True), steps_per_epoch=4)
    assert np.isfinite(history["loss"]).all()


def test_the_data_set_remembers_its_recipe_and_another_one_is_refused():
    recipe = Recipe(RULE)
    train, validation = data_of(recipe), data_of(recipe, training=False)
    assert train.recipe == validation.recipe == recipe
    assert validation.image_size == (128, 128)
    assert validation.processor.size == {"height": 128, "width": 128}
    assert next(iter(validation))[0].shape == (4, 128, 128, 3)
    with pytest.raises(
        ValueError, match=r"It was made with crop_size 128, and `fine_tune` was given crop_size 480|resize_size 160"
    ):
        fine_tune(small_model(), train, rule=HyperRule(8, 200, batch_size=4, steps=4))
    with pytest.raises(ValueError, match=r"made with augment None, and `fine_tune` was given augment \('cut_mix',\)"):
        fine_tune(small_model(), train, recipe=Recipe(RULE, augment="cut_mix"))


@pytest.mark.parametrize(
    ("rule", "accumulated", "message"),
    [
        ({"batch_size": 8}, 1, r"batches of 8 images \(the rule's batch_size 8\), .*; got 4\."),
        ({}, 2, r"batches of 2 images \(the rule's batch_size 4 / gradient_accumulation_steps 2\)"),
    ],
)
def test_batches_that_the_learning_rate_is_not_for_are_refused(rule, accumulated, message):
    recipe = Recipe(dataclasses.replace(RULE, **rule))
    with pytest.raises(ValueError, match=message):
        fine_tune(small_model(), data_of(recipe), recipe=recipe, gradient_accumulation_steps=accumulated)


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (Recipe(RULE), {"rule": RULE}, "`image_dataset` takes one of `rule` and `recipe`, got both"),
        ("best", {}, "`recipe` must be a keras_bit.Recipe, got str"),
        (Recipe(RULE, augment="cut_mix"), {"engine": "graph"}, "`engine` must be 'host' for a recipe with `augment`"),
        (Recipe(RULE, sampling="balanced"), {"engine": "graph"}, "`engine` must be 'host' for a recipe with `sampling"),
        (Recipe(RULE, augment="cut_mix"), {"label_mode": "int"}, "`label_mode` must be .* for augment='cut_mix'"),
    ],
)
def test_a_data_set_refuses_what_it_cannot_do(recipe, options, message):
    with pytest.raises(ValueError, match=message):
        data_of(recipe, **options)


def test_sources_without_a_class_for_each_image_have_no_balance():
    rows = (SOURCE[0], np.eye(3, dtype=np.float32)[[0, 1, 2, 1, 0, 1, 1, 1]])
    with pytest.raises(ValueError, match="`sampling` must be None for a `source` that is read from its beginning"):
        image_dataset(
            rows, processor=PROCESSOR, batch_size=4, training=True, recipe=Recipe(RULE, sampling="balanced"), seed=0
        )
    with pytest.raises(ValueError, match="`augment` must not contain 'cut_mix' for labels that are numbers"):
        image_dataset(
            (SOURCE[0], np.linspace(0, 90, 8)),
            processor=PROCESSOR,
            batch_size=4,
            training=True,
            recipe=Recipe(RULE, augment="cut_mix"),
        )
