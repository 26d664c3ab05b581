"""Tests locks.py: what a note about a process proves if the file system has no locks; see also test_files.py."""

import dataclasses
import errno
import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from keras_bit.files import locks, writing

ENDED = 2**22 + 1  # above the largest number of a process on Linux


@pytest.fixture
def without_locks(monkeypatch):
    def acquire(self, timeout):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.filelock.FileLock, "acquire", acquire)


def note(directory, **changes):
    """Writes the note of this process, with changes, to `directory`."""
    owner = locks.Owner(**json.loads(locks._note(locked=False)))
    text = json.dumps(dataclasses.asdict(dataclasses.replace(owner, **changes)))
    (directory / locks.OWNER_NAME).write_text(text, encoding="utf-8")
    return text


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({}, False),
        ({"process": ENDED}, True),
        ({"process": 2**200}, True),
        ({"process": ENDED, "host": "node7"}, False),
        ({"process": ENDED, "machine": "another container"}, False),
        ({"started": "another boot 12345"}, True),
        ({"started": ""}, False),  # unknown
        ({"process": 1, "started": ""}, False),
    ],
)
def test_a_note_is_removed_only_if_its_process_has_provably_ended(tmp_path, without_locks, changes, broken):
    if changes.get("started") and locks._started(os.getpid()) is None:
        pytest.skip("this system does not say when a process started")
    text = note(tmp_path, **changes)
    if broken:
        lock = locks.acquire(tmp_path)
        assert json.loads((tmp_path / locks.OWNER_NAME).read_text())["process"] == os.getpid()
        lock.release()
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(locks.InUseError) as caught:
            locks.acquire(tmp_path)
        owner = changes.get("process", os.getpid()), changes.get("host", socket.gethostname())
        assert "Another process ({} on {}) is writing".format(*owner) in str(caught.value)
        assert f"delete {str(tmp_path / locks.OWNER_NAME)!r}" in str(caught.value)
        assert (tmp_path / locks.OWNER_NAME).read_text() == text


@pytest.mark.parametrize("text", ["", "1234 on node7", "[]", "[" * 9999, '{"host": "a"}', '{"process": true}', "\xff"])
def test_an_empty_note_does_not_prove_that_its_process_has_ended(tmp_path, without_locks, text):
    (tmp_path / locks.OWNER_NAME).write_text(text, encoding="latin-1")
    with pytest.raises(locks.InUseError, match=r"its number is unknown.*delete '.*\.lock-owner'"):
        locks.acquire(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [locks.OWNER_NAME]


def test_a_note_of_a_faster_process_is_given_back(tmp_path, without_locks):
    text = note(tmp_path)
    slower = locks.Owner(**json.loads(text) | {"process": ENDED})  # what this process had read before
    locks._break(tmp_path / locks.OWNER_NAME, slower)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {locks.OWNER_NAME: text}


def test_a_process_without_locks_is_respected_by_one_that_has_them(tmp_path):
    """Two computers may see the same directory, one with locks and one without."""
    note(tmp_path)
    for _ in range(2):
        with pytest.raises(locks.InUseError, match=f"{os.getpid()} on"):
            locks.acquire(tmp_path)
    note(tmp_path, process=ENDED)
    locks.acquire(tmp_path).release()
    note(tmp_path, locked=True)  # of a process that was killed: the file system has let go of it
    locks.acquire(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_note_stops_the_process_and_leaves_nothing(tmp_path, without_locks, monkeypatch):
    monkeypatch.setattr(locks, "_note", lambda locked: "\udcff")  # no UTF-8
    with pytest.raises(UnicodeEncodeError):
        locks.acquire(tmp_path)
    assert list(tmp_path.iterdir()) == []


CLAIM = """
import errno, pathlib, sys
from keras_bit.files import claims, locks, writing
def acquire(self, timeout):
    raise OSError(errno.ENOLCK, "No locks available")
locks.filelock.FileLock.acquire = acquire
sys.stdin.read()
try:
    with claims.claimed(sys.argv[1], argument="out"):
        print("mine", flush=True)
        sys.stdout.close()
        import time
        time.sleep(1)
except BlockingIOError:
    print("refused")
"""


@pytest.mark.slow
def test_without_locks_only_one_process_takes_over_an_abandoned_directory(tmp_path):
    note(tmp_path, process=ENDED)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    several = [subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path)], **pipes) for _ in range(6)]
    for process in several:
        process.stdin.close()
    said = sorted(process.stdout.read() for process in several)
    for process in several:
        process.wait()
        process.stdout.close()
    assert said == ["mine\n"] + ["refused\n"] * 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_locks", [True, False])
def test_a_process_that_moves_several_files_waits_for_another_one(tmp_path, request, has_locks):
    if not has_locks:
        request.getfixturevalue("without_locks")
    other = locks.acquire(tmp_path)
    timer = threading.Timer(0.2, other.release)
    with writing.staged(tmp_path) as staging:
        for name in ("a", "b"):
            (staging / name).write_text("new")
        timer.start()
        writing.take_places(staging, tmp_path, last="b")
        assert timer.finished.is_set()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    with pytest.MonkeyPatch.context() as patch, writing.staged(tmp_path) as staging:
        patch.setattr(writing, "PATIENCE", 0)
        other = locks.acquire(tmp_path)
        for name in ("a", "b"):
            (staging / name).write_text("newer")
        with pytest.raises(locks.InUseError):
            writing.take_places(staging, tmp_path, last="b")
        other.release()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}
