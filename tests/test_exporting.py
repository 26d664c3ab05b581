"""Tests `export`: arguments, the checks before writing, and the formats that Keras' own exporters write."""

import importlib
import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_bit
from conftest import ROOT, absent
from keras_bit import BiT, BiTBackbone, BitConfig, BitImageProcessor, versions
from keras_bit.exporters import comparing, comparison_images, huggingface, job, openvino, placing, process
from keras_bit.exporters.formats import Format
from keras_bit.exporters.openvino_package import core
from keras_bit.exporters.output_names import output_names
from keras_bit.exporters.registry import FORMATS as KNOWN
from keras_bit.exporters.registry import format_named
from store import SMALLEST, TRAINED, exported, smallest

PROCESSOR = BitImageProcessor.from_pretrained(TRAINED)  # 64x64 px
NAMES = ("", *(f"thing {number}" for number in range(3)), " \t")
FORMATS = ("onnx", "openvino")
# Other engines' convolutions add up in another order.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model():
    return smallest()


@pytest.fixture(scope="module")
def labeled(finished):
    """Returns a function from a format to the report on the smallest model in it, with labels.

    It writes a file when it is first asked for.
    """

    def report(name):
        needs(name)
        return exported(finished, name, ".xml" if name == "openvino" else f".{name}", labels=NAMES)

    return report


def needs(name):
    packages = {"onnx": ("onnx", "onnxruntime"), "openvino": ("openvino", "onnx"), "tflite": ("ai_edge_litert",)}
    packages |= {"own": ("onnx", "onnxruntime", "tf2onnx")}
    if any(importlib.util.find_spec(package) is None for package in packages[name]):
        absent(f"{' or '.join(packages[name])} is not installed: pip install -e '.[all]'")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "suffix"), [("saved_model", ""), ("tflite", ".tflite"), *((f, "") for f in FORMATS)]
)
def test_a_softmax_over_one_class_is_exported_without_a_second_warning(tmp_path, format, suffix):
    if format != "saved_model":
        needs(format)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using a softmax over axis -1")
        model = BiT(BitConfig(**SMALLEST | {"num_labels": 1}), classifier_activation="softmax")
    path = tmp_path / ("bit.xml" if format == "openvino" else f"bit{suffix or '.onnx'}")
    with pytest.warns(UserWarning, match="softmax over one class") as caught:
        assert keras_bit.export(model, path, format, image_size=32).max_abs_diff == 0
    assert [str(one.message).partition(",")[0] for one in caught] == ["`model` ends in a softmax over one class"]
    assert caught[0].filename == __file__


