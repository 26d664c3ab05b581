"""Finds a Python interpreter of a given version on this machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def find(version: str) -> Path | None:
    """Returns a python of that version ("3.13"), from the path or from pyenv, or `None`."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [Path(path) for path in [shutil.which(name)] if path]
    found += sorted(pyenv.glob(f"versions/{version}.*/bin/{name}"), reverse=True)
    # pyenv puts its own commands on the path; such a command fails if its version is not selected.
    return next(
        (path for path in found if subprocess.run([path, "--version"], capture_output=True).returncode == 0), None
    )
