"""Fixtures and settings of all tests: where optional things are, and what happens if they are missing.

A test marked `live` needs torch and transformers, and one marked `data` needs data. If these are missing, the test is
skipped with the reason. With KERAS_BIT_REQUIRE_ALL=1 (CI) it fails instead, because CI must run every parity test.
"""

import collections
import contextlib
import ctypes
import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory import PeakMemory
from store import finished as finished  # a fixture of all tests

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# JAX compiles every small model again in every process; without LLVM's optimizations its tests are a quarter faster.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
gc.set_threshold(50_000)  # as keras_bit.cli.collector does; a fifteenth of the time
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


@pytest.hookimpl(trylast=True)  # after `-m` has deselected tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files with few tests, of which some are slow, first, so that no process waits for one of them at the end."""
    counts = collections.Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, counts[item.path] * (1 if item.path in slow else -1)))


@pytest.fixture(autouse=True, scope="module")
def forgotten() -> Iterator[None]:
    """Makes Keras forget the graphs and kernels of all models after each file, because it would keep them."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # the C library is not GNU's
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # returns free memory to the system


@pytest.fixture(scope="module")
def eagerly() -> Iterator[None]:
    """Runs TensorFlow's steps eagerly in a file whose tests are not about graphs: tracing takes most of the time.

    Functions in `tf.data` stay graphs, and TensorFlow warns about this.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def graphs(eagerly: None) -> Iterator[None]:
    """Turns graphs on for one test, in a file whose other tests run eagerly."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(False)
    yield
    tf.config.run_functions_eagerly(True)


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Returns real photographs of many sizes."""
    return sorted((DATA / "photos").glob("*.JPEG"))
