"""Describes the machine and the versions of a measurement."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Instructions that decide the speed of 8 and 16 bits, by Linux' names.
FEATURES = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
)


def machine() -> dict[str, Any]:
    """Returns the system, the processor's name, instructions (on Linux) and cores, and the number of threads."""
    told = _cpuinfo()
    flags = set(told.get("flags", told.get("Features", "")).split())
    return {
        "system": platform.platform(),
        "processor": told.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "instructions": [name for name in FEATURES if name in flags],
        "cores": os.cpu_count(),
        "threads": threads(),
    }


def threads() -> int:
    """Returns the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Returns the versions of Python and of the packages; `None` if not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _cpuinfo() -> dict[str, str]:
    """Returns Linux' description of the first processor."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return {}
    first, _, _ = file.read_text(encoding="utf-8", errors="replace").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
