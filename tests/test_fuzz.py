"""Tests that damaged and unusual files of every kind are read, or refused with a documented error.

It tries a few of each kind, from a fixed seed; `python tests/fuzz/run.py` tries any number.
"""

import importlib.util
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from conftest import ROOT, absent
from fuzz import registry
from fuzz.judging import FORBIDDEN, OTHER, REFUSED, SAME
from fuzz.mutations import MUTATIONS, mutated
from fuzz.processes import results

# Inputs of each kind of a group: together they take a minute and a half of a processor.
COUNTS = {"weights": 25, "models": 3, "configs": 50, "images": 12, "runs": 25, "records": 5}


@pytest.fixture(autouse=True, scope="module")
def _hypothesis():
    if importlib.util.find_spec("hypothesis") is None:
        absent("hypothesis is not installed: pip install -e '.[dev]'")


@pytest.mark.slow
@pytest.mark.parametrize("group", COUNTS)
def test_every_input_is_read_or_refused_as_is_documented(group):
    kinds = list(registry.table(group))
    found = list(results(group, kinds, COUNTS[group], seed=0))
    forbidden = [one for one in found if one.verdict == FORBIDDEN]
    assert not forbidden, "\n\n".join(f"{one.kind} {one.number}: {one.why}\n{one.content[:2000]}" for one in forbidden)
    assert Counter(one.kind for one in found) == dict.fromkeys(kinds, COUNTS[group])
    verdicts = Counter(one.verdict for one in found)
    assert verdicts[REFUSED] > len(found) / 10  # otherwise the inputs are hardly damaged
    assert verdicts[SAME] + verdicts[OTHER] >= len(found) // 50  # or are all turned away at the door


# What is said of the second of the three inputs of each.
SAID = {
    "a hang": "Timeout",
    "a loop": "in _compute",
    "memory": "MemoryError",
    "a crash": "Fatal Python error: Aborted",
    "another type": "KeyError: 'x'",
    "no name": "does not name the file",
    "no field": "names none of depths",
}


@pytest.mark.slow
def test_forbidden_inputs_are_noticed_and_the_others_still_tried():
    kinds = [kind for kind in SAID if kind != "memory" or sys.platform == "linux"]
    found = list(results("pitfalls", kinds, count=3, seed=0, seconds=0.5))
    assert [(one.kind, one.number, one.verdict) for one in found] == [
        (kind, number, verdict) for kind in kinds for number, verdict in enumerate((SAME, FORBIDDEN, SAME))
    ]
    for one in found:
        assert one.verdict == SAME or (SAID[one.kind] in one.why and one.content == b"damaged"), one


@pytest.mark.slow
def test_the_command_prints_a_table(tmp_path):
    command = [sys.executable, "tests/fuzz/run.py", "--count", "3", "--kinds", "class map", "class map, values"]
    done = subprocess.run(
        [*command, "--forbidden", str(tmp_path / "forbidden")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    head, *rows = (line.split() for line in done.stdout.splitlines())
    assert head == ["kind", "tried", SAME, OTHER, REFUSED, FORBIDDEN]
    assert [row[0] for row in rows] == ["class", "class", "all"]
    assert (rows[-1][1], rows[-1][-1]) == ("6", "0")
    assert not (tmp_path / "forbidden").exists()


def test_mutations_are_the_same_for_the_same_seed_and_of_every_sort():
    whole = bytes(range(256)) * 8

    def made(seed):
        return [mutated(whole, np.random.default_rng([seed, number])) for number in range(60)]

    assert made(0) == made(0) != made(1)
    assert {len(one) < len(whole) for one in made(0)} == {len(one) > len(whole) for one in made(0)} == {True, False}
    for mutation in MUTATIONS:
        for content in (whole, b"x", b""):
            mutation(bytearray(content), np.random.default_rng(0))


def test_drawn_json_repeats_for_a_seed_and_names_its_keys():
    from fuzz import structured

    values = {"depths": [1, 2], "labels": {"0": "a"}}

    def draw(seed):
        return structured.drawn(structured.changed_json(values), 40, seed)

    assert draw(0) == draw(0) != draw(1)
    for one in draw(0):
        assert {*one.keys} <= {"depths", "labels", "0"}
        if len(one.text) < 400:  # not too deep
            json.loads(one.text)
