"""Tests SavedModels as serving engines see them."""

import csv
import dataclasses
import importlib.util
import io
import os
import re
import shutil
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
from conftest import absent
from image_files import encoded, pixels
from keras_bit import BiT, BiTBackbone, BitConfig, BitImageProcessor
from keras_bit.exporters import serving_files
from keras_bit.exporters.job import Job
from keras_bit.exporters.openvino_package import core
from keras_bit.exporters.registry import format_named
from store import SMALLEST, TRAINED, served, smallest

C_API = Path(__file__).with_name("c_api_probe.py")
# The same kernels, standardized once, and the same operations in another order: some units in the last place.
TOLERANCE = 1e-5
PROCESSOR = BitImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False, image_mean=0.5, image_std=0.5)


@pytest.fixture(scope="module")
def model():
    return keras_bit.from_pretrained(TRAINED)


@pytest.fixture(scope="module")
def processor():
    return BitImageProcessor.from_pretrained(TRAINED)


@pytest.fixture(scope="module")
def images():
    """Returns encoded images of several kinds and sizes."""
    kinds = (("JPEG", {}), ("PNG", {}), ("BMP", {}), ("JPEG", {"progressive": True}))
    return [encoded(pixels(seed, 40 + seed, 90), kind, **more) for seed, (kind, more) in enumerate(kinds)]


@pytest.fixture(scope="module")
def version(finished):
    return served(finished).path


@pytest.fixture(scope="module")
def loaded(version):
    return tf.saved_model.load(str(version))


@pytest.fixture(scope="module")
def signatures(loaded):
    return loaded.signatures


@pytest.fixture
def loads(monkeypatch):
    """Collects what `export` loads for its check, so that a test need not load it again."""
    found = []
    real = tf.saved_model.load
    monkeypatch.setattr(tf.saved_model, "load", lambda path: found.append(real(path)) or found[-1])
    return found


def test_the_report_tells_where_the_version_is_how_large_and_how_near(finished):
    report = served(finished)
    assert (report.path.name, report.path.parent.name) == ("1", "bit")
    assert report.max_abs_diff <= report.limit
    assert report.bytes == sum(file.stat().st_size for file in report.path.rglob("*") if file.is_file())


def test_every_signature_has_the_expected_tensors(signatures):
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
@pytest.mark.slow
def test_pixels_of_any_size_give_the_models_numbers(model, signatures, shape):
    batch = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    outputs = signatures["serving_default"](pixel_values=tf.constant(batch))
    logits = keras_bit.from_pretrained(TRAINED, classifier_activation=None)(batch)
    np.testing.assert_allclose(outputs["probabilities"], model(batch), atol=TOLERANCE)
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)  # logits of up to 10
    pooled = keras.Model(model.input, model.get_layer("avg_pool").output)(batch)
    np.testing.assert_allclose(signatures["features"](pixel_values=tf.constant(batch))["features"], pooled, atol=1e-4)


def test_encoded_images_are_preprocessed_as_the_processor_does(model, processor, signatures, images):
    found = signatures["serve_bytes"](image_bytes=tf.constant(images))
    outputs = {name: values.numpy() for name, values in found.items()}
    expected = model.predict(processor(images), verbose=0)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=TOLERANCE)
    best = keras_bit.decode_predictions(expected, labels=model.config.id2label)
    names = [[name for _, name, _ in row] for row in best]
    assert [[label.decode() for label in row] for row in outputs["labels"]] == names
    assert [[model.config.id2label[index] for index in row] for row in outputs["classes"].tolist()] == names
    np.testing.assert_allclose(outputs["scores"], [[score for *_, score in row] for row in best], atol=TOLERANCE)


def example(content):
    feature = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def test_an_example_is_classified_as_its_image(signatures, images):
    found = signatures["classify"](inputs=tf.constant([example(content) for content in images]))
    expected = signatures["serve_bytes"](image_bytes=tf.constant(images))
    assert found["classes"].numpy().tolist() == expected["labels"].numpy().tolist()
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=TOLERANCE)  # two graphs of one network


# The header of a BMP of 24 bits whose sides are the lowest int32.
LOWEST = struct.pack("<IIiiHHI", 54, 40, -(2**31), -(2**31), 1, 24, 0) + bytes(24)


