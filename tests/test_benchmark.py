"""Tests `keras_bit.exporters.benchmark` and `keras-bit benchmark`: measurements, failures, and what they print.

The quick tests replace the measuring processes by a stand-in with given answers; the slow ones run every engine.
"""

import importlib.util
import json
import os
import re
import signal
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import keras_bit
from command_line import TINY, run, tiny, tiny_processor
from conftest import absent, needs_matplotlib
from image_files import encoded, make_folders, pixels
from keras_bit import packages
from keras_bit.cli import benchmark as command
from keras_bit.exporters import benchmark as module
from keras_bit.exporters import benchmark_images, benchmark_report, machine, processes
from keras_bit.exporters.benchmark import benchmark
from keras_bit.exporters.benchmark_report import FAILED, KERAS, MEASURED, MISSING, UNSUPPORTED, Benchmark, Row
from keras_bit.exporters.registry import format_named
from store import SMALLEST, smallest

# A process that does what the last argument says. The best classes are the images' numbers, of which `wrong` are not.
STAND_IN = """
import json, os, sys, time
what, folder, name, told = sys.argv[1:]
told = json.loads(told)
deed = told.get(what, "")
if deed == "refuse":
    print(json.dumps({"error": ["ValueError", "`model` is too large"]}))
elif deed == "lack":
    print(json.dumps({"error": ["ImportError", "it needs nncf. Install it"]}))
elif deed == "exit":
    sys.stderr.write("what it said last\\n")
    os._exit(3)
elif deed == "die":
    os.kill(os.getpid(), 9)
elif deed == "babble":
    print("no json")
elif deed == "sleep":
    time.sleep(60)
elif what == "export":
    print(json.dumps({"path": folder + "/" + name, "bytes": told.get("bytes", 1000), "max_abs_diff": 0.0}))
else:
    import numpy as np
    best = np.arange(len(np.load(folder + "/images.npy", mmap_mode="r"))) % 5
    best[: told.get("wrong", 0)] += 1
    os.makedirs(folder + "/" + name, exist_ok=True)
    np.save(folder + "/" + name + "/top_1.npy", best)
    seconds = told.get("seconds", 0.01)
    print(json.dumps({"start": 1.0, "latency": seconds, "batch": 4 * seconds, "batch_size": 8, "images_of_latency": 1}))
"""


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Returns a dict that tells each process what to do, by the name of its file. Every package counts as installed."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    deeds = {}

    def case(what, folder, file, patience, environment, *more):
        deed = deeds.get(file.name, {})
        arguments = (str(script), what, str(folder), file.name, json.dumps(deed))
        return processes.Case(arguments, patience=0.5 if deed.get(what) == "sleep" else patience)

    monkeypatch.setattr(module, "_case", case)
    monkeypatch.setattr(packages, "require", lambda *arguments: None)
    return deeds


@pytest.fixture(scope="module")
def model():
    return smallest()


def rows_of(found):
    return {(row.format, row.quantize): row for row in found.rows}


def test_every_file_has_a_row_and_the_fastest_that_agrees_is_advised(told, model):
    told |= {
        "keras-float32": {"seconds": 0.02},
        "tflite-float32": {"seconds": 0.008, "bytes": 4000},
        "tflite-int8": {"seconds": 0.002, "wrong": 1},  # the fastest, and 63 of 64 are 98.4 %
        "onnx-float32": {"seconds": 0.004},
    }
    steps = []
    found = benchmark(
        model, formats=["tflite", "onnx"], quantizations=[None, "int8"], image_size=32, rounds=2, progress=steps.append
    )
    rows = rows_of(found)
    assert list(rows)[:3] == [(KERAS, None), ("tflite", None), ("tflite", "int8")]
    assert {row.status for row in found.rows} == {MEASURED}
    assert rows["tflite", None] == Row(
        "tflite", None, MEASURED, "", 4000, 1.0, None, 0.008, pytest.approx(8 / 0.032), 8, 1.0
    )
    assert rows["tflite", "int8"].agreement == pytest.approx(63 / 64)
    assert not found.failed
    assert found.best == rows["onnx", None]
    assert found.advice.startswith("Use onnx on this processor (")
    for fact in (
        "4 ms for one image, 0.20 of the time of Keras' predict",
        "at least 99%",
        "64 random patterns",
        "next is tflite, with 2.00 times its time",
        "measure with your own images",
    ):
        assert fact in found.advice
    assert (found.images, found.calibration_images, found.own_images) == (64, 64, False)
    assert found.image_size == (32, 32)
    assert [step for step in steps if step.startswith("measuring tflite-int8")] == [
        f"measuring tflite-int8 (process {number} of at most {2 * len(rows)})" for number in (3, 3 + len(rows))
    ]


