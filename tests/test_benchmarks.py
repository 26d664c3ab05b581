"""Tests benchmarks/: the command's table and JSON, with the smallest networks. No test asserts a time."""

import importlib.util
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import (
    chart,
    checkpoints,
    finetuning,
    flops,
    gpu,
    growth,
    inference,
    loading,
    preprocessing,
    processes,
    processors,
    report,
    training,
)
from conftest import ROOT, absent, needs_matplotlib
from image_files import make_folders
from keras_bit import BiT, BitConfig, BitImageProcessor, from_pretrained
from keras_bit.labels import imagenet_labels

TINY = BitConfig(embedding_size=16, hidden_sizes=(32, 64), depths=(2, 1), num_groups=4)


def shown(found):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.table(found))
    return console.export_text()


# Checkpoints


def test_a_checkpoint_is_written_tensor_by_tensor_and_read_back(tmp_path):
    folder = checkpoints.write(tmp_path / "bit", BitConfig(width_factor=2, **sizes_of(TINY)), image_size=64)
    model = from_pretrained(folder)
    assert (model.config.width_factor, model.config.stage_widths) == (1, (64, 128))  # for transformers' sake
    assert model.config.id2label[0] == imagenet_labels()[0][1]
    assert BitImageProcessor.from_pretrained(folder)(np.zeros((9, 9, 3), "uint8")).shape == (1, 64, 64, 3)
    kernels = [layer.get_weights()[0] for layer in model.layers if "conv" in layer.name and layer.weights]
    assert all(kernel.std() == pytest.approx(0.05, rel=0.2) for kernel in kernels)
    assert not np.array_equal(kernels[2].ravel()[:10], kernels[3].ravel()[:10])


def sizes_of(config):
    return {name: getattr(config, name) for name in ("embedding_size", "hidden_sizes", "depths", "num_groups")}


def test_a_disk_without_room_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**8}))
    with pytest.raises(
        OSError, match=r"has room for 0\.1 GB, but \d\.\d are needed\. Set TMPDIR to another directory\."
    ):
        checkpoints.write(tmp_path / "bit", TINY, image_size=64)


# Processes


def test_cases_are_run_in_turn_and_give_their_last_line(tmp_path, monkeypatch):
    (tmp_path / "case.py").write_text(
        "import json, sys\nopen('log', 'a').write(sys.argv[1])\nprint('noise')\nprint(json.dumps({'x': sys.argv[1]}))"
    )
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    found = processes.rounds_of({"a": ["case", "1"], "b": ["case", "2"]}, rounds=3)
    assert found == {"a": [{"x": "1"}] * 3, "b": [{"x": "2"}] * 3}
    assert (tmp_path / "log").read_text() == "121212"


def test_a_case_has_its_environment_variables_alone(tmp_path, monkeypatch):
    (tmp_path / "case.py").write_text("import json, os\nprint(json.dumps({'x': os.environ.get('ONE_CASE')}))")
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    cases = {"a": ["case"], "b": ["case"]}
    found = processes.rounds_of(cases, rounds=1, environments={"a": {"ONE_CASE": "1"}})
    assert found == {"a": [{"x": "1"}], "b": [{"x": None}]}


def test_a_failing_process_is_reported_with_its_message(tmp_path, monkeypatch):
    (tmp_path / "case.py").write_text("raise SystemExit('no memory left')")
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="load small ended with the exit code 1: no memory left"):
        processes.rounds_of({"load small": ["case"]}, rounds=1)


def test_the_clock_of_the_start_runs_through_all_processes(tmp_path, monkeypatch):
    (tmp_path / "case.py").write_text(
        f"import json, sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom benchmarks.processes import since_start\n"
        "print(json.dumps({'since': since_start()}))"
    )
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert 0 < processes.rounds_of({"a": ["case"]}, rounds=1)["a"][0]["since"] < 600  # seconds, of the same clock


# Reports


