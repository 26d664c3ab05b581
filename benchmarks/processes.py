"""Measurements, each in a process of its own, taken in turn."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
START = "BENCHMARKS_PROCESS_START"  # environment variable: seconds on the monotonic clock


def rounds_of(
    cases: Mapping[str, Sequence[str]],
    rounds: int,
    pythons: Mapping[str, str] | None = None,
    environments: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Runs every case `rounds` times, one after the other and each case once before any comes again.

    What else the machine does then falls on all cases alike, and no case finds what another left in its process.

    Args:
        cases: name to the arguments of `python -m`.
        rounds: how often.
        pythons: case to the interpreter that runs it, where it is not this one.
        environments: case to the environment variables that it gets beside those of this process.

    Returns:
        Name to what each of its processes printed on its last line, a JSON object.

    Raises:
        RuntimeError: a process failed; with the end of what it wrote on standard error.
    """
    from tqdm import tqdm

    found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    turns = [name for _ in range(rounds) for name in cases]
    with tqdm(turns, unit="process", file=sys.stderr) as bar:
        for name in bar:
            bar.set_description(name)
            python, environment = (pythons or {}).get(name, sys.executable), (environments or {}).get(name, {})
            found[name].append(_run(name, python, cases[name], environment))
    return found


def since_start() -> float:
    """Seconds since this process was started by `rounds_of`; the monotonic clock is the same for all processes."""
    return time.monotonic() - float(os.environ[START])


def peak_memory() -> int:
    """The most bytes that this process ever had in memory, mapped files included.

    Raises:
        OSError: this is not Linux.
    """
    return _status("VmHWM")


def memory() -> int:
    """The bytes that it has now; otherwise as `peak_memory`."""
    return _status("VmRSS")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}: the memory of a process is read on Linux only.")


def _run(name: str, python: str, arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "HF_HUB_OFFLINE": "1"}  # nothing here is to ask a Hub
    done = subprocess.run(
        [python, "-m", *arguments],
        env={**os.environ, **quiet, **environment, "PYTHONPATH": str(ROOT), START: repr(time.monotonic())},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