FAILURES = {
    "refuse": "`model` is too large",
    "exit": "The process that exports it ended with the exit code 3: what it said last",
    "die": "The process that exports it was ended by SIGKILL, probably because memory ran out",
    "babble": "The process that exports it ended without an answer",
    "sleep": "The process that exports it gave no answer within 0.5 seconds",
}


@pytest.mark.parametrize("what", ["export", "run"])
@pytest.mark.parametrize("deed", FAILURES)
def test_a_failing_engine_is_a_row_and_the_others_are_measured(told, model, monkeypatch, deed, what):
    told["tflite-float16"] = {what: deed}
    found = benchmark(model, formats=["tflite"], quantizations=[None, "float16", "int8"], image_size=32, rounds=1)
    rows = rows_of(found)
    expected = FAILURES[deed] if what == "export" else FAILURES[deed].replace("exports it", "runs it in LiteRT")
    failed = rows["tflite", "float16"]
    assert (failed.status, failed.reason, failed.latency) == (FAILED, expected, None)
    assert [rows["tflite", other].status for other in (None, "int8")] == [MEASURED] * 2
    assert found.failed
    assert found.best in (rows["tflite", None], rows["tflite", "int8"])


def test_a_missing_package_is_a_row_and_no_failure(told, model, monkeypatch):
    def require(package, extra, purpose):
        if package == "openvino":
            raise packages.MissingPackageError(f"{purpose} needs the package openvino")

    monkeypatch.setattr(packages, "require", require)
    told["onnx-float32"] = {"export": "lack"}  # only the process finds out
    found = benchmark(model, formats=["onnx", "openvino", "saved_model"], quantizations=[None], image_size=32, rounds=1)
    rows = rows_of(found)
    assert (rows["openvino", None].status, rows["onnx", None].status) == (MISSING, MISSING)
    assert "needs the package openvino" in rows["openvino", None].reason
    assert rows["onnx", None].reason == "it needs nncf. Install it"
    assert not found.failed
    assert found.best == rows["saved_model", None]


def test_an_unsupported_quantization_gives_a_row_and_not_a_failure(told):
    found = benchmark(of_whole_numbers(), formats=["openvino"], rounds=1)
    rows = rows_of(found)
    assert [row.status for row in found.rows] == [MEASURED, MEASURED, MEASURED, UNSUPPORTED]
    assert "needs a BiT without layers before or after it" in rows["openvino", "int8"].reason
    assert not found.failed


def test_no_file_is_advised_if_none_agrees(told, model):
    told["onnx-float32"] = {"wrong": 10}
    found = benchmark(model, formats=["onnx"], quantizations=[None], image_size=32, rounds=1)
    assert found.best is None
    assert found.advice.startswith("No file was measured on this processor (")
    assert found.to_dict()["best"] is None


