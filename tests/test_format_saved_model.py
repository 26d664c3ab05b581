"""SavedModels as the engines that serve them see them."""

import dataclasses
import importlib.util
import os
import re
import struct
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import keras_bit
from conftest import ROOT, absent
from keras_bit import BiT, BiTBackbone, BitConfig, BitImageProcessor
from keras_bit.exporters import saved_model, serving_files
from keras_bit.exporters import signatures as signatures_module
from keras_bit.exporters.job import Job
from picture_files import encoded, pixels

CHECKPOINT = ROOT / "tests" / "checkpoints" / "bit-tiny-cifar10"
C_API = Path(__file__).with_name("c_api_probe.py")
# The same kernels, standardized once, and the same operations in another order: some units in the last place.
TOLERANCE = 1e-5
SMALL = {"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (2, 1), "num_groups": 4, "num_labels": 5}
PROCESSOR = BitImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False, image_mean=0.5, image_std=0.5)


@pytest.fixture(scope="module")
def model():
    return keras_bit.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def processor():
    return BitImageProcessor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def pictures():
    """Encoded ones of several kinds and sizes."""
    kinds = (("JPEG", {}), ("PNG", {}), ("BMP", {}), ("JPEG", {"progressive": True}))
    return [encoded(pixels(seed, 40 + seed, 90), kind, **more) for seed, (kind, more) in enumerate(kinds)]


@pytest.fixture(scope="module")
def base(model, processor, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "bit"
    report = keras_bit.export(model, path, processor=processor)
    assert report.path == path / "1"
    assert report.max_abs_diff <= report.limit
    assert report.bytes == sum(file.stat().st_size for file in report.path.rglob("*") if file.is_file())
    return path


@pytest.fixture(scope="module")
def signatures(base):
    return tf.saved_model.load(str(base / "1")).signatures


def test_every_signature_has_the_tensors_that_it_is_told_to_have(signatures):
    def shapes(function):
        both = (function.structured_input_signature[1], function.structured_outputs)
        return tuple({name: (spec.dtype.name, spec.shape.as_list()) for name, spec in one.items()} for one in both)

    found = {name: shapes(function) for name, function in signatures.items()}
    assert found == {
        "serving_default": (
            {"pixel_values": ("float32", [None, None, None, 3])},
            {"logits": ("float32", [None, 10]), "probabilities": ("float32", [None, 10])},
        ),
        "serve_bytes": (
            {"image_bytes": ("string", [None])},
            {
                "probabilities": ("float32", [None, 10]),
                "classes": ("int32", [None, 5]),
                "labels": ("string", [None, 5]),
                "scores": ("float32", [None, 5]),
            },
        ),
        "classify": (
            {"inputs": ("string", [None])},
            {"classes": ("string", [None, 5]), "scores": ("float32", [None, 5])},
        ),
        "features": ({"pixel_values": ("float32", [None, None, None, 3])}, {"features": ("float32", [None, 512])}),
    }


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (3, 48, 80, 3)])
def test_pixels_of_any_size_give_the_models_numbers(model, signatures, shape):
    batch = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    outputs = signatures["serving_default"](pixel_values=tf.constant(batch))
    logits = keras_bit.from_pretrained(CHECKPOINT, classifier_activation=None)(batch)
    np.testing.assert_allclose(outputs["probabilities"], model(batch), atol=TOLERANCE)
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)  # logits of up to 10
    pooled = keras.Model(model.input, model.get_layer("avg_pool").output)(batch)
    np.testing.assert_allclose(signatures["features"](pixel_values=tf.constant(batch))["features"], pooled, atol=1e-4)


def test_encoded_pictures_are_preprocessed_as_the_processor_does(model, processor, signatures, pictures):
    found = signatures["serve_bytes"](image_bytes=tf.constant(pictures))
    outputs = {name: values.numpy() for name, values in found.items()}
    expected = model.predict(processor(pictures), verbose=0)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=TOLERANCE)
    best = keras_bit.decode_predictions(expected, labels=model.config.id2label)
    names = [[name for _, name, _ in row] for row in best]
    assert [[label.decode() for label in row] for row in outputs["labels"]] == names
    assert [[model.config.id2label[index] for index in row] for row in outputs["classes"].tolist()] == names
    np.testing.assert_allclose(outputs["scores"], [[score for *_, score in row] for row in best], atol=TOLERANCE)


