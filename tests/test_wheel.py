"""The wheel holds what the tree holds: an editable install would hide a room that is not found."""

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import keras_bit
from conftest import ROOT

# Beside the package's own: a wheel is to leave them out because its settings say so, not because they are absent.
FOLDERS = ("keras_bit", "convert", "benchmarks", "tests")
FILES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: `build/` of an earlier one would put files into it that are no longer there."""
    tree = tmp_path_factory.mktemp("tree")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, tree)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tree / "dist")]
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(tree)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (tree / "dist").iterdir()
    with zipfile.ZipFile(file) as opened:
        yield opened


def metadata(wheel, name):
    (member,) = (member for member in wheel.namelist() if member.endswith(f".dist-info/{name}"))
    return wheel.read(member).decode()


def test_the_wheel_holds_the_files_of_the_package_and_no_other(wheel):
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    paths = [path for path in (ROOT / "keras_bit").rglob("*") if path.is_file()]
    tree = {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}
    assert packed == tree
    assert {Path(name).suffix for name in tree} == {".py", ".tsv", ".typed"}


def test_the_wheel_is_of_this_version_and_brings_the_command(wheel):
    fields = Parser().parsestr(metadata(wheel, "METADATA"))
    assert fields["Name"] == "keras_bit"
    assert fields["Version"] == keras_bit.__version__
    assert "keras-bit = keras_bit.cli.main:main" in metadata(wheel, "entry_points.txt").splitlines()
