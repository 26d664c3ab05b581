"""Lets Keras find keras_bit's classes in files once both packages are imported, in either order.

Keras finds a class of a saved model by its registered name (`keras_bit>StdConv2D`) after the module that registers it
is imported. `import keras_bit` does not import Keras, which takes seconds. So these modules are imported right after
Keras, whoever imports it.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# These import all modules that register a class. The last one registers the models a second time.
MODULES = (
    "keras_bit.network.model",
    "keras_bit.recipes.hyperrule",
    "keras_bit.recipes.adamw",
    "keras_bit.classifier",
    "keras_bit.transformers_shape.models",
    "keras_bit.network.bare_names",
)


def register_with_keras() -> None:
    """Imports the modules that register classes: now if Keras is imported already, else right after its import."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterKeras())


def _register() -> None:
    for name in MODULES:
        importlib.import_module(name)


class _AfterKeras:
    """A finder for the module Keras that uses the other finders and adds a step at the end of its import.

    `wrapt.register_post_import_hook` does the same, but is slow to import.
    """

    def __init__(self) -> None:
        self._asks_the_others = False

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "keras" or self._asks_the_others:
            return None
        self._asks_the_others = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asks_the_others = False
        if spec is None or spec.loader is None:
            return None
        loader = spec.loader
        execute = loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            if module.__name__ != name:  # its loader may load several modules, like that of a zip file
                return
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register()

        # On the object, not on its class and without a wrapper, so that the loader's other methods keep working.
        setattr(loader, "exec_module", execute_and_register)  # noqa: B010 - a type checker lets no method be assigned
        return spec
