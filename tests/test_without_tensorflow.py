"""Runs `tests/stacks/without_tensorflow.py` with PyTorch, in a process that cannot import TensorFlow.

With JAX, the stack `jax` runs it (`make test-stack STACK=jax`), in an environment without TensorFlow.
"""

import importlib.util
import os
import subprocess
import sys

import pytest

from conftest import ROOT, absent

# As if it were not installed: Python raises ModuleNotFoundError for a name that stands there with `None`.
CODE = """
import sys
sys.modules["tensorflow"] = None
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--noconftest", sys.argv[1]]))
"""


@pytest.mark.slow
def test_it_works_without_tensorflow():
    if importlib.util.find_spec("torch") is None:
        absent("torch is not installed: pip install -e '.[reference]'")
    done = subprocess.run(
        [sys.executable, "-c", CODE, "tests/stacks/without_tensorflow.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