def test_a_keras_model_that_cannot_be_run_elsewhere_is_an_error(told, model):
    told["keras-float32"] = {"run": "exit"}
    with pytest.raises(RuntimeError, match=r"The Keras model cannot be run .* exit code 3: what it said last"):
        benchmark(model, formats=["onnx"], quantizations=[None], image_size=32, rounds=1)


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"formats": ["coreml"]}, "`formats` must hold only 'saved_model', 'tflite', 'onnx', 'openvino', got 'coreml'"),
        (
            {"formats": ["saved_model"], "quantizations": ["int8"]},
            "`quantizations` must name one that a chosen",
        ),
        ({"num_images": 0}, "`num_images`"),
        ({"rounds": 0}, "`rounds`"),
        ({"image_size": 8}, "`image_size`"),
        ({"data": "."}, "`processor` must be given with `data`"),
    ],
)
def test_models_that_cannot_be_measured_are_refused_before_anything_is_written(model, options, fact):
    with pytest.raises(ValueError, match=re.escape(fact)):
        benchmark(model, **options)


def test_a_model_that_does_not_classify_is_refused():
    config = keras_bit.BitConfig(**SMALLEST)
    for other in (
        keras_bit.BiT(config, include_top=False),
        keras_bit.BiTBackbone(weights=None, config=config),
        smallest(num_labels=1, problem_type="regression"),
    ):
        with pytest.raises(ValueError, match="`model` must give scores"):
            benchmark(other)


# The images


@pytest.fixture
def pets(tmp_path):
    """Writes twelve images of two of the tiny checkpoint's classes, and one file that is not an image."""
    make_folders(tmp_path / "pets", {"cat": 5, "dog": 7})
    (tmp_path / "pets" / "dog" / "zz.jpg").write_bytes(b"no image")
    return tmp_path / "pets"


def test_images_of_known_classes_have_their_right_answers(pets):
    found = benchmark_images.read(pets, tiny(), tiny_processor(), 6, (64, 64))
    label2id = {label: number for number, label in tiny().config.id2label.items()}
    # Six of the 13 files: those at 0, 2, 5, 7, 10 and 12. The last one is not an image.
    assert found.right == [(label2id["cat"],)] * 2 + [(label2id["dog"],)] * 3
    assert len(found.pixels) == 5
    assert found.pixels.dtype == np.float32
    np.testing.assert_array_equal(found.pixels[0], tiny_processor()([pets / "cat" / "000.jpg"])[0])
    assert len(found.calibration) == 7
    assert not {image.tobytes() for image in found.pixels} & {image.tobytes() for image in found.calibration}
    (note,) = found.notes
    assert note.startswith("Left out because they cannot be read: ")
    assert "zz.jpg" in note


def test_few_images_are_calibrated_on_themselves(pets):
    found = benchmark_images.read(pets, tiny(), tiny_processor(), 100, (64, 64))
    np.testing.assert_array_equal(found.pixels, found.calibration)
    assert len(found.pixels) == 12


@pytest.mark.parametrize("names", [{"kitten": 2, "dog": 2}, None])
def test_images_of_unknown_classes_are_measured_without_accuracy(tmp_path, names):
    if names is None:
        for number in range(3):
            (tmp_path / f"{number}.jpg").write_bytes(encoded(pixels(number)))
    else:
        make_folders(tmp_path / "data", names)
    found = benchmark_images.read(tmp_path, tiny(), tiny_processor(), 10, (64, 64))
    assert found.right is None
    assert len(found.pixels) == 3 + bool(names)
    assert any(
        note.startswith("Accuracy is not measured, because the right answers are unknown: ") for note in found.notes
    )


def test_another_size_than_the_processors_is_resized_to(pets):
    found = benchmark_images.read(pets, tiny(), tiny_processor(), 2, (48, 80))
    assert found.pixels.shape[1:] == (48, 80, 3)


