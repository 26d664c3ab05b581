"""Imports OpenVINO's package without its telemetry.

Its import sends telemetry from a forked process. Forking a process with threads, such as TensorFlow's, may hang, and
without a network the import waits three seconds.
"""

import sys
from types import ModuleType


def import_openvino() -> ModuleType:
    """Returns the package. If the program has imported it before, nothing is changed."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not to be found: a stub takes its place
    import openvino

    return openvino
