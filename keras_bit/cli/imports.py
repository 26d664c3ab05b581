"""Keeps packages out of a command that TensorFlow and Keras import only if they happen to be installed.

`import keras` imports JAX to write JAX functions as TFLite and for Orbax, scikit-learn for wrappers in its style, and
pandas for its tables in `fit`. No command uses these features, and the imports take a third of a command's start: 2.7
of 8 seconds of processor time, and 240 MB. Everybody else still gets them: `keras-bit probe` its scikit-learn, and the
JAX backend its JAX.
"""

import sys
from importlib.abc import MetaPathFinder
from typing import Any

# A package to the beginnings of the names of the modules that import it.
UNUSED = {
    "jax": ("tensorflow.lite.", "keras.src.callbacks."),
    "sklearn": ("keras.src.wrappers.",),
    "pandas": ("keras.src.trainers.",),
}


class Unused(MetaPathFinder):
    """Tells these importers, which are ready for it, that the package is not installed."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        importers = UNUSED.get(fullname)
        if importers is not None and _importer().startswith(importers):
            raise ModuleNotFoundError(f"No module named {fullname!r}, which no command needs here", name=fullname)


def leave_out() -> None:
    """Leaves them out from now on, in a process that has not imported Keras yet."""
    if "keras" not in sys.modules:
        sys.meta_path.insert(0, Unused())


def _importer() -> str:
    """Returns the name of the module whose `import` statement is being executed."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(("importlib.", __name__)):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))
