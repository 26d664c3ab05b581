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


class RefusedError(Exception):
    def __init__(self, error_code):
        super().__init__(error_code)
        self.error_code = error_code


@pytest.fixture
def runs(monkeypatch):
    """Collects the parameters of each of MLflow's runs, by its id."""
    known = {}

    @contextlib.contextmanager
    def opened(run_id):
        yield types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))

    def start_run(*, run_id, run_name):
        if run_id is None:
            run_id = f"{run_name}-{len(known)}"
            known[run_id] = {}
        elif run_id not in known:
            raise RefusedError("RESOURCE_DOES_NOT_EXIST")
        known["now"] = run_id
        return opened(run_id)

    def log_params(values):
        assert not known[known["now"]]  # MLflow takes each of them once
        known[known["now"]] = values

    stand_in(
        monkeypatch,
        mlflow={
            "MlflowException": RefusedError,
            "start_run": start_run,
            "log_params": log_params,
            "get_tracking_uri": lambda: "sqlite:///mlflow.db",
        },
        mlflow__keras={"MlflowCallback": keras.callbacks.Callback},
    )
    return known


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


def test_mlflow_gets_the_options_once_and_a_continued_run_stays_the_same(runs, tmp_path):
    (tmp_path / "tuned").mkdir()
    tracking.check(["mlflow"])
    for _ in range(2):
        with tracking.tracked(["mlflow"], tmp_path / "tuned", {"plan": {"recipe": {"ema": 0.9}, "classes": ["a"]}}):
            assert runs == {"tuned-0": {"plan.recipe.ema": 0.9, "plan.classes": ["a"]}, "now": "tuned-0"}
    assert json.loads((tmp_path / "tuned" / tracking.IDS_NAME).read_text()) == {"mlflow": "tuned-0"}


def test_a_run_that_mlflow_no_longer_has_is_named_with_its_file(runs, tmp_path):
    (tmp_path / tracking.IDS_NAME).write_text('{"mlflow": "gone"}')
    message = r"tracking\.json names the MLflow run gone, but sqlite:///mlflow\.db .*MLFLOW_TRACKING_URI"
    with pytest.raises(ValueError, match=message), tracking.tracked(["mlflow"], tmp_path, {}):
        pass


def test_other_errors_of_mlflow_are_passed_on(runs, tmp_path, monkeypatch):
    def refuse(**arguments):
        raise RefusedError("PERMISSION_DENIED")

    monkeypatch.setattr(sys.modules["mlflow"], "start_run", refuse)
    with pytest.raises(RefusedError), tracking.tracked(["mlflow"], tmp_path, {}):
        pass


def test_it_is_closed_when_training_fails(told, tmp_path):
    with pytest.raises(FloatingPointError), tracking.tracked(["wandb"], tmp_path, {}):
        raise FloatingPointError
    assert told[-1] == ("wandb", "closed")


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_before_anything_is_computed(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=rf"--track {name} needs .*keras_bit\[{name}\]"):
        tracking.check([name])


def test_without_trackers_there_are_no_callbacks_and_no_file(tmp_path):
    with tracking.tracked([], tmp_path, {}) as callbacks:
        assert callbacks == []
    assert [*tmp_path.iterdir()] == []
