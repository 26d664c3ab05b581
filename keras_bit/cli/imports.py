"""Makes commands start sooner: TensorFlow and Keras do not import what a command does not use.

If JAX, scikit-learn and pandas are installed, `import keras` imports them. It needs JAX to write JAX functions as
TFLite and for Orbax, scikit-learn for wrappers in its style, and pandas for tables in `fit`. No command uses these
features. The imports take a third of the start of a command: 2.7 of 8 seconds of processor time, and 240 MB. All other
modules still get these packages: `keras-bit probe` uses scikit-learn, and the JAX backend uses JAX.
"""

import sys
from importlib.abc import MetaPathFinder
from typing import Any

# Each package, and how the names of the modules begin that import it without need.
UNUSED = {
    "jax": ("tensorflow.lite.", "keras.src.callbacks."),
    "sklearn": ("keras.src.wrappers.",),
    "pandas": ("keras.src.trainers.",),
}


class Unused(MetaPathFinder):
    """Tells these modules that the package is not installed. Each of them handles that error."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        importers = UNUSED.get(fullname)
        if importers is not None and _importer().startswith(importers):
            raise ModuleNotFoundError(f"No module named {fullname!r}, which no command needs here", name=fullname)


def leave_out() -> None:
    """Hides the packages from these modules, if Keras is not imported yet."""
    if "keras" not in sys.modules:
        sys.meta_path.insert(0, Unused())


def _importer() -> str:
    """Returns the name of the module whose `import` statement is being executed."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(("importlib.", __name__)):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))