def of_whole_numbers():
    inputs = keras.Input((64, 64, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    features = keras_bit.BiT(keras_bit.BitConfig(**SMALLEST), include_top=False, pooling="avg")(scaled)
    return keras.Model(inputs, keras.layers.Dense(3)(features))


def test_images_have_the_type_of_the_models_input(pets):
    model, size = of_whole_numbers(), (64, 64)
    processor = keras_bit.BitImageProcessor(size=64, crop_size=64, do_rescale=False, do_normalize=False)
    for found in (
        benchmark_images.patterns(model, None, size),
        benchmark_images.read(pets, model, processor, 3, size),
    ):
        assert (found.pixels.dtype, found.calibration.dtype) == (np.uint8, np.uint8)
        assert found.pixels.std() > 20
    with pytest.raises(ValueError, match="`processor` must have `do_rescale=False`"):
        benchmark(model, pets, processor=tiny_processor())


@pytest.mark.slow
@pytest.mark.parametrize(
    "format",
    [name if name == "saved_model" else pytest.param(name, marks=pytest.mark.release) for name in module.FILES],
)
def test_every_file_of_a_model_of_whole_numbers_is_measured(format):
    for package in (*format_named(format).packages, "tf2onnx"):
        if importlib.util.find_spec(package) is None:
            absent(f"{package} is not installed: pip install -e '.[all]'")
    found = benchmark(of_whole_numbers(), formats=[format], rounds=1)
    assert {row.status for row in found.rows} <= {MEASURED, UNSUPPORTED}


def test_a_directory_without_images_is_refused(tmp_path):
    with pytest.raises(NotADirectoryError, match="`data` must be a directory"):
        benchmark_images.read(tmp_path / "none", tiny(), tiny_processor(), 2, (64, 64))
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"holds no image that can be read\. The first: .*a\.jpg"):
        benchmark_images.read(tmp_path, tiny(), tiny_processor(), 2, (64, 64))


def test_accuracies_count_the_right_classes(told, pets):
    """The stand-in answers the numbers 0, 1, 2, 3, 4, 0 ... for the images in their order."""
    found = benchmark(
        tiny(), pets, processor=tiny_processor(), formats=["onnx"], quantizations=[None], num_images=13, rounds=1
    )
    label2id = {label: number for number, label in tiny().config.id2label.items()}
    right = [label2id["cat"]] * 5 + [label2id["dog"]] * 7
    expected = np.mean([number % 5 == label for number, label in enumerate(right)])
    assert [row.accuracy for row in found.rows] == [pytest.approx(expected)] * len(found.rows)
    assert 0 < expected < 1
    assert (found.images, found.own_images) == (12, True)
    assert "your own" not in found.advice


# The report


REPORT = Benchmark(
    rows=[
        Row(KERAS, None, MEASURED, "", 3_700_000, 1.0, 0.86, 0.00476, 749.0, 8, 4.5),
        Row("saved_model", None, MEASURED, "", 5_000_000, 1.0, 0.86, 0.003, 1000.0, 8, 3.1),
        Row("tflite", "int8", MEASURED, "", 1_100_000, 0.985, 0.855, 0.00033, 3060.0, 1, 0.4),
        Row("onnx", None, FAILED, "The process that runs it was ended by SIGKILL\nsecond line"),
        Row("openvino", None, MISSING, "Install it"),
    ],
    what="200 images of 'flowers'",
    images=200,
    calibration_images=128,
    image_size=(64, 80),
    own_images=True,
    machine={"processor": "A Processor", "threads": 2, "instructions": ["avx2"]},
    versions={"keras": "3.15.1", "jax": None},
    environment={"OMP_NUM_THREADS": None},
    notes=["One note."],
)


def test_the_report_is_json_with_all_of_its_figures():
    found = json.loads(json.dumps(REPORT.to_dict()))
    assert found["rows"][2] == {
        "format": "tflite",
        "quantize": "int8",
        "status": "measured",
        "reason": "",
        "bytes": 1_100_000,
        "agreement": 0.985,
        "accuracy": 0.855,
        "latency": 0.00033,
        "throughput": 3060.0,
        "batch_size": 1,
        "start": 0.4,
    }
    assert found["rows"][3]["reason"] == "The process that runs it was ended by SIGKILL\nsecond line"
    assert found["image_size"] == [64, 80]
    assert found["best"] == {"format": "saved_model", "quantize": None}
    assert found["agreement_needed"] == 0.99
    assert found["advice"] == REPORT.advice
    assert "A Processor, 2 threads" in found["advice"]


def test_a_report_is_written_as_json_and_as_a_chart(tmp_path):
    needs_matplotlib()
    files = benchmark_report.write(REPORT, tmp_path / "report", "a $title$")
    assert [file.name for file in files] == ["benchmark.json", "benchmark.png"]
    assert json.loads(files[0].read_text()) == json.loads(json.dumps(REPORT.to_dict()))
    with Image.open(files[1]) as image:
        assert image.format == "PNG"
        assert image.width > 1000 < 10 * image.height
        colors = {tuple(color[:3]) for _, color in image.convert("RGB").getcolors(1 << 24)}
    # Gray for Keras, blue for a file, orange for the one that is advised.
    assert {(0x8A, 0x8A, 0x8A), (0x1F, 0x5F, 0xA8), (0xD9, 0x73, 0x0D)} <= colors


def test_without_matplotlib_there_is_the_json(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_report.charts, "available", lambda: False)
    (file,) = benchmark_report.write(REPORT, tmp_path)
    assert file.name == "benchmark.json"


def test_the_report_describes_the_machine():
    found = machine.machine()
    assert 1 <= found["threads"] <= found["cores"]
    assert all(found[name] for name in ("system", "processor", "architecture"))
    assert set(found["instructions"]) <= set(machine.FEATURES)


# Processes


def case(code, **options):
    return processes.Case(("-c", code), **options)


def test_cases_take_turns_and_one_that_fails_has_no_more(tmp_path):
    log = tmp_path / "log"
    write = f"open({str(log)!r}, 'a').write"
    cases = {
        "a": case(f"{write}('a'); print('noise'); print('{{\"x\": 1}}')"),
        "b": case(f"{write}('b'); raise SystemExit('no more')"),
        "c": case(
            f"import os; {write}('c'); print('{{\"x\": \"' + os.environ['ONE'] + '\"}}')", environment={"ONE": "1"}
        ),
    }
    failures = {}
    found = processes.in_turn(cases, 2, failures=failures)
    assert found == {"a": [{"x": 1}] * 2, "b": [], "c": [{"x": "1"}] * 2}
    assert log.read_text() == "abcac"
    assert {name: (str(error), error.kind) for name, error in failures.items()} == {
        "b": ("ended with the exit code 1: no more", None)
    }
    with pytest.raises(processes.ProcessError, match="b ended with the exit code 1: no more"):
        processes.in_turn(cases, 1)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with the exit code 0"),
        (3, "ended with the exit code 3"),
        (-signal.SIGSEGV, "was ended by SIGSEGV"),
        (-signal.SIGKILL, "was ended by SIGKILL, probably because memory ran out"),
    ],
)
def test_the_end_of_a_process_is_described_in_words(code, words):
    assert processes.ended(code) == words


