"""Tests what a command does not import."""

import os
import subprocess
import sys

from command_line import TINY
from conftest import ROOT
from keras_bit.cli.imports import UNUSED

PROBE = f"""
import sys
from keras_bit.cli.main import main
sys.argv = ["keras-bit", "info", "--weights", {str(TINY)!r}]
assert main() == 0
found = sorted(name for name in sys.modules if name in {sorted(UNUSED)})
assert "keras" in sys.modules
import jax, pandas, sklearn
print(found, [module.ANSWER for module in (jax, pandas, sklearn)])
"""


def test_keras_gets_no_package_that_only_its_other_users_need_and_others_get_them(tmp_path):
    for name in UNUSED:
        (tmp_path / f"{name}.py").write_text("ANSWER = 42\n")  # whether or not the real one is installed
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[] [42, 42, 42]"], done.stderr[-3000:]
