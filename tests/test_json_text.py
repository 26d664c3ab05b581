"""Tests reading JSON from files: every fault is a ValueError."""

import json

import pytest

from keras_bit.files import json_text


def nested(depth, begin="[", end="]"):
    return begin * depth + end * depth


@pytest.mark.parametrize(
    "text", ["null", "5", '"a"', "{}", '{"a": [1, {"b": null}]}', b"[1.5]", nested(100), f"[{nested(99)}, 1, {{}}]"]
)
def test_a_text_that_json_reads_is_parsed(text):
    assert json_text.parse(text) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1,]", b"\xff\xfe\x00", "9" * 5000),
        *(nested(depth) for depth in (101, 900, 5000, 100_000)),
        *("[" * 100_000, '{"a": ' * 101 + "1" + "}" * 101, '{"a":' * 5000),
    ],
)
def test_everything_else_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - of json's own words or ours
        json_text.parse(text)


def test_the_pairs_of_an_object_may_be_looked_at():
    assert json_text.parse('{"a": 1, "a": 2}', object_pairs_hook=list) == [("a", 1), ("a", 2)]