def enormous():
    """Returns a PNG whose header claims an enormous size."""
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
        (0, b"no image", "the image at index 0 is not a JPEG"),
        (3, "half", "the image at index 3 is a truncated JPEG"),
    ],
)
def test_one_corrupt_image_is_an_error_that_names_its_index(signatures, images, index, content, problem):
    batch = list(images)
    batch[index] = batch[index][: len(batch[index]) // 2] if content == "half" else content
    with pytest.raises(tf.errors.InvalidArgumentError, match=problem):
        signatures["serve_bytes"](image_bytes=tf.constant(batch))
    good = [image for place, image in enumerate(batch) if place != index]
    assert len(signatures["serve_bytes"](image_bytes=tf.constant(good))["labels"]) == len(good)


def test_all_corrupt_images_are_named_and_an_empty_request_is_refused(signatures, images):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at index 0 is empty.*at index 2 is empty"):
        signatures["serve_bytes"](image_bytes=tf.constant([b"", images[0], b""]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="there must be at least one image"):
        signatures["serve_bytes"](image_bytes=tf.constant([], tf.string))


@pytest.mark.slow
def test_each_export_is_the_next_version_and_what_a_person_changed_stays(tmp_path, loads):
    path = tmp_path / "my model_1"
    labels = [f"thing {number}" for number in range(5)]
    first = keras_bit.export(smallest(), path, labels=labels)
    assert sorted(one.name for one in path.iterdir()) == ["1", "batching.config", "inference-service.yaml", "serve.sh"]
    assert (path / "1" / "assets" / "labels.txt").read_text().splitlines() == labels
    assert "/models/my-model_1/batching.config" in (path / "serve.sh").read_text()
    assert 'name: "my-model-1"\n' in (path / "inference-service.yaml").read_text()
    assert f"was written by TensorFlow {tf.__version__}. " in (path / "serve.sh").read_text()
    assert os.access(path / "serve.sh", os.X_OK)
    assert "TF_ENABLE_ONEDNN_OPTS" in _docker(path / "serve.sh", tmp_path / "bin", "--enable_batching")
    assert 'memory: "2Gi"' in (path / "inference-service.yaml").read_text()
    (path / "batching.config").write_text("mine")
    (path / "7").mkdir()
    for name in ("9" * 30, "\u0663", "1a", "007"):  # no versions
        (path / name).mkdir()
    second = keras_bit.export(smallest(), path)
    assert (first.path.name, second.path.name) == ("1", "8")
    assert (path / "batching.config").read_text() == "mine"
    # Without a processor nothing takes images.
    assert set(loads[-1].signatures) == {"serving_default", "features"}


@pytest.mark.slow
def test_a_failure_next_to_a_version_gives_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(serving_files, "write_beside", lambda *arguments: throw(OSError(28, "No space left on device")))
    with pytest.warns(UserWarning, match=r"bit/1 .*No space left"):
        report = keras_bit.export(smallest(), tmp_path / "bit")
    assert report.path == tmp_path / "bit" / "1"
    assert (report.path / "saved_model.pb").exists()


def throw(error):
    raise error


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


def test_an_older_batching_configuration_that_does_not_fit_gives_a_warning(tmp_path):
    for batch_size in (None, 2):
        (tmp_path / "1").mkdir(exist_ok=True)
        if batch_size is None:
            serving_files.write_beside(tmp_path / "1", batch_size)
        else:
            with pytest.warns(UserWarning, match=r"batching\.config is older .* batches of 2 only. .*_sizes: 2$"):
                serving_files.write_beside(tmp_path / "1", batch_size)


def test_warm_up_requests_are_served_by_the_signatures_that_they_name(version, signatures):
    if importlib.util.find_spec("tensorflow_serving") is None:
        absent("tensorflow-serving-api is not installed: pip install -e '.[serving]'")
    from tensorflow_serving.apis import prediction_log_pb2

    file = version / "assets.extra" / "tf_serving_warmup_requests"
    names = []
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        name = request.model_spec.signature_name
        inputs = {key: tf.constant(tf.make_ndarray(values)) for key, values in request.inputs.items()}
        assert len(signatures[name](**inputs)["probabilities"]) == 1
        names.append(name)
    assert names == ["serving_default", "serve_bytes"]


@pytest.mark.slow
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
def test_the_outputs_of_a_model_decide_its_signatures(tmp_path, loads, config, options, expected):
    keras.utils.set_random_seed(0)
    model = BiT(BitConfig(**SMALLEST | config), **options)
    keras_bit.export(model, tmp_path / "bit")
    serve = loads[0].signatures["serving_default"]
    assert set(serve.structured_outputs) == expected
    batch = np.random.default_rng(1).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    outputs = serve(pixel_values=tf.constant(batch))
    (found,) = [values for name, values in outputs.items() if np.allclose(values, model(batch), atol=1e-4)]
    assert found.shape == model(batch).shape
    if config.get("problem_type") == "multi_label_classification":
        np.testing.assert_allclose(outputs["probabilities"], tf.sigmoid(outputs["logits"]), atol=1e-6)


def test_a_backbone_serves_its_maps_by_their_names(tmp_path, loads):
    backbone = BiTBackbone(weights=None, config=BitConfig(**SMALLEST), out_features=["stem", "stage2"])
    keras_bit.export(backbone, tmp_path / "maps")
    serve = loads[0].signatures["serving_default"]
    assert set(serve.structured_outputs) == {"stem", "stage2"}


@pytest.mark.slow
def test_a_fixed_batch_and_size_are_in_the_signature(tmp_path, loads):
    keras_bit.export(smallest(), tmp_path / "bit", processor=PROCESSOR, batch_size=2, image_size=64)
    signatures = loads[0].signatures
    assert signatures["serving_default"].structured_input_signature[1]["pixel_values"].shape == (2, 64, 64, 3)
    assert signatures["serve_bytes"].structured_input_signature[1]["image_bytes"].shape == (2,)
    assert "allowed_batch_sizes: 2" in (tmp_path / "bit" / "batching.config").read_text()


@pytest.mark.slow
def test_half_precision_is_served_in_float32(tmp_path, loads):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = smallest()
    finally:
        keras.config.set_dtype_policy("float32")
    report = keras_bit.export(model, tmp_path / "bit")
    assert 0 < report.max_abs_diff < 0.01
    assert loads[0].signatures["features"].structured_outputs["features"].dtype == "float32"


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (
            lambda: BiT(BitConfig(**SMALLEST), include_top=False),
            {"processor": PROCESSOR},
            ["`processor` must be None", "head"],
        ),
        (
            smallest,
            {"processor": BitImageProcessor(size=64, do_center_crop=False)},
            ["`processor` must give every image the same size"],
        ),
        (smallest, {"processor": PROCESSOR, "image_size": 96}, ["`processor`", "96x96 px", "64x64"]),
        (
            smallest,
            {"processor": dataclasses.replace(PROCESSOR, do_convert_rgb=False)},
            ["`processor` must have `do_convert_rgb=True`"],
        ),
        (lambda: smallest(num_channels=1), {"processor": PROCESSOR}, ["`processor` must be None", "1 channels"]),
    ],
)
def test_models_that_cannot_be_served_are_refused_before_anything_is_written(tmp_path, make, options, words):
    with pytest.raises(ValueError, match="`processor`") as caught:
        keras_bit.export(make(), tmp_path / "bit", **options)
    assert [word for word in words if word not in str(caught.value)] == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_refused_as_a_directory_for_versions(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"`path` must be a directory .*/file is a file"):
        keras_bit.export(smallest(), tmp_path / "file")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "output", "wrong", "message"),
    [
        ("serve_bytes", "probabilities", lambda x: x[::-1], r"\(saved_model, serve_bytes\) differs .* `probabilities`"),
        ("serve_bytes", "labels", lambda x: x[:, ::-1], r"\(saved_model, serve_bytes\) names other classes than those"),
        ("serve_bytes", "scores", lambda x: x * 0.9, r"\(saved_model, serve_bytes\) names other classes than those"),
        ("classify", "scores", lambda x: x * 0.9, r"\(saved_model, classify\) differs from .* in `scores`"),
        ("classify", "classes", lambda x: x[:, ::-1], r"\(saved_model, classify\) must name the classes of serve_b"),
        ("features", "features", lambda x: x * 2, r"\(saved_model, features\) differs from .* in `features`"),
        ("serving_default", "logits", lambda x: x * 0 + 7, r"\(saved_model, logits\) differs from .* in `logits`"),
    ],
)
@pytest.mark.slow
def test_a_signature_that_gives_other_numbers_is_an_error(
    model, processor, loaded, name, output, wrong, message, monkeypatch
):
    right = loaded.signatures[name]

    def other(**inputs):
        outputs = dict(right(**inputs))
        return outputs | {output: wrong(outputs[output])}

    fake = types.SimpleNamespace(signatures={**loaded.signatures, name: other})
    monkeypatch.setattr(tf.saved_model, "load", lambda path: fake)
    labels = tuple(model.config.id2label.values())
    with pytest.raises(ArithmeticError, match=message):
        format_named("saved_model").load(Job(model, processor, labels), Path("unused"))


