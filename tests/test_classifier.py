"""Tests `BiTClassifier` against the processor and the model called by hand, and against Keras' own loader."""

import io
import json
import warnings
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

import keras_bit
from command_line import run
from keras_bit import BiT, BiTClassifier, BitConfig, BitForImageClassification, BitImageProcessor
from keras_bit.data.walk import DirectoryWarning
from keras_bit.network.raw_pixels import RawPixelsWarning

pytestmark = [
    pytest.mark.usefixtures("eagerly"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option"),
]
NAMES = ["ant", "bee", "cat", "dog", "elk"]
SIZES = {"embedding_size": 8, "hidden_sizes": (16, 32), "depths": (1, 1), "num_groups": 4}
PROCESSOR = BitImageProcessor(size=44, crop_size=40, resample=2, image_mean=[0.4, 0.5, 0.6], image_std=[0.5, 0.4, 0.3])
# Of images of 40x40 px, which it leaves as large as they are.
SAME_SIZE = BitImageProcessor(size=40, crop_size=40, image_mean=[0.4, 0.5, 0.6], image_std=[0.5, 0.4, 0.3])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def new_model(classifier_activation="auto", **config):
    keras.utils.set_random_seed(0)
    labels = {"id2label": dict(enumerate(NAMES))} if "num_labels" not in config else {}
    return BiT(BitConfig(**SIZES, **labels, **config), classifier_activation=classifier_activation)


@pytest.fixture(scope="module")
def model():
    return new_model()


@pytest.fixture(scope="module")
def classifier(model):
    return BiTClassifier(model, PROCESSOR)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    found = []
    for index, name in enumerate(["b.png", "a.png", "inside/c.png"]):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise(50 + index, 60, 3, seed=index)).save(path)
        found.append(str(path))
    (folder / "notes.txt").write_text("not an image")
    return found


def by_hand(model, processor, images):
    return keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(processor(images)), training=False))


def labels_by_hand(scores, top=5):
    return [[(NAMES[place], float(row[place])) for place in np.argsort(-row)[:top]] for row in scores]


def assert_alike(found, expected):
    assert [[label for label, _ in row] for row in found] == [[label for label, _ in row] for row in expected]
    # Batches of several sizes sum in several orders.
    np.testing.assert_allclose(
        [[score for _, score in row] for row in found], [[score for _, score in row] for row in expected], rtol=1e-5
    )


def png(path):
    buffer = io.BytesIO()
    Image.open(path).save(buffer, "PNG")
    return buffer.getvalue()


