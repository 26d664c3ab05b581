"""Tests read-only places: every command and function reports them at the start; later, existing files stay whole."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_bit
from command_line import TINY, open_tiny_once, run, tiny, tiny_processor
from image_files import make_folders
from keras_bit import BitImageProcessor, save_pretrained
from keras_bit.embedding import embed, writer
from keras_bit.evaluation import evaluate, write
from keras_bit.training.state import TrainingState

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no permissions of this kind")
NOBODY = 65534


@contextlib.contextmanager
def nobody():
    """Runs as a user other than root, because root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder():
    """Makes a directory that belongs to the user nobody; only the owner can read pytest's own directories."""
    made = Path(tempfile.mkdtemp(prefix="keras-bit-test-", dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(made, NOBODY, NOBODY)
    yield made
    made.chmod(0o700)
    shutil.rmtree(made)


@pytest.fixture
def read_only(folder):
    make_folders(folder / "data", {"cat": 2, "dog": 2})
    folder.chmod(0o555)
    with nobody():
        yield folder


def computed(*arguments, **options):
    raise AssertionError("something was computed first")


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "{data}/cat/000.jpg", "--out", "{folder}/heat.png"],
        ["plot", "{data}", "--out", "{folder}/sheet.png"],
        ["evaluate", "{data}", "--out", "{folder}/report"],
        ["evaluate", "{data}", "--write-class-map", "{folder}/map.json"],
        ["embed", "{data}", "--out", "{folder}/features"],
        ["embed", "{data}", "--out", "{folder}/features.parquet"],
        ["finetune", "{data}", "--out", "{folder}/run"],
        *(
            ["export", "--format", format, "--out", f"{{folder}}/new/bit{suffix}"]
            for format, suffix in {"saved_model": "", "tflite": ".tflite", "huggingface": ""}.items()
        ),
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_a_command_reports_a_read_only_directory_before_it_computes(capsys, monkeypatch, read_only, arguments):
    monkeypatch.setattr(keras_bit, "from_pretrained", computed)
    monkeypatch.setattr(keras_bit, "image_dataset", computed)
    monkeypatch.setattr(BitImageProcessor, "from_pretrained", computed)
    filled = [one.format(folder=read_only, data=read_only / "data") for one in arguments]
    code, out, err = run(capsys, *filled, "--weights", TINY)
    assert (code, out) == (1, "")
    *_, line = err.splitlines()
    assert line.startswith(f"keras-bit {arguments[0]}: ")
    assert "Permission denied. Choose another" in line
    named = next(one for one in filled if one.startswith(f"{read_only}/") and "data" not in one)
    assert named in line
    assert ".keras-bit" not in line
    assert sorted(path.name for path in read_only.iterdir()) == ["data"]


def test_a_directory_in_the_place_of_a_file_is_reported_at_once(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(keras_bit, "from_pretrained", computed)
    (tmp_path / "heat.png").mkdir()
    image = make_folders(tmp_path / "data", {"cat": 1})[0]
    code, _, err = run(capsys, "explain", image, "--out", tmp_path / "heat.png", "--weights", TINY)
    assert (code, "heat.png' cannot be written: Is a directory. Choose another" in err) == (1, True)


@pytest.mark.parametrize("name", ["save_pretrained", "export", "write"])
def test_a_function_reports_a_read_only_directory_before_it_computes(monkeypatch, read_only, name):
    found = evaluate(tiny(), [(np.zeros((2, 32, 32, 3), "float32"), np.zeros(2, int))]) if name == "write" else None
    calls = {
        "save_pretrained": lambda: save_pretrained(tiny(), read_only / "new", tiny_processor()),
        "export": lambda: keras_bit.export(tiny(), read_only / "new" / "bit", "huggingface"),
        "write": lambda: write(found, read_only / "new", processor=tiny_processor()),
    }
    monkeypatch.setattr("keras_bit.checkpoints.saving.content", computed)
    monkeypatch.setattr("keras_bit.exporters.comparison_images.batches", computed)
    monkeypatch.setattr("keras_bit.drawing.contact_sheet.draw", computed)
    with pytest.raises(PermissionError, match=f"^'{read_only}/new.*' cannot be written: Permission denied. Choose"):
        calls[name]()


def test_training_that_cannot_write_ends_with_a_message_and_its_state(folder):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    file = folder / "state.safetensors"
    locked = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch == 1 and folder.chmod(0o555))
    with nobody(), pytest.raises(PermissionError, match=f"^'{file}' cannot be written: Permission denied. Choose"):
        model.fit(
            np.ones((2, 2)),
            np.ones((2, 1)),
            epochs=3,
            callbacks=[locked, TrainingState(file, 1, 3, rate_of=lambda step: 0.1)],
            verbose=0,
        )
    assert [path.name for path in folder.iterdir()] == ["state.safetensors"]
    assert TrainingState(file, 1, 3, rate_of=lambda step: 0.1).epoch == 1


@pytest.mark.slow
def test_an_embedding_that_can_no_longer_write_keeps_its_shards(capsys, monkeypatch, folder):
    pytest.importorskip("pyarrow")
    open_tiny_once(monkeypatch)
    make_folders(folder / "data", {"cat": 3})
    out = folder / "out"
    out.mkdir(mode=0o755)
    if os.geteuid() == 0:
        os.chown(out, NOBODY, NOBODY)
    # Nobody may not read root's Python: what is imported late is imported before.
    embed(folder / "data", folder / "whole.parquet", weights=str(TINY))
    real = writer.Writer.write

    def locked_in_the_second(self, job, shard, advance):
        if shard == 1:
            out.chmod(0o555)
        real(self, job, shard, advance)

    monkeypatch.setattr(writer.Writer, "write", locked_in_the_second)
    first = out / "part-00000-of-00003.parquet"
    second = out / "part-00001-of-00003.parquet"
    with nobody(), pytest.raises(PermissionError, match=f"^'{second}' cannot be written: Permission denied. Choose"):
        embed(folder / "data", out, weights=str(TINY), shard_size=1)
    out.chmod(0o755)
    assert first.exists()
    assert not second.exists()
    monkeypatch.undo()
    with nobody():
        assert embed(folder / "data", out, weights=str(TINY), shard_size=1).found == 1
    assert len(list(out.iterdir())) == 3