# Engines that we did not write


@pytest.fixture(scope="module")
def files(processor, images, tmp_path_factory):
    """Writes every signature's input as an .npy file, and the images in them."""
    folder = tmp_path_factory.mktemp("inputs")
    # numpy's byte strings end at their last byte that is not 0, and a BMP ends in zeros.
    some = [image for image in images if not image.endswith(b"\0")]
    assert len(some) == 3
    np.save(folder / "pixels.npy", processor(some))
    np.save(folder / "strings.npy", np.array(some))
    np.save(folder / "examples.npy", np.array([example(image) for image in some]))
    return folder, some


def tensor_name(path, signature, kind, key):
    definition = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return getattr(definition.meta_graphs[0].signature_def[signature], kind)[key].name


@pytest.mark.parametrize(
    ("signature", "key", "file"),
    [("serving_default", "pixel_values", "pixels.npy"), ("serve_bytes", "image_bytes", "strings.npy")],
)
@pytest.mark.slow
def test_the_c_api_gives_the_same_numbers_without_python_tensorflow(
    version, model, processor, files, tmp_path, signature, key, file
):
    library = Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2"
    if not library.exists():
        absent(f"TensorFlow's wheel has no {library.name} here")
    folder, some = files
    command = [
        sys.executable,
        str(C_API),
        str(library),
        str(version),
        str(folder / file),
    ]
    command += [tensor_name(version, signature, "inputs", key), str(tmp_path / "out.npy")]
    command += [tensor_name(version, signature, "outputs", "probabilities")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), model(processor(some)), atol=TOLERANCE)


