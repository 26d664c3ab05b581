"""Tests every writer on a full disk and under limits of the system: one-sentence errors, and intact files."""

import contextlib
import errno
import os
import resource
import shutil
import subprocess

import keras
import numpy as np
import pytest

import keras_bit
from conftest import absent, needs_matplotlib
from image_files import make_folders
from keras_bit import BitImageProcessor, save_pretrained
from keras_bit.drawing import charts
from keras_bit.embedding import embed
from keras_bit.evaluation import evaluate, write
from keras_bit.exporters.registry import format_named
from keras_bit.training.progress import write_log
from keras_bit.training.state import TrainingState
from store import TRAINED, smallest

PROCESSOR = BitImageProcessor(size=(32, 32), image_mean=0.5, image_std=0.5)
# Of what a writer needs for its largest file.
SHARES = (0, 0.02, 0.3, 0.9)


class Tmpfs:
    """Makes a disk in memory, and fills it with a file so that only the wanted room is free."""

    def __init__(self, folder):
        self.folder = folder / "disk"
        self.folder.mkdir()
        self._filler = self.folder / ".filler"

    def __enter__(self):
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", self.folder], capture_output=True)
        if mounted.returncode:
            absent("a tmpfs cannot be mounted: it takes root")
        return self

    def __exit__(self, *error):
        subprocess.run(["umount", "-l", self.folder], check=True)

    @contextlib.contextmanager
    def with_room_for(self, size):
        with open(self._filler, "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(self.folder).free - size)
        try:
            yield
        finally:
            self._filler.unlink()


class LargestFile:
    """Limits the size of files, as `ulimit -f` does; this needs no separate disk."""

    def __init__(self, folder):
        self.folder = folder / "disk"
        self.folder.mkdir()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    @contextlib.contextmanager
    def with_room_for(self, size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


DISKS = pytest.mark.parametrize("disk", [Tmpfs, LargestFile])


def contents(folder):
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: None if path.is_dir() else path.read_bytes() for name, path in files.items()}


def check(disk, write, target, prepare=lambda: None):
    """Writes without limits, then with room for less and less.

    Args:
        write: does so.
        target: how the user knows what is written; a part of the message.
        prepare: is called before each writing.
    """
    write()
    largest = max(path.stat().st_size for path in disk.folder.rglob("*"))
    for share in SHARES:
        prepare()
        before = contents(disk.folder)
        with (
            disk.with_room_for(int(share * largest)),
            pytest.raises(OSError, match=r"cannot be written|can be written|has .* GB of free space|is full") as caught,
        ):
            write()
        told = str(caught.value)
        if "TMPDIR" in told:  # the limit is also for this one
            continue
        assert str(target) in told, told
        assert any(os.strerror(number) in told for number in (errno.ENOSPC, errno.EFBIG)) or "GB " in told, told
        assert "Make room" in told or "Choose another" in told, told
        assert ".keras-bit" not in told, told
        # Complete shards of an embedding are used again.
        assert {name: held for name, held in contents(disk.folder).items() if ".parquet" not in name} == before
    prepare()
    write()


@DISKS
def test_save_pretrained_names_the_file_on_a_full_disk(tmp_path, disk):
    model = keras_bit.from_pretrained(TRAINED)
    with disk(tmp_path) as there:
        folder = there.folder / "new" / "saved"
        check(there, lambda: save_pretrained(model, folder, PROCESSOR), folder)


@DISKS
def test_configuration_files_on_a_full_disk(tmp_path, disk):
    names = dict.fromkeys(range(1000), "x" * 2000)  # more than a file system keeps in a file's entry
    config = keras_bit.BitConfig(id2label=names, num_labels=1000)
    with disk(tmp_path) as there:
        check(there, lambda: config.save_pretrained(there.folder), there.folder / "config.json")


@DISKS
def test_the_training_state_and_its_log(tmp_path, disk):
    model = keras.Sequential([keras.Input((50,)), keras.layers.Dense(500)])
    model.compile("sgd", "mse")
    data = np.zeros((4, 50)), np.zeros((4, 500))
    with disk(tmp_path) as there:
        file = there.folder / "state.safetensors"

        def fit():
            state = TrainingState(file, 1, 1000, rate_of=lambda step: 0.1)
            model.fit(*data, epochs=state.epoch + 1, initial_epoch=state.epoch, callbacks=[state], verbose=0)

        check(there, fit, file)
    (tmp_path / "log").mkdir()
    with disk(tmp_path / "log") as there:
        rows = [{"step": step, "loss": 0.5} for step in range(10_000)]
        check(there, lambda: write_log(rows, there.folder / "log.csv"), there.folder / "log.csv")


@DISKS
def test_reports_and_charts_name_the_file_on_a_full_disk(tmp_path, disk):
    model = keras_bit.from_pretrained(TRAINED)
    images = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype("float32")
    found = evaluate(model, [(images, np.zeros(8, int))])
    with disk(tmp_path) as there:
        check(there, lambda: write(found, there.folder / "out", processor=PROCESSOR), there.folder / "out")
    needs_matplotlib()
    (tmp_path / "charts").mkdir()
    with disk(tmp_path / "charts") as there:
        rows = [{"step": 1, "loss": 0.5, "learning_rate": 1}, {"step": 2, "loss": 0.4, "learning_rate": 1}]
        check(there, lambda: charts.curves(rows, there.folder / "curves.png"), there.folder / "curves.png")


@pytest.mark.slow
@DISKS
@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("saved_model", "bit"),
        ("tflite", "bit.tflite"),
        ("onnx", "bit.onnx"),
        ("openvino", "bit.xml"),
        ("huggingface", "bit"),
    ],
)
def test_export_names_the_file_on_a_full_disk(tmp_path, disk, format, name):
    for package in format_named(format).packages:
        pytest.importorskip(package)
    model = smallest(hidden_sizes=(32, 64))
    with disk(tmp_path) as there:
        path = there.folder / name
        size = {} if format == "huggingface" else {"image_size": 64}
        check(there, lambda: keras_bit.export(model, path, format, overwrite=True, **size), path)


@pytest.mark.slow
@DISKS
@pytest.mark.parametrize("name", ["features", "features.parquet"])
def test_embed_names_the_file_on_a_full_disk(tmp_path, disk, name):
    pytest.importorskip("pyarrow")
    make_folders(tmp_path / "data", {"cat": 3, "dog": 3})
    with disk(tmp_path) as there:
        out = there.folder / name

        def remove():
            for file in there.folder.rglob("*.parquet"):
                file.unlink()

        check(there, lambda: embed(tmp_path / "data", out, weights=str(TRAINED), shard_size=4), out, remove)
