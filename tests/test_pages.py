"""Tests the README and the pages of docs/: their code runs, links work, every public name has a page."""

import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keras_bit
import page_code
from command_line import TINY
from conftest import ROOT, absent
from keras_bit.evaluation import __all__ as evaluation_names

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
# On a BiT-50 with random weights.
ON_BIT50 = ("tutorials/classify", "tutorials/transformers", "how-to/checkpoints", "how-to/data", "how-to/backbones")
# On a small trained network, each going on with the files of the one before.
ON_TINY = {
    "tutorials/finetune": (),
    "tutorials/keras-io-example": (),
    "how-to/recipe": (),
    "how-to/labels": (),
    "tutorials/audit": ("cleanlab", "sklearn"),
    "tutorials/serve": (),
    "tutorials/phone": ("ai_edge_litert",),
    "tutorials/web": ("onnx", "onnxruntime"),
    "how-to/openvino": ("onnx", "openvino"),
}


def page(name):
    return DOCS / f"{name}.md"


@pytest.mark.slow
def test_the_code_of_the_readme_and_of_the_pages_about_models_runs(tmp_path):
    done = page_code.run([README, *map(page, ON_BIT50)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(page_code.predictions(done.stdout)) >= 3


@pytest.mark.slow
def test_the_tutorials_run_from_fine_tuning_to_the_web_page(tmp_path):
    for name, packages in ON_TINY.items():
        for package in packages:
            if importlib.util.find_spec(package) is None:
                absent(f"{package} is not installed: {name}.md says how to")
    done = page_code.run([*map(page, ON_TINY)], tmp_path, TINY)
    assert done.returncode == 0, done.stderr
    for made in (
        "flowers-small/model.keras",
        "audited/audit.html",
        "served/flowers/1/saved_model.pb",
        "flowers.tflite",
        "flowers-page/index.html",
        "flowers.xml",
    ):
        assert (tmp_path / made).exists()


def test_the_example_of_keras_io_has_at_most_twelve_lines():
    assert len(page_code.code(page("tutorials/keras-io-example")).strip().splitlines()) <= 12


def test_every_page_with_code_that_runs_is_run():
    runs = {README, *map(page, ON_BIT50), *map(page, ON_TINY)}
    assert {one for one in PAGES if page_code.code(one).strip()} == runs


def test_a_page_replaces_an_export_only_with_overwrite():
    for one in PAGES:
        lines = re.findall(r"^keras-bit export .*", one.read_text(encoding="utf-8"), flags=re.MULTILINE)
        taken = set()
        for words in (shlex.split(line, comments=True) for line in lines):
            place = words[words.index("--out") + 1]
            assert place not in taken or "--overwrite" in words, (one, words)
            if "--format" in words:  # the default, a SavedModel, gets another version
                taken.add(place)


@pytest.mark.parametrize("one", PAGES, ids=lambda path: path.stem)
def test_links_lead_to_files_that_are_there(one):
    text = re.sub(r"```.*?```", "", one.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert link.startswith("https://") or (one.parent / link).exists(), link


def test_the_targets_of_make_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for names in re.findall(r"^([a-z -]+):", makefile, flags=re.MULTILINE) for name in names.split()}
    for one in PAGES:
        named = re.findall(r"(?:`|^)make ([a-z-]+)", one.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert set(named) <= targets, one


def test_the_readme_has_at_most_120_lines():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_every_public_name_is_in_the_reference():
    named = set()
    for file in (DOCS / "reference").glob("*.md"):
        named |= set(re.findall(r"^::: keras_bit\.(\S+)", file.read_text(), flags=re.MULTILINE))
    rooms = {"evaluation": evaluation_names, "embedding": keras_bit.embedding.__all__}
    rooms |= {"layers": keras_bit.layers.__all__, "distribution": keras_bit.distribution.__all__}
    public = {name for name in keras_bit.__all__ if name not in rooms}
    public |= {f"{room}.{name}" for room, names in rooms.items() for name in names}
    assert public <= named


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"\S+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert {str(file.relative_to(DOCS)) for file in DOCS.rglob("*.md")} == listed


def test_every_picture_is_shown():
    text = "\n".join(one.read_text(encoding="utf-8") for one in PAGES)
    assert all(file.name in text for file in Path(DOCS, "images").iterdir())


@pytest.mark.slow
def test_a_link_to_nowhere_ends_the_build_of_the_pages(tmp_path):
    if importlib.util.find_spec("mkdocs") is None:
        absent("mkdocs is not installed: pip install -e '.[docs]'")
    assert re.search(r"mkdocs build --strict$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]

    def built():
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)

    done = built()
    assert done.returncode == 0, done.stderr
    for link in ("(nowhere.md)", "(classify.md#nowhere)"):
        shutil.copy(DOCS / "tutorials" / "audit.md", tmp_path / "docs" / "tutorials")
        with open(tmp_path / "docs" / "tutorials" / "audit.md", "a") as file:
            file.write(f"\nSee [this]{link}.\n")
        done = built()
        assert done.returncode == 1
        assert "nowhere" in done.stderr


def documented():
    """Gives each class on the pages of the reference."""
    for file in (DOCS / "reference").glob("*.md"):
        for name in re.findall(r"^::: keras_bit\.(\S+)", file.read_text(), flags=re.MULTILINE):
            room, _, last = name.rpartition(".")
            value = getattr(importlib.import_module(f"keras_bit.{room}" if room else "keras_bit"), last)
            if isinstance(value, type):
                yield name, value


@pytest.mark.parametrize(("name", "value"), [*documented()], ids=lambda one: one if isinstance(one, str) else "")
def test_every_public_method_and_property_of_a_class_says_what_it_does(name, value):
    for own, member in vars(value).items():
        if not own.startswith("_") and (callable(member) or isinstance(member, property | classmethod | staticmethod)):
            # Overridden methods have the docstring of what they override, and fields that of the class.
            described = any(own in vars(base) for base in value.__mro__[1:]) or own in vars(value).get(
                "__annotations__", ()
            )
            assert described or member.__doc__, f"{name}.{own}"
