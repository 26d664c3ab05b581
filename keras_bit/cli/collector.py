"""Lets Python's garbage collector run less often while a command runs.

The import of TensorFlow makes millions of objects that stay. By default the collector starts after every 700 new
objects and looks at them again and again, which slows down the start of a command.
"""

import contextlib
import gc
from collections.abc import Iterator

NEW_OBJECTS = 50_000  # until the collector starts; Python's default is 700


@contextlib.contextmanager
def seldom() -> Iterator[None]:
    """Raises the number of new objects after which the collector starts, and sets it back at the end."""
    first, *others = gc.get_threshold()
    if 0 < first < NEW_OBJECTS:  # 0 turns it off
        gc.set_threshold(NEW_OBJECTS, *others)
    try:
        yield
    finally:
        gc.set_threshold(first, *others)
