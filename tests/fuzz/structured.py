"""Makes JSON with values of every type and size in every place, drawn by Hypothesis."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hypothesis
from hypothesis import strategies

NUMBERS = (
    strategies.integers(-3, 70)
    | strategies.sampled_from([2**15, 2**24, 2**31, 2**53, 2**63, 2**64, 10**20, -(10**20), 10**400])
    | strategies.floats()
)
TEXTS = strategies.text(max_size=20) | strategies.sampled_from(["", "5", "null", "x" * 5000, "../x", "\ud800", "²"])
LEAVES = strategies.none() | strategies.booleans() | NUMBERS | TEXTS
VALUES = strategies.recursive(
    LEAVES,
    lambda inner: (
        strategies.lists(inner, max_size=5)
        | strategies.dictionaries(TEXTS, inner, max_size=5)
        | strategies.lists(NUMBERS, min_size=2, max_size=4)
    ),
    max_leaves=12,
)
DEEP = strategies.sampled_from([100, 990, 5000, 100_000])  # brackets within brackets


class Drawn(NamedTuple):
    """A JSON text, and the keys of which an error has to name one; none where it need not."""

    text: str
    keys: tuple[str, ...] = ()


def changed_json(values: Any) -> strategies.SearchStrategy[Drawn]:
    """Returns `values` with one value replaced, removed or added, at any depth, or with many nested brackets."""
    places = list(_places(values))

    @strategies.composite
    def change(draw: Callable[[Any], Any]) -> Drawn:
        place = draw(strategies.sampled_from(places))
        how = draw(strategies.sampled_from(["replace"] * 6 + ["remove", "add", "deep"]))
        keys = tuple(key for key in place if isinstance(key, str))
        new = copy.deepcopy(values)
        if how == "deep":
            _put(new, place, "DEEP")
            depth = draw(DEEP)
            return Drawn(json.dumps(new).replace('"DEEP"', "[" * depth + "]" * depth))
        if how == "remove":
            _remove(new, place)
            return Drawn(json.dumps(new))
        if how == "add":
            _put(new, (*place[:-1], draw(TEXTS)) if isinstance(place[-1], str) else place, draw(VALUES))
            return Drawn(json.dumps(new))
        _put(new, place, draw(VALUES))
        return Drawn(json.dumps(new), keys)

    return change()


def drawn(strategy: strategies.SearchStrategy[Any], count: int, seed: int) -> list[Any]:
    """Returns `count` examples of a strategy, or fewer if it has fewer. The same seed gives the same examples."""
    found: list[Any] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found[:count]


def _places(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Returns the keys and indices that lead to each value below `values`."""
    if isinstance(values, dict):
        inner = list(values.items())
    else:
        inner = list(enumerate(values)) if isinstance(values, list) else []
    for key, value in inner:
        yield (*place, key)
        yield from _places(value, (*place, key))


def _holder(values: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        values = values[key]
    return values


def _put(values: Any, place: tuple[Any, ...], value: Any) -> None:
    _holder(values, place)[place[-1]] = value


def _remove(values: Any, place: tuple[Any, ...]) -> None:
    del _holder(values, place)[place[-1]]
