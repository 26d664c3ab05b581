"""Tests which file the report of an export advises, for processors as Linux describes them."""

import keras
import pytest

from keras_bit.exporters import exporting, machine, processor_advice
from keras_bit.exporters.job import ExportReport
from keras_bit.exporters.processor_advice import KINDS, WORTH, sentence
from keras_bit.exporters.registry import format_named
from store import exported, smallest

VNNI, AVX2, ARM, UNKNOWN = ["avx2", "avx512f", "avx512_vnni"], ["avx2"], ["asimd", "asimddp"], []
MEASURED = {
    "with VNNI": {"tflite": 0.35, "onnx": 0.48, "openvino": 0.42},
    "with AVX2 and without VNNI": {"tflite": 1.03},
}
ROWS = {
    "int8 with VNNI": ("tflite", "int8", VNNI, "This file is the one to use on", "took 0.35 of the time of float32"),
    "float32 with VNNI": ("onnx", None, VNNI, "On this processor (X, with VNNI) use int8", "took 0.48"),
    "float16 with VNNI": ("openvino", "float16", VNNI, "use int8", "took 0.42"),
    "the narrow VNNI": ("tflite", "dynamic", ["avx2", "avx_vnni"], "use int8", "took 0.35"),
    "int8 with AVX2 alone": ("tflite", "int8", AVX2, "use float32", "took 1.03"),
    "float16 with AVX2 alone": ("tflite", "float16", AVX2, "This file is the one to use on", "took 1.03"),
    "dot products of ARM": ("onnx", None, ARM, "use int8", "by its instructions; `keras-bit benchmark` measures it"),
    "a SavedModel with VNNI": ("saved_model", None, VNNI, "int8 can be faster", "'tflite', 'onnx' or 'openvino'"),
    "a SavedModel with AVX2": (
        "saved_model",
        None,
        AVX2,
        "This file is the one to use on",
        "is not known to be faster",
    ),
    "instructions that nobody names": ("tflite", None, UNKNOWN, "is not known", "`keras-bit benchmark` measures it"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_file_is_advised_by_the_processors_instructions(row, monkeypatch):
    format, quantize, instructions, *facts = ROWS[row]
    # What is advised without a measurement does not depend on what was measured since.
    monkeypatch.setattr(
        processor_advice, "KINDS", tuple(kind._replace(int8=MEASURED.get(kind.name, {})) for kind in KINDS)
    )
    said = sentence(format, quantize, {"processor": "X", "instructions": instructions})
    for fact in facts:
        assert fact in said
    assert said.endswith(".")
    assert said.count(". ") == 0


@pytest.mark.parametrize(
    ("format", "fact"), [("openvino", "'openvino' cannot have it for this model"), ("saved_model", "a SavedModel")]
)
def test_only_what_export_accepts_for_the_model_is_advised(format, fact):
    said = sentence(format, None, {"processor": "X", "instructions": VNNI}, ("tflite", "onnx"))
    assert fact in said
    assert "use the format 'tflite' or 'onnx', and compare" in said


def test_a_model_around_a_bit_has_no_int8_of_openvino():
    model = smallest()
    around = keras.Model(model.input, keras.layers.Dense(3)(model.output))
    assert exporting._quantizable(model) == ["tflite", "onnx", "openvino"]
    assert exporting._quantizable(around) == ["tflite", "onnx"]


@pytest.mark.parametrize("format", ["web", "huggingface"])
def test_files_that_no_engine_here_runs_get_no_advice(format):
    assert sentence(format, None, {"processor": "X", "instructions": VNNI}) == ""


def test_a_measured_time_decides_against_the_instructions(monkeypatch):
    kind = KINDS[-1]._replace(int8={"onnx": WORTH - 0.01})
    monkeypatch.setattr(processor_advice, "KINDS", (kind,))
    assert "use int8" in sentence("onnx", None, {"processor": "X", "instructions": AVX2})


def test_advice_only_names_known_instructions_and_formats_with_int8():
    for kind in KINDS:
        assert {*kind.instructions} <= {*machine.FEATURES}
        assert {*kind.int8} <= {*processor_advice.QUANTIZABLE}
    assert all("int8" in format_named(name).quantizations for name in processor_advice.QUANTIZABLE)


def test_the_report_says_it_of_this_machine(finished):
    report: ExportReport = exported(finished, "tflite", ".tflite")
    assert report.advice == sentence("tflite", None, machine.machine())
