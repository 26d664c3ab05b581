"""Tests rematerialize: training is the same if only the inputs of the blocks are kept."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as numpy_of

import keras_bit
from keras_bit import BiT, BiTBackbone, BitConfig, rematerialize, versions
from keras_bit.network import layers

SMALL = {"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (2, 1), "num_groups": 4, "num_labels": 3}
IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, 40, 48, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1])


@pytest.fixture
def able():
    if versions.is_older(keras.__version__, versions.CUTS_GRAPHS):
        pytest.skip(f"Keras is {keras.__version__}, which cannot")


def model(**config):
    keras.utils.set_random_seed(0)
    return BiT(BitConfig(**{**SMALL, **config}))


def trained(network):
    network.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    losses = [float(network.train_on_batch(IMAGES, LABELS)) for _ in range(3)]
    return losses, [numpy_of(variable) for variable in network.weights]


@pytest.mark.parametrize("config", [{}, {"layer_type": "bottleneck"}, {"hidden_act": "gelu"}], ids=str)
@pytest.mark.slow
@pytest.mark.usefixtures("able")
def test_rematerialized_it_learns_the_same(config):
    plain, saving = model(**config), model(**config)
    rematerialize(saving)
    (expected, weights), (losses, others) = trained(plain), trained(saving)
    # The gradients of a block are sums in another order.
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5 * np.abs(one).max())
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.usefixtures("able")
def test_a_model_that_has_learned_goes_on_rematerialized():
    plain, saving = model(), model()
    for network in (plain, saving):
        trained(network)
    rematerialize(saving)
    step = [float(network.train_on_batch(IMAGES, LABELS)) for network in (plain, saving)]
    assert step[0] == pytest.approx(step[1], rel=1e-5)


@pytest.mark.usefixtures("able")
def test_every_block_is_computed_twice_in_a_step_and_once_otherwise(monkeypatch):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("counts the nodes of TensorFlow's graph")
    monkeypatch.setattr(layers, "products_are_faster", lambda: False)  # matrix products have others as gradients

    def convolutions(network, training):
        def step(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(network(images, training=training))
            return tape.gradient(loss, [variable.value for variable in network.trainable_variables])

        graph = tf.function(step).get_concrete_function(tf.constant(IMAGES)).graph
        return sum(operation.type == "Conv2D" for operation in graph.get_operations())

    network = model()
    assert convolutions(network, True) == 12
    rematerialize(network)
    assert convolutions(network, True) == 12 + 11  # all but the stem's
    assert convolutions(network, False) == 12


@pytest.mark.usefixtures("able")
def test_a_backbone_gives_the_same_maps_and_predictions_stay():
    backbone = BiTBackbone(weights=None, config=BitConfig(**SMALL), out_features=["stem", "stage1", "stage2"])
    expected = backbone(IMAGES, training=True)
    rematerialize(backbone)
    found = backbone(IMAGES, training=True)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(numpy_of(found[name]), numpy_of(values), atol=1e-5)
    network = model()
    before = numpy_of(network(IMAGES))
    rematerialize(network)
    np.testing.assert_array_equal(numpy_of(network(IMAGES)), before)


@pytest.mark.slow
@pytest.mark.usefixtures("able")
def test_it_trains_in_half_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = model()
    finally:
        keras.config.set_dtype_policy("float32")
    rematerialize(network)
    losses, _ = trained(network)
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.usefixtures("able")
def test_it_is_saved_and_read_as_if_it_were_not(tmp_path):
    network = model()
    rematerialize(network)
    trained(network)
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(numpy_of(again(IMAGES)), numpy_of(network(IMAGES)), atol=1e-6)
    assert again.training_forward is None
    keras_bit.save_pretrained(network, tmp_path / "pretrained")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: model(drop_path_rate=0.1), "`model` has a drop_path_rate of 0.1: the second computation of a block"),
        (lambda: keras.Sequential([keras.layers.Dense(1)]), "`model` must be one that keras_bit built, got Sequential"),
    ],
)
def test_models_that_cannot_be_rematerialized_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        rematerialize(network())


def test_the_error_of_an_older_keras_names_the_required_version(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.13.2")
    with pytest.raises(
        ImportError, match=r"`rematerialize` needs Keras 3.14 or newer, but 3.13.2 is installed. Install"
    ):
        rematerialize(model())
