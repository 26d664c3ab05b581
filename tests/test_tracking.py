"""Tests what trackers of runs are told and when, with small modules that have wandb's calls.

The real trackers are tried in environments with their extra (`tests/extras`).
"""

import contextlib
import json
import sys
import types

import keras
import pytest

from keras_bit.packages import MissingPackageError
from keras_bit.training import tracking


def stand_in(monkeypatch, **modules):
    for name, content in modules.items():
        module = types.ModuleType(name.replace("__", "."))
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name.replace("__", "."), module)


@pytest.fixture
def told(monkeypatch):
    """Collects what the trackers are told, in order."""
    said = []

    @contextlib.contextmanager
    def opened(tracker, /, **arguments):
        said.append((tracker, arguments))
        try:
            yield
        finally:
            said.append((tracker, "closed"))

    stand_in(
        monkeypatch,
        wandb={"init": lambda **arguments: opened("wandb", **arguments)},
        wandb__integration={},
        wandb__integration__keras={"WandbMetricsLogger": keras.callbacks.Callback},
    )
    return said


def test_a_run_is_opened_once_and_found_again(told, tmp_path):
    described = {"plan": {"recipe": {"ema": 0.9}}}
    tracking.check(["wandb"])
    for _ in range(2):
        with tracking.tracked(["wandb", "wandb"], tmp_path, described) as callbacks:
            assert len(callbacks) == 1
    first, second = (said for _, said in told if said != "closed")
    assert first == second
    assert (first["resume"], first["config"], first["dir"]) == ("allow", described, str(tmp_path))
    assert [said == "closed" for _, said in told] == [False, True] * 2
    held = json.loads((tmp_path / tracking.IDS_NAME).read_text())
    assert held == {"wandb": first["id"]}


def test_it_is_closed_when_training_fails(told, tmp_path):
    with pytest.raises(FloatingPointError), tracking.tracked(["wandb"], tmp_path, {}):
        raise FloatingPointError
    assert told[-1] == ("wandb", "closed")


@pytest.mark.parametrize("name", ["wandb"])
def test_a_package_that_is_missing_is_named_before_anything_is_computed(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=rf"--track {name} needs .*keras_bit\[{name}\]"):
        tracking.check([name])


def test_without_trackers_there_are_no_callbacks_and_no_file(tmp_path):
    with tracking.tracked([], tmp_path, {}) as callbacks:
        assert callbacks == []
    assert [*tmp_path.iterdir()] == []
