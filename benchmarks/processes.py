"""Runs measurements in separate processes, in turn, and reads the memory of a process."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def rounds_of(
    cases: Mapping[str, Sequence[str]],
    rounds: int,
    pythons: Mapping[str, str] | None = None,
    environments: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Runs every case `rounds` times with `keras_bit.exporters.processes.in_turn`; shows progress on standard error.

    Args:
        cases: name of a case to the arguments of `python -m`.
        rounds: number of processes for each case.
        pythons: name of a case to the interpreter that runs it, if that is not this one.
        environments: name of a case to environment variables that it gets in addition to those of this process.

    Returns:
        Name of a case to the JSON objects that its processes printed on their last lines.

    Raises:
        RuntimeError: a process failed; the message ends with what it wrote last on standard error.
    """
    from tqdm import tqdm

    from keras_bit.exporters import processes  # here: a measuring process imports this module and times its imports

    taken = {
        name: processes.Case(
            ("-m", *arguments),
            (pythons or {}).get(name, sys.executable),
            {**environment(), **(environments or {}).get(name, {})},
        )
        for name, arguments in cases.items()
    }
    with tqdm(total=rounds * len(cases), unit="process", file=sys.stderr) as bar:

        def begin(name: str) -> None:
            bar.set_description(name)
            bar.update()

        return processes.in_turn(taken, rounds, begin)


def environment() -> dict[str, str]:
    """Returns the environment variables that a process of this checkout gets in addition; it must not ask the Hub."""
    return {"TF_CPP_MIN_LOG_LEVEL": "2", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


def since_start() -> float:
    """Returns the seconds since `rounds_of` started this process."""
    from keras_bit.exporters import processes

    return processes.since_start()


def peak_memory() -> int:
    """Returns the peak memory of this process in bytes, including mapped files.

    Raises:
        OSError: the system is not Linux.
    """
    return _status("VmHWM")


def memory(process: int | str = "self") -> int:
    """Returns the current memory of this process or another one in bytes; raises the same errors as `peak_memory`."""
    return _status("VmRSS", process)


def _status(field: str, process: int | str = "self") -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{process}/status has no {field}: the memory of a process is read on Linux only.")
