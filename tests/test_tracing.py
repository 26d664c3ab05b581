"""Tests that TensorFlow traces one graph for all calls of the same shapes, on which its speed depends."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_bit
from keras_bit.network.tracing import products_are_faster, traced_once

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's graphs", allow_module_level=True)


def test_a_function_is_traced_once_for_each_shape_type_and_option():
    traced = []

    @traced_once
    def scaled(x, y, factor):
        traced.append((tuple(x.shape), x.dtype.name, factor))
        return x * y * factor, y

    @tf.function
    def graph(x):
        return [scaled(x, x, factor=2.0)[0] for _ in range(3)], scaled(x, x, factor=3.0)[0]

    ones, halves = tf.ones((2, 3)), tf.ones((2, 3), tf.float16)
    same, other = graph(ones)
    assert traced == [((2, 3), "float32", 2.0), ((2, 3), "float32", 3.0)]
    assert [float(each[0, 0]) for each in (*same, other)] == [2, 2, 2, 3]
    graph(halves)
    assert traced[2:] == [((2, 3), "float16", 2.0), ((2, 3), "float16", 3.0)]
    called = [node for node in graph.get_concrete_function(ones).graph.get_operations() if "Call" in node.type]
    assert len(called) == 4
    assert len({node.get_attr("f").name for node in called}) == 2
    assert called[0].get_attr("f").name.startswith("__inference_scaled_")


def test_without_a_graph_it_is_called_as_it_is(caplog):
    traced = []

    @traced_once
    def doubled(x):
        traced.append(tf.inside_function())
        return 2 * x

    for size in range(1, 20):  # `tf.function` warns of being traced so often
        doubled(tf.ones((size,)))
    assert traced == 19 * [False]
    assert not caplog.records


def test_layers_of_the_same_shape_share_their_graphs():
    config = keras_bit.BitConfig(embedding_size=16, hidden_sizes=(32,), depths=(4,), num_groups=4, num_labels=3)
    model = keras_bit.BiT(config)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True))
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    operations = step.get_concrete_function(tf.ones((2, 32, 32, 3))).graph.get_operations()
    called = [node.get_attr("f").name for node in operations if node.type == "PartitionedCall"]
    standardized = [name for name in called if "standardize" in name]
    normalized = [name for name in called if "normalize" in name]
    # Forward and backward; 14 kernels of 6 shapes: stem, projection, 3 of a block, the first of the other blocks.
    assert (len(standardized), len(set(standardized))) == (2 * 14, 2 * 6)
    # Three norms in each block and the last one; maps of 16, 8 and 32 channels.
    assert (len(normalized), len(set(normalized))) == (2 * 13, 2 * 3)


def small_model():
    config = keras_bit.BitConfig(embedding_size=16, hidden_sizes=(32,), depths=(4,), num_groups=4, num_labels=3)
    return keras_bit.BiT(config)


def calls(function, *arguments):
    """Returns the functions that a graph calls, by the name of each call."""
    operations = tf.function(function).get_concrete_function(*arguments).graph.get_operations()
    return [node.get_attr("f").name for node in operations if "PartitionedCall" in node.type]


def test_predict_and_evaluate_share_graphs_and_a_plain_call_has_none():
    model = small_model()
    model.compile(loss="sparse_categorical_crossentropy")
    images, labels = tf.ones((2, 32, 32, 3)), tf.zeros((2,), tf.int32)
    for called in (calls(model.predict_step, images), calls(model.test_step, (images, labels))):
        # 14 kernels of 6 shapes, 13 norms of 3.
        assert len([name for name in called if "standardize" in name]) == 14
        assert len([name for name in called if "normalize" in name]) == 13
        assert len(set(called)) == 6 + 3
    assert calls(lambda x: model(x, training=False), images) == []


@pytest.mark.parametrize("fused", [False, True])
def test_predict_gives_what_a_direct_call_gives(fused):
    model = small_model()
    if fused:
        model = keras_bit.fuse(model)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 40, 48, 3)).astype("float32")
    # Probabilities, added up by other threads in another order.
    np.testing.assert_allclose(model.predict(images, verbose=0), np.asarray(model(images)), rtol=0, atol=1e-6)


def test_matrix_products_are_for_cpus():
    assert products_are_faster() == (not tf.config.list_physical_devices("GPU"))


@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=str)
@pytest.mark.slow
def test_a_model_trains_alike_in_graphs_without_and_under_xla(how):
    keras.utils.set_random_seed(0)
    config = keras_bit.BitConfig(embedding_size=16, hidden_sizes=(32,), depths=(1,), num_groups=4, num_labels=3)
    model = keras_bit.BiT(config)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **how)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype("float32")
    losses = [float(model.train_on_batch(images, np.arange(4) % 3)) for _ in range(3)]
    # What the plain forms with TensorFlow's own gradients give, in float32.
    keras.utils.set_random_seed(0)
    reference = keras_bit.BiT(config)
    for step, expected in enumerate(losses):
        with tf.GradientTape() as tape:
            found = reference(images, training=False)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(np.arange(4) % 3, found))
        assert float(loss) == pytest.approx(expected, rel=1e-4 * (step + 1))
        variables = [variable.value for variable in reference.trainable_variables]
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.1 * gradient)
