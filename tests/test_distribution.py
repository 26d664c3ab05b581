"""Tests training with several devices and processes on this machine against one process with the same batches."""

import csv
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import absent
from image_files import make_folders
from keras_bit import BitImageProcessor
from keras_bit.training import distribution
from tiny_bit import random_tensors, write_checkpoint

PROBE = Path(__file__).with_name("distribution_probe.py")
SECONDS = 600  # for processes that should have ended by themselves long before, on a busy machine too


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_folders(folder, {"ant": 4, "bee": 4, "cat": 4})
    return str(folder)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def environments(backend, count, chief=False):
    """Returns what a cluster's launcher sets, for processes here; with `chief` the first one has its own job."""
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    if count == 1:
        return [environment]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    cluster = {"chief": addresses[:1], "worker": addresses[1:]} if chief else {"worker": addresses}
    jobs = [{"type": job, "index": index} for job, members in cluster.items() for index in range(len(members))]
    tasks = [{"cluster": cluster, "task": job} for job in jobs]
    prefix = "KERAS_DISTRIBUTION_"
    jax = {f"{prefix}JOB_ADDRESSES": addresses[0], f"{prefix}NUM_PROCESSES": str(count)}
    return [
        environment
        | ({"TF_CONFIG": json.dumps(task)} if backend == "tensorflow" else jax | {f"{prefix}PROCESS_ID": str(index)})
        for index, task in enumerate(tasks)
    ]


def start(command, backend, count, chief=False):
    return [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for environment in environments(backend, count, chief)
    ]


def results(strategies, data, backend="tensorflow", count=1):
    """Returns what each process printed for each strategy."""
    processes = start([sys.executable, str(PROBE), data, *strategies], backend, count)
    try:
        ended = [process.communicate(timeout=SECONDS) for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
            process.communicate()  # closes its pipes
        raise
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [[json.loads(line) for line in printed.splitlines()[-len(strategies) :]] for printed, _ in ended]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.release)])
def test_together_they_train_as_one_process_with_the_same_batches(data, backend):
    if importlib.util.find_spec(backend) is None:
        absent(f"{backend} not installed")
    # Each backend draws other random weights. Only TensorFlow has `mirrored`.
    ((alone, *mirrored),) = results(["none", "mirrored"] if backend == "tensorflow" else ["none"], data, backend)
    losses = alone["history"]["loss"]
    assert losses[0] - losses[-1] > 1e-3
    workers = [found for (found,) in results(["multi_worker"], data, backend, count=2)]
    assert workers[0]["weights"] == workers[1]["weights"]
    assert len(mirrored) == (backend == "tensorflow")
    for result in (*mirrored, *workers):
        for name, values in alone["history"].items():
            # Sums over the batch in another order.
            assert result["history"][name] == pytest.approx(values, rel=1e-4), name


def log_of(out):
    with open(out / "log.csv", newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


@pytest.fixture
def command(data, tmp_path):
    tensors = {name: values * (0.1 if values.ndim > 1 else 1) for name, values in random_tensors().items()}
    write_checkpoint(tmp_path / "checkpoint", tensors)
    BitImageProcessor(size=(32, 32), resample=2).save_pretrained(tmp_path / "checkpoint")
    command = [sys.executable, "-m", "keras_bit.cli.main", "finetune", data, "--weights", str(tmp_path / "checkpoint")]
    return [*command, "--batch-size", "8", "--evaluate-every", "4"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.release)])
def test_a_worker_that_dies_ends_the_others_and_the_job_goes_on(command, tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        absent(f"{backend} not installed")
    command = [*command, "--steps", "24"]
    together = [*command, "--strategy", "multi_worker", "--out", str(tmp_path / "together")]

    chief, other = start(together, backend, 2)
    for line in chief.stdout:
        if line.startswith("step 4/24"):
            break
    os.kill(other.pid, signal.SIGKILL)
    _, errors = chief.communicate(timeout=SECONDS)
    assert chief.returncode == 1
    assert "another worker has ended, or cannot be reached" in errors
    assert "Start the command again on all of them to continue from the last evaluation." in errors
    other.communicate()

    processes = start(together, backend, 2, chief=backend == "tensorflow")
    ended = [process.communicate(timeout=SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    assert "Continuing after step" in ended[0][0]
    assert "step" not in ended[1][0]  # only one process prints
    assert "validation images" in ended[0][0]
    assert (tmp_path / "together" / "report.json").exists()
    (alone,) = start([*command, "--out", str(tmp_path / "alone")], backend, 1)
    printed, errors = alone.communicate(timeout=SECONDS)
    assert alone.returncode == 0, errors[-3000:]
    assert "step 24/24" in printed
    for row, expected in zip(log_of(tmp_path / "together"), log_of(tmp_path / "alone"), strict=True):
        # Sums over the batch in another order, over 24 steps.
        assert row == pytest.approx(expected, rel=1e-3)


@pytest.mark.release
def test_an_error_ends_every_worker_under_jax_too(command, tmp_path):
    if importlib.util.find_spec("jax") is None:
        absent("jax not installed")
    out = tmp_path / "together"
    command = [*command, "--strategy", "multi_worker", "--out", str(out), "--steps", "12"]
    processes = start([*command, "--base-learning-rate", "1e38", "--evaluate-every", "1"], "jax", 2)
    ended = [process.communicate(timeout=SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [1, 1], ended
    for _, errors in ended:
        assert "is nan after step" in errors
        assert f"{str(out)!r} has the model" in errors
    assert (out / "model.keras").exists()
    # Only the chief finds that this is another run.
    processes = start(command, "jax", 2)
    ended = [process.communicate(timeout=60) for process in processes]
    assert processes[0].returncode == 1
    assert processes[1].returncode != 0
    assert "holds another run" in ended[0][1]


@pytest.mark.parametrize(
    ("strategy", "environment", "message"),
    [
        ("cluster", {}, "`strategy` must be None or one of 'mirrored', 'multi_worker', got 'cluster'."),
        ("multi_worker", {}, "needs the environment variable TF_CONFIG with the addresses of all workers"),
        (
            "multi_worker",
            {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'},
            "needs the environment variable TF_CONFIG with the addresses of all workers and the number of this one",
        ),
        ("multi_worker", {"TF_CONFIG": "{}"}, r'"task": {"type": "worker", "index": 0}}, got \'{}\'.'),
    ],
)
def test_a_strategy_without_its_workers_is_refused(monkeypatch, strategy, environment, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        distribution.start(strategy)


def test_under_jax_its_variables_are_asked_for(monkeypatch):
    monkeypatch.setattr(distribution.keras.backend, "backend", lambda: "jax")
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    for name in ("JOB_ADDRESSES", "PROCESS_ID"):
        monkeypatch.delenv(f"KERAS_DISTRIBUTION_{name}", raising=False)
    message = "Missing: KERAS_DISTRIBUTION_JOB_ADDRESSES, KERAS_DISTRIBUTION_PROCESS_ID."
    with pytest.raises(ValueError, match=message):
        distribution.start("multi_worker")
    with pytest.raises(ValueError, match=r"`strategy` 'mirrored' is for TensorFlow, got the backend jax."):
        distribution.start("mirrored")