FORMS = {
    "paths": lambda paths: paths,
    "bytes": lambda paths: [png(path) for path in paths],
    "PIL images": lambda paths: [Image.open(path) for path in paths],
    "arrays of several sizes": lambda paths: [np.asarray(Image.open(path)) for path in paths],
    "a tuple of all kinds": lambda paths: (paths[0], png(paths[1]), np.asarray(Image.open(paths[2]))),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_in_every_form_are_classified_as_by_hand(classifier, model, paths, form):
    expected = by_hand(model, PROCESSOR, paths)
    assert_alike(classifier.classify(FORMS[form](paths), top=2), labels_by_hand(expected, 2))
    found = classifier.predict(FORMS[form](paths))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_one_image_is_a_list_of_one(classifier, model, paths):
    expected = labels_by_hand(by_hand(model, PROCESSOR, paths[0]))
    for image in (paths[0], png(paths[0]), Image.open(paths[0]), np.asarray(Image.open(paths[0]))):
        assert_alike(classifier.classify(image), expected)
    batch = noise(3, 50, 60, 3)
    assert_alike(classifier.classify(batch), labels_by_hand(by_hand(model, PROCESSOR, batch)))


def test_a_directory_is_all_images_in_it_in_the_order_of_the_command(classifier, paths):
    folder = paths[0].rpartition("/")[0]
    with pytest.warns(DirectoryWarning, match=r"1 \.txt"):
        found = classifier.classify(folder)
    assert_alike(found, classifier.classify([paths[1], paths[0], paths[2]]))


def test_a_directory_without_images_is_refused(classifier, tmp_path):
    with pytest.raises(ValueError, match="holds no image"):
        classifier.classify(tmp_path)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_the_batch_size_changes_no_result(classifier, model, paths, batch_size):
    images = [*paths, *paths[:2]]
    found = classifier.predict(images, batch_size=batch_size)
    np.testing.assert_allclose(found, by_hand(model, PROCESSOR, images), rtol=1e-5)
    assert len(classifier.classify(images, batch_size=batch_size)) == 5


def test_images_of_several_sizes_go_through_a_processor_that_leaves_them(model, paths):
    processor = BitImageProcessor(size=40, do_center_crop=False)
    found = BiTClassifier(model, processor).predict([*paths, paths[0]], batch_size=2)
    expected = np.concatenate([by_hand(model, processor, path) for path in [*paths, paths[0]]])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("problem_type", "activation"),
    [(None, "softmax"), ("single_label_classification", "softmax"), ("multi_label_classification", "sigmoid")],
)
def test_scores_are_probabilities_of_a_model_with_logits_too(paths, problem_type, activation):
    expected = None
    for given in (None, "auto"):
        model = new_model(classifier_activation=given, problem_type=problem_type)
        found = BiTClassifier(model, PROCESSOR).classify(paths)
        scores = by_hand(model, PROCESSOR, paths).astype(np.float64)
        if given is None:
            exp = np.exp(scores)
            expected = exp / exp.sum(-1, keepdims=True) if activation == "softmax" else exp / (1 + exp)
            np.testing.assert_allclose(BiTClassifier(model, PROCESSOR).predict(paths), scores, rtol=1e-4, atol=1e-6)
        assert_alike(found, labels_by_hand(expected))


def test_a_model_of_imagenet_has_keras_labels(paths):
    found = BiTClassifier(new_model(num_labels=1000), PROCESSOR).classify(paths[0], top=3)
    model = new_model(num_labels=1000)
    expected = keras_bit.decode_predictions(by_hand(model, PROCESSOR, paths[0]), top=3)
    assert [label for label, _ in found[0]] == [label for _, label, _ in expected[0]]


@pytest.mark.parametrize(
    ("images", "arguments", "error", "text"),
    [
        (["0.png", "nowhere.png"], {}, FileNotFoundError, r"`images\[0\]` \(0.png\)"),
        ([noise(50, 60, 3), b"no image"], {}, ValueError, r"`images\[1\]` is not an image file"),
        (
            [noise(50, 60, 3)] * 40 + [b"no image"],
            {"batch_size": 3},
            ValueError,
            r"`images\[40\]` is not an image file",
        ),
        ([], {}, ValueError, "`images` must have at least one image"),
        ([noise(50, 60, 3)], {"top": 0}, ValueError, "`top` must be a whole number of at least 1"),
        ([noise(50, 60, 3)], {"batch_size": 0}, ValueError, "`batch_size`"),
    ],
)
def test_images_that_cannot_be_classified_are_named(classifier, images, arguments, error, text):
    with pytest.raises(error, match=text):
        classifier.classify(images, **arguments)


def test_a_regression_is_predicted_and_not_classified(paths):
    model = new_model(problem_type="regression")
    classifier = BiTClassifier(model, PROCESSOR)
    with pytest.raises(ValueError, match="predicts numbers"):
        classifier.classify(paths)
    np.testing.assert_allclose(classifier.predict(paths), by_hand(model, PROCESSOR, paths), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 20, "crop_size": 20}, "at least 32 px"),
        (
            {"do_convert_rgb": False, "do_center_crop": False, "size": (31, 50)},
            "`processor`: every image becomes 31x50",
        ),
    ],
)
def test_a_processor_that_does_not_fit_is_refused(model, options, text):
    with pytest.raises(ValueError, match=text):
        BiTClassifier(model, BitImageProcessor(**options))