def test_transformers_layout_is_written_whole_and_replaced_only_when_asked(model, tmp_path):
    report = keras_bit.export(model, tmp_path / "bit", "huggingface", processor=PROCESSOR)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bit"]
    assert (report.format, report.images, report.path) == ("huggingface", 4, tmp_path / "bit")
    assert report.bytes == sum(file.stat().st_size for file in report.path.iterdir())
    with pytest.raises(FileExistsError, match=r"bit' exists\. .*`overwrite=True`"):
        keras_bit.export(model, tmp_path / "bit", "huggingface")
    with pytest.raises(FileExistsError, match=r"preprocessor_config\.json"):  # would be lost
        keras_bit.export(model, tmp_path / "bit", "huggingface", overwrite=True)
    keras_bit.export(model, tmp_path / "bit", "huggingface", processor=PROCESSOR, overwrite=True)
    files = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(one.name for one in (tmp_path / "bit").iterdir()) == files
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "bit").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda outputs: outputs * 1.01, r"differs from the model by .* more than the .* allowed"),
        (lambda outputs: outputs * np.nan, "NaN or infinite"),
        (lambda outputs: outputs[:, :3], "but the model gives"),
    ],
)
def test_a_file_with_other_numbers_is_an_error_and_replaces_nothing(model, tmp_path, monkeypatch, wrong, message):
    real = huggingface.HuggingFace.load

    def load(self, job, path):
        run = real(self, job, path)
        return lambda batch: {name: wrong(values) for name, values in run(batch).items()}

    monkeypatch.setattr(huggingface.HuggingFace, "load", load)
    with pytest.raises(ArithmeticError, match=message):
        keras_bit.export(model, tmp_path / "a" / "b" / "bit", "huggingface")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bit").mkdir()
    (tmp_path / "bit" / "config.json").write_text("kept")
    with pytest.raises(ArithmeticError, match=message):
        keras_bit.export(model, tmp_path / "bit", "huggingface", overwrite=True)
    assert [one.name for one in tmp_path.rglob("*")] == ["bit", "config.json"]
    assert (tmp_path / "bit" / "config.json").read_text() == "kept"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "coreml"}, "`format` must be one of 'saved_model', 'tflite', .* got 'coreml'"),
        ({"quantize": "int4"}, "`quantize` must be None for the format 'saved_model', got 'int4'"),
        ({"processor": "bit"}, "`processor` must be a keras_bit.BitImageProcessor, got str"),
        ({"batch_size": 0}, "`batch_size`.* at least 1.* 0"),
        ({"batch_size": True}, "`batch_size`.* whole number.* True"),
        ({"overwrite": "yes"}, "`overwrite` must be True or False, got 'yes'"),
        ({"labels": ["\udcff"] * 5}, r"`labels` must be text that UTF-8 can hold, got '\\udcff' for class 0"),
        ({"representative_data": 5}, "`representative_data` must be an iterable of batches, got int"),
        ({"image_size": 16}, "`image_size` must be a whole number of pixels, at least 32, .* got 16"),
        ({"labels": ["a", "b"]}, "`labels` must have a name for each of the 5 classes of `model`, .* got 2"),
        ({"representative_data": []}, "`representative_data` must give at least one batch, got none"),
        ({"representative_data": [np.zeros((1, 64, 64, 3))]}, "must give float32 batches .* got float64"),
        ({"representative_data": [np.full((1, 64, 64, 3), np.nan, "float32")]}, "must be finite"),
        ({"format": "huggingface", "batch_size": 2}, "`batch_size` and `image_size` must be None for the format"),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_is_written(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        keras_bit.export(model, tmp_path / "bit", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", KNOWN)
def test_every_format_is_found_by_its_names_and_keras_names_mean_ours(name):
    format = format_named(name)
    assert isinstance(format, Format)
    assert format.name == {"tf_saved_model": "saved_model", "litert": "tflite"}.get(name, name)


def test_whole_numbers_of_numpy_are_whole_numbers(model, tmp_path):
    needs("tflite")
    report = keras_bit.export(
        model, tmp_path / "bit.tflite", "tflite", batch_size=np.int64(2), image_size=(np.int32(64), np.uint8(32))
    )
    from ai_edge_litert.interpreter import Interpreter

    assert Interpreter(str(report.path)).get_input_details()[0]["shape"].tolist() == [2, 64, 32, 3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.5, 0.5), "have the value 0.5 everywhere"),
        ((0, 255), "go from 0 to 255, but the output of `processor` from -1 to 1. Pass them through it"),
        ((-1, 1), None),
    ],
)
def test_wrong_representative_data_are_refused(model, values, message):
    processor = BitImageProcessor(image_mean=0.5, image_std=0.5)
    data = [np.full((1, 32, 32, 3), value, "float32") for value in values]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        comparison_images.warn_of_data(job.Job(model, processor, representative_data=data))
    assert len(caught) == (message is not None)
    assert message is None or message in str(caught[0].message)


def test_several_tensors_without_names_are_refused(tmp_path):
    first, second = keras.Input((64, 64, 3)), keras.Input((64, 64, 3))
    both = keras.Model([first, second], keras.layers.Add()([first, second]))
    with pytest.raises(ValueError, match="`model` must take one batch of images"):
        keras_bit.export(both, tmp_path / "both")
    flat = keras.layers.GlobalAveragePooling2D()(first)
    with pytest.raises(ValueError, match="`model` must give one tensor or a dict of them, got a list"):
        keras_bit.export(keras.Model(first, [flat, flat]), tmp_path / "several")


def one_with(aside, **contents):
    for name, text in contents.items():
        (aside / name).write_text(text)


