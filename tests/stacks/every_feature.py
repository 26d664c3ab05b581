"""Runs each feature of keras_bit once, to its end, with the installed versions: every stack of packages must pass.

    pytest tests/stacks/every_feature.py

The name does not begin with `test_`, because `make test` tests all of it in more detail. `make test-stack` names this
file.
"""

import json

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

import keras_bit
from command_line import TINY, run
from image_files import encoded, make_folders, pixels
from tiny_bit import CONFIG, random_tensors, write_checkpoint, write_npz, write_shards

# Versions sum float32 in another order; logits are a few units large.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def model():
    return keras_bit.from_pretrained(TINY, classifier_activation=None)


@pytest.fixture(scope="module")
def processor():
    return keras_bit.BitImageProcessor.from_pretrained(TINY)


@pytest.fixture(scope="module")
def images(processor):
    return processor([Image.fromarray(pixels(seed)) for seed in range(3)])


@pytest.fixture(scope="module")
def logits(model, images):
    return model.predict(images, verbose=0)


def test_logits_are_those_of_transformers(model):
    from convert import goldens

    with np.load(TINY / "golden.npz") as golden:
        for index in (0, 1):
            pixel_values = goldens.to_pixel_values(golden[f"{index}/pictures"])
            np.testing.assert_allclose(model.predict(pixel_values, verbose=0), golden[f"{index}/logits"], **CLOSE)


def written(kind, folder, source):
    """Writes a checkpoint of that kind to `folder`; returns the argument for `from_pretrained`."""
    if kind in ("keras", "weights.h5"):
        (folder / "config.json").write_bytes((TINY / "config.json").read_bytes())
        path = folder / f"model.{kind}"
        source.save(path) if kind == "keras" else source.save_weights(path)
        return path
    if kind == "npz":
        (folder / "config.json").write_text(json.dumps(CONFIG))
        return write_npz(folder / "bit.npz")
    if kind == "pretrained":
        keras_bit.save_pretrained(source, folder)
    elif kind == "bfloat16":
        write_checkpoint(folder, {name: values.astype(ml_dtypes.bfloat16) for name, values in random_tensors().items()})
    else:
        write_shards(folder)
    return folder


@pytest.mark.parametrize("kind", ["keras", "weights.h5", "pretrained", "npz", "bfloat16", "shards"])
def test_every_kind_of_checkpoint_is_read(tmp_path, model, images, logits, kind):
    again = keras_bit.from_pretrained(written(kind, tmp_path, model), classifier_activation=None)
    found = again.predict(images, verbose=0)
    if kind in ("keras", "weights.h5", "pretrained"):
        np.testing.assert_allclose(found, logits, **CLOSE)
    else:
        assert found.shape == (3, 5)
        assert np.isfinite(found).all()


def test_the_graph_reads_images_as_the_processor_does(processor):
    import tensorflow as tf

    from keras_bit import versions

    kinds = ["JPEG", "PNG", "GIF", "BMP"] + ["WEBP"] * (not versions.is_older(tf.__version__, versions.DECODES_WEBP))
    for kind in kinds:
        contents = encoded(pixels(4), kind)
        np.testing.assert_array_equal(processor.tf_preprocess(tf.constant(contents)), processor(contents)[0], kind)


def test_fused_it_computes_the_same(model, images, logits):
    np.testing.assert_allclose(keras_bit.fuse(model).predict(images, verbose=0), logits, **CLOSE)


def test_a_saved_model_serves(tmp_path, model, images, logits):
    import tensorflow as tf

    keras_bit.export(model, tmp_path / "served")
    (version,) = [path for path in (tmp_path / "served").iterdir() if path.is_dir()]
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    (name,) = served.structured_input_signature[1]
    found = served(**{name: tf.constant(images)})["logits"]
    np.testing.assert_allclose(found, logits, **CLOSE)


def test_tflite_computes_the_same(tmp_path, model, images, logits):
    from ai_edge_litert.interpreter import Interpreter

    size = images.shape[1:3]
    keras_bit.export(model, tmp_path / "bit.tflite", "tflite", image_size=size)
    interpreter = Interpreter(str(tmp_path / "bit.tflite"))
    runner = interpreter.get_signature_runner()
    (name,) = runner.get_input_details()
    (found,) = runner(**{name: images[:1]}).values()
    np.testing.assert_allclose(found, logits[:1], **CLOSE)


def test_a_folder_is_fine_tuned(tmp_path, capsys):
    make_folders(tmp_path / "data", {"a": 9, "b": 9})
    options = ("--weights", TINY, "--out", tmp_path / "out", "--steps", 4, "--batch-size", 4)
    code, _, err = run(capsys, "finetune", tmp_path / "data", *options)
    assert code == 0, err
    trained = keras_bit.from_pretrained(tmp_path / "out")
    assert list(trained.config.id2label.values()) == ["a", "b"]


def test_fit_lowers_the_loss(images):
    import keras

    model = keras_bit.from_pretrained(TINY)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    losses = model.fit(images, np.array([0, 1, 2]), epochs=4, batch_size=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_the_command_names_what_is_on_an_image(tmp_path, capsys):
    path = tmp_path / "image.png"
    Image.fromarray(pixels(5)).save(path)
    code, out, err = run(capsys, "classify", path, "--weights", TINY, "--top", 1)
    assert code == 0, err
    labels = keras_bit.from_pretrained(TINY).config.id2label.values()
    assert any(label in out for label in labels)
