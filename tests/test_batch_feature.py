"""Tests that the processor's output has transformers' names, and that every way to call a model accepts it."""

import keras
import numpy as np
import pytest
from PIL import Image

from keras_bit import BiT, BitConfig, BitImageProcessor, BitModel
from keras_bit.images.batch_feature import BatchFeature
from reference_models import TINY

PROCESSOR = BitImageProcessor(size=40, crop_size=32, resample=2, image_mean=0.5, image_std=0.5)
UNCROPPED = BitImageProcessor(size=40, do_center_crop=False, resample=2, image_mean=0.5, image_std=0.5)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return BiT(BitConfig(**{**TINY, "num_labels": 3}))


def test_preprocess_gives_a_list_of_arrays_as_transformers_does():
    images = [noise(44, 60, 3), noise(50, 41, 3, seed=1)]
    found = PROCESSOR.preprocess(images)
    assert isinstance(found, BatchFeature)
    assert list(found) == ["pixel_values"]
    assert isinstance(found.pixel_values, list)
    np.testing.assert_array_equal(np.stack(found.pixel_values), PROCESSOR(images))
    (single,) = PROCESSOR.preprocess(images[0])["pixel_values"]
    np.testing.assert_array_equal(single, PROCESSOR(images[0])[0])


def test_preprocess_gives_images_of_several_sizes_if_no_step_makes_them_equal():
    images = [noise(44, 60, 3), noise(60, 44, 3)]
    found = UNCROPPED.preprocess(images)
    assert [array.shape for array in found.pixel_values] == [(40, 54, 3), (54, 40, 3)]
    for array, image in zip(found.pixel_values, images, strict=True):
        np.testing.assert_array_equal(array, UNCROPPED(image)[0])
    with pytest.raises(ValueError, match=r"the same shape .* `processor.preprocess\(images\)`, which returns a list"):
        UNCROPPED(images)
    with pytest.raises(ValueError, match="the same shape"):
        UNCROPPED.preprocess(images, return_tensors="np")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (noise(44, 60, 3), (1, 32, 32, 3)),
        (noise(3, 44, 60), (1, 3, 32, 32)),
        (Image.fromarray(noise(44, 60, 3)), (1, 32, 32, 3)),
        (noise(44, 60), (1, 32, 32, 3)),
    ],
    ids=["channels last", "channels first", "a PIL image", "gray"],
)
def test_without_a_data_format_the_result_has_that_of_the_array(image, expected):
    batch = PROCESSOR(image, data_format=None)
    assert batch.shape == expected
    order = "channels_first" if expected[1] == 3 else "channels_last"
    np.testing.assert_array_equal(batch, PROCESSOR(image, data_format=order))
    assert PROCESSOR.preprocess(image, data_format=None).pixel_values[0].shape == expected[1:]


def test_arrays_of_both_orders_make_no_batch_without_a_data_format():
    images = [noise(44, 60, 3), noise(3, 44, 60)]
    assert [array.shape for array in PROCESSOR.preprocess(images, data_format=None).pixel_values] == [
        (32, 32, 3),
        (3, 32, 32),
    ]
    with pytest.raises(ValueError, match=r"`data_format=None` .* Pass 'channels_last' or 'channels_first'"):
        PROCESSOR(images, data_format=None)


def test_a_misspelt_key_is_named():
    with pytest.raises(AttributeError, match=r"no 'pixelvalues'\. It has pixel_values"):
        _ = BatchFeature(pixel_values=1).pixelvalues