def test_other_files_are_kept_and_restored_after_an_error(tmp_path, monkeypatch):
    aside, target, format = tmp_path / "aside", tmp_path / "bit.xml", format_named("openvino")
    aside.mkdir()
    one_with(tmp_path, **{"bit.bin": "old weights"})
    one_with(aside, **{"bit.bin": "new weights", "bit.xml": "new"})
    with pytest.raises(FileExistsError, match=r"bit\.bin' exists"):
        placing.take_place(format, aside / "bit.xml", target, overwrite=False)
    assert not target.exists()

    (tmp_path / "bit.xml").write_text("old")
    real = os.replace

    def replace(source, place):
        if place == target:
            raise OSError("the disk is gone")
        real(source, place)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="the disk is gone"):
        placing.take_place(format, aside / "bit.xml", target, overwrite=True)
    assert ((tmp_path / "bit.xml").read_text(), (tmp_path / "bit.bin").read_text()) == ("old", "old weights")
    monkeypatch.undo()
    shutil.rmtree(aside)
    aside.mkdir()
    one_with(aside, **{"bit.bin": "new weights", "bit.xml": "new"})
    assert placing.take_place(format, aside / "bit.xml", target, overwrite=True) == target
    assert ((tmp_path / "bit.xml").read_text(), (tmp_path / "bit.bin").read_text()) == ("new", "new weights")


def test_a_directory_is_not_replaced_by_a_file_nor_a_file_by_a_directory(tmp_path):
    aside = tmp_path / "aside"
    aside.mkdir()
    one_with(aside, bit="file")
    (tmp_path / "bit").mkdir()
    with pytest.raises(FileExistsError, match="bit' is a directory"):
        placing.take_place(format_named("tflite"), aside / "bit", tmp_path / "bit", overwrite=True)
    shutil.rmtree(tmp_path / "bit")
    one_with(tmp_path, bit="mine")
    (aside / "bit").unlink()
    (aside / "bit").mkdir()
    with pytest.raises(FileExistsError, match="bit' is a file"):
        placing.take_place(format_named("huggingface"), aside / "bit", tmp_path / "bit", overwrite=True)
    assert (tmp_path / "bit").read_text() == "mine"


def test_a_version_takes_the_number_that_is_free_at_the_end(tmp_path):
    (tmp_path / "staging" / "1").mkdir(parents=True)
    (tmp_path / "bit" / "6").mkdir(parents=True)
    place = placing.take_place(format_named("saved_model"), tmp_path / "staging" / "1", tmp_path / "bit", False)
    assert place == tmp_path / "bit" / "7"
    assert place.is_dir()


@pytest.mark.parametrize(
    ("name", "path", "kind", "message"),
    [
        ("tflite", "folder", FileExistsError, "folder' is a directory"),
        ("huggingface", "file", FileExistsError, "file' is a file"),
        ("tflite", "file/bit.tflite", NotADirectoryError, "`path` .*file' is a file"),
        ("huggingface", "~nobody-has-this-name/bit", ValueError, "`path` .*~nobody-has-this-name/bit"),
    ],
)
def test_an_existing_path_is_refused_before_anything_is_computed(model, tmp_path, name, path, kind, message):
    needs("tflite")
    (tmp_path / "folder").mkdir()
    one_with(tmp_path, file="mine")
    lines = []
    path = path if path.startswith("~") else tmp_path / path
    with pytest.raises(kind, match=message):
        keras_bit.export(model, path, name, overwrite=True, progress=lines.append)
    assert lines == []
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "output", "options"),
    [
        ("onnx", "pixel_values", {}),
        ("openvino", "pixel_values", {}),
        ("openvino", "images", {"include_preprocessing": True, "processor": PROCESSOR}),
    ],
)
def test_an_output_with_the_name_of_the_input_is_refused_before_anything_is_computed(
    model, tmp_path, name, output, options
):
    needs(name)
    own, lines = keras.Model(model.input, {output: model.output}), []
    with pytest.raises(ValueError, match=rf"no output named '{output}' for the format '{name}'.* Rename it: `keras"):
        keras_bit.export(own, tmp_path / file_name(name), name, progress=lines.append, **options)
    assert lines == []


def test_labels_that_openvino_cannot_keep_are_refused(model, tmp_path, monkeypatch):
    needs("openvino")
    with pytest.raises(ValueError, match=r"`labels` must have no NUL .* got 'b\\x00c' for class 1"):
        keras_bit.export(model, tmp_path / "bit.xml", "openvino", labels=["a", "b\0c", "d", "e", "f"])
    monkeypatch.setattr(openvino, "NUL", "\ue000")  # as if it were unknown that a text ends there
    with pytest.raises(ValueError, match="`labels` are not the same when OpenVINO reads them"):
        keras_bit.export(model, tmp_path / "bit.xml", "openvino", labels=["a", "b\0c", "d", "e", "f"])
    assert list(tmp_path.iterdir()) == []


