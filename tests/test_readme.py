"""The README: its Python code runs, and the commands and files that it names exist."""

import re

import pytest

import readme_code
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_code_of_the_readme_runs(tmp_path):
    done = readme_code.run(README, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(readme_code.predictions(done.stdout)) == 3


def test_the_readme_names_the_commands_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for names in re.findall(r"^([a-z -]+):", makefile, flags=re.MULTILINE) for name in names.split()}
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets


def test_the_files_that_the_readme_links_to_are_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert all((ROOT / link).exists() for link in links)
