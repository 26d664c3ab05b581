"""`export`: arguments, the checked writing, and the formats that Keras' own exporters write."""

import importlib
import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_bit
from conftest import ROOT, absent
from keras_bit import BiT, BiTBackbone, BitConfig, BitImageProcessor
from keras_bit.formats import huggingface

CHECKPOINT = ROOT / "tests" / "checkpoints" / "bit-tiny-cifar10"
SMALL = {"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (2, 1), "num_groups": 4, "num_labels": 5}
FORMATS = ("onnx", "openvino")
# Other engines' convolutions add up in another order.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model():
    return keras_bit.from_pretrained(CHECKPOINT)


def needs(name):
    packages = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "openvino": ("openvino",), "tflite": ("ai_edge_litert",)}
    if any(importlib.util.find_spec(package) is None for package in packages[name]):
        absent(f"{' or '.join(packages[name])} is not installed: pip install -e '.[{name}]'")


def test_transformers_layout_is_written_whole_and_replaced_only_when_asked(model, tmp_path):
    processor = BitImageProcessor.from_pretrained(CHECKPOINT)
    report = keras_bit.export(model, tmp_path / "bit", "huggingface", processor=processor)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bit"]
    assert (report.format, report.pictures, report.path) == ("huggingface", 4, tmp_path / "bit")
    assert report.bytes == sum(file.stat().st_size for file in report.path.iterdir())
    with pytest.raises(FileExistsError, match=r"exists\. Choose another, or replace it with `overwrite=True`"):
        keras_bit.export(model, tmp_path / "bit", "huggingface")
    with pytest.raises(FileExistsError, match=r"what would be lost: preprocessor_config\.json"):
        keras_bit.export(model, tmp_path / "bit", "huggingface", overwrite=True)
    keras_bit.export(model, tmp_path / "bit", "huggingface", processor=processor, overwrite=True)
    files = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(one.name for one in (tmp_path / "bit").iterdir()) == files
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "bit").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda outputs: outputs * 1.01, r"differs from the model by .* more than the .* that is let pass"),
        (lambda outputs: outputs * np.nan, "NaN or infinite"),
        (lambda outputs: outputs[:, :3], "where the model gives"),
    ],
)
def test_a_file_that_gives_other_numbers_is_an_error_and_leaves_what_was_there(
    model, tmp_path, monkeypatch, wrong, message
):
    real = huggingface.load

    def load(job, path):
        run = real(job, path)
        return lambda batch: {name: wrong(values) for name, values in run(batch).items()}

    monkeypatch.setattr(huggingface, "load", load)
    with pytest.raises(ArithmeticError, match=message):
        keras_bit.export(model, tmp_path / "a" / "b" / "bit", "huggingface")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bit").mkdir()
    (tmp_path / "bit" / "mine").write_text("kept")
    with pytest.raises(ArithmeticError, match=message):
        keras_bit.export(model, tmp_path / "bit", "huggingface", overwrite=True)
    assert [one.name for one in tmp_path.rglob("*")] == ["bit", "mine"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "coreml"}, "`format` must be one of 'saved_model', 'tflite', .* got 'coreml'"),
        ({"quantize": "int4"}, "`quantize` must be None for the format 'saved_model', got 'int4'"),
        ({"processor": "bit"}, "`processor` must be a keras_bit.BitImageProcessor, got str"),
        ({"batch_size": 0}, "`batch_size` must be a positive whole number or None, got 0"),
        ({"image_size": 16}, "`image_size` must be a whole number of pixels, at least 32, .* got 16"),
        ({"labels": ["a", "b"]}, "`labels` must have a name for each of the 10 classes"),
        ({"representative_data": []}, "`representative_data` must give at least one batch, got none"),
        ({"representative_data": [np.zeros((1, 64, 64, 3))]}, "must give float32 batches .* got float64"),
        ({"representative_data": [np.full((1, 64, 64, 3), np.nan, "float32")]}, "must be finite"),
        ({"format": "huggingface", "batch_size": 2}, "`batch_size` and `image_size` must be None for the format"),
    ],
)
def test_arguments_that_do_not_fit_are_told_and_nothing_is_written(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        keras_bit.export(model, tmp_path / "bit", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_takes_or_gives_several_tensors_without_names_is_refused(tmp_path):
    first, second = keras.Input((64, 64, 3)), keras.Input((64, 64, 3))
    both = keras.Model([first, second], keras.layers.Add()([first, second]))
    with pytest.raises(ValueError, match="`model` must take one batch of pictures"):
        keras_bit.export(both, tmp_path / "both")
    flat = keras.layers.GlobalAveragePooling2D()(first)
    with pytest.raises(ValueError, match="`model` must give one tensor or a dict of them, got a list"):
        keras_bit.export(keras.Model(first, [flat, flat]), tmp_path / "several")


# ONNX and OpenVINO


def in_its_own_engine(name, path):
    """From a batch to a dict of outputs, by the names in the file."""
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        return lambda batch: dict(zip(names, session.run(None, {"pixel_values": batch}), strict=True))
    import openvino

    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: {key.any_name: values for key, values in compiled({"pixel_values": batch}).items()}


def file_name(name):
    return f"bit.{'onnx' if name == 'onnx' else 'xml'}"


@pytest.mark.parametrize("name", FORMATS)
def test_another_engine_gives_the_models_numbers_for_any_batch_and_size(model, tmp_path, name):
    needs(name)
    report = keras_bit.export(model, tmp_path / file_name(name), name)
    assert sorted(one.suffix for one in tmp_path.iterdir()) == ([".onnx"] if name == "onnx" else [".bin", ".xml"])
    assert report.bytes == sum(one.stat().st_size for one in tmp_path.iterdir())
    run = in_its_own_engine(name, report.path)
    for shape in ((1, 64, 64, 3), (3, 48, 80, 3)):
        batch = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
        outputs = run(batch)
        assert set(outputs) == {"probabilities"}
        np.testing.assert_allclose(outputs["probabilities"], model(batch), atol=TOLERANCE)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("make", "outputs"),
    [
        (lambda: BiT(BitConfig(**SMALL), classifier_activation=None), {"logits"}),
        (lambda: BiT(BitConfig(**SMALL), include_top=False, pooling="avg"), {"output"}),
        (
            lambda: BiTBackbone(weights=None, config=BitConfig(**SMALL), out_features=["stem", "stage2"]),
            {"stem", "stage2"},
        ),
    ],
)
def test_outputs_have_names_that_say_what_they_are(tmp_path, name, make, outputs):
    needs(name)
    keras.utils.set_random_seed(0)
    report = keras_bit.export(make(), tmp_path / file_name(name), name, batch_size=1, image_size=64)
    assert set(in_its_own_engine(name, report.path)(np.zeros((1, 64, 64, 3), "float32"))) == outputs


def test_labels_are_in_the_files(model, tmp_path):
    needs("onnx")
    needs("openvino")
    import onnx
    import openvino

    names = [f"thing {number}" for number in range(10)]
    keras_bit.export(model, tmp_path / "bit.onnx", "onnx", labels=names)
    properties = {one.key: one.value for one in onnx.load(tmp_path / "bit.onnx").metadata_props}
    assert json.loads(properties["labels"]) == names
    keras_bit.export(model, tmp_path / "bit.xml", "openvino", labels=names)
    found = openvino.Core().read_model(tmp_path / "bit.xml").get_rt_info(["model_info", "labels"]).value
    assert found.split() == [name.replace(" ", "_") for name in names]
    with pytest.raises(ValueError, match=r"`path` must end in .xml for the format 'openvino'"):
        keras_bit.export(model, tmp_path / "bit", "openvino")


@pytest.mark.data
@pytest.mark.parametrize("name", ["saved_model", "tflite", *FORMATS])
def test_photographs_have_the_models_scores(model, photos, tmp_path, name):
    if name != "saved_model":
        needs(name)
    processor = BitImageProcessor.from_pretrained(CHECKPOINT)
    batch = processor(photos[:4])
    path = tmp_path / (file_name(name) if name in FORMATS else f"bit.{name}")
    report = keras_bit.export(model, path, name, processor=processor, representative_data=[batch])
    assert report.pictures == 4
    assert report.max_abs_diff <= TOLERANCE


# Other backends

PROGRAM = """
import keras_bit, numpy as np
model = keras_bit.from_pretrained({checkpoint!r})
lines = []
report = keras_bit.export(model, {path!r}, {name!r}, image_size=64, progress=lines.append)
assert "saving the model for a process with TensorFlow" in lines and len(lines) > 3, lines
assert report.max_abs_diff <= report.limit, report
try:
    keras_bit.export(model, {path!r} + "/x.tflite", "tflite", quantize="int8")
except (ValueError, ImportError) as error:
    print(report.max_abs_diff, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("name", ["saved_model", "onnx"])
def test_other_backends_export_by_the_same_call(tmp_path, backend, name):
    if importlib.util.find_spec(backend) is None:
        absent(f"{backend} is not installed")
    if name != "saved_model":
        needs(name)
    path = tmp_path / ("bit.onnx" if name == "onnx" else "bit")
    program = PROGRAM.format(checkpoint=str(CHECKPOINT), path=str(path), name=name)
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]
    assert "representative_data" in done.stdout or "tflite" in done.stdout
    shutil.rmtree(tmp_path)
