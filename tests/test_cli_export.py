"""Tests `keras-bit export` as a user runs it."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from command_line import TINY, open_tiny_once
from command_line import run as run_command
from conftest import absent
from image_files import make_folders
from keras_bit.cli import export
from keras_bit.exporters import exporting


@pytest.fixture(autouse=True)
def once(monkeypatch):
    open_tiny_once(monkeypatch)


def run(capsys, *arguments, weights=TINY):
    return run_command(capsys, "export", *arguments, "--weights", weights)


@pytest.mark.slow
def test_a_saved_model_with_a_line_per_step_and_a_report(capsys, tmp_path):
    make_folders(tmp_path / "images", {"a": 2, "b": 3})
    code, out, err = run(
        capsys, "--out", tmp_path / "bit", "--representative-data", tmp_path / "images", "--num-images", 4
    )
    assert code == 0
    told = "keras-bit export: "
    steps = [line.removeprefix(told) for line in err.splitlines() if line.startswith(told)]
    without = [step for step in steps if step.startswith("no warm-up requests") and "tensorflow_serving" in step]
    assert len(without) == (importlib.util.find_spec("tensorflow_serving") is None)
    assert [step for step in steps if step not in without] == [
        f"loading {TINY}",
        f"preprocessing images of {tmp_path / 'images'}",
        "running the model on the images to compare",
        "standardizing the kernels",
        "tracing the signatures and writing the SavedModel",
        "running the export",
    ]
    assert "saved_model" in out
    assert "4 images, by its own runtime" in out
    signatures = tf.saved_model.load(str(tmp_path / "bit" / "1")).signatures
    assert set(signatures) == {"serving_default", "features", "serve_bytes", "classify"}


def test_the_command_has_the_formats_of_the_library():
    assert tuple(exporting.FORMATS) == export.FORMATS


@pytest.mark.slow
def test_the_report_as_json_and_other_labels(capsys, tmp_path):
    names = ",".join(f"thing {number}" for number in range(10))
    code, out, _ = run(capsys, "--out", tmp_path / "bit", "--labels", names, "--json", "--image-size", "64x96")
    assert code == 1  # the processor makes 64x64
    code, out, _ = run(capsys, "--out", tmp_path / "bit", "--labels", names, "--json", "--image-size", "64")
    assert code == 0
    report = json.loads(out)
    assert report["path"] == str(tmp_path / "bit" / "1")
    assert report["max_abs_diff"] <= report["limit"]
    labels = Path(report["path"], "assets", "labels.txt").read_text().splitlines()
    assert labels == names.split(",")


@pytest.mark.slow
def test_a_processor_without_a_fixed_size_is_served_for_pixels(capsys, tmp_path):
    source = shutil.copytree(TINY, tmp_path / "open")
    file = source / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_center_crop": False}))
    code, _, err = run(capsys, "--out", tmp_path / "bit", weights=source)
    assert code == 1
    assert "processor" in err  # which --pixels-only leaves out
    make_folders(tmp_path / "images", {"a": 2})
    representative = ("--representative-data", tmp_path / "images", "--image-size", "48x64")
    code, _, err = run(capsys, "--out", tmp_path / "bit", "--pixels-only", *representative, weights=source)
    assert code == 0, err
    signatures = tf.saved_model.load(str(tmp_path / "bit" / "1")).signatures
    assert set(signatures) == {"serving_default", "features"}
    assert signatures["features"].structured_input_signature[1]["pixel_values"].shape == (None, 48, 64, 3)


@pytest.mark.slow
def test_a_tflite_file_is_resizable_on_request(capsys, tmp_path):
    if importlib.util.find_spec("ai_edge_litert") is None:
        absent("ai-edge-litert is not installed: pip install -e '.[tflite]'")
    from ai_edge_litert.interpreter import Interpreter

    out = tmp_path / "bit.tflite"
    code, _, err = run(capsys, "--out", out, "--format", "tflite", "--image-size", "any")
    assert code == 0, err
    assert Interpreter(str(out)).get_input_details()[0]["shape_signature"].tolist() == [1, -1, -1, 3]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("--out", "~nobody-has-this-name/bit"), ("--out", "~nobody-has-this-name")),
        (("--out", "{tmp}/data", "--format", "huggingface"), ("{tmp}/data", "exists", "--out", "--overwrite")),
        (("--out", "{tmp}/bit.bin", "--format", "openvino"), ("--out must end in .xml", "{tmp}/bit.bin")),
        (("--out", "{tmp}/bit", "--representative-data", "{tmp}/none"), ("--representative-data", "'{tmp}/none'")),
        (("--out", "{tmp}/bit", "--representative-data", "{tmp}/empty"), ("--representative-data", "'{tmp}/empty'")),
        (("--out", "{tmp}/bit", "--labels", "a,b"), ("--labels", "10 classes")),
    ],
)
def test_wrong_options_give_one_line_and_leave_nothing(capsys, tmp_path, arguments, facts):
    (tmp_path / "data").mkdir()
    (tmp_path / "empty").mkdir()
    code, out, err = run(capsys, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (code, out) == (1, "")
    *_, line = err.splitlines()
    assert line.startswith("keras-bit export: ")
    assert all(fact.format(tmp=tmp_path) in line for fact in facts)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["data", "empty"]


def test_the_help_has_the_defaults_of_web(capsys):
    code, out, _ = run_command(capsys, "export", "--help")
    assert code == 0
    said = " ".join(out.split())
    assert "[default: (any; TFLite, web: 1)" in said
    assert "TFLite, web: the processor's; TFLite without one: 224" in said


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("--pixels-only", "--include-preprocessing"), ("--pixels-only", "--include-preprocessing", "only one")),
        (("--quantize", "int8"), ("--format saved_model has no --quantize int8", "Leave --quantize out")),
        (("--format", "onnx", "--quantize", "float16"), ("--format onnx has no --quantize float16", "It has int8.")),
        (("--format", "onnx", "--runtime", "npm"), ("--runtime is for --format web, got --format onnx",)),
        (("--include-preprocessing",), ("--include-preprocessing is for --format openvino, got --format saved_model",)),
        (("--format", "onnx", "--quantize", "int8"), ("--quantize int8", "--representative-data DIR")),
        (("--format", "litert", "--quantize", "int8_full"), ("--quantize int8_full", "--representative-data DIR")),
    ],
)
def test_wrong_usage_is_reported_before_anything_is_loaded(capsys, tmp_path, arguments, facts):
    code, out, err = run(capsys, "--out", tmp_path / "bit", *arguments)
    assert (code, out) == (2, "")
    assert all(fact in " ".join(err.split()) for fact in facts)
    assert "loading" not in err


def test_a_folder_without_the_pages_runtime_is_a_one_line_error(capsys, tmp_path):
    if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxruntime") is None:
        absent("onnx or onnxruntime is not installed: pip install -e '.[web]'")
    (tmp_path / "npm").mkdir()
    code, out, err = run(capsys, "--out", tmp_path / "bit", "--format", "web", "--runtime", tmp_path / "npm")
    assert (code, out) == (1, "")
    *_, line = err.splitlines()
    assert line.startswith("keras-bit export: --runtime ")
    assert "npm install" in line
    assert [one.name for one in tmp_path.iterdir()] == ["npm"]
