"""Tests `python -m benchmarks audit`: the errors that it plants, and how it counts what was found."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_images import scene
from benchmarks import audit
from conftest import absent


@pytest.fixture
def data(tmp_path):
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(50):
            Image.fromarray(scene(100 * label + number)).save(tmp_path / "data" / name / f"{number:04d}.jpg")
    return tmp_path / "data"


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_errors_are_planted_as_they_are_noted(data, tmp_path):
    planted = audit.plant(data, tmp_path / "out", 0)
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert files == set(planted.sources)
    assert len(files) == 100 + 3
    assert len([name for name in files if name.startswith("test/")]) == 20
    assert planted.wrong == {
        name for name, source in planted.sources.items() if name.split("/")[1] != source.split("/")[0]
    }
    originals = {name for name in planted.wrong if "copy" not in name and "again" not in name}
    assert len(originals) == 5
    exact = [
        pair for pair in planted.copies if digest(tmp_path / "out" / pair[0]) == digest(tmp_path / "out" / pair[1])
    ]
    assert (len(planted.copies), len(exact)) == (3, 1)
    assert all(copy.startswith("train/") for copy, _ in planted.copies)
    assert [original.split("/")[0] for _, original in planted.copies].count("test") == 1
    again = audit.plant(data, tmp_path / "again", 0)
    assert again == planted


def test_pairs_are_sorted_into_planted_natural_and_others(monkeypatch):
    monkeypatch.setattr(audit, "NATURAL", (("ant/1", "ant/2"),))
    sources = {"a": "ant/1", "a2": "ant/1", "b": "ant/2", "c": "bee/1", "c2": "bee/1", "d": "bee/2"}
    planted = audit.Planted(sources, frozenset(), (("a2", "a"), ("c2", "c")))
    found, missed, natural, others = audit.sorted_out([("a2", "b"), ("b", "a"), ("d", "c")], planted)
    assert (found, missed) == (0.5, [("c2", "c")])
    assert natural == [("ant/1", "ant/2"), ("ant/2", "ant/1")]
    assert others == [("bee/2", "bee/1")]


def test_the_ranking_is_counted_to_as_many_as_are_wrong():
    if importlib.util.find_spec("sklearn") is None:
        absent("scikit-learn is not installed: pip install 'keras_bit[audit]'")
    planted = audit.Planted({}, frozenset("ab"), ())
    assert audit.ranking("abcd", np.array([0.1, 0.4, 0.3, 0.9]), planted) == (0.5, 0.75)
