"""Keras finds keras_bit's classes in files as soon as both packages are imported, in either order.

Keras knows a class of a saved model by its registered name (`keras_bit>StdConv2D`) once the module that registers it
has been imported. `import keras_bit` must not import Keras, which takes seconds, so these modules are imported right
after Keras is, no matter who imports it.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# These import all that register a class. The last one registers the others' models once more.
MODULES = (
    "keras_bit.network.model",
    "keras_bit.recipes.hyperrule",
    "keras_bit.recipes.adamw",
    "keras_bit.classifier",
    "keras_bit.transformers_shape.models",
    "keras_bit.network.bare_names",
)


def register_with_keras() -> None:
    """Imports the modules that register classes: now if Keras has been imported, else right after it is."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterKeras())


def _register() -> None:
    for name in MODULES:
        importlib.import_module(name)


class _AfterKeras:
    """A finder of one module, Keras, that lets the other finders find it and adds a step at the end of its import.

    `wrapt.register_post_import_hook` does the same, and takes a tenth of a second to import.
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
            if module.__name__ != name:  # by a loader of more than one, as that of a zip file is
                return
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register()

        # On the object, not on its class or around it: the loader stays what it is for all who ask it for more.
        setattr(loader, "exec_module", execute_and_register)  # noqa: B010 - a type checker lets no method be assigned
        return spec