def test_openvinos_weights_are_not_replaced_unless_asked(model, tmp_path):
    needs("openvino")
    one_with(tmp_path, **{"bit.bin": "mine"})
    lines = []
    with pytest.raises(FileExistsError, match=r"bit\.bin' exists"):
        keras_bit.export(model, tmp_path / "bit.xml", "openvino", progress=lines.append)
    assert lines == []


# ONNX and OpenVINO


def in_its_own_engine(name, path):
    """Returns a function from a batch to a dict of outputs, by the names in the file."""
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        return lambda batch: dict(zip(names, session.run(None, {"pixel_values": batch}), strict=True))

    compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: {key.any_name: values for key, values in compiled({"pixel_values": batch}).items()}


def file_name(name):
    return f"bit.{'onnx' if name == 'onnx' else 'xml'}"


def file_names(name):
    return file_name(name) if name in FORMATS else "bit"


@pytest.mark.parametrize("name", FORMATS)
def test_another_engine_gives_the_models_numbers_for_any_batch_and_size(model, labeled, name):
    report = labeled(name)
    written = list(report.path.parent.iterdir())
    assert sorted(one.suffix for one in written) == ([".onnx"] if name == "onnx" else [".bin", ".xml"])
    assert report.bytes == sum(one.stat().st_size for one in written)
    run = in_its_own_engine(name, report.path)
    for shape in ((1, 64, 64, 3), (3, 48, 80, 3)):
        batch = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
        outputs = run(batch)
        assert set(outputs) == {"probabilities"}
        np.testing.assert_allclose(outputs["probabilities"], model(batch), atol=TOLERANCE)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"hidden_act": "gelu"}, id="gelu"),  # tf2onnx does not know TensorFlow's Erfc
        # OpenVINO takes numbers of the padding for outputs.
        pytest.param(
            {
                "layer_type": "bottleneck",
                "global_padding": "same",
                "embedding_dynamic_padding": True,
                "hidden_act": "gelu_new",
            },
            id="bottleneck",
        ),
    ],
)
def test_operations_that_converters_do_not_know_are_written_in_another_form(tmp_path, name, options):
    needs(name)
    keras.utils.set_random_seed(0)
    model = BiT(BitConfig(**SMALLEST, **options), classifier_activation=None)
    path = keras_bit.export(model, tmp_path / file_name(name), name).path
    for shape in ((2, 45, 60, 3), (1, 64, 33, 3)):
        batch = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
        outputs, expected = in_its_own_engine(name, path)(batch), model(batch)
        assert set(outputs) == {"logits"}
        np.testing.assert_allclose(outputs["logits"], expected, atol=TOLERANCE * np.abs(expected).max())


def doubled():
    model = BiT(BitConfig(**SMALLEST))
    return keras.Model(model.input, model.output * 2)


def augmented_with_own_head():
    pooled = BiT(BitConfig(**SMALLEST), include_top=False, pooling="avg")
    head = keras.layers.Dense(3, activation="softmax")
    # These two layers stay in the graph unless the export says that it does not train.
    augmentation = [keras.layers.RandomFlip(), keras.layers.GaussianNoise(0.1)]
    return keras.Sequential([keras.Input((64, 64, 3)), *augmentation, pooled, keras.layers.Dropout(0.5), head])


@pytest.mark.parametrize("name", ["saved_model", "tflite", *FORMATS])
@pytest.mark.slow
def test_a_sequential_model_is_exported_without_its_augmentation(tmp_path, name):
    if name != "saved_model":
        needs(name)
    keras.utils.set_random_seed(0)
    model = augmented_with_own_head()
    path = keras_bit.export(model, tmp_path / (file_name(name) if name in FORMATS else "bit"), name).path
    batch = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype("float32")
    if name == "saved_model":
        found = tf.saved_model.load(str(path)).signatures["serving_default"](pixel_values=tf.constant(batch))
    elif name == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        found = Interpreter(str(path)).get_signature_runner()(pixel_values=batch)
    else:
        found = in_its_own_engine(name, path)(batch)
    assert set(found) == {"probabilities"}
    np.testing.assert_allclose(found["probabilities"], model(batch, training=False), atol=TOLERANCE)


@pytest.mark.parametrize("name", FORMATS)
def test_an_unknown_operation_is_reported_as_a_fault_of_the_model(tmp_path, name):
    needs(name)
    inputs = keras.Input((64, 64, 3))
    # A gamma function's logarithm: in TensorFlow, and in neither of the two.
    odd = keras.Model(inputs, BiT(BitConfig(**SMALLEST))(Lgamma()(inputs)))
    with pytest.raises(ValueError, match=f"`model` .*'{name}'"):
        keras_bit.export(odd, tmp_path / file_name(name), name)
    assert list(tmp_path.iterdir()) == []


