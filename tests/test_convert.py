"""Tests the conversion: what it compares and refuses, and that it writes nothing unless everything is equal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from convert import demo, goldens, parity, photographs
from convert.__main__ import main as convert_main
from keras_bit import BitImageProcessor, from_pretrained
from keras_bit.hub.finding import HubOptions

TINY = Path(__file__).parent / "checkpoints" / "bit-tiny-cifar10"
GOLDEN = TINY / "golden.npz"
# `convert` loads, writes and loads again before it compares: most tests compare what was computed once, by itself.
ROWS = ["embedding", "stage1", "stage2", "stage3", "pooled", "logits"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
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


@pytest.fixture(scope="module")
def ours():
    """Returns the model's outputs for the golden images."""
    return parity.outputs(from_pretrained(TINY, classifier_activation=None), goldens.read(GOLDEN)[0])


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("wrong", ["by 2e-4", "NaN"])
def test_one_differing_number_is_a_differing_row(ours, row, batch, wrong):
    theirs = goldens.read(GOLDEN)[1]
    assert all(one.passed for one in parity.compare(ours, theirs))
    values = theirs[batch][row]
    values.flat[-1] = np.nan if wrong == "NaN" else values.flat[-1] + 2e-4 * np.abs(values).max()
    assert [one.name for one in parity.compare(ours, theirs) if not one.passed] == [row]


def test_a_difference_is_exit_code_1_and_writes_nothing(tmp_path, capsys):
    def change(arrays):
        arrays["1/logits"][0, 0] = np.nan

    golden = changed_golden(tmp_path / "changed.npz", change)
    assert convert_main([str(TINY), "--out", str(tmp_path / "new" / "keras"), "--reference", str(golden)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("DIFFERS") == 1
    assert "nothing was written" in printed
    assert sorted(file.name for file in tmp_path.iterdir()) == ["changed.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda outputs: outputs.pop("stage2"), "holds the outputs"),
        (lambda outputs: outputs.update(logits=outputs["logits"][:, :-1]), "logits has shape"),
    ],
)
def test_the_numbers_of_something_else_are_an_error(ours, change, message):
    theirs = goldens.read(GOLDEN)[1]
    change(theirs[1])
    with pytest.raises(ValueError, match=message):
        parity.compare(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tiny}", "--out", "{tmp}"], "exists already"),
        (["{tmp}/nowhere", "--out", "{tmp}/o", "--reference", "{golden}"], "nowhere"),
        (["{tiny}", "--out", "{tmp}/o", "--reference", "{tmp}/none.npz"], "none.npz"),
        (["{tiny}", "--out", "{tmp}/o", "--reference", "{tiny}/config.json"], "not a golden file"),
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


CHANGES = {
    "no versions": lambda arrays: arrays.pop("versions"),
    "other versions": lambda arrays: arrays.update(versions=np.array("[1]")),
    "strings": lambda arrays: arrays.update({"0/logits": np.array([["a"] * 10])}),
    "flat images": lambda arrays: arrays.update({"0/pictures": arrays["0/pictures"][0]}),
    "no images": lambda arrays: [arrays.pop(name) for name in list(arrays) if "/" in name],
}


def damaged_golden(path: Path, form: str) -> Path:
    content = GOLDEN.read_bytes()
    if form == "cut":
        path.write_bytes(content[:200_000])
    elif form == "flipped":
        path.write_bytes(content[:60_000] + bytes(byte ^ 255 for byte in content[60_000:60_100]) + content[60_100:])
    elif form == "empty":
        path.touch()
    else:
        changed_golden(path, CHANGES[form])
    return path


@pytest.mark.parametrize("form", ["cut", "flipped", "empty", *CHANGES])
def test_a_damaged_golden_file_is_named(form, tmp_path):
    path = damaged_golden(tmp_path / "damaged.npz", form)
    with pytest.raises(ValueError, match="is not a golden file") as caught:
        goldens.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_existing_files_stay_after_a_failure(tmp_path, monkeypatch):
    (tmp_path / "deep.partial").mkdir()
    (tmp_path / "deep.partial" / "file").write_text("precious")
    monkeypatch.setattr(parity, "outputs", lambda model, batches: throw(ValueError("no memory")))
    assert convert_main([str(TINY), "--out", str(tmp_path / "new" / "deep"), "--reference", str(GOLDEN)]) == 1
    assert [file.name for file in tmp_path.rglob("*")] == ["deep.partial", "file"]


def throw(error):
    raise error


def test_an_existing_out_is_refused_before_a_golden_file_is_written(tmp_path, capsys):
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
            goldens.write(path, "somewhere", HubOptions())
    assert [file.name for file in tmp_path.iterdir()] == ["golden.npz"]
    assert path.read_text() == "the earlier one"
    goldens.write(path, "somewhere", HubOptions())
    assert len(goldens.read(path)[0]) == len(goldens.SIZES)


@pytest.mark.slow
def test_the_demo_removes_nothing_that_it_did_not_write(tmp_path, images, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    assert demo.main([str(TINY), str(images), "--reference", str(GOLDEN), "--out", str(mine)]) == 1
    assert "thesis.txt" in capsys.readouterr().err
    assert (mine / "thesis.txt").read_text() == "precious"


def test_without_torch_the_live_reference_says_what_to_install(monkeypatch, tmp_path, images, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert convert_main([str(TINY), "--out", str(tmp_path / "keras"), "--images", str(images)]) == 1
    err = capsys.readouterr().err
    assert "torch" in err
    assert "'.[reference]'" in err
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


def test_photographs_are_found_in_folders_and_by_name(images):
    assert [path.name for path in photographs.find([images])] == ["0.png", "1.png"]
    assert photographs.find([images / "1.png"]) == [images / "1.png"]


@pytest.mark.release
def test_the_demo_runs_from_end_to_end(tmp_path, images):
    command = [sys.executable, "-m", "convert.demo", str(TINY), str(images), "--reference", str(GOLDEN)]
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


@pytest.mark.slow
def test_the_demo_fails_where_the_numbers_differ(tmp_path, images, capsys):
    def change(arrays):
        arrays["0/logits"] += 1

    golden = changed_golden(tmp_path / "changed.npz", change)
    assert demo.main([str(TINY), str(images), "--reference", str(golden), "--out", str(tmp_path / "out")]) == 1
    assert "DIFFERS" in capsys.readouterr().out
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
def test_a_checkpoint_converts_if_transformers_is_the_reference(source, tmp_path, images, capsys):
    assert convert_main([source, "--out", str(tmp_path / "keras"), "--images", str(images)]) == 0
    print(capsys.readouterr().out)
    assert json.loads((tmp_path / "keras" / "config.json").read_text())["model_type"] == "bit"