REPORT = report.Report(
    title="Loading",
    peer="transformers",
    rows=[
        report.Row("fast enough", "s", 1.0, 4.0, limit=1.0),
        report.Row("too slow", "s", 3.0, 2.0, limit=2.5),
        report.Row("quick enough", "/s", 300.0, 100.0, limit=150.0, more_is_better=True),
        report.Row("too few", "/s", 140.0, 100.0, limit=150.0, more_is_better=True),
        report.Row("without a target", "GB", 0.5, 0.25),
        report.Row("without a peer", "", 7.0),
    ],
    measurements={"case": [{"load": 1.0}, {"load": 2.0}]},
    packages=["numpy", "no-such-package"],
)


def test_a_table_shows_medians_ratios_and_which_targets_are_missed():
    lines = [re.sub(r"\s*[│┃]\s*", "|", line).strip("|") for line in shown(REPORT).splitlines()]
    for expected in (
        "median of the rounds|keras_bit|transformers|ratio|target",
        "fast enough|1.00 s|4.00 s|0.25|at most 1: met",
        "too slow|3.00 s|2.00 s|1.50|at most 2.5: MISSED",
        "quick enough|300 /s|100 /s|3.00|at least 150: met",
        "too few|140 /s|100 /s|1.40|at least 150: MISSED",
        "without a target|0.50 GB|0.25 GB|2.00|",
        "without a peer|7.00|-||",
    ):
        assert expected.strip("|") in lines


def test_the_json_has_rows_measurements_versions_and_the_machine():
    found = json.loads(json.dumps(report.to_dict(REPORT)))
    assert list(found) == ["title", "peer", "versions", "machine", "rows", "measurements"]
    assert found["rows"][1] == {
        "name": "too slow",
        "unit": "s",
        "ours": 3.0,
        "theirs": 2.0,
        "limit": 2.5,
        "more_is_better": False,
        "details": "",
        "met": False,
    }
    assert found["measurements"] == {"case": [{"load": 1.0}, {"load": 2.0}]}
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["no-such-package"] is None
    assert found["machine"]["cores"] >= found["machine"]["threads"] >= 1
    assert found["machine"]["processor"]


# The command


@pytest.fixture
def part(monkeypatch):
    """Replaces the command's only part: it gives `part.report`, or raises it, instead of measuring."""

    class Fake:
        report = REPORT

    def run(options):
        if isinstance(Fake.report, Exception):
            raise Fake.report
        return Fake.report

    monkeypatch.setattr(loading, "run", run)
    return Fake


def test_a_missed_target_and_an_error_are_exit_code_1_and_usage_is_2(part, tmp_path, capsys):
    assert command.main(["loading"]) == 1
    part.report = report.Report("Loading", "transformers", REPORT.rows[:1], {}, [], ["one note"])
    assert command.main(["loading", "--out", str(tmp_path / "a.json")]) == 0
    assert "one note" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["title"] == "Loading"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    part.report = RuntimeError("load small ended with status 1")
    assert command.main(["loading"]) == 1
    assert capsys.readouterr().err == "benchmarks loading: load small ended with status 1\n"
    for wrong in ([], ["flying"], ["loading", "--rounds", "-1"]):
        with pytest.raises(SystemExit) as stopped:
            command.main(wrong)
        assert stopped.value.code == 2


