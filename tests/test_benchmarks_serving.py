"""Tests benchmarks/serving.py: a server under load, and that it detects wrong answers, wrong refusals and growth."""

import importlib.util
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

from benchmarks import serving, serving_images
from benchmarks.serving import Counts, Pool
from benchmarks.serving_images import Corrupt
from conftest import absent
from keras_bit.exporters.serving_client import ImageError
from store import TRAINED

LABELS = ["a", "b", "c", "d", "e", "f"]
SCORES = np.array([[0.5, 0.2, 0.1, 0.1, 0.06, 0.04], [0.04, 0.06, 0.1, 0.1, 0.2, 0.5]], np.float32)
POOL = Pool([b"first", b"second"], SCORES, LABELS, [Corrupt(b"", "is empty."), Corrupt(b"x", "is damaged")])


@pytest.mark.slow
def test_a_server_under_load_is_right_and_keeps_its_memory(capsys):
    """Takes half a minute. It counts requests, so that a slow machine asks as much as a fast one."""
    if importlib.util.find_spec("tensorflow_serving") is None:
        absent("tensorflow-serving-api is not installed: pip install -e '.[serving]'")
    found = serving.measure(str(TRAINED), requests=1000, clients=8, corrupt_share=0.02, images=80)
    rows = {row.name: row for row in found.rows}
    assert (found.measurements["wrong"], found.measurements["unnamed"]) == ([], [])
    assert rows["rows that differ from the Keras model"].met
    assert rows["corrupt images that were not named with a reason"].met
    assert rows["growth of the server's memory"].met
    assert int(rows["rows that differ from the Keras model"].details.replace("of ", "").replace(",", "")) > 4000
    assert int(rows["corrupt images that were not named with a reason"].details.removeprefix("of ")) > 50
    assert len(found.measurements["requests"]) >= 1000
    json.dumps(found.measurements)


def test_readable_images_are_of_every_kind_size_and_orientation():
    files = serving_images.readable(80)
    assert files == serving_images.readable(80)  # the same each time
    images = [Image.open(io.BytesIO(file)) for file in files]
    assert {image.format for image in images} == set(serving_images.KINDS)
    assert {image.getexif().get(serving_images.TAG, 1) for image in images} == set(range(1, 9))
    assert {image.mode for image in images} >= {"RGB", "L", "P", "RGBA"}
    sides = [side for image in images for side in image.size]
    assert min(sides) < 30
    assert max(sides) > 500
    assert len(set(files)) == len(files)


BEST = [("a", 0.5), ("b", 0.2), ("c", 0.1), ("d", 0.1), ("e", 0.06)]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (BEST, True),
        ([(label, score + 5e-6) for label, score in BEST], True),
        ([BEST[0], BEST[1], BEST[3], BEST[2], BEST[4]], True),  # equal scores, in either order
        ([(label, score + 2e-5) for label, score in BEST], False),
        ([("b", 0.5), ("a", 0.2), *BEST[2:]], False),
        ([("other", 0.5), *BEST[1:]], False),
        (BEST[:4], False),
        ([BEST[0], BEST[0], *BEST[2:]], False),
        ([(label, float("nan")) for label, _ in BEST], False),
    ],
)
def test_a_row_is_right_if_labels_and_scores_are_the_models(answer, right):
    assert (serving.fault(answer, SCORES[0], LABELS) is None) == right


def answered(place):
    best = np.argsort(-SCORES[place], kind="stable")[:5]
    return [(LABELS[index], float(SCORES[place][index])) for index in best]


def asked(places, classify):
    counts = Counts()
    serving._ask(classify, places, POOL, counts, threading.Lock())
    return counts


def honest(images):
    """Answers as a server without a fault, by the content of the images."""
    problems = {
        index: {b"": "is empty.", b"x": "is damaged and so on"}[image]
        for index, image in enumerate(images)
        if image in (b"", b"x")
    }
    if problems:
        raise ImageError(dict(list(problems.items())[:3]))
    return [answered([b"first", b"second"].index(image)) for image in images]


def test_an_honest_server_has_no_faults():
    counts = asked([0, 1, 1], honest)
    assert (counts.requests, counts.rows, counts.wrong, counts.unnamed) == (1, 3, [], [])
    counts = asked([0, -1, 1, -2], honest)  # refused, and then asked one by one
    assert (counts.requests, counts.rows, counts.corrupt) == (5, 2, 4)
    assert counts.wrong == counts.unnamed == []
    counts = asked([-1, -1, -2, -2, 0], honest)  # of which a refusal names three
    assert (counts.rows, counts.corrupt, counts.unnamed) == (1, 7, [])


LIES = {
    "another image's row": ([0, 1], lambda images: [answered(1), answered(0)], 2, 0),
    "a corrupt image is answered": ([-1], lambda images: [answered(0)], 0, 1),
    "a good one is refused": ([0], lambda images: refuse({0: "is empty."}), 1, 0),
    "another index": ([-1, 0], lambda images: refuse({1: "is empty."}) if len(images) == 2 else honest(images), 0, 2),
    "another reason": ([-1], lambda images: refuse({0: "is damaged"}), 0, 1),
    "no index": ([-1], lambda images: refuse({}), 0, 1),
}


def refuse(problems):
    raise ImageError(problems)


@pytest.mark.parametrize("lie", LIES)
def test_the_errors_of_a_server_are_counted(lie):
    places, classify, wrong, unnamed = LIES[lie]
    counts = asked(places, classify)
    assert (len(counts.wrong), len(counts.unnamed)) == (wrong, unnamed)
    rows = {row.name: row.met for row in serving.rows(counts, [(0.0, 100), (1.0, 100)], 1.0)}
    assert rows["rows that differ from the Keras model"] == (not wrong)
    assert rows["corrupt images that were not named with a reason"] == (not unnamed)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([100, 900, 900, 990, *[1000] * 6], (1000, 1000)),  # the warm-up does not count
        ([1000, 1000, 1000, 1010, 1020, 1030, 1040, 1050, 1060, 1070], (1020, 1070)),
    ],
)
def test_growth_is_from_the_first_to_the_last_quarter_after_the_warm_up(sizes, expected):
    memories = [(float(second), size) for second, size in enumerate(sizes)]
    assert serving.growth(memories) == expected
    growth = next(row for row in serving.rows(Counts(), memories, 10.0) if row.name == "growth of the server's memory")
    assert growth.met == (expected[1] <= 1.02 * expected[0])


@pytest.mark.parametrize(
    "options", [{}, {"seconds": 1.0, "requests": 1}, {"requests": 0}, {"requests": 1, "clients": 0}], ids=str
)
def test_options_that_cannot_be_measured_are_refused(options):
    with pytest.raises(ValueError, match="`seconds` or `requests` must be given"):
        serving.measure("weights", **options)
