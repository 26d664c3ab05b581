"""The peak memory of each process that runs tests: reported after them, and an error if it is too much.

A process keeps what earlier tests have left in it, so that this grows with every file if nobody looks, until a
newcomer's machine swaps. `conftest.forgotten` gives back what Keras and TensorFlow keep.
"""

import resource
import sys
from typing import Any

import pytest

LIMIT = 2.0  # GB


def peak_memory() -> float:
    """The most memory that this process has had at one time, in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KB elsewhere


class PeakMemory:
    """A plugin of pytest: with pytest-xdist, each worker sends its peak to the process that reports."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}

    @pytest.hookimpl(optionalhook=True)  # of pytest-xdist
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        peak = getattr(node, "workeroutput", {}).get("peak_memory")  # None after a crash
        if peak is not None:
            self.peaks[node.gateway.id] = peak

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["peak_memory"] = peak_memory()
            return
        if not self.peaks:
            self.peaks["this process"] = peak_memory()
        if max(self.peaks.values()) > LIMIT and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        peaks = ", ".join(f"{name} {peak:.2f} GB" for name, peak in sorted(self.peaks.items()))
        terminalreporter.write_line(f"peak memory: {peaks} (at most {LIMIT:g} GB)")
