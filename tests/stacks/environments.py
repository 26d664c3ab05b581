"""Makes environments like those of users: the built wheel, an interpreter, and named packages.

This module only imports the standard library, and not keras_bit, so any Python 3.11 or newer runs it. A command that
fails raises a `RuntimeError` with the command's output.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Not only the package: the wheel must leave the others out by its settings, not because they are absent.
FOLDERS = ("keras_bit", "convert", "benchmarks", "tests")
# Variables that would show an environment the packages or settings of its caller.
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "KERAS_BACKEND", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
TIMEOUT = 1800  # seconds, for a command that hangs


def copy_tree(folder: Path) -> Path:
    """Copies the sources into `folder`, which is new or empty, and returns it.

    A build in the checkout itself would put files of an earlier one in `build/` into the wheel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, folder)
    return folder


def build_wheel(folder: Path, *options: str) -> Path:
    """Builds the wheel from a copy of the tree in `folder`, which is new or empty, and returns its file.

    `options` go to `pip wheel`: ("--no-build-isolation", "--no-index") builds with this interpreter's setuptools.
    """
    tree, target = copy_tree(folder / "tree"), folder / "dist"
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *options, "--wheel-dir", str(target), str(tree))
    (wheel,) = target.glob("*.whl")
    return wheel


def make_environment(folder: Path, interpreter: str | Path = sys.executable) -> Path:
    """Makes a virtual environment with pip and nothing else in `folder` and returns its python.

    What was in `folder` is removed.
    """
    run(interpreter, "-m", "venv", "--clear", str(folder))
    scripts = "Scripts" if os.name == "nt" else "bin"
    return folder / scripts / ("python.exe" if os.name == "nt" else "python")


def install(python: Path, *requirements: str | Path) -> None:
    """Installs what `pip install` understands: names with versions, wheels, options such as "-r" and a file."""
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)


def installed(python: Path) -> dict[str, str]:
    """Returns the version of each package in the environment, by its name in small letters with hyphens."""
    lines = run(python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check").stdout.split()
    return {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines)}


def run(
    python: str | Path, *arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `python` with the arguments and returns what it printed, as text.

    The command gets `env` and the environment variables of this process, without those in `FOREIGN`.

    Raises:
        RuntimeError: The command failed; the message holds the command and the end of what it printed.
        subprocess.TimeoutExpired: It took longer than `TIMEOUT`.
    """
    variables = {name: value for name, value in os.environ.items() if name not in FOREIGN} | (env or {})
    command = [str(python), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=TIMEOUT)
    if done.returncode:
        said = (done.stdout[-2000:] + done.stderr[-6000:]).strip()
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done