def example(content):
    feature = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def test_an_example_is_classified_as_its_picture(signatures, pictures):
    found = signatures["classify"](inputs=tf.constant([example(content) for content in pictures]))
    expected = signatures["serve_bytes"](image_bytes=tf.constant(pictures))
    assert found["classes"].numpy().tolist() == expected["labels"].numpy().tolist()
    np.testing.assert_array_equal(found["scores"], expected["scores"])


# The header of a BMP of 24 bits whose sides are the lowest int32.
LOWEST = struct.pack("<IIiiHHI", 54, 40, -(2**31), -(2**31), 1, 24, 0) + bytes(24)


def enormous():
    """A PNG that tells so in its header."""
    png = encoded(pixels(0), "PNG")
    return png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:]


@pytest.mark.parametrize(
    ("index", "content", "problem"),
    [
        (2, b"", "the image at index 2 is empty"),
        (
            1,
            enormous(),
            r"at index 1 has 60000x60000 pixels .* in all\. The limit was set when the model was exported\.\]",
        ),
        (1, b"BM" + bytes(8) + LOWEST, "the image at index 1 is a damaged BMP"),
        (0, b"no picture", "the image at index 0 is no JPEG, PNG, GIF, BMP or WebP file"),
        (3, "half", "the image at index 3 is a JPEG that is cut off"),
    ],
)
def test_one_corrupt_picture_is_an_error_that_names_its_index(signatures, pictures, index, content, problem):
    batch = list(pictures)
    batch[index] = batch[index][: len(batch[index]) // 2] if content == "half" else content
    with pytest.raises(tf.errors.InvalidArgumentError, match=problem):
        signatures["serve_bytes"](image_bytes=tf.constant(batch))
    good = [picture for place, picture in enumerate(batch) if place != index]
    assert len(signatures["serve_bytes"](image_bytes=tf.constant(good))["labels"]) == len(good)


def test_several_corrupt_pictures_are_all_named_and_an_empty_request_is_refused(signatures, pictures):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at index 0 is empty.*at index 2 is empty"):
        signatures["serve_bytes"](image_bytes=tf.constant([b"", pictures[0], b""]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="there must be at least one image"):
        signatures["serve_bytes"](image_bytes=tf.constant([], tf.string))


def test_each_export_is_the_next_version_and_what_a_person_changed_stays(model, tmp_path):
    path = tmp_path / "my model_1"
    first = keras_bit.export(model, path)
    assert sorted(one.name for one in path.iterdir()) == ["1", "batching.config", "inference-service.yaml", "serve.sh"]
    assert (path / "1" / "assets" / "labels.txt").read_text().split() == list(model.config.id2label.values())
    assert "/models/my-model_1/batching.config" in (path / "serve.sh").read_text()
    assert "name: my-model-1\n" in (path / "inference-service.yaml").read_text()
    assert f"was written by TensorFlow {tf.__version__}. " in (path / "serve.sh").read_text()
    assert os.access(path / "serve.sh", os.X_OK)
    subprocess.run(["sh", "-n", str(path / "serve.sh")], check=True)
    assert "memory: 2Gi" in (path / "inference-service.yaml").read_text()
    (path / "batching.config").write_text("mine")
    (path / "7").mkdir()
    second = keras_bit.export(model, path)
    assert (first.path.name, second.path.name) == ("1", "8")
    assert (path / "batching.config").read_text() == "mine"
    # Without a processor nothing takes images.
    assert set(tf.saved_model.load(str(second.path)).signatures) == {"serving_default", "features"}


def test_what_fails_beside_a_version_is_a_warning_and_odd_names_are_no_versions(model, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    for name in ("9" * 30, "\u0663", "1a", "007"):
        (tmp_path / "bit" / name).mkdir(parents=True)
    monkeypatch.setattr(serving_files, "write_beside", fail)
    with pytest.warns(
        UserWarning, match="8 is written and whole, but not all that belongs beside it: .* No space left"
    ):
        report = keras_bit.export(model, tmp_path / "bit")
    assert report.path == tmp_path / "bit" / "8"
    assert (report.path / "saved_model.pb").exists()


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("my model_1", "my-model-1"),
        ("2024 \u00df__", "bit-2024"),
        ("--", "bit"),
        ("a" * 62 + "-b", "a" * 62),
        ("B", "b"),
    ],
)
def test_kserve_gets_a_name_that_kubernetes_takes(name, host):
    found = serving_files._host(name)
    assert found == host
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", found)
    assert len(found) <= 63


def test_the_memory_is_that_of_two_versions_and_what_they_compute():
    assert [serving_files._memory(size) for size in (0, 4_000_000, 3_740_000_000)] == [1, 2, 12]


def test_an_older_batching_configuration_that_does_not_fit_is_told(tmp_path):
    for batch_size in (None, 2):
        (tmp_path / "1").mkdir(exist_ok=True)
        if batch_size is None:
            serving_files.write_beside(tmp_path / "1", batch_size)
        else:
            with pytest.warns(UserWarning, match=r"batching\.config is older .* batches of 2 alone; .*_sizes: 2$"):
                serving_files.write_beside(tmp_path / "1", batch_size)


def test_warm_up_requests_are_served_by_the_signatures_that_they_name(base, signatures):
    if importlib.util.find_spec("tensorflow_serving") is None:
        absent("tensorflow-serving-api is not installed: pip install -e '.[serving]'")
    from tensorflow_serving.apis import prediction_log_pb2

    file = base / "1" / "assets.extra" / "tf_serving_warmup_requests"
    names = []
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        name = request.model_spec.signature_name
        inputs = {key: tf.constant(tf.make_ndarray(values)) for key, values in request.inputs.items()}
        assert len(signatures[name](**inputs)["probabilities"]) == 1
        names.append(name)
    assert names == ["serving_default", "serve_bytes"]


@pytest.mark.parametrize(
    ("config", "options", "expected"),
    [
        ({"problem_type": "multi_label_classification"}, {}, {"logits", "probabilities"}),
        ({"problem_type": "regression", "num_labels": 1}, {}, {"logits"}),
        ({}, {"classifier_activation": None}, {"logits", "probabilities"}),
        ({}, {"include_top": False}, {"last_hidden_state"}),
        ({}, {"include_top": False, "pooling": "avg"}, {"features"}),
        ({"layer_type": "bottleneck"}, {}, {"logits", "probabilities"}),
    ],
)
def test_what_a_model_gives_decides_what_is_served(tmp_path, config, options, expected):
    keras.utils.set_random_seed(0)
    model = BiT(BitConfig(**SMALL | config), **options)
    report = keras_bit.export(model, tmp_path / "bit")
    serve = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    assert set(serve.structured_outputs) == expected
    batch = np.random.default_rng(1).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    outputs = serve(pixel_values=tf.constant(batch))
    (found,) = [values for name, values in outputs.items() if np.allclose(values, model(batch), atol=1e-4)]
    assert found.shape == model(batch).shape
    if config.get("problem_type") == "multi_label_classification":
        np.testing.assert_allclose(outputs["probabilities"], tf.sigmoid(outputs["logits"]), atol=1e-6)


def test_a_backbone_serves_its_maps_by_their_names(tmp_path):
    backbone = BiTBackbone(weights=None, config=BitConfig(**SMALL), out_features=["stem", "stage2"])
    report = keras_bit.export(backbone, tmp_path / "maps")
    serve = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    assert set(serve.structured_outputs) == {"stem", "stage2"}


def test_a_fixed_batch_and_size_are_in_the_signature(model, processor, tmp_path):
    report = keras_bit.export(model, tmp_path / "bit", processor=processor, batch_size=2, image_size=64)
    signatures = tf.saved_model.load(str(report.path)).signatures
    assert signatures["serving_default"].structured_input_signature[1]["pixel_values"].shape == (2, 64, 64, 3)
    assert signatures["serve_bytes"].structured_input_signature[1]["image_bytes"].shape == (2,)
    assert "allowed_batch_sizes: 2" in (tmp_path / "bit" / "batching.config").read_text()


def test_half_precision_is_served_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = BiT(BitConfig(**SMALL))
    finally:
        keras.config.set_dtype_policy("float32")
    report = keras_bit.export(model, tmp_path / "bit")
    assert 0 < report.max_abs_diff < 0.01
    assert (
        tf.saved_model.load(str(report.path)).signatures["features"].structured_outputs["features"].dtype == "float32"
    )


def test_what_cannot_be_served_is_refused_before_anything_is_written(model, tmp_path):
    headless = BiT(BitConfig(**SMALL), include_top=False)
    with pytest.raises(ValueError, match="`processor` must be None for a model that is not a BiT with its own head"):
        keras_bit.export(headless, tmp_path / "bit", processor=PROCESSOR)
    with pytest.raises(ValueError, match="`processor` must give every image the same size"):
        keras_bit.export(model, tmp_path / "bit", processor=BitImageProcessor(size=64, do_center_crop=False))
    with pytest.raises(ValueError, match="`processor` must give the 96x96 px of the export, got 64x64"):
        keras_bit.export(model, tmp_path / "bit", processor=PROCESSOR, image_size=96)
    with pytest.raises(ValueError, match="`processor` must have `do_convert_rgb=True`"):
        keras_bit.export(model, tmp_path / "bit", processor=dataclasses.replace(PROCESSOR, do_convert_rgb=False))
    gray = BiT(BitConfig(**SMALL, num_channels=1))
    with pytest.raises(ValueError, match="`processor` must be None for a model of 1 channels"):
        keras_bit.export(gray, tmp_path / "bit", processor=PROCESSOR)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="`path` must be a directory for versions"):
        keras_bit.export(model, tmp_path / "file")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_wrong_preprocessing_in_the_graph_is_an_error(model, processor, tmp_path, monkeypatch):
    real = signatures_module.decoded
    monkeypatch.setattr(signatures_module, "decoded", lambda *arguments: real(*arguments)[:, ::-1])
    message = r"\(saved_model, serve_bytes\) differs from the model by .* in `probabilities`"
    with pytest.raises(ArithmeticError, match=message):
        keras_bit.export(model, tmp_path / "bit", processor=processor)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "output", "wrong", "message"),
    [
        ("serve_bytes", "labels", lambda x: x[:, ::-1], r"\(saved_model, serve_bytes\) names other classes than those"),
        ("serve_bytes", "scores", lambda x: x * 0.9, r"\(saved_model, serve_bytes\) names other classes than those"),
        ("classify", "scores", lambda x: x * 0.9, r"\(saved_model, classify\) differs from .* in `scores`"),
        ("classify", "classes", lambda x: x[:, ::-1], r"\(saved_model, classify\) names other classes than serve_b"),
        ("features", "features", lambda x: x * 2, r"\(saved_model, features\) differs from .* in `features`"),
        ("serving_default", "logits", lambda x: x * 0 + 7, r"\(saved_model, logits\) differs from .* in `logits`"),
    ],
)
def test_a_signature_that_gives_other_numbers_is_an_error(
    model, processor, base, name, output, wrong, message, monkeypatch
):
    loaded = tf.saved_model.load(str(base / "1"))
    right = loaded.signatures[name]

    def other(**inputs):
        outputs = dict(right(**inputs))
        return outputs | {output: wrong(outputs[output])}

    fake = types.SimpleNamespace(signatures={**loaded.signatures, name: other})
    monkeypatch.setattr(tf.saved_model, "load", lambda path: fake)
    labels = tuple(model.config.id2label.values())
    with pytest.raises(ArithmeticError, match=message):
        saved_model.load(Job(model, processor, labels), base / "1")


