"""Imports OpenVINO's package without its telemetry, and holds its only `Core` in this process.

Its import sends telemetry from a forked process. Forking a process with threads, such as TensorFlow's, may hang, and
without a network the import waits three seconds.
"""

import functools
import sys
from types import ModuleType
from typing import Any


def import_openvino() -> ModuleType:
    """Returns the package. If the program has imported it before, nothing is changed."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not to be found: a stub takes its place
    import openvino

    return openvino


@functools.cache
def core() -> Any:
    """Returns an `openvino.Core` that lives as long as the process.

    The CPU plugin of each `Core` gives the thread a stack for signal handlers, and removes it at its own end. If two of
    them end in the order of their beginning, a removed stack stays in use, and the next signal, such as Ctrl-C, crashes
    the process (OpenVINO 2026.4).
    """
    return import_openvino().Core()
