"""Fixtures and settings of all tests: where optional things are, and what happens if they are missing.

A test marked `live` needs torch and transformers, and one marked `data` needs data. If these are missing, the test is
skipped with the reason. With KERAS_BIT_REQUIRE_ALL=1 (CI) it fails instead, because CI must run every parity test.
"""

import collections
import contextlib
import ctypes
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory import PeakMemory
from store import finished as finished  # a fixture of all tests

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# JAX compiles every small model anew, in every process; without LLVM's optimizations a quarter of its tests' time goes.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
sys.modules.setdefault("openvino_telemetry", None)  # as keras_bit.exporters.openvino_package does

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


def absent(what: str) -> None:
    if os.environ.get("KERAS_BIT_REQUIRE_ALL") == "1":
        pytest.fail(f"KERAS_BIT_REQUIRE_ALL=1, but {what}")
    pytest.skip(what)


def needs_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        absent("matplotlib is not installed: pip install -e '.[plots]'")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(PeakMemory(), "peak-memory")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("live"):
        missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
        if missing:
            absent(f"{' and '.join(missing)} not installed: pip install -e '.[reference]'")
    if item.get_closest_marker("data") and not DATA.is_dir():
        absent("no ../shared/data beside the repository")


@pytest.hookimpl(trylast=True)  # after `-m` has left tests out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with few tests of which some are slow come first: at the end no process waits for the last one of them."""
    counts = collections.Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, counts[item.path] * (1 if item.path in slow else -1)))


@pytest.fixture(autouse=True, scope="module")
def forgotten() -> Iterator[None]:
    """Keras keeps the graphs and kernels of every model until it is told to forget them; here after each file."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free goes back to the system


@pytest.fixture(scope="module")
def eagerly() -> Iterator[None]:
    """TensorFlow's steps run eagerly in this file, for tests whose subject is not a graph: tracing takes most of a run.

    What `tf.data` runs stays a graph, about which TensorFlow warns.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def graphs(eagerly: None) -> Iterator[None]:
    """Graphs, for one test of a file whose others run eagerly."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(False)
    yield
    tf.config.run_functions_eagerly(True)


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Real photographs of many sizes."""
    return sorted((DATA / "photos").glob("*.JPEG"))