START_UP = """
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1796059717.905194   24167 port.cc:153] oneDNN custom operations are on.
2026-01-02 03:04:05.678901: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary is optimized
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
E0000 00:00:1796059723.544909   24167 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
"""


def test_the_reason_of_a_crash_has_no_logs_of_a_start():
    last = (
        "F0000 00:00:1796059724.1 24167 tensor.cc:1] Check failed: x == 1\nE0000 00:00:1796059724.2 24167 a.cc:2] bad"
    )
    code = f"import os, sys; sys.stderr.write({START_UP + last!r}); sys.stderr.flush(); os.abort()"
    with pytest.raises(processes.ProcessError) as raised:
        processes.run(case(code))
    assert str(raised.value) == f"was ended by SIGABRT: {last}"
    row = module._not_measured(module._File("tflite", None), raised.value, "The process that runs it in LiteRT")
    assert row.reason == f"The process that runs it in LiteRT was ended by SIGABRT: {' '.join(last.split())}"
    with pytest.raises(processes.ProcessError, match=r"ended by SIGABRT$"):
        processes.run(case(f"import os, sys; sys.stderr.write({START_UP!r}); sys.stderr.flush(); os.abort()"))


# The command


@pytest.fixture
def measured(monkeypatch):
    """Returns what the command passed on. The command gets `REPORT`."""
    given = {}

    def stand_in(model, data, **options):
        given.update(options, model=model, data=data)
        return REPORT

    monkeypatch.setattr(module, "benchmark", stand_in)
    monkeypatch.setattr(keras_bit, "from_pretrained", lambda source, **hub: given.update(source=source))
    return given