class Lgamma(keras.layers.Layer):
    def call(self, x):
        return tf.math.lgamma(tf.abs(x) + 1)


@keras.saving.register_keras_serializable()
class Forgetful(keras.layers.Layer):
    """Its config has what its constructor does not take."""

    def call(self, inputs):
        return inputs * 2

    def get_config(self):
        return {**super().get_config(), "factor": 2}


UNREBUILT = [lambda: Forgetful(name="twice")]
if not versions.is_older(keras.__version__, "3.15"):  # older ones build it again
    UNREBUILT.append(lambda: keras.layers.Lambda(lambda x: x * 2, name="twice"))


@pytest.mark.parametrize("layer", UNREBUILT)
def test_a_layer_that_keras_cannot_build_again_is_named(tmp_path, layer):
    model = BiT(BitConfig(**SMALLEST))
    last = layer()
    doubled = keras.Model(model.input, last(model.output))
    fact = f"`model` has the layer 'twice', a {type(last).__name__}, which Keras cannot build again"
    with pytest.raises(ValueError, match=fact):
        keras_bit.export(doubled, tmp_path / "bit")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "outputs"),
    [
        (lambda: BiT(BitConfig(**SMALLEST), classifier_activation=None), {"logits"}),
        (lambda: BiT(BitConfig(**SMALLEST), include_top=False, pooling="avg"), {"features"}),
        (lambda: BiT(BitConfig(**SMALLEST), include_top=False), {"last_hidden_state"}),
        (doubled, {"output"}),
        (
            lambda: BiTBackbone(weights=None, config=BitConfig(**SMALLEST), out_features=["stem", "stage2"]),
            {"stem", "stage2"},
        ),
    ],
)
def test_outputs_have_names_that_say_what_they_are(make, outputs):
    assert set(output_names(make())) == outputs


@pytest.mark.parametrize("name", FORMATS)
def test_several_outputs_have_their_names_in_a_file_of_a_fixed_shape(tmp_path, name):
    needs(name)
    backbone = BiTBackbone(weights=None, config=BitConfig(**SMALLEST), out_features=["stem", "stage2"])
    report = keras_bit.export(backbone, tmp_path / file_name(name), name, batch_size=1, image_size=64)
    batch = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype("float32")
    found = in_its_own_engine(name, report.path)(batch)
    assert set(found) == {"stem", "stage2"}
    for key, values in backbone(batch).items():
        np.testing.assert_allclose(found[key], values, atol=TOLERANCE * np.abs(values).max())


def test_labels_are_in_the_files(model, labeled, tmp_path):
    needs("onnx")
    needs("openvino")
    import onnx

    properties = {one.key: one.value for one in onnx.load(labeled("onnx").path).metadata_props}
    assert json.loads(properties["labels"]) == list(NAMES)
    read = core().read_model(labeled("openvino").path)
    assert read.get_rt_info(["model_info", "labels"]).value.split(" ") == ["_", "thing_0", "thing_1", "thing_2", "_"]
    with pytest.raises(ValueError, match=r"`path` must end in \.xml .*/bit'"):
        keras_bit.export(model, tmp_path / "bit", "openvino")


@pytest.mark.data
@pytest.mark.parametrize("name", ["saved_model", "tflite", *FORMATS])
@pytest.mark.slow
def test_photographs_have_the_models_scores(model, photos, finished, labeled, name):
    if name == "saved_model":
        report = exported(finished, name)
    elif name == "tflite":
        needs(name)
        report = exported(finished, name, image_size=64)
    else:
        report = labeled(name)
    run = format_named(name).load(job.Job(model), report.path)
    batches = np.split(PROCESSOR(photos[:4]), 4)
    checks = job.Checks(batches, [{job.OUTPUT: model(batch).numpy()} for batch in batches])
    difference, _ = comparing.compare(run, checks, share=1e-4, what=name)
    assert difference <= TOLERANCE


# Inputs of whole numbers


