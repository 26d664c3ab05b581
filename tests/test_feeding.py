"""Tests that the pipeline feeds `model.fit` under every backend, and workers of tf.data service."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from conftest import ROOT, absent
from image_files import PROCESSOR, encoded, make_folders, pixels
from keras_bit import HyperRule, image_dataset

WAIT = 120  # seconds, until a process or the service counts as stuck
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    directory = tmp_path_factory.mktemp("folders")
    return directory, make_folders(directory, {"cat": 6, "dog": 5})


@pytest.fixture(scope="module")
def fits(folders):
    answers = {}

    def fit(backend):
        if importlib.util.find_spec(backend) is None:
            absent(f"{backend} is not installed: pip install {backend}")
        if backend not in answers:
            done = subprocess.run(
                [sys.executable, str(ROOT / "tests" / "feeding_probe.py"), str(folders[0])],
                env={**ENVIRONMENT, "KERAS_BACKEND": backend},
                capture_output=True,
                text=True,
                timeout=WAIT,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            answers[backend] = json.loads(done.stdout.splitlines()[-1])
            assert answers[backend]["backend"] == backend
        return answers[backend]

    return fit


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", ["tensorflow", *(pytest.param(name, marks=pytest.mark.release) for name in ("jax", "torch"))]
)
def test_the_pipeline_feeds_fit_and_predict_under_every_backend(fits, backend):
    expected, found = fits("tensorflow"), fits(backend)
    assert found["sums"] == expected["sums"]  # the images do not depend on the backend
    assert found["predicted"] == [11, 2]
    for losses in found["losses"].values():
        assert len(losses) == 2
        assert np.isfinite(losses).all()


@pytest.fixture
def service():
    """Starts a dispatcher on loopback with two workers, each a process, and returns its address."""
    dispatcher = tf.data.experimental.service.DispatchServer()
    address = dispatcher.target.partition("://")[2]
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(ROOT / "tests" / "service_worker.py"), address],
                    env=ENVIRONMENT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
            for _ in range(2)
        ]
        stack.callback(lambda: [worker.kill() for worker in workers])
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 2
        yield dispatcher.target


# What makes the source in a folder, from what the folder `make_folders` made and its files.
SHARDED = {
    "a directory": lambda directory, files, folder: directory,
    "paths": lambda directory, files, folder: (files, [0] * 6 + [1] * 5),
    "arrays": lambda directory, files, folder: ([pixels(index) for index in range(11)], [0] * 6 + [1] * 5),
    "TFRecords": lambda directory, files, folder: records(folder),
}


def records(folder):
    """Writes three files of records, which the workers share out."""
    for number, indices in enumerate(([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10])):
        with tf.io.TFRecordWriter(str(folder / f"{number}.tfrecord")) as writer:
            for index in indices:
                example = tf.train.Example()
                example.features.feature["image/encoded"].bytes_list.value.append(encoded(pixels(index), "PNG"))
                example.features.feature["image/class/label"].int64_list.value.append(int(index >= 6))
                writer.write(example.SerializeToString())
    return str(folder / "*.tfrecord")


def contents(data):
    """Returns the contents of batches of one image, in sorted order."""
    return sorted((int(label[0]), image.tobytes()) for image, label in data.as_numpy_iterator())


@pytest.mark.slow
def test_two_worker_processes_of_tf_data_service_give_every_image_once(folders, service, tmp_path):
    directory, files = folders
    policy = tf.data.experimental.service.ShardingPolicy
    for kind, make in SHARDED.items():
        data = image_dataset(make(directory, files, tmp_path), processor=PROCESSOR, batch_size=1, engine="graph")
        expected = contents(data)
        assert len(expected) == 11
        shared = data.apply(tf.data.experimental.service.distribute(policy.DYNAMIC, service))
        assert contents(shared) == expected, kind
    # Without sharding each worker gives all of them, so both work.
    doubled = data.apply(tf.data.experimental.service.distribute(policy.OFF, service))
    assert contents(doubled) == sorted(expected * 2)

    rule = HyperRule(20_000, 32)
    options = {"processor": PROCESSOR, "batch_size": 2, "training": True, "rule": rule, "seed": 0}
    training = image_dataset(directory, engine="graph", **options)
    shared = training.apply(tf.data.experimental.service.distribute(policy.DYNAMIC, service))
    for _ in range(2):
        totals = sum(labels.sum(axis=0) for _, labels in shared.as_numpy_iterator())
        np.testing.assert_allclose(totals, [6, 5], atol=1e-5)  # mixed, but each label's share is whole

    # Reading on the host needs Python, which only this process has.
    shared = image_dataset(directory, **options).apply(tf.data.experimental.service.distribute(policy.DYNAMIC, service))
    with pytest.raises(tf.errors.OpError, match="pyfunc"):
        list(shared)