# Engines that we did not write


@pytest.fixture(scope="module")
def files(processor, pictures, tmp_path_factory):
    """Every signature's input as an .npy file, and the images in them."""
    folder = tmp_path_factory.mktemp("inputs")
    # numpy's byte strings end at their last byte that is not 0, and a BMP ends in zeros.
    some = [picture for picture in pictures if not picture.endswith(b"\0")]
    assert len(some) == 3
    np.save(folder / "pixels.npy", processor(some))
    np.save(folder / "strings.npy", np.array(some))
    np.save(folder / "examples.npy", np.array([example(picture) for picture in some]))
    return folder, some


def tensor_name(path, signature, kind, key):
    definition = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return getattr(definition.meta_graphs[0].signature_def[signature], kind)[key].name


@pytest.mark.parametrize(
    ("signature", "key", "file"),
    [("serving_default", "pixel_values", "pixels.npy"), ("serve_bytes", "image_bytes", "strings.npy")],
)
def test_the_c_api_gives_the_same_numbers_without_python_tensorflow(
    base, model, processor, files, tmp_path, signature, key, file
):
    library = Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2"
    if not library.exists():
        absent(f"TensorFlow's wheel has no {library.name} here")
    folder, some = files
    command = [
        sys.executable,
        str(ROOT / "tests" / "c_api_probe.py"),
        str(library),
        str(base / "1"),
        str(folder / file),
    ]
    command += [tensor_name(base / "1", signature, "inputs", key), str(tmp_path / "out.npy")]
    command += [tensor_name(base / "1", signature, "outputs", "probabilities")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), model(processor(some)), atol=TOLERANCE)