def with_pixels_in_front(dtype):
    """Builds a model of the user's own that takes pixels as they are."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((None, None, 3), dtype=dtype)
    features = BiT(BitConfig(**SMALLEST), include_top=False, pooling="avg")(
        keras.layers.Rescaling(1 / 127.5, -1)(pixels)
    )
    return keras.Model(pixels, keras.layers.Dense(4, activation="softmax")(features))


def dtype_in_the_file(name, path):
    if name == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(path).get_inputs()[0].type.removeprefix("tensor(").rstrip(")")
    if name == "openvino":
        return core().read_model(path).input(0).element_type.to_dtype().name
    if name == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        return np.dtype(Interpreter(str(path)).get_input_details()[0]["dtype"]).name
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    return signature.structured_input_signature[1]["pixel_values"].dtype.name


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "int32"])
@pytest.mark.parametrize("name", ["saved_model", "tflite", *FORMATS])
def test_an_integer_input_stays_one_in_the_file_and_the_check(tmp_path, name, dtype):
    if name in FORMATS:
        needs("own" if name == "onnx" else name)
    elif name == "tflite":
        needs(name)
    report = keras_bit.export(with_pixels_in_front(dtype), tmp_path / file_names(name), name, image_size=64)
    assert dtype_in_the_file(name, report.path) == dtype
    assert report.max_abs_diff < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["float16", "dynamic", "int8", "int8_full"])
def test_an_input_of_whole_numbers_is_quantized_with_its_own_data(tmp_path, quantize):
    needs("tflite")
    data = [np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(kind) for kind in ("uint8", "float32")]
    model = with_pixels_in_front("uint8")
    options = {"quantize": quantize, "image_size": 64}
    report = keras_bit.export(model, tmp_path / "bit.tflite", "tflite", representative_data=data[:1], **options)
    assert dtype_in_the_file("tflite", report.path) == "uint8"
    with pytest.raises(ValueError, match=r"`representative_data` must give uint8 batches .* got float32"):
        keras_bit.export(model, tmp_path / "x.tflite", "tflite", representative_data=data[1:], **options)


@pytest.mark.parametrize("name", ["onnx", "saved_model"])
def test_a_processor_that_gives_fractions_does_not_fit_whole_numbers(tmp_path, name):
    with pytest.raises(ValueError, match=r"`processor` must have `do_rescale=False` and `do_normalize=False` .* uint8"):
        keras_bit.export(with_pixels_in_front("uint8"), tmp_path / "bit", name, processor=PROCESSOR)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_images_reach_a_served_model_of_whole_numbers(tmp_path):
    pixels = keras.Input((None, None, 3), dtype="uint8")
    model = BiT(BitConfig(**SMALLEST), input_tensor=keras.layers.Rescaling(1 / 127.5, -1)(pixels))
    processor = BitImageProcessor(size=(64, 64), do_center_crop=False, do_rescale=False, do_normalize=False)
    path = keras_bit.export(model, tmp_path / "bit", processor=processor).path
    contents = comparison_images.encoded(2)
    found = tf.saved_model.load(str(path)).signatures["serve_bytes"](image_bytes=tf.constant(contents))
    expected = model(processor(contents).astype("uint8"))
    np.testing.assert_allclose(found["probabilities"], expected, atol=TOLERANCE)


# Other backends


@pytest.fixture
def another_backend(monkeypatch):
    """Makes `export` use another process, although the model is TensorFlow's."""
    needs("tflite")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")


def program_in_place_of_python(tmp_path, monkeypatch, text):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "echo the graph is wrong >&2; exit 3",
            RuntimeError,
            r"ended with the exit code 3; .*output:\nthe graph is wrong$",
        ),
        ("echo so far >&2; kill -9 $$", RuntimeError, r"ended by SIGKILL, probably because memory.*\nso far$"),
        ("kill -11 $$", RuntimeError, "ended by SIGSEGV; nothing was kept"),
        ("""echo '{"error": ["ArithmeticError", ["differs"]]}'""", ArithmeticError, "^differs$"),
        ("""echo '{"error": ["ImportError", ["pip install"]]}'""", ImportError, "^pip install$"),
        (
            """echo '{"error": ["OSError", [28, "No space left", "/a"]]}'""",
            OSError,
            r"^'.*/new/bit\.tflite' cannot be written: No space left on device\. Make room there,",
        ),
        ("""echo '{"error": ["OSError", [13, "Denied", "/a"]]}'""", PermissionError, "Denied"),
    ],
)
def test_the_end_of_the_other_process_is_reported_and_nothing_stays(
    model, tmp_path, monkeypatch, another_backend, text, kind, message
):
    program_in_place_of_python(tmp_path, monkeypatch, text)
    with pytest.raises(kind, match=f"(?s){message}"):
        keras_bit.export(model, tmp_path / "new" / "bit.tflite", "tflite", image_size=64)
    assert [one.name for one in tmp_path.iterdir()] == ["python"]