@pytest.mark.slow
def test_the_c_api_gets_the_index_of_a_corrupt_image(version, tmp_path):
    library = Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2"
    if not library.exists():
        absent(f"TensorFlow's wheel has no {library.name} here")
    np.save(tmp_path / "strings.npy", np.array([encoded(pixels(0)), b"no image"]))
    command = [sys.executable, str(C_API), str(library), str(version)]
    command += [str(tmp_path / "strings.npy"), tensor_name(version, "serve_bytes", "inputs", "image_bytes")]
    command += [str(tmp_path / "out.npy"), tensor_name(version, "serve_bytes", "outputs", "probabilities")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the image at index 1 is not a JPEG" in done.stderr


@pytest.mark.parametrize(
    ("signature", "key", "file", "output"),
    [
        ("serving_default", "pixel_values", "pixels.npy", "probabilities"),
        ("features", "pixel_values", "pixels.npy", "features"),
        ("serve_bytes", "image_bytes", "strings.npy", "probabilities"),
        ("classify", "inputs", "examples.npy", "scores"),
    ],
)
@pytest.mark.slow
def test_saved_model_cli_runs_every_signature(version, signatures, files, tmp_path, signature, key, file, output):
    from tensorflow.python.tools import saved_model_cli

    folder, _ = files
    # What the command `saved_model_cli run` does: in this process it need not import TensorFlow again.
    inputs = saved_model_cli.load_inputs_from_input_arg_string(f"{key}={folder / file}", "", "")
    saved_model_cli.run_saved_model_with_feed_dict(str(version), "serve", signature, inputs, str(tmp_path), False)
    expected = signatures[signature](**{key: tf.constant(np.load(folder / file))})[output]
    np.testing.assert_allclose(np.load(tmp_path / f"{output}.npy"), expected, atol=TOLERANCE)


def test_openvino_reads_the_saved_model(version, model, files):
    if importlib.util.find_spec("openvino") is None:
        absent("openvino is not installed: pip install -e '.[openvino]'")

    folder, _ = files
    batch = np.load(folder / "pixels.npy")
    # Model Server also serves only `serving_default`; the other signatures need TensorFlow's decoders.
    read = core().read_model(str(version))
    compiled = core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = {name for output in compiled.outputs for name in output.get_names()}
    assert {"logits", "probabilities"} <= names
    np.testing.assert_allclose(compiled(batch)["probabilities"], model(batch), atol=TOLERANCE)


SAYS = """#!/bin/sh
printf '%s\\0' "${0##*/}" "$@"
"""  # a stand-in for a container engine: its name and its arguments, of any characters


def _engine(folder, name="docker"):
    """Makes the stand-in; returns its directory."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(SAYS)
    (folder / name).chmod(0o755)
    return folder


def _called(path, *options, search, **run_with):
    """Returns the name and the arguments of serve.sh's call, with `search` before the other directories of PATH."""
    environment = {**os.environ, "PATH": f"{search}{os.pathsep}{os.environ['PATH']}", **run_with.pop("env", {})}
    done = subprocess.run([str(path), *options], capture_output=True, text=True, env=environment, **run_with)
    assert (done.returncode, done.stderr) == (0, "")
    found = done.stdout.split("\0")[:-1]
    assert found[1:3] == ["run", "--rm"]
    assert found[-1 - len(options) :] == ["docker.io/tensorflow/serving", *options]
    return found


def _docker(path, folder, *options, **run_with):
    """Returns the arguments of serve.sh's call of docker."""
    name, *found = _called(path, *options, search=_engine(folder), **run_with)
    assert name == "docker"
    return found


def beside_a_version(base):
    """Writes the files for servers next to a version that holds one byte."""
    (base / "1").mkdir(parents=True)
    (base / "1" / "saved_model.pb").write_bytes(b"x")
    serving_files.write_beside(base / "1", None)
    return base


@pytest.mark.parametrize("name", ["true", "No", "null", "1e3", "0x10", "2026-01-01", "~", "a: b", "-", "Bit #1", "..."])
def test_the_manifest_has_strings_for_any_name_of_a_directory(tmp_path, name):
    yaml = pytest.importorskip("yaml")
    base = beside_a_version(tmp_path / name)
    found = yaml.safe_load((base / "inference-service.yaml").read_text())
    model = found["spec"]["predictor"]["model"]
    host = found["metadata"]["name"]
    assert re.fullmatch("[a-z]([a-z0-9-]{0,61}[a-z0-9])?", host)  # RFC 1035
    assert model["storageUri"] == "gs://YOUR-BUCKET/" + re.sub("[^A-Za-z0-9_-]", "-", name)
    assert model["resources"]["requests"] == {"cpu": "2", "memory": "2Gi"}


NAMES = ["bit", "a: b,c", 'with "quotes"', "-n", "$HOME `x` $(y)", "it's", "two\nlines", "ends\n\n", "=%s\\n*"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "called", ["by its path", "by its name", "by a link", "by a relative link", "by links to links"]
)
def test_serve_sh_mounts_its_own_directory_however_it_is_called(tmp_path, name, called):
    base = beside_a_version(tmp_path / name)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / name).mkdir(parents=True)
    script = {
        "by its path": base / "serve.sh",
        "by its name": f"{name}/serve.sh",
        "by a link": elsewhere / "link",
        "by a relative link": elsewhere / "relative",
        "by links to links": elsewhere / "again",
    }[called]
    (elsewhere / "link").symlink_to(base / "serve.sh")
    (elsewhere / "relative").symlink_to(f"../{name}/serve.sh")
    (elsewhere / "again").symlink_to("relative")
    # Where `cd` looks first, and says so on standard output.
    environment = {"CDPATH": f"{elsewhere}:{tmp_path}"}
    found = _docker(
        f"./{script}" if called == "by its name" else script, tmp_path / "bin", "--x", cwd=tmp_path, env=environment
    )
    # As docker and podman read them, whose commas and quotes are those of Go's encoding/csv.
    (fields,) = csv.reader(io.StringIO(found[found.index("--mount") + 1], newline=""))
    mounted = dict(field.split("=", 1) for field in fields)
    model = re.sub("[^A-Za-z0-9_-]", "-", name)
    assert mounted == {"type": "bind", "source": str(base), "target": f"/models/{model}"}
    assert f"MODEL_NAME={model}" in found


