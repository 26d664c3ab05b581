"""Tests that the wheel holds every module of the tree: an editable install would hide a missing subpackage."""

import re
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import keras_bit
from conftest import ROOT
from stacks import environments


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    options = ("--no-build-isolation", "--no-index")
    file = environments.build_wheel(tmp_path_factory.mktemp("wheel"), *options)
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
    assert {Path(name).suffix for name in tree} == {".py", ".tsv", ".typed", ".html", ".css", ".js"}


def test_the_version_is_written_in_one_place():
    """pyproject.toml has it, and the installed package's metadata from there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == keras_bit.__version__
    for path in [*(ROOT / "keras_bit").rglob("*.py"), ROOT / "CITATION.cff"]:
        assert not re.search(r"^(__version__|version) *[=:]", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_the_wheel_is_of_this_version_and_brings_the_command(wheel):
    fields = Parser().parsestr(metadata(wheel, "METADATA"))
    assert fields["Name"] == "keras_bit"
    assert fields["Version"] == keras_bit.__version__
    assert "keras-bit = keras_bit.cli.main:main" in metadata(wheel, "entry_points.txt").splitlines()