def test_an_error_of_the_caller_ends_the_other_process(model, tmp_path, monkeypatch, another_backend):
    program_in_place_of_python(tmp_path, monkeypatch, """echo '{"progress": "'$$'"}'; exec sleep 60""")
    lines = []

    def progress(line):
        lines.append(line)
        if line.isdigit():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keras_bit.export(model, tmp_path / "bit.tflite", "tflite", image_size=64, progress=progress)
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines[-1]), 0)
    assert [one.name for one in tmp_path.iterdir()] == ["python"]


@pytest.mark.slow
def test_the_other_process_reports_a_layer_of_the_callers_own(model, tmp_path, another_backend):
    @keras.saving.register_keras_serializable(package="mine")
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return x * 2

    inputs = keras.Input((64, 64, 3))
    own = keras.Model(inputs, model(Doubled()(inputs)))
    message = r"^`model` has classes that only your program knows, .* Keras says: Could not locate class 'Doubled'"
    with pytest.raises(ValueError, match=message):
        keras_bit.export(own, tmp_path / "bit.tflite", "tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_job_reaches_the_other_process_whole(model, tmp_path):
    data = [np.full((count, 64, 64, 3), count, "float32") for count in (2, 1)]
    sent = job.Job(model, PROCESSOR, ("a", "b"), "int8", data, 2, (64, None), print, tmp_path, True)
    checks = job.Checks(data, [{"one": data[0], "two": data[1]}, {"one": data[1], "two": data[0]}])
    process._save(tmp_path, "tflite", sent, tmp_path / "bit.tflite", checks)
    name, found, path, found_checks = process._load(tmp_path, print)
    assert (name, path) == ("tflite", tmp_path / "bit.tflite")
    for field in ("processor", "labels", "quantize", "batch_size", "image_size", "runtime", "include_preprocessing"):
        assert getattr(found, field) == getattr(sent, field)
    np.testing.assert_equal(found.representative_data, data)
    np.testing.assert_equal(found_checks.batches, data)
    np.testing.assert_equal(found_checks.expected, checks.expected)
    np.testing.assert_equal(found.model.get_weights(), model.get_weights())


PROGRAM = """
import keras_bit, numpy as np
model = keras_bit.from_pretrained({checkpoint!r})
lines = []
report = keras_bit.export(model, {path!r}, {name!r}, image_size=64, progress=lines.append)
assert ("saving the model for a process with TensorFlow" in lines) == ({name!r} == "saved_model"), lines
assert len(lines) > 2, lines
assert report.max_abs_diff <= report.limit, report
try:
    keras_bit.export(model, {path!r} + "-x.tflite", "tflite", quantize="int8")
except (ValueError, ImportError) as error:
    print(report.max_abs_diff, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("saved_model", "jax"),
        ("onnx", "torch"),
        pytest.param("saved_model", "torch", marks=pytest.mark.release),
        pytest.param("onnx", "jax", marks=pytest.mark.release),
    ],
)
def test_other_backends_export_by_the_same_call(finished, tmp_path, backend, name):
    if importlib.util.find_spec(backend) is None:
        absent(f"{backend} is not installed")
    if name != "saved_model":
        needs(name)
    path = tmp_path / ("bit.onnx" if name == "onnx" else "bit")
    checkpoint = exported(finished, "huggingface").path
    program = PROGRAM.format(checkpoint=str(checkpoint), path=str(path), name=name)
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]
    assert "representative_data" in done.stdout or "tflite" in done.stdout
    shutil.rmtree(tmp_path)


def test_openvino_is_imported_without_its_reports():
    if importlib.util.find_spec("openvino") is None:
        absent("openvino is not installed: pip install -e '.[openvino]'")
    code = (
        "import os, sys\n"
        "os.fork = None  # a report starts a process\n"
        "from keras_bit.exporters.openvino_package import import_openvino\n"
        "openvino = import_openvino()\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "print(openvino.Core().available_devices, telemetry_utils.tm.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "CPU" in done.stdout
    assert done.stdout.split()[-1] == "openvino.tools.ovc.telemetry_stub"
