"""Tests `kill -9` at any moment: no half file, nothing that the next run does not remove, and the same result.

KERAS_BIT_KILLS=100 python -m pytest tests/test_kills.py -s    # takes an hour or more; prints what was killed where
"""

import collections
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import keras_bit
from conftest import ROOT
from image_files import make_folders
from keras_bit import BitImageProcessor, from_pretrained, save_pretrained
from keras_bit.exporters.registry import format_named
from tiny_bit import random_tensors, write_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9"),
]
KILLS = int(os.environ.get("KERAS_BIT_KILLS", "5"))
SEED = int(os.environ.get("KERAS_BIT_KILLS_SEED", "0"))
PATIENCE = 300  # seconds for a command


def read_png(path):
    with Image.open(path) as image:
        image.load()


def read_parquet(path):
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as stored:
        stored.read()


def read_keras(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


READERS = {
    ".safetensors": safetensors.numpy.load_file,
    ".json": lambda path: json.loads(path.read_text()),
    ".csv": lambda path: list(csv.DictReader(path.read_text().splitlines())),
    ".png": read_png,
    ".keras": read_keras,
    ".parquet": read_parquet,
}


def check_whole(folder):
    """Reads every file that has its name; returns the names of what is unfinished."""
    for path in folder.rglob("*"):
        unfinished = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not unfinished and path.suffix in READERS:
            READERS[path.suffix](path)
    return hidden(folder)


def hidden(folder):
    """Returns the names of files and folders that should not be there, without the contents of such folders."""
    found = [path.relative_to(folder) for path in folder.rglob(".*")]
    return sorted(str(path) for path in found if not any(part.startswith(".") for part in path.parts[:-1]))


class Command:
    """Runs a command of `keras-bit` in a process, and reads its lines of standard output as they come."""

    def __init__(self, arguments, temporary):
        temporary.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
        self._errors = open(temporary.with_suffix(".stderr"), "w+")  # noqa: SIM115 - closed in `end`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "keras_bit.cli.main", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self.said = []
        self._hears = threading.Thread(target=lambda: self.said.extend(self.process.stdout), daemon=True)
        self._hears.start()

    def wait_for(self, happened):
        """Waits until something happens. Returns False if the command ends before."""
        until = time.monotonic() + PATIENCE
        while not happened(self):
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < until
            time.sleep(0.0005)
        return True

    def end(self, number=None):
        """Waits for the end, after a signal; returns the exit code and standard error."""
        if number is not None:
            self.process.send_signal(number)
        self.process.wait(PATIENCE)
        self._hears.join()
        self.process.stdout.close()
        self._errors.seek(0)
        errors = self._errors.read()
        self._errors.close()
        return self.process.returncode, errors


def finish(arguments, temporary):
    code, errors = Command(arguments, temporary).end()
    assert code == 0, errors[-3000:]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    make_folders(folder / "data", dict.fromkeys(["ant", "bee", "cat"], 6))
    tensors = {name: values * (0.1 if values.ndim > 1 else 1) for name, values in random_tensors().items()}
    checkpoint = write_checkpoint(folder / "checkpoint", tensors)
    BitImageProcessor(size=(32, 32), resample=2, image_mean=0.5, image_std=0.5).save_pretrained(checkpoint)
    return folder


def staging(folder):
    """Returns a function that says whether something new is being written to a folder.

    It ignores the files of earlier kills.
    """

    def found():
        return {*folder.glob(".keras-bit-*"), *folder.glob("bit/.keras-bit-*")}  # a SavedModel's base directory

    before = found()
    return lambda command: not found() <= before


def finetune_moments(out):
    """Returns when something happens, and for how long after that a kill may come, in seconds."""
    return {
        "start": (lambda command: True, 8.0),
        "training": (lambda command: any("classes." in line for line in command.said), 4.0),
        "writing the state": (staging(out / "training"), 0.02),
        "writing the model": (staging(out), 0.2),
        "report": (lambda command: (out / "model.keras").exists(), 3.0),
    }


def losses(out):
    return [{name: float(value) for name, value in row.items()} for row in READERS[".csv"](out / "log.csv")]


def test_finetune_ends_with_the_same_losses_whenever_it_is_killed(data, tmp_path):
    def arguments(out):
        recipe = ["--steps", "6", "--evaluate-every", "2", "--batch-size", "8", "--seed", "1", "--out", out]
        return ["finetune", data / "data", "--weights", data / "checkpoint", *recipe]

    temporary = tmp_path / "temporary"
    finish(arguments(tmp_path / "whole"), temporary)
    whole = losses(tmp_path / "whole")
    expected = sorted(str(path.relative_to(tmp_path / "whole")) for path in (tmp_path / "whole").rglob("*"))
    chance = random.Random(SEED)
    moments = list(finetune_moments(tmp_path))
    killed, left, ends, equal = collections.Counter(), collections.Counter(), 0, 0
    while sum(killed.values()) < KILLS:
        out = tmp_path / f"out{ends}"
        for _ in range(min(5, KILLS - sum(killed.values()))):
            # A handful goes through all moments, many come as they come.
            name = moments[sum(killed.values()) % len(moments)] if KILLS < 20 else chance.choice(moments)
            happened, longest = finetune_moments(out)[name]
            command = Command(arguments(out), temporary)
            if command.wait_for(happened):
                time.sleep(chance.uniform(0, longest))
            code, errors = command.end(signal.SIGKILL)
            if code != -signal.SIGKILL:  # it was faster
                assert code == 0, errors[-3000:]
                break
            killed[name] += 1
            if out.exists():
                left.update({re.sub("(?<=^.keras-bit-).*", "*", Path(path).name) for path in check_whole(out)})
        finish(arguments(out), temporary)
        assert check_whole(out) == []
        assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == expected
        # Float32: how many threads there are for a sum may change its order.
        assert [row == pytest.approx(other, rel=1e-5) for row, other in zip(losses(out), whole, strict=True)] == [
            True
        ] * 3
        equal += losses(out) == whole
        ends += 1
        if KILLS >= 20:
            print(f"{ends} runs ended after {dict(killed)}; unfinished after a kill: {dict(left)}", flush=True)
    in_temporary = sorted(path.name for path in temporary.iterdir())
    print(
        f"\nkilled {dict(killed)}; unfinished after a kill {dict(left)}; {ends} runs ended, {equal} with equal losses"
    )
    print(f"left in TMPDIR: {in_temporary}")
    assert in_temporary == []


FORMATS = {
    "saved_model": "bit",
    "tflite": "bit.tflite",
    "onnx": "bit.onnx",
    "openvino": "bit.xml",
    "huggingface": "bit",
}


def killed_again_and_again(arguments, folder, temporary, seed, longest):
    """Kills a command some time after it began to write to `folder`; what was left each time."""
    chance, left = random.Random(seed), []
    for _ in range(max(2, KILLS // 5)):
        command = Command(arguments, temporary)
        if command.wait_for(staging(folder)):
            time.sleep(chance.uniform(0, longest))
        code, errors = command.end(signal.SIGKILL)
        assert code in (0, -signal.SIGKILL), errors[-3000:]
        left.append(check_whole(folder))
    return left


# A SavedModel is a directory, as a checkpoint for transformers is; the others are one or two files.
@pytest.mark.parametrize(
    "format", ["saved_model", *(pytest.param(name, marks=pytest.mark.release) for name in [*FORMATS][1:])]
)
def test_an_export_that_was_killed_leaves_nothing_for_long(data, tmp_path, format):
    for package in format_named(format).packages:
        pytest.importorskip(package)
    folder, temporary = tmp_path / "served", tmp_path / "temporary"
    arguments = ["export", "--weights", data / "checkpoint", "--format", format, "--overwrite"]
    arguments += ["--out", folder / FORMATS[format]]
    folder.mkdir()
    left = killed_again_and_again(arguments, folder, temporary, SEED, 0.3 if format == "huggingface" else 4)
    finish(arguments, temporary)
    print(f"\n{format}: left after each kill {left}; in TMPDIR at the end {hidden(temporary)}")
    assert (folder / FORMATS[format]).exists()
    assert hidden(folder) == []
    # ".ses" is onnxruntime's own, of one name in every run.
    assert [one.name for one in temporary.iterdir() if one.name != ".ses"] == []


@pytest.mark.parametrize("name", ["features", pytest.param("features.parquet", marks=pytest.mark.release)])
def test_an_embedding_that_was_killed_goes_on(data, tmp_path, name):
    pytest.importorskip("pyarrow")
    folder, temporary = tmp_path / "embedded", tmp_path / "temporary"
    folder.mkdir()

    def arguments(out):
        return ["embed", data / "data", "--weights", data / "checkpoint", "--shard-size", 2, "--out", out]

    finish(arguments(tmp_path / "whole.parquet"), temporary)
    left = killed_again_and_again(arguments(folder / name), folder, temporary, SEED, 2)
    finish(arguments(folder / name), temporary)
    print(f"\n{name}: left after each kill {left}")
    assert hidden(folder) == []
    assert list(temporary.iterdir()) == []
    import pyarrow.parquet as pq

    whole, found = (pq.read_table(path).to_pydict() for path in (tmp_path / "whole.parquet", folder / name))
    assert found["path"] == whole["path"]
    np.testing.assert_allclose(found["features"], whole["features"], rtol=1e-5)


@pytest.mark.release  # most of its time goes into the embedding, which the test above kills
def test_an_audit_that_was_killed_goes_on(data, tmp_path):
    pytest.importorskip("cleanlab")
    make_folders(tmp_path / "data", {"ant": 300, "bee": 300})  # three shards
    temporary = tmp_path / "temporary"

    def arguments(out):
        return ["audit", tmp_path / "data", "--weights", data / "checkpoint", "--out", out]

    def rows(out):
        return [{**row, "score": None} for row in READERS[".csv"](out / "audit.csv")]

    finish(arguments(tmp_path / "whole"), temporary)
    out = tmp_path / "audited"
    left = killed_again_and_again(arguments(out), out / "features", temporary, SEED, 2)
    finish(arguments(out), temporary)
    print(f"\nleft after each kill {left}")
    assert check_whole(out) == []
    assert len(list((out / "features").iterdir())) == 3
    assert rows(out) == rows(tmp_path / "whole")


SAVING = """
import sys
from keras_bit import from_pretrained, save_pretrained
source, folder = sys.argv[1:]
model = from_pretrained(source)
biases = [model.get_layer("predictions").bias, model.get_layer("norm").beta]
for number in range(10_000):
    model.config = model.config.__class__(**{**vars(model.config), "id2label": {0: f"version {number}", **LABELS}})
    for bias in biases:
        bias.assign(bias * 0 + number)
    save_pretrained(model, folder)
    print(number, flush=True)
"""


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="SIGKILL"),
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.release),
    ],
)
def test_save_pretrained_never_leaves_half_a_checkpoint(data, tmp_path, number):
    """Kills a user's program, which SIGTERM ends as SIGKILL does."""
    chance, folder = random.Random(SEED), tmp_path / "saved"
    program = SAVING.replace("**LABELS", "**{n: str(n) for n in range(1, model.config.num_labels)}")
    model = from_pretrained(data / "checkpoint")
    for _ in range(max(2, KILLS // 2)):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(data / "checkpoint"), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(2):
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.5))
        process.send_signal(number)
        assert process.wait() == -number
        process.stdout.close()
        left = check_whole(folder)
        assert len(left) <= 3, left  # a staging directory, and the lock while files take their places
        # Whoever writes there next puts back what was replaced by half.
        keras_bit.BitImageProcessor().save_pretrained(folder)
        said = json.loads((folder / "config.json").read_text())["id2label"]["0"]
        bias = safetensors.numpy.load_file(folder / "model.safetensors")["classifier.1.bias"]
        assert said == f"version {bias[0]:.0f}"
        save_pretrained(model, folder, keras_bit.BitImageProcessor())
        assert hidden(folder) == []