def test_a_table_names_the_variables_that_change_what_is_measured(part, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    part.report = REPORT
    assert command.main(["loading", "--markdown", str(tmp_path / "page.md")]) == 1  # a target is missed
    text = (tmp_path / "page.md").read_text()
    assert text.startswith("<!-- TF_ENABLE_ONEDNN_OPTS=1 python -m benchmarks loading -->\n")
    assert "`TF_ENABLE_ONEDNN_OPTS=1 python -m benchmarks loading` on " in text


def test_a_table_goes_into_its_place_in_a_page(part, tmp_path, monkeypatch):
    for name in ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    part.report = report.Report("Loading", "transformers", REPORT.rows[:1], {}, ["numpy"], ["one note"])
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n<!-- python -m benchmarks loading --rounds 2 -->\nold\n<!-- end -->\n\nAfter.\n")
    for _ in range(2):
        assert command.main(["loading", "--markdown", str(page), "--rounds", "2"]) == 0
    text = page.read_text()
    assert text.startswith(
        "# Page\n\n<!-- python -m benchmarks loading --rounds 2 -->\n| median of the rounds | keras_bit |"
    )
    assert "| fast enough | 1.00 s | 4.00 s | 0.25 | at most 1: met |" in text
    assert "`python -m benchmarks loading --rounds 2` on " in text
    assert f"numpy {np.__version__}" in text
    assert text.endswith("one note\n<!-- end -->\n\nAfter.\n")
    assert "old" not in text
    assert command.main(["loading", "--markdown", str(page)]) == 0  # another command
    assert page.read_text().startswith(text.rstrip() + "\n\n<!-- python -m benchmarks loading -->\n")


def test_an_unwritable_output_is_refused_before_measuring(part, tmp_path, capsys):
    part.report = AssertionError("was measured")
    assert command.main(["loading", "--out", str(tmp_path / "absent" / "a.json")]) == 1
    assert re.search(r"`--out` .*a\.json is in no directory\. Make .*absent first\.", capsys.readouterr().err)


@pytest.mark.slow
def test_the_help_names_every_part_and_every_measurement():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "loading", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for word in ("--rounds", "--large-rounds", "--photo", "--out", "VmHWM", "first label", "page cache"):
        assert word in " ".join(done.stdout.split())
    for part in command.PARTS:
        assert part.help
        assert (ROOT / "benchmarks" / f"{part.name}.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 0}, "`rounds` must be at least 1, got 0."),
        ({"rounds": 1, "photo": ROOT / "absent.jpg"}, "`photo` .*absent.jpg is not a file."),
    ],
)
def test_options_that_cannot_be_measured_are_refused(arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        loading.measure(TINY, TINY, large_rounds=0, **arguments)


# Loading


@pytest.mark.release
def test_loading_measures_every_case_once_a_round_and_reports_its_rows():
    found = loading.measure(TINY, TINY, rounds=1, large_rounds=1, image_size=64)
    peers = ["keras_bit"] if found.notes else ["keras_bit", "transformers"]
    cases = ("load small", "first label", "load large")
    assert sorted(found.measurements) == sorted(f"{case}, {peer}" for case in cases for peer in peers)
    for case, measured in found.measurements.items():
        assert len(measured) == 1
        assert all(value > 0 for value in measured[0].values())
        assert {"imports", "peak", "file"} <= set(measured[0])
        assert ("label" in measured[0]) == case.startswith("first label")
    limits = [loading.SMALL_LIMIT, loading.LOAD_LIMIT, *([loading.LABEL_LIMIT] if len(peers) == 2 else [])]
    limits += [loading.LARGE_LIMIT, loading.PEAK_LIMIT, loading.GROWTH_LIMIT]
    assert [row.limit for row in found.rows if row.limit] == limits
    assert len(found.rows) == 16 + len(peers)
    assert all(row.ours > 0 for row in found.rows)
    if len(peers) == 2:
        alone = [row.name for row in found.rows if row.theirs is None]
        assert alone == [
            "R50: import of keras_bit after the other imports",
            "R50: process start to first label / transformers",
        ]
    assert "R152x4: peak memory / size of the file" in shown(found)


def test_without_the_large_network_and_without_peers_their_cells_stay_out():
    one = {"imports": 4.0, "own_import": 0.2, "load": 1.0, "touch": 0.5, "before": 1, "peak": 3, "file": 2, "label": 9}
    rows = loading.rows({"load small, keras_bit": [one, one, {**one, "load": 3.0}], "first label, keras_bit": [one]})
    found = {row.name: row for row in rows}
    assert found["R50: build and load"].ours == 1.0  # the median
    assert found["R50: build and load / imports"].ours == 0.25
    assert found["R50: loading speed"].ours == 2e-6  # MB/s
    assert found["R50: process start to first label"].ours == 9
    assert all(row.theirs is None for row in rows)
    assert not any("R152x4" in row.name for row in rows)


# Preprocessing


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """Writes two small JPEG files and a PNG, which becomes one."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, size in {"a.jpg": (40, 60, 3), "b.jpg": (70, 50, 3), "c.png": (64, 64, 3)}.items():
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    return sorted(folder.iterdir())


@pytest.mark.slow
def test_preprocessing_measures_every_case_and_compares_the_images_first(drawings):
    cases = [preprocessing.OURS, "keras"]
    found = preprocessing.measure(drawings, [32], rounds=1, files=20, seconds=0.05, cases=cases)
    assert sorted(found.measurements) == [f"32 px, {case}" for case in sorted(cases)]
    assert all(one[0]["images_per_second"] > 0 for one in found.measurements.values())
    # Ours has the values of transformers' Pillow processor; Keras resizes otherwise.
    assert found.measurements[f"32 px, {preprocessing.OURS}"][0]["difference"] == 0
    assert found.measurements["32 px, keras"][0]["difference"] > 1
    assert [row.name for row in found.rows] == ["32 px, compared with keras"]
    assert "32 px, largest difference" in found.notes[0]


def test_without_their_packages_the_peers_are_named_and_left_out(drawings, monkeypatch):
    def rounds_of(cases, rounds, pythons):
        return {case: [{"images_per_second": 1.0, "difference": None}] * rounds for case in cases}

    monkeypatch.setattr(preprocessing, "rounds_of", rounds_of)
    monkeypatch.setattr(preprocessing, "_installed", lambda python: {"torch", "transformers"})
    found = preprocessing.measure(drawings, [32, 48], rounds=2, files=3)
    measured = [preprocessing.OURS, preprocessing.GRAPH, preprocessing.DECODER, "keras", preprocessing.EXACT]
    assert list(found.measurements) == [f"{size} px, {case}" for size in (32, 48) for case in measured]
    assert found.notes[-1] == (
        "not measured, packages are missing: transformers, torchvision; torchvision, Pillow; torchvision, tensors; timm"
    )


def test_the_targets_are_for_transformers_and_the_fastest_inexact_pipeline():
    speeds = {preprocessing.OURS: 500, preprocessing.DECODER: 1000, preprocessing.EXACT: 200, "timm": 300, "keras": 450}
    found = {f"224 px, {name}": [{"images_per_second": speed}] for name, speed in speeds.items()}
    rows = {row.name: row for row in preprocessing._rows(found, 224, list(speeds))}
    assert rows["224 px, compared with transformers, Pillow"].limit == pytest.approx(440)
    assert rows["224 px, compared with keras"].limit == pytest.approx(540)
    assert rows["224 px, compared with timm"].limit is rows["224 px, compared with TensorFlow's decoder"].limit is None
    assert (rows["224 px, compared with transformers, Pillow"].met, rows["224 px, compared with keras"].met) == (
        True,
        False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 0}, "`rounds` must be at least 1, got 0."),
        (
            {"rounds": 1, "peer_python": "/no/such/python"},
            "`peer_python` '/no/such/python' does not run as a Python interpreter",
        ),
    ],
)
def test_images_that_preprocessing_cannot_measure_are_refused(drawings, arguments, message):
    with pytest.raises(ValueError, match=message):
        preprocessing.measure(drawings, [32], **arguments)


# Inference, growth, training


def test_targets_are_ratios_to_the_faster_of_the_peers():
    medians = {
        **{"compiled": 0.09, "compiled, fused": 0.06, "TFLite int8": 0.02},
        **{"transformers": 0.2, "transformers, channels_last": 0.15, "OpenVINO": 0.08, "openvino": 0.1},
    }
    found = {
        name: [{"median": median, "first": 1.0, "peak": 5e8, "difference": 0.02}] for name, median in medians.items()
    }
    found[inference.PEAK] = [{"flops_per_second": 1e12}, {"flops_per_second": 2e12}]
    rows = inference.rows(found, 12e9, batch_size=1, image_size=224)
    ratios = {row.name: (row.ours, row.limit) for row in rows if " / " in row.name}
    assert ratios == {
        "1 x 224 px: compiled / transformers, the faster one": (pytest.approx(0.6), 0.75),
        "1 x 224 px: compiled, fused / transformers, the faster one": (pytest.approx(0.4), 0.45),
        "1 x 224 px: OpenVINO / openvino": (pytest.approx(0.8), 0.9),  # a target for every batch size
    }
    fused = next(row for row in rows if row.name == "1 x 224 px: compiled, fused")
    assert (fused.ours, fused.theirs, fused.details) == (60, None, "first 1.0 s, 0.50 GB, 12 GFLOP, 10% of the peak")
    int8 = next(row for row in rows if row.name == "1 x 224 px: TFLite int8")
    assert int8.details == "first 1.0 s, 0.50 GB, logits differ by 2.0e-02 of the largest"
    assert next(row for row in rows if row.name == "1 x 224 px: openvino").theirs == 100
    for other in ({"image_size": 448}, {"image_size": 224, "targets": ()}):
        assert not [row for row in inference.rows(found, 12e9, batch_size=1, **other) if " / " in row.name]


def test_the_operations_of_a_network_are_those_of_its_layers():
    model = BiT(TINY, input_shape=(70, 70, 3))
    expected = 0
    for layer in model.layers:
        if "conv" in layer.name and layer.weights:
            expected += 2 * np.prod(layer.weights[0].shape) * np.prod(layer.output.shape[1:3])
    expected += 2 * np.prod(model.get_layer("predictions").kernel.shape)
    assert flops.flops(TINY, 70) == expected
    assert flops.weights_bytes(TINY) == 4 * model.count_params()
    # R50x1: 4.1e9 multiply-adds at 224 px, the figure of the ResNet papers.
    assert flops.flops(BitConfig(), 224) == pytest.approx(8.2e9, rel=0.02)


def test_the_slope_of_times_in_step_with_the_work_is_1():
    assert growth.slope([1e9, 2e9, 8e9], [0.01, 0.02, 0.08]) == pytest.approx(1)
    assert growth.slope([1e9, 4e9], [0.01, 0.02]) == pytest.approx(0.5)


def test_training_is_compared_with_the_faster_peer_and_the_textbook():
    def one(median, first, peak):
        return [{"median": median, "first": first, "peak": peak, "before": 1e8}]

    found = {
        "keras_bit": one(0.8, 4, 2e9),
        "textbook": one(1.2, 10, 3e9),
        "transformers": one(1.5, 2, 1e9),
        "transformers, channels_last": one(1.0, 2, 1.6e9),
    }
    rows = {row.name: row for row in training.rows(found, "16 x 128 px", 8e9, peak=2e10)}
    assert rows["16 x 128 px: step / transformers, channels_last"].ours == pytest.approx(0.8)
    assert rows["16 x 128 px: peak memory / transformers, channels_last"].ours == pytest.approx(1.25)
    assert not rows["16 x 128 px: peak memory / transformers, channels_last"].met
    assert rows["16 x 128 px: first step / textbook"].ours == pytest.approx(0.4)
    assert rows["16 x 128 px: keras_bit"].details == (
        "first 4.0 s, 2.00 GB of which 0.10 before, 8 GFLOP, 50% of the peak"
    )


@pytest.mark.live
@pytest.mark.release
def test_training_steps_begin_with_equal_losses():
    cases = ("keras_bit", "textbook", "transformers, channels_last")
    found = training.measure(TINY, [32], batch_size=2, rounds=1, steps=1, cases=cases)
    (peak,) = found.measurements.pop("matrix peak, 32 px")
    assert peak["flops_per_second"] > 0
    first, *others = (one[0]["losses"] for one in found.measurements.values())
    for losses in others:
        np.testing.assert_allclose(losses, first, rtol=1e-4)  # float32, two steps
    assert "32 px: first step / textbook" in shown(found)
    assert re.search(r"GFLOP, \d+% of the peak", " ".join(row.details for row in found.rows))


def test_kernels_on_and_off_and_the_better_against_transformers():
    times = {"off": 0.3, "on": 0.2, "-": 0.25}
    calls = ((1, "compiled", ("transformers", "transformers, channels_last")),)
    found = {}
    for name, switch in [
        *(("1 x compiled", switch) for switch in ("off", "on")),
        *(("training step x keras_bit", switch) for switch in ("off", "on")),
        ("1 x transformers", "-"),
        ("training step x transformers, channels_last", "-"),
    ]:
        # The fastest process counts: other work on the machine only adds.
        found[f"AVX2: {name}: {switch}"] = [{"median": 9 * times[switch]}, {"median": times[switch]}]
    rows = {row.name: row for row in processors.rows(found, ["AVX2"], calls)}
    assert (rows["AVX2: 1 x compiled"].ours, rows["AVX2: 1 x compiled"].theirs) == pytest.approx((200, 300))
    assert rows["AVX2: 1 x compiled"].details == "transformers 250 ms"
    for name in ("1 x compiled", "training step x keras_bit"):
        assert rows[f"AVX2: {name}, the faster setting / transformers"].ours == pytest.approx(0.8)
        assert rows[f"AVX2: {name}, the faster setting / transformers"].met


@pytest.mark.live
@pytest.mark.release
def test_each_kind_of_processor_runs_with_the_kernels_off_and_on(monkeypatch):
    for name, value in {"IMAGE_SIZE": 32, "STEP_BATCH": 2, "STEP_SIZE": 32}.items():
        monkeypatch.setattr(processors, name, value)
    calls = ((1, "direct call, fused", ("transformers",)),)
    found = processors.measure(TINY, [processors.AVX2], rounds=1, runs=1, steps=1, calls=calls)
    assert set(found.measurements) == {
        *(
            f"AVX2: {name}: {switch}"
            for name in ("1 x direct call, fused", "training step x keras_bit")
            for switch in ("off", "on")
        ),
        "AVX2: 1 x transformers: -",
        "AVX2: training step x transformers, channels_last: -",
    }
    assert "AVX2: training step x keras_bit, the faster setting / transformers" in shown(found)


@pytest.mark.live
@pytest.mark.slow
def test_inference_compares_the_logits_and_draws_the_table(tmp_path):
    engines = ("compiled, fused", "transformers, channels_last")
    found = inference.measure(TINY, [2], [32], engines=engines, rounds=1, runs=1)
    differences = {name: one[0].get("difference") for name, one in found.measurements.items()}
    assert list(differences) == [f"{name}, 2 x 32 px" for name in (*engines, inference.PEAK)]
    assert differences["transformers, channels_last, 2 x 32 px"] < 1e-4
    needs_matplotlib()
    chart.draw(found, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] > 1000


def test_growth_is_measured_over_every_series(monkeypatch):
    def rounds_of(cases, rounds):
        return {name: [{"median": 0.02, "logits": []}] * rounds for name in cases}

    monkeypatch.setattr(growth, "rounds_of", rounds_of)
    monkeypatch.setattr(inference, "rounds_of", rounds_of)
    monkeypatch.setattr(growth, "available", lambda names: (names[:1], ["torch"]))
    found = growth.measure({"batch": [(TINY, 1, 32), (TINY, 2, 32)]}, rounds=1, runs=1)
    assert len(found.measurements) == 2
    assert (found.rows[0].name, found.rows[0].ours, found.rows[0].theirs) == ("batch: slope", pytest.approx(0), None)
    assert found.notes == ["Not installed: torch."]


def test_logits_of_fewer_bits_are_compared_with_those_of_float32():
    found = {"ONNX int8": [{"logits": [[1.0, 2.1]]}], "ONNX": [{"logits": [[1.0, 2.0]]}]}
    inference._compare(found)
    assert (found["ONNX int8"][0]["difference"], found["ONNX"][0]["difference"]) == (pytest.approx(0.05), 0)


def test_other_logits_are_an_error():
    found = {"predict": [{"logits": [[1.0, 2.0]]}], "compiled": [{"logits": [[1.0, 2.1]]}]}
    with pytest.raises(
        ValueError, match=r"logits of compiled differ from the first engine.s, by 5\.0e-02 of the largest"
    ):
        inference._compare(found)


# Fine-tuning


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::keras_bit.checkpoints.building.NewHead")
def test_fine_tuning_is_measured_beside_transformers(tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "CURVES", (("random", "float64"),))
    monkeypatch.setattr(finetuning, "ACCURACIES", (("checkpoint", "float32"), ("random", "float64")))
    for part in ("train", "test"):
        make_folders(tmp_path / part, dict.fromkeys("abc", 4))
    folder = checkpoints.write(tmp_path / "bit", TINY, image_size=64)
    setting = finetuning.Setting(batch_size=4, curve_steps=3, steps=2, test_images=8)
    found = finetuning.measure(tmp_path, str(folder), setting, seeds=(0, 1), examples=(2,))
    rows = {row.name: row for row in found.rows}
    curve = found.measurements["random, float64 curve"][0]
    assert len(curve["keras_bit"]) == len(curve["transformers"]) == len(curve["channels_last"]) == 3
    assert curve["largest_differences"]["transformers"] == 0
    assert rows["random, float64: largest difference of the losses, in 1e-3"].ours < 1e-6
    assert rows["random, float64: loss at step 3"].ours == curve["keras_bit"][-1] > 0
    right = [seed["transformers"] for seed in found.measurements["checkpoint, float32 accuracy"]]
    mean = 100 * sum(right) / len(right)
    assert rows["checkpoint, float32: accuracy after 2 steps, mean over seeds: 2"].theirs == pytest.approx(mean)
    assert "random, float64: accuracy after 2 steps, mean over seeds: 1" in rows
    assert rows["random, float64: images with different answers"].ours == 0
    assert len(found.measurements["few-shot 2"][0]["accuracies"]) == 2
    assert any(name.startswith("2 images per class, mean over 2 seeds (from ") for name in rows)
    assert "random, float64: largest difference" in shown(found)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        # The spread of three seeds: variances 0.01 and 0.0025, over three.
        ([0.4, 0.5, 0.6], [0.45, 0.5, 0.55], ((0.01 + 0.0025) / 3) ** 0.5),
        # One seed: two binomial shares of 100 images.
        ([0.5], [0.2], ((0.25 + 0.16) / 100) ** 0.5),
        ([0.3, 0.3], [0.3, 0.3], 0.01),
        ([1.0], [1.0], 0.01),
    ],
)
def test_the_standard_error_is_that_of_the_seeds_or_of_the_images(ours, theirs, expected):
    assert finetuning._standard_error(ours, theirs, 100) == pytest.approx(expected)


def test_fine_tuning_without_test_images_is_refused(tmp_path):
    make_folders(tmp_path / "train", dict.fromkeys("ab", 1))
    with pytest.raises(ValueError, match=r"`data` '.*' must hold the folders train and test\."):
        finetuning.measure(tmp_path, "weights", finetuning.Setting())


GPU_WORKS = [("inference", 2, 48), ("training", 2, 48)]
GPU_OPTIONS = {"rounds": 1, "runs": 1, "torch_python": sys.executable}


def needs_jax_and_transformers():
    for package in ("jax", "torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            absent(f"{package} is not installed: pip install jax and -e '.[reference]'")


@pytest.mark.slow
def test_the_gpu_benchmark_reports_that_no_gpu_exists():
    needs_jax_and_transformers()
    with pytest.raises(RuntimeError, match=r"has no gpu, so nothing was measured: JAX .* finds cpu\. Run it on"):
        gpu.measure(TINY, GPU_WORKS, device="gpu", **GPU_OPTIONS)


@pytest.mark.release
def test_the_gpu_benchmark_runs_on_a_cpu(monkeypatch):
    needs_jax_and_transformers()
    monkeypatch.setattr(gpu, "PRECISIONS", ("float32",))
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # torch.compile takes half a minute of a C++ compiler for each case
    found = gpu.measure(TINY, GPU_WORKS, device="cpu", **GPU_OPTIONS)
    names = [row.name for row in found.rows if row.unit]
    assert names[:2] == ["float32, inference, 2 x 48 px: keras_bit", "float32, inference, 2 x 48 px: transformers"]
    assert len([row for row in found.rows if row.name.endswith("keras_bit / the faster peer")]) == 2
    differences = {case: one[0]["difference"] for case, one in found.measurements.items() if "difference" in one[0]}
    print(differences)
    assert max(value for case, value in differences.items() if "float32" in case) <= 1e-5  # a CPU has no TF32
