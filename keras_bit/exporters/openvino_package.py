"""OpenVINO's package, imported so that it sends nothing.

Its import reports itself to its makers, from a process that it forks for that: a fork of a process with threads, as
TensorFlow's is, may hang, and without a network the import waits three seconds for it.
"""

import sys
from types import ModuleType


def import_openvino() -> ModuleType:
    """The package; a program that has imported it before has decided otherwise."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not to be found: a stub takes its place
    import openvino

    return openvino
