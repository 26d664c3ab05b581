"""Kinds that do something forbidden, to test the fuzzing itself."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.kinds import Input, Kind


def _hang(_: Path) -> None:
    while True:
        time.sleep(0.1)


def _compute(_: Path) -> None:
    while True:
        pass


def _fill(_: Path) -> None:
    bytearray(2**31)


def _crash(_: Path) -> None:
    os.abort()


def _raise(_: Path) -> None:
    raise KeyError("x")


def _nameless(_: Path) -> None:
    raise ValueError("it is damaged")


def _fieldless(path: Path) -> None:
    raise ValueError(f"{path} is damaged")


def _kind(read: Callable[[Path], Any]) -> Callable[[Path], Kind]:
    def make(folder: Path) -> Kind:
        def read_damaged(path: Path) -> Any:
            return "whole" if path.read_bytes() == b"whole" else read(path)

        inputs = [Input(b"whole"), Input(b"damaged", ("depths",)), Input(b"whole")]
        return Kind(folder / "file", b"whole", lambda count, seed: inputs, read_damaged)

    return make


# The second of the three inputs of each is forbidden.
PITFALLS = {
    "a hang": _kind(_hang),
    "a loop": _kind(_compute),
    "memory": _kind(_fill),
    "a crash": _kind(_crash),
    "another type": _kind(_raise),
    "no name": _kind(_nameless),
    "no field": _kind(_fieldless),
}
