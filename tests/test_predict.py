"""Tests `predict` for an array of one batch, which needs no pipeline: same results and progress as Keras'."""

import contextlib
import io
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bit import BiT, BiTBackbone
from keras_bit.network import steps
from keras_bit.network.config import BitConfig
from tiny_bit import CONFIG

IMAGES = np.random.default_rng(0).uniform(-1, 1, (5, 32, 32, 3)).astype(np.float32)
# Equal but for the order of sums, which may depend on the number of images in a step.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return BiT(BitConfig.from_dict(CONFIG))


@pytest.fixture
def pipelines(monkeypatch):
    """Collects the batches that go through Keras' own `predict`."""
    seen = []
    keras_predict = keras.Model.predict

    def predict(self, x, **kwargs):
        seen.append(x)
        return keras_predict(self, x, **kwargs)

    monkeypatch.setattr(keras.Model, "predict", predict)
    return seen


@pytest.mark.parametrize(
    ("images", "options", "needs_pipeline"),
    [
        (IMAGES, {}, False),
        (IMAGES[:1], {"batch_size": 1}, False),
        (tf.constant(IMAGES), {}, False),
        (IMAGES.astype(np.float64), {}, False),
        (IMAGES.astype(np.float16), {}, False),
        (tf.constant(IMAGES, tf.bfloat16), {}, False),
        (IMAGES.round().astype(np.int8), {}, False),
        (IMAGES, {"batch_size": 2}, True),
        (np.tile(IMAGES, (7, 1, 1, 1)), {}, True),
        ({"pixel_values": IMAGES}, {}, False),
        (tf.data.Dataset.from_tensors(IMAGES), {}, True),
        (IMAGES, {"steps": 1}, True),
        (IMAGES, {"callbacks": []}, True),
    ],
    ids=lambda value: str(getattr(value, "dtype", value))[:20],
)
def test_outputs_are_those_of_keras(model, pipelines, images, options, needs_pipeline):
    found = model.predict(images, verbose=0, **options)
    assert len(pipelines) == needs_pipeline
    images = images["pixel_values"] if isinstance(images, dict) else images
    expected = keras.Model.predict(model, images, verbose=0, **options)
    assert isinstance(found, np.ndarray)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_a_dictionary_of_outputs_stays_one(pipelines):
    model = BiTBackbone(None, config=BitConfig.from_dict(CONFIG), out_features=["stem", "stage2"])
    found, expected = model.predict(IMAGES, verbose=0), keras.Model.predict(model, IMAGES, verbose=0)
    assert list(found) == list(expected) == ["stem", "stage2"]
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], **CLOSE)


@pytest.mark.parametrize("verbose", ["auto", 1, 2, 0])
def test_it_shows_what_keras_shows(model, verbose):
    shown = []
    for predict in (keras.Model.predict, type(model).predict):
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            predict(model, IMAGES, verbose=verbose)
        shown.append(re.sub("[\b\r]", "", re.sub(r"\d+u?m?s", "TIME", stream.getvalue())))
    assert shown[0] == shown[1]


@pytest.mark.parametrize("images", [IMAGES[:0], np.array([[[["a"]]]]), IMAGES[0]], ids=["empty", "text", "3-D"])
def test_inputs_that_cannot_be_computed_raise_the_error_of_keras(model, pipelines, images):
    with pytest.raises(Exception):  # noqa: B017, PT011 - whichever Keras has for it
        model.predict(images, verbose=0)
    assert len(pipelines) == 1


def test_the_default_size_of_a_batch_is_that_of_keras(model):
    sizes = []

    class Sizes(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            sizes.append(len(logs["outputs"]))

    model.predict(np.tile(IMAGES, (8, 1, 1, 1)), verbose=0, callbacks=[Sizes()])
    assert sizes[0] == steps.KERAS_BATCH_SIZE