@pytest.mark.parametrize(
    ("arguments", "source", "data"),
    [
        ([TINY], TINY, None),
        ([TINY, "{tmp}"], TINY, "{tmp}"),
        (["--weights", TINY], TINY, None),
        (["--weights", TINY, "{tmp}"], TINY, "{tmp}"),
    ],
)
def test_the_checkpoint_is_the_first_argument_or_the_option(measured, capsys, tmp_path, arguments, source, data):
    code, _, _ = run(capsys, "benchmark", *(str(one).format(tmp=tmp_path) for one in arguments))
    assert code == 1  # a row of the report failed
    assert measured["source"] == str(source)
    assert measured["data"] == (None if data is None else str(tmp_path))
    assert (measured["formats"], measured["quantizations"], measured["num_images"]) == (None, None, 200)


def test_the_command_has_the_formats_and_quantizations_of_the_library():
    assert tuple(module.FILES) == command.FORMATS
    known = {quantize or command.FLOAT32 for name in module.FILES for quantize in format_named(name).quantizations}
    assert known <= set(command.QUANTIZATIONS)


def test_the_options_reach_the_library(measured, capsys):
    options = [
        "--format",
        "tflite",
        "--format",
        "onnx",
        "--quantize",
        "none",
        "--quantize",
        "int8",
        "--num-images",
        "9",
    ]
    run(capsys, "benchmark", TINY, *options, "--image-size", "64x96")
    assert measured["formats"] == ("tflite", "onnx")
    assert measured["quantizations"] == [None, "int8"]
    assert (measured["num_images"], measured["image_size"]) == (9, (64, 96))


