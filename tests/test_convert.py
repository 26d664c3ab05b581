"""The conversion: what is compared, what is refused, and that nothing is written unless everything is equal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from convert import goldens, parity, photographs
from convert.__main__ import main as convert_main
from keras_bit import BitImageProcessor, from_pretrained

TINY = Path(__file__).parent / "checkpoints" / "bit-tiny-cifar10"
GOLDEN = TINY / "golden.npz"
ROWS = ["embedding", "stage1", "stage2", "stage3", "pooled", "logits"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, batch in enumerate(goldens.generated_images()):
        Image.fromarray(batch[0]).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def changed_golden(path: Path, change) -> Path:
    with np.load(GOLDEN) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(path, **arrays)
    return path


def test_equal_numbers_write_the_model_its_config_and_its_processor(tmp_path, capsys):
    out = tmp_path / "made" / "keras"
    assert convert_main([str(TINY), "--out", str(out), "--reference", str(GOLDEN)]) == 0
    assert {file.name for file in out.iterdir()} == {"model.keras", "config.json", "preprocessor_config.json"}
    printed = capsys.readouterr().out
    assert all(row in printed for row in ROWS)
    assert printed.count("│ equal") == len(ROWS)
    assert "transformers 5." in printed

    written, direct = from_pretrained(out / "model.keras"), from_pretrained(TINY)
    assert written.config == direct.config
    for ours, theirs in zip(written.get_weights(), direct.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert BitImageProcessor.from_pretrained(out) == BitImageProcessor.from_pretrained(TINY)
    assert not list(out.parent.glob("*.partial"))


@pytest.mark.parametrize("row", ROWS)
def test_one_differing_output_is_exit_code_1_and_writes_nothing(row, tmp_path, capsys):
    def change(arrays):
        values = arrays[f"1/{row}"]
        values.flat[-1] += 2e-4 * np.abs(values).max()

    golden = changed_golden(tmp_path / "changed.npz", change)
    out = tmp_path / "keras"
    assert convert_main([str(TINY), "--out", str(out), "--reference", str(golden)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("DIFFERS") == 1
    assert "nothing was written" in printed
    assert sorted(file.name for file in tmp_path.iterdir()) == ["changed.npz"]


@pytest.mark.parametrize("batch", ["0", "1"])
def test_nan_is_a_difference_in_whichever_batch_it_stands(batch, tmp_path):
    def change(arrays):
        arrays[f"{batch}/logits"][0, 0] = np.nan

    golden = changed_golden(tmp_path / "nan.npz", change)
    assert convert_main([str(TINY), "--out", str(tmp_path / "keras"), "--reference", str(golden)]) == 1
    assert not (tmp_path / "keras").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("1/stage2"), "holds the outputs"),
        (lambda arrays: arrays.update({"0/logits": arrays["0/logits"][:, :-1]}), "logits has shape"),
        (lambda arrays: arrays.pop("versions"), "no golden file"),
        (lambda arrays: [arrays.pop(name) for name in list(arrays) if "/" in name], "holds no images"),
    ],
)
def test_a_golden_file_of_something_else_is_an_error(change, message, tmp_path, capsys):
    golden = changed_golden(tmp_path / "other.npz", change)
    assert convert_main([str(TINY), "--out", str(tmp_path / "keras"), "--reference", str(golden)]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "keras").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tiny}", "--out", "{tmp}"], "exists already"),
        (["{tmp}/nowhere", "--out", "{tmp}/o", "--reference", "{golden}"], "nowhere"),
        (["{tiny}", "--out", "{tmp}/o", "--reference", "{tmp}/none.npz"], "none.npz"),
        (["{tiny}", "--out", "{tmp}/o", "--reference", "{tiny}/config.json"], "no golden file"),
        (["{tiny}", "--out", "{tmp}/o", "--images", "{tmp}/none.jpg"], "no photograph or folder"),
        (["{tiny}", "--out", "{tmp}/o", "--images", "{tmp}"], "no photographs"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(arguments, message, tmp_path, capsys):
    places = {"tiny": TINY, "tmp": tmp_path, "golden": GOLDEN}
    assert convert_main([argument.format(**places) for argument in arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("convert: ")
    assert message in err
    assert not list(tmp_path.iterdir())


def damaged_golden(path: Path, form: str) -> Path:
    content = GOLDEN.read_bytes()
    if form == "cut":
        path.write_bytes(content[:200_000])
    elif form == "flipped":
        path.write_bytes(content[:60_000] + bytes(byte ^ 255 for byte in content[60_000:60_100]) + content[60_100:])
    elif form == "empty":
        path.touch()
    else:
        changes = {
            "versions": lambda arrays: arrays.update(versions=np.array("[1]")),
            "strings": lambda arrays: arrays.update({"0/logits": np.array([["a"] * 10])}),
            "flat images": lambda arrays: arrays.update({"0/pictures": arrays["0/pictures"][0]}),
        }
        changed_golden(path, changes[form])
    return path


@pytest.mark.parametrize("form", ["cut", "flipped", "empty", "versions", "strings", "flat images"])
def test_a_damaged_golden_file_is_one_line(form, tmp_path, capsys):
    golden = damaged_golden(tmp_path / "damaged.npz", form)
    assert convert_main([str(TINY), "--out", str(tmp_path / "keras"), "--reference", str(golden)]) == 1
    err = capsys.readouterr().err
    assert "is no golden file, or a damaged one" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "keras").exists()


def test_a_failure_leaves_nothing_behind_and_what_was_there_stays(tmp_path, monkeypatch):
    precious = tmp_path / "deep.partial"
    precious.mkdir()
    (precious / "file").write_text("precious")
    monkeypatch.setattr(parity, "LIMIT", 0.0)
    out = tmp_path / "new" / "deep"
    assert convert_main([str(TINY), "--out", str(out), "--reference", str(GOLDEN)]) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["deep.partial"]
    assert (precious / "file").read_text() == "precious"


def test_an_existing_out_is_told_before_a_golden_file_is_written(tmp_path, capsys):
    golden = tmp_path / "golden.npz"
    assert convert_main([str(TINY), "--out", str(tmp_path), "--write-golden", str(golden)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert not golden.exists()


def test_a_golden_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "golden.npz"
    path.write_text("the earlier one")
    outputs = [{"logits": np.ones((1, 2), np.float32)}] * len(goldens.SIZES)
    monkeypatch.setattr(goldens.reference, "outputs", lambda *_, **__: outputs)
    monkeypatch.setattr(goldens.reference, "versions", dict)

    def interrupted(file, **_):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            goldens.write(path, "somewhere")
    assert [file.name for file in tmp_path.iterdir()] == ["golden.npz"]
    assert path.read_text() == "the earlier one"
    goldens.write(path, "somewhere")
    assert len(goldens.read(path)[0]) == len(goldens.SIZES)


def test_the_demo_removes_nothing_that_it_did_not_write(tmp_path, pictures):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    command = [sys.executable, "-m", "convert.demo", str(TINY), str(pictures), "--reference", str(GOLDEN)]
    done = subprocess.run([*command, "--out", str(mine)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "holds thesis.txt, which no demo wrote" in done.stderr
    assert (mine / "thesis.txt").read_text() == "precious"


def test_without_torch_the_live_reference_says_what_to_install(monkeypatch, tmp_path, pictures, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert convert_main([str(TINY), "--out", str(tmp_path / "keras"), "--images", str(pictures)]) == 1
    err = capsys.readouterr().err
    assert "pip install -e '.[reference]'" in err
    assert "--reference GOLDEN.npz" in err
    assert not (tmp_path / "keras").exists()


def test_nothing_to_write_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        convert_main([str(TINY)])
    assert stop.value.code == 2
    assert "--out DIR" in capsys.readouterr().err


def test_a_row_relates_the_difference_to_the_largest_magnitude():
    theirs = np.array([[-4.0, 1.0]], np.float32)
    (row,) = parity.compare([{"logits": theirs + np.float32(0.5)}], [{"logits": theirs}])
    assert (row.absolute, row.relative, row.passed) == (0.5, 0.125, False)
    (row,) = parity.compare([{"logits": theirs}], [{"logits": theirs}])
    assert (row.absolute, row.passed) == (0.0, True)


def test_a_row_is_the_worst_of_all_batches():
    theirs = [{"logits": np.ones((1, 2), np.float32)} for _ in range(3)]
    ours = [{"logits": np.full((1, 2), 1 + error, np.float32)} for error in (0.0, 0.25, 0.0)]
    (row,) = parity.compare(ours, theirs)
    assert row.relative == 0.25


def test_photographs_are_found_in_folders_and_by_name(pictures):
    assert [path.name for path in photographs.find([pictures])] == ["0.png", "1.png"]
    assert photographs.find([pictures / "1.png"]) == [pictures / "1.png"]


def test_the_demo_runs_from_end_to_end(tmp_path, pictures):
    command = [sys.executable, "-m", "convert.demo", str(TINY), str(pictures), "--reference", str(GOLDEN)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    for words in (
        *ROWS,
        "0.png",
        "1.png",
        "convert and prove",
        "export a SavedModel",
        "run it without Keras",
        "all of it",
    ):
        assert words in done.stdout
    assert (tmp_path / "out" / "saved_model" / "1" / "saved_model.pb").is_file()


def test_the_demo_fails_where_the_numbers_differ(tmp_path, pictures):
    def change(arrays):
        arrays["0/logits"] += 1

    golden = changed_golden(tmp_path / "changed.npz", change)
    command = [sys.executable, "-m", "convert.demo", str(TINY), str(pictures), "--reference", str(golden)]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert not list((tmp_path / "out").rglob("*.keras"))


@pytest.mark.live
def test_the_golden_file_is_what_transformers_computes(tmp_path):
    path = tmp_path / "golden.npz"
    assert convert_main([str(TINY), "--write-golden", str(path)]) == 0
    batches, fresh, _ = goldens.read(path)
    stored_batches, stored, versions = goldens.read(GOLDEN)
    assert set(versions) == {"torch", "transformers", "numpy"}
    for ours, theirs in zip(batches, stored_batches, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Another machine's matrix products may round otherwise.
    assert all(row.relative < 1e-5 for row in parity.compare(fresh, stored))


@pytest.mark.live
@pytest.mark.parametrize(
    "source", [str(TINY), str(TINY / "model.safetensors"), *filter(None, [os.environ.get("KERAS_BIT_TEST_WEIGHTS")])]
)
def test_a_checkpoint_converts_beside_transformers_itself(source, tmp_path, pictures, capsys):
    assert convert_main([source, "--out", str(tmp_path / "keras"), "--images", str(pictures)]) == 0
    print(capsys.readouterr().out)
    assert json.loads((tmp_path / "keras" / "config.json").read_text())["model_type"] == "bit"
