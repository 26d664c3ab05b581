"""Reports the peak memory of each process that ran tests, after the tests.

A process keeps what earlier tests left in memory. Without this report the peak would grow unnoticed with every file,
until a newcomer's machine swaps. `conftest.forgotten` frees what Keras and TensorFlow keep.
"""

import re
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

LIMIT = 2.0  # GB; a process should stay below this
SHOWN = 8  # files that are listed, if a process is above the limit


def peak_memory() -> float:
    """Returns the peak memory of this process, in GB.

    On Linux, a process inherits the `ru_maxrss` of its parent, so the value in `/proc` is read instead.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes on macOS, KB elsewhere


class PeakMemory:
    """A plugin of pytest: with pytest-xdist, each worker sends its peak to the process that reports."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}
        self.raised: dict[str, float] = {}  # file to the GB by which it raised the peak of its process
        self._before = peak_memory()

    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        if nextitem is None or nextitem.path != item.path:
            now = peak_memory()
            self.raised[item.path.name] = self.raised.get(item.path.name, 0) + now - self._before
            self._before = now

    @pytest.hookimpl(optionalhook=True)  # of pytest-xdist
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        peak = getattr(node, "workeroutput", {}).get("peak_memory")  # None after a crash
        if peak is not None:
            self.peaks[node.gateway.id] = peak
            self.raised |= node.workeroutput["raised"]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput |= {"peak_memory": peak_memory(), "raised": self.raised}
            return
        if not self.peaks:
            self.peaks["this process"] = peak_memory()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        peaks = ", ".join(f"{name} {peak:.2f} GB" for name, peak in sorted(self.peaks.items()))
        terminalreporter.write_line(f"peak memory: {peaks} (meant to stay below {LIMIT:g} GB)")
        most = sorted(self.raised.items(), key=lambda one: -one[1])[:SHOWN]
        if max(self.peaks.values(), default=0) > LIMIT:
            files = ", ".join(f"{name} by {raised:.2f} GB" for name, raised in most)
            terminalreporter.write_line(f"raised most by {files}")