def test_other_parts_are_refused(model):
    config = model.config
    with pytest.raises(TypeError, match="`model` must be a model that keras_bit built, got Sequential"):
        BiTClassifier(keras.Sequential(), PROCESSOR)
    with pytest.raises(TypeError, match=r"`processor` must be a keras_bit.BitImageProcessor, got dict"):
        BiTClassifier(model, PROCESSOR.to_dict())
    with pytest.raises(ValueError, match="must end in its head"):
        BiTClassifier(BiT(config, include_top=False, pooling="avg"), PROCESSOR)
    pixels = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="layers in front of it: half"):
        BiTClassifier(BiT(config, input_tensor=keras.layers.Rescaling(0.5, name="half")(pixels)), PROCESSOR)
    with pytest.raises(ValueError, match="50x50 px of the model's input, got 40x40"):
        BiTClassifier(BiT(config, input_shape=(50, 50, 3)), PROCESSOR)
    with pytest.raises(ValueError, match="`do_convert_rgb=False` for a model of 1 channels"):
        BiTClassifier(BiT(BitConfig(**SIZES, num_channels=1)), PROCESSOR)


# The device: uint8 batches.
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_mean": 0.5, "image_std": 0.5},
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_resize": False, "do_center_crop": False},
        {"do_convert_rgb": False},
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_batch_on_the_device_has_the_processors_values_bit_for_bit(model, options, channels):
    if channels != 3 and "do_convert_rgb" in options:
        return
    processor = BitImageProcessor(**{**{"size": 40, "crop_size": 40}, **options})
    images = noise(2, 40, 40, channels)
    found = BiTClassifier(model, processor)._pixel_values(keras.ops.convert_to_tensor(images))
    np.testing.assert_array_equal(found, processor(images, input_data_format="channels_last"))


def test_a_call_and_every_method_of_keras_give_the_same(model, graphs):
    classifier = BiTClassifier(model, SAME_SIZE)
    images = noise(5, 40, 40, 3)
    expected = by_hand(model, SAME_SIZE, images)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(classifier(images)), expected, rtol=1e-5)
    np.testing.assert_allclose(classifier.predict(images), expected, rtol=1e-5)
    np.testing.assert_allclose(classifier.predict_on_batch(images), expected, rtol=1e-5)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return images, np.arange(5)

    np.testing.assert_allclose(classifier.predict(Batches(), verbose=0), expected, rtol=1e-5)
    classifier.compile(loss="sparse_categorical_crossentropy")
    loss = classifier.evaluate(images, np.arange(5), verbose=0)
    assert loss == pytest.approx(float(np.mean(-np.log(expected[np.arange(5), np.arange(5)]))), rel=1e-5)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (noise(2, 44, 40, 3), "must have the size that the processor makes, 40x40 px.*got 44x40"),
        (noise(2, 41, 41, 3), "must have the size that the processor makes, 40x40 px.*got 41x41"),
        (np.zeros((2, 40, 40, 3), np.float32), r"must be uint8 pixels in \[0, 255\], got float32.*`classifier.model`"),
        (np.zeros((2, 40, 40, 2), np.uint8), "must have 1, 3 or 4 channels"),
        (np.zeros((40, 40, 3), np.uint8), r"must be \(batch, height, width, channels\)"),
    ],
)
def test_batches_that_are_not_the_processors_are_refused(model, images, text):
    with pytest.raises(ValueError, match=text):
        BiTClassifier(model, SAME_SIZE)(images)


def test_the_advice_of_the_error_makes_what_fits(model, paths):
    classifier = BiTClassifier(model, SAME_SIZE)
    with pytest.raises(ValueError, match=r"got 50x60") as raised:
        classifier(noise(2, 50, 60, 3))
    advice = str(raised.value).split("`")[3]
    batch = eval(advice, {"processor": SAME_SIZE, "images": paths})
    assert batch.shape == (3, 40, 40, 3)
    assert classifier(batch).shape == (3, 5)


@pytest.mark.parametrize("size", [(50, 60), (44, 44), (40, 40)])
def test_a_processor_that_resizes_what_it_has_cropped_takes_no_batches(classifier, size):
    with pytest.raises(
        ValueError, match=rf"it crops to 40x40 px, but resizes .* to 44x44 px first.*got {size[0]}x{size[1]}\. "
    ):
        classifier(noise(2, *size, 3))