def test_the_c_api_gets_the_index_of_a_corrupt_picture(base, tmp_path):
    library = Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2"
    if not library.exists():
        absent(f"TensorFlow's wheel has no {library.name} here")
    np.save(tmp_path / "strings.npy", np.array([encoded(pixels(0)), b"no picture"]))
    command = [sys.executable, str(C_API), str(library), str(base / "1")]
    command += [str(tmp_path / "strings.npy"), tensor_name(base / "1", "serve_bytes", "inputs", "image_bytes")]
    command += [str(tmp_path / "out.npy"), tensor_name(base / "1", "serve_bytes", "outputs", "probabilities")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the image at index 1 is no JPEG, PNG, GIF, BMP or WebP file" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signature", "key", "file", "output"),
    [
        ("serving_default", "pixel_values", "pixels.npy", "probabilities"),
        ("features", "pixel_values", "pixels.npy", "features"),
        ("serve_bytes", "image_bytes", "strings.npy", "probabilities"),
        ("classify", "inputs", "examples.npy", "scores"),
    ],
)
def test_saved_model_cli_runs_every_signature(base, signatures, files, tmp_path, signature, key, file, output):
    folder, _ = files
    command = [str(Path(sys.executable).with_name("saved_model_cli")), "run", "--dir", str(base / "1")]
    command += ["--tag_set", "serve", "--signature_def", signature, "--inputs", f"{key}={folder / file}"]
    done = subprocess.run([*command, "--outdir", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = signatures[signature](**{key: tf.constant(np.load(folder / file))})[output]
    np.testing.assert_allclose(np.load(tmp_path / f"{output}.npy"), expected, atol=TOLERANCE)


def test_openvino_reads_the_saved_model(base, model, files):
    if importlib.util.find_spec("openvino") is None:
        absent("openvino is not installed: pip install -e '.[openvino]'")
    import openvino

    folder, _ = files
    batch = np.load(folder / "pixels.npy")
    # Model Server, too, serves `serving_default` alone; the decoders of the others are TensorFlow's.
    read = openvino.Core().read_model(str(base / "1"))
    compiled = openvino.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = {name for output in compiled.outputs for name in output.get_names()}
    assert {"logits", "probabilities"} <= names
    np.testing.assert_allclose(compiled(batch)["probabilities"], model(batch), atol=TOLERANCE)
