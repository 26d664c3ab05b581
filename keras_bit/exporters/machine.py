"""The machine that a measurement was made on, and the versions of what was measured."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What decides how fast 8 and 16 bits are, as Linux calls it.
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
    """The system, the processor with its name, its instructions (on Linux), its cores and the threads to use."""
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
    """The processors that this process may use: all, unless somebody has set fewer."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Version of Python and of every package; `None` where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _cpuinfo() -> dict[str, str]:
    """What Linux tells of the first processor."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return {}
    first, _, _ = file.read_text(encoding="utf-8", errors="replace").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