@pytest.mark.parametrize(
    ("there", "variable", "taken"),
    [
        (("docker", "podman"), {}, "docker"),
        (("podman",), {}, "podman"),
        (("docker", "podman"), {"CONTAINER_ENGINE": "podman"}, "podman"),
        (("docker", "nerdctl"), {"CONTAINER_ENGINE": "{folder}/nerdctl"}, "nerdctl"),
    ],
)
def test_serve_sh_takes_the_engine_that_is_there_or_named(tmp_path, there, variable, taken):
    base = beside_a_version(tmp_path / "two words")
    tools = tmp_path / "a bin"
    for name in there:
        _engine(tools, name)
    for name in ("sed", "readlink"):  # of PATH nothing else: this machine may have a docker
        (tools / name).symlink_to(shutil.which(name))
    environment = {name: value.format(folder=tools) for name, value in variable.items()}
    found = _called(base / "serve.sh", "--x", search=tools, env={"PATH": str(tools), **environment})
    assert found[0] == taken


def test_serve_sh_without_an_engine_says_what_to_install(tmp_path):
    base = beside_a_version(tmp_path / "bit")
    (tmp_path / "bin").mkdir()
    for name in ("sed", "readlink"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    script = [shutil.which("sh"), str(base / "serve.sh")]
    done = subprocess.run(script, capture_output=True, text=True, env={"PATH": str(tmp_path / "bin")})
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()  # nothing of the shell's own
    assert "neither docker nor podman is installed. Install one of the two" in line
    assert "CONTAINER_ENGINE" in line


def test_serve_sh_runs_an_engine_that_is_named_although_docker_and_podman_are_missing(tmp_path):
    base = beside_a_version(tmp_path / "bit")
    tools = _engine(tmp_path / "bin", "nerdctl")
    for name in ("sed", "readlink"):
        (tools / name).symlink_to(shutil.which(name))
    found = _called(base / "serve.sh", search=tools, env={"PATH": str(tools), "CONTAINER_ENGINE": "nerdctl"})
    assert found[0] == "nerdctl"


def test_serve_sh_is_a_script_for_every_shell(tmp_path):
    script = beside_a_version(tmp_path / "bit") / "serve.sh"
    checkers = [["sh", "-n"], ["bash", "-n"], ["dash", "-n"], ["shellcheck", "--shell", "sh"]]
    there = [checker for checker in checkers if shutil.which(checker[0])]
    assert there
    for checker in there:
        done = subprocess.run([*checker, str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


ODD = [
    "two\nlines",
    'with "quotes"',
    "it's",
    "$HOME `x` $(y)",
    "back\\slash",
    "tab\tand, comma",
    "",
    "ü 犬",
    "{0}",
    "%s",
]


@pytest.mark.slow
def test_labels_of_any_characters_come_back_as_they_are(tmp_path):
    labels = dict(enumerate(ODD))
    model = smallest(num_labels=len(ODD))
    processor = BitImageProcessor(size=(32, 32), do_center_crop=False)
    report = keras_bit.export(model, tmp_path / 'a "b" $c\nd', processor=processor, labels=labels)
    signatures = tf.saved_model.load(str(report.path)).signatures
    answer = signatures["serve_bytes"](image_bytes=tf.constant([encoded(pixels(0))]))
    found = [label.decode() for label in answer["labels"].numpy()[0]]
    assert found == [ODD[index] for index in answer["classes"].numpy()[0]]
    lines = (report.path / "assets" / "labels.txt").read_text(encoding="utf-8").split("\n")
    assert lines == [*(" ".join(label.split()) for label in ODD), ""]
    script = (report.path.parent / "serve.sh").read_text(encoding="utf-8")
    assert "MODEL_NAME=a--b---c-d " in script