def test_the_table_has_a_row_for_each_and_the_reasons_stand_below(measured, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    code, out, _ = run(capsys, "benchmark", TINY)
    lines = [re.sub(r"\s*[│┃]\s*", "|", line).strip("|").strip() for line in out.splitlines()]
    for expected in (
        "file|agrees|accuracy|size|one image|time / Keras|images/s",
        "Keras, predict|100.0%|86.0%|3.7 MB|4.76 ms|1.00|749",
        "> saved_model|100.0%|86.0%|5.0 MB|3 ms|0.63|1,000",
        "tflite, int8|98.5%|85.5%|1.1 MB|0.33 ms|0.07|3,060",
        r"onnx: failed. The process that runs it was ended by SIGKILL\nsecond line",
        "openvino: not installed. Install it",
        "One note.",
        REPORT.advice,
    ):
        assert expected in lines
    assert any(re.fullmatch(r"onnx\|failed[| ]*", line) for line in lines)
    assert any("64x80 px; int8 calibrated on 128 images; medians" in line for line in lines)
    assert code == 1


def test_json_is_all_of_standard_output(measured, capsys, tmp_path):
    code, out, err = run(capsys, "benchmark", TINY, "--json", "--out", tmp_path / "report")
    assert json.loads(out) == json.loads(json.dumps(REPORT.to_dict()))
    assert str(tmp_path / "report" / "benchmark.json") in err
    assert code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        (["a", "b", "c"], 2, "c"),
        (["a", "b", "--weights", "c"], 2, "With --weights the only argument must be DATA, got 'a' and 'b'"),
        (["a", "--format", "coreml"], 2, "coreml"),
        (["a", "--quantize", "int4"], 2, "int4"),
        (["a", "--num-images", "0"], 2, "--num-images"),
        ([TINY, "{tmp}/none"], 1, "DATA must be a directory with images, got '{tmp}/none'"),
        ([TINY, "--out", "{tmp}/file"], 1, "--out must be a directory, got the file '{tmp}/file'"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_loaded(measured, capsys, tmp_path, arguments, code, fact):
    (tmp_path / "file").write_text("")
    found, out, err = run(capsys, "benchmark", *(str(one).format(tmp=tmp_path) for one in arguments))
    assert (found, out) == (code, "")
    assert fact.format(tmp=tmp_path) in err
    assert "source" not in measured


# Every engine


ENGINES = {"tflite": "ai_edge_litert", "onnx": "onnxruntime", "openvino": "openvino", "saved_model": "tensorflow"}


@pytest.mark.slow
def test_every_engine_runs_a_trained_checkpoint_and_holds_no_other(capsys, tmp_path, monkeypatch):
    for package in sorted({package for name in module.FILES for package in format_named(name).packages}):
        if importlib.util.find_spec(package) is None:
            absent(f"{package} is not installed: pip install -e '.[onnx,openvino,tflite]'")
    make_folders(tmp_path / "data", {"cat": 6, "dog": 6})
    processed = {}
    in_turn = processes.in_turn

    def kept(*arguments, **options):
        found = in_turn(*arguments, **options)
        processed.update(found)
        return found

    monkeypatch.setattr(processes, "in_turn", kept)
    monkeypatch.setitem(benchmark.__kwdefaults__, "rounds", 1)
    code, out, err = run(capsys, "benchmark", TINY, tmp_path / "data", "--json", "--out", tmp_path / "report")
    assert code == 0, err
    found = json.loads(out)
    rows = {(row["format"], row["quantize"]): row for row in found["rows"]}
    assert {format for format, _ in rows} == {KERAS, *ENGINES}
    assert {"float16", "dynamic", "int8", "int8_full"} <= {quantize for _, quantize in rows}
    assert all(row["status"] == MEASURED and row["reason"] == "" for row in rows.values())
    assert all(row["latency"] > 0 < row["throughput"] for row in rows.values())
    for row in rows.values():
        if row["quantize"] in (None, "float16"):
            assert row["agreement"] == 1.0
            assert row["accuracy"] == rows[KERAS, None]["accuracy"]
    assert found["best"] is not None
    assert (tmp_path / "report" / "benchmark.json").is_file()
    for name, (one,) in processed.items():
        format = name.partition("-")[0]
        engines = set(one["modules"]) - {"keras", "jax"}  # which TensorFlow and Keras import where they are installed
        assert engines == {"tensorflow" if format == KERAS else ENGINES[format]}, name


@pytest.mark.release
def test_engines_that_crash_or_cannot_be_imported_are_rows(tmp_path, monkeypatch, capsys):
    # It must not end the process of the tests, whatever imports it there.
    (tmp_path / "openvino.py").write_text(
        f"import os, signal\nassert os.getpid() != {os.getpid()}\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").write_text("raise ImportError('cannot import name x')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("openvino", "ai_edge_litert"):
        for loaded in [one for one in sys.modules if one.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
    found = benchmark(
        tiny(),
        processor=tiny_processor(),
        formats=["openvino", "tflite", "saved_model"],
        quantizations=[None],
        rounds=1,
    )
    rows = rows_of(found)
    assert rows["openvino", None].status == FAILED
    assert rows["openvino", None].reason.startswith("The process that exports it was ended by SIGKILL")
    assert rows["tflite", None].status == MISSING
    assert "cannot import name x" in rows["tflite", None].reason
    assert found.best == rows["saved_model", None]


@pytest.mark.release
def test_a_model_of_another_backend_is_benchmarked_too(tmp_path):
    if importlib.util.find_spec("jax") is None:
        absent("jax is not installed")
    import os
    import subprocess

    code = (
        "import json, keras_bit\n"
        "from keras_bit.exporters.benchmark import benchmark\n"
        f"model = keras_bit.from_pretrained({str(TINY)!r})\n"
        "found = benchmark(model, formats=['saved_model'], image_size=64, rounds=1)\n"
        "print(json.dumps(found.to_dict()))"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [(row["format"], row["status"], row["agreement"]) for row in rows] == [
        (KERAS, MEASURED, 1.0),
        ("saved_model", MEASURED, 1.0),
    ]