def test_every_way_of_calling_a_model_takes_the_dictionary(model):
    inputs = PROCESSOR([noise(44, 60, 3), noise(50, 41, 3, seed=1)], return_tensors="np")
    expected = keras.ops.convert_to_numpy(model(inputs["pixel_values"]))
    # `predict` compiles the same operations, which may round otherwise.
    for found, tolerance in (
        (model(**inputs), 0),
        (model(inputs), 0),
        (model(pixel_values=inputs.pixel_values, training=False), 0),
        (model.predict(inputs, verbose=0), 1e-5),
    ):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=tolerance)
    trained = keras.models.clone_model(model)
    trained.compile("sgd", "sparse_categorical_crossentropy")
    history = trained.fit(inputs, np.array([0, 2]), epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert np.isfinite(trained.evaluate(inputs, np.array([0, 2]), verbose=0))


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
@pytest.mark.parametrize("dictionary_first", [True, False])
def test_steps_of_arrays_and_of_dictionaries_follow_each_other(model, method, dictionary_first):
    inputs = PROCESSOR([noise(44, 60, 3), noise(50, 41, 3, seed=1)], return_tensors="np")
    given = [inputs, inputs.pixel_values][:: 1 if dictionary_first else -1]
    stepped = keras.models.clone_model(model)
    stepped.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    first, second = (float(getattr(stepped, method)(one, np.array([0, 2]))) for one in given)
    assert first == second  # nothing was learned
    for one in given:
        np.testing.assert_array_equal(stepped.predict_on_batch(one), stepped.predict_on_batch(inputs.pixel_values))
        stepped.fit(one, np.array([0, 2]), validation_data=(one, np.array([0, 2])), verbose=0)


@pytest.mark.parametrize(
    ("processor", "advice"),
    [
        (UNCROPPED, r"of 2 images\. They have several sizes \(40x54, 54x40\), which cannot form one batch\."),
        (PROCESSOR, r"of 2 images\. Pass `return_tensors=\"np\"` to the processor"),
    ],
    ids=["several sizes", "one size"],
)
def test_a_list_of_images_is_refused_with_what_to_do(model, processor, advice):
    inputs = processor.preprocess([noise(44, 60, 3), noise(60, 44, 3)])
    features = BitModel(model.config)
    for call in (
        lambda: model(**inputs),
        lambda: model(inputs),
        lambda: model.predict(inputs),
        lambda: model.fit(inputs, np.array([0, 2])),
        lambda: features(**inputs),
    ):
        with pytest.raises(ValueError, match=rf"`pixel_values` must be one array .*, got a list {advice}"):
            call()


def test_lists_of_numbers_are_refused_with_what_to_do(model):
    with pytest.raises(ValueError, match=r"got lists of lists\. .*`numpy\.asarray"):
        model(PROCESSOR(noise(44, 60, 3)).tolist())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"foo": 1}, "no argument 'foo'. The closest is .*; all are inputs, pixel_values, training, mask."),
        ({"trainin": True}, "no argument 'trainin'. The closest is 'training'; "),
        ({"output_hidden_states": True}, "no argument 'output_hidden_states'."),
    ],
)
def test_an_unknown_argument_of_a_call_is_refused(model, arguments, message):
    batch = PROCESSOR(noise(44, 60, 3))
    for call in (lambda: model(batch, **arguments), lambda: model(pixel_values=batch, **arguments)):
        with pytest.raises(TypeError, match=message):
            call()


def test_images_given_twice_are_refused(model):
    batch = PROCESSOR(noise(44, 60, 3))
    with pytest.raises(TypeError, match="given images twice"):
        model(batch, pixel_values=batch)


@pytest.mark.live
def test_preprocess_equals_transformers():
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    options = {"size": {"shortest_edge": 40}, "do_center_crop": False}
    images = [Image.fromarray(noise(44, 60, 3)), Image.fromarray(noise(60, 44, 3))]
    theirs = BitImageProcessorPil(**options).preprocess(images)  # always with the channels first
    ours = BitImageProcessor(**options).preprocess(images, data_format="channels_first")
    assert list(theirs) == list(ours)
    for expected, found in zip(theirs["pixel_values"], ours["pixel_values"], strict=True):
        np.testing.assert_array_equal(found, expected)