def test_it_learns_on_uint8_batches_what_the_model_learns_on_the_processors():
    images, targets = noise(6, 40, 40, 3), np.arange(6) % 5
    histories = []
    for whole in (True, False):
        model = new_model()
        trained = BiTClassifier(model, SAME_SIZE) if whole else model
        trained.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
        given = images if whole else SAME_SIZE(images)
        history = trained.fit(given, targets, batch_size=3, epochs=2, shuffle=False, verbose=0)
        histories.append((history.history["loss"], model.get_weights()))
    np.testing.assert_allclose(*[loss for loss, _ in histories], rtol=1e-5)
    for ours, theirs in zip(*[weights for _, weights in histories], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


# Files.
def test_it_is_saved_with_its_processor_and_loaded_by_keras(tmp_path, paths):
    classifier = BiTClassifier(new_model(), SAME_SIZE, name="pets")
    classifier.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    images, targets = noise(4, 40, 40, 3), np.arange(4)
    classifier.fit(images, targets, verbose=0)
    classifier.save(tmp_path / "pets.keras")
    loaded = keras.saving.load_model(tmp_path / "pets.keras")
    assert type(loaded) is BiTClassifier
    assert loaded.name == "pets"
    assert loaded.processor == SAME_SIZE
    assert loaded.model.config == classifier.model.config
    assert loaded.classify(paths) == classifier.classify(paths)
    for ours, theirs in zip(loaded.get_weights(), classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Its optimizer goes on where it was.
    assert int(loaded.optimizer.iterations) == 1
    again = [one.fit(images, targets, verbose=0).history["loss"] for one in (classifier, loaded)]
    np.testing.assert_allclose(*again, rtol=1e-6)
    with zipfile.ZipFile(tmp_path / "pets.keras") as archive:
        saved = json.loads(archive.read("config.json"))
    assert saved["registered_name"] == "keras_bit>BiTClassifier"
    assert saved["config"]["processor"] == SAME_SIZE.to_dict()


def test_weights_and_configuration_go_by_themselves_too(tmp_path, paths):
    classifier = BiTClassifier(new_model(), PROCESSOR)
    classifier.save_weights(tmp_path / "pets.weights.h5")
    copy = BiTClassifier.from_config(classifier.get_config())
    assert copy.processor == PROCESSOR
    copy.load_weights(tmp_path / "pets.weights.h5")
    assert copy.classify(paths) == classifier.classify(paths)
    assert copy.count_params() == classifier.model.count_params()


@pytest.mark.parametrize(
    ("arguments", "closest"), [({"foo": 1}, ""), ({"trainible": True}, "'trainable'"), ({"procesor": 1}, "'processor'")]
)
def test_an_unknown_argument_is_refused_with_the_closest(model, arguments, closest):
    with pytest.raises(TypeError, match=f"call of BiTClassifier has no argument .* closest is {closest}"):
        BiTClassifier(model, PROCESSOR, **arguments)
    with pytest.raises(TypeError, match=r"call of the classifier 'bit_classifier' .*; all are images, training\."):
        BiTClassifier(model, SAME_SIZE)(noise(1, 40, 40, 3), **arguments)


@pytest.mark.parametrize("form", ["pets.keras", "pets.h5", "a directory of Keras", "a directory with model.keras"])
def test_every_reader_of_checkpoints_finds_model_and_processor_in_its_file(classifier, paths, tmp_path, form):
    path = tmp_path / form
    if form == "a directory of Keras":
        keras.saving.save_model(classifier, path, zipped=False)
    elif form == "a directory with model.keras":
        path.mkdir()
        classifier.save(path / "model.keras")
    else:
        classifier.save(path)
        BitImageProcessor().save_pretrained(tmp_path)  # of something else
    model, processor = keras_bit.from_pretrained(path), BitImageProcessor.from_pretrained(path)
    assert BiTClassifier(model, processor).classify(paths) == classifier.classify(paths)
    assert processor == PROCESSOR
    assert model.config == classifier.model.config
    if form != "a directory with model.keras":
        assert BitConfig.from_pretrained(path) == model.config
    assert BitForImageClassification.from_pretrained(path).config == model.config


def test_the_processor_of_a_damaged_file_is_not_made_up(tmp_path):
    (tmp_path / "pets.keras").write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match=r"pets\.keras is damaged or not a model file of Keras: "):
        BitImageProcessor.from_pretrained(tmp_path / "pets.keras")


def test_the_commands_read_its_file_with_its_own_processor(classifier, paths, tmp_path, capsys):
    classifier.save(tmp_path / "pets.keras")
    code, out, err = run(capsys, "info", "--weights", tmp_path / "pets.keras")
    assert (code, err) == (0, "")
    assert "40x40 px" in out
    assert "ant" in out
    code, out, _ = run(capsys, "classify", *paths, "--json", "--weights", tmp_path / "pets.keras")
    assert code == 0
    found = [[(one["label"], one["score"]) for one in image["predictions"]] for image in json.loads(out)]
    assert_alike(found, classifier.classify(paths))


@pytest.mark.slow
def test_an_export_is_that_of_the_model_with_the_processor(classifier, model, paths, tmp_path):
    tf = pytest.importorskip("tensorflow")
    report = keras_bit.export(classifier, tmp_path / "whole")
    keras_bit.export(model, tmp_path / "parts", processor=PROCESSOR)
    whole, parts = (tf.saved_model.load(str(tmp_path / name / "1")).signatures for name in ("whole", "parts"))
    assert report.path == tmp_path / "whole" / "1"
    assert set(whole) == set(parts) == {"serving_default", "features", "serve_bytes", "classify"}
    images = tf.constant([png(path) for path in paths])
    found, expected = (one["serve_bytes"](image_bytes=images) for one in (whole, parts))
    np.testing.assert_array_equal(found["probabilities"], expected["probabilities"])
    assert_alike(classifier.classify(paths), labels_by_hand(found["probabilities"].numpy()))


def test_an_export_with_another_processor_is_refused(classifier, tmp_path):
    with pytest.raises(ValueError, match="`processor` must be None for a BiTClassifier"):
        keras_bit.export(classifier, tmp_path / "whole", processor=PROCESSOR)
    assert not (tmp_path / "whole").exists()


# Raw pixels given to a plain model.
RAW = noise(2, 40, 40, 3)
CALLS = {
    "a call": lambda model, images: model(images),
    "predict": lambda model, images: model.predict(images, verbose=0),
    "evaluate": lambda model, images: model.evaluate(images, np.arange(len(images)), verbose=0),
    "fit": lambda model, images: model.fit(images, np.arange(len(images)), verbose=0),
}


def compiled():
    model = new_model()
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("images", [RAW, RAW.astype(np.float32)], ids=["uint8", "float32"])
def test_raw_pixels_given_to_a_plain_model_are_warned_of_once(call, images):
    model = compiled()
    with pytest.warns(RawPixelsWarning, match=r"preprocess_input.*BitImageProcessor.*BiTClassifier") as caught:
        CALLS[call](model, images)
    assert [one.filename for one in caught if one.category is RawPixelsWarning] == [__file__]
    for again in CALLS.values():
        again(model, images)  # warnings are errors here


def test_preprocessed_and_symbolic_images_give_no_warning():
    tf = pytest.importorskip("tensorflow")
    model = compiled()
    prepared = [keras_bit.preprocess_input(RAW), PROCESSOR(RAW), RAW.astype(np.float32) / 255, PROCESSOR(0 * RAW)]
    for images in prepared:
        for call in CALLS.values():
            call(model, images)
    tensor = keras.ops.cast(RAW, "float32")
    model(tensor)
    model.predict(tf.data.Dataset.from_tensors(RAW.astype(np.float32)), verbose=0)
    pixels = keras.Input((None, None, 3))
    BiT(model.config, input_tensor=keras.layers.Rescaling(1 / 255)(pixels))(RAW)
    BiTClassifier(model, SAME_SIZE)(RAW)
    BiTClassifier(model, BitImageProcessor(size=40, crop_size=40, do_rescale=False, do_normalize=False)).classify(RAW)
    assert not model.warned_of_raw_pixels
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(RAW)
    assert [one.category for one in caught] == [RawPixelsWarning]
