"""Runs keras_bit on a stack of packages, in an environment of its own: `make test-stack STACK=colab`.

A stack is a file NAME.txt in this folder. Its environment stays in .venv/stacks and is used again.

    python tests/stacks/run.py oldest colab newest   # these stacks; then each loads the .keras files of the others
    python tests/stacks/run.py colab -- tests/test_model.py -k size   # only these tests
"""

import json
import re
import shutil
import sys
import time
from pathlib import Path

import environments
import interpreters

HERE = Path(__file__).parent
FOLDER = environments.ROOT / ".venv" / "stacks"
# Test tools that the features need and no stack contains.
TOOLS = ("pytest", "ai-edge-litert", "ml_dtypes")
EXTRA = {"keras_bit", "click", "filelock"}  # with TensorFlow installed, pip may install only these
TESTS = ("tests/stacks/every_feature.py", "tests/test_versions.py", "tests/test_registration.py")
SHOWN = ("tensorflow", "tensorflow-cpu", "jax", "keras", "numpy", "pillow", "safetensors", "huggingface-hub")
OWN_TESTS = {
    "colab": (*TESTS, "tests/test_notebooks.py"),  # which are for people who run them there
    "jax": ("tests/stacks/without_tensorflow.py",),
}


def prepare(name: str, wheel: Path) -> Path:
    """Makes the environment of a stack with test tools and the wheel; returns its Python."""
    requirements = HERE / f"{name}.txt"
    text = requirements.read_text()
    version = re.search(r"# python: (\S+)", text)[1]
    folder = FOLDER / name
    stamp = folder / "stack.txt"
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != text:
        interpreter = interpreters.find(version)
        if interpreter is None:
            print(f"There is no Python {version}: {name} is tried on {sys.version.split()[0]}.")
        python = environments.make_environment(folder, interpreter or sys.executable)
        environments.install(python, "-r", requirements)
        before = environments.installed(python)
        environments.install(python, *TOOLS, *(f"{package}=={number}" for package, number in before.items()))
        stamp.write_text(text)
    if "tensorflow" in environments.installed(python):
        brings = would_install(python, wheel)
        assert brings <= EXTRA, f"{wheel.name} on {name} would install {sorted(brings)}"
    # --no-deps leaves nothing out that is missing; with TensorFlow this was checked above.
    environments.install(python, "--no-deps", "--force-reinstall", wheel)
    return python


def would_install(python: Path, wheel: Path) -> set[str]:
    """Returns the packages that `pip install` of the wheel would install or replace."""
    options = ("--dry-run", "--quiet", "--report", "-", "--disable-pip-version-check")
    report = json.loads(environments.run(python, "-m", "pip", "install", *options, wheel).stdout)
    return {entry["metadata"]["name"].lower().replace("-", "_") for entry in report["install"]}


def try_stack(name: str, wheel: Path, tests: list[str]) -> Path:
    start = time.monotonic()
    python = prepare(name, wheel)
    shown = {package: number for package, number in environments.installed(python).items() if package in SHOWN}
    print(f"{name}: {' '.join(f'{package} {number}' for package, number in shown.items())}", flush=True)
    print(f"prepared in {time.monotonic() - start:.0f} s", flush=True)
    env = None
    options = ["-q", "-p", "no:cacheprovider"]
    if name == "jax":
        env = {"KERAS_BACKEND": "jax"}
        options.append("--noconftest")  # conftest.py needs TensorFlow; only other tests need conftest.py
    done = environments.run(python, "-m", "pytest", *options, *tests, cwd=environments.ROOT, env=env)
    print("\n".join(done.stdout.strip().splitlines()[-4:]))
    print(f"{name}: {time.monotonic() - start:.0f} s in all", flush=True)
    return python


def move(pythons: dict[str, Path]) -> None:
    """Checks that a model that one stack trained and saved gives the same on the others, and trains on."""
    folder = FOLDER / "moved"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, python in pythons.items():
        environments.run(python, HERE / "moving.py", "save", folder / name, cwd=environments.ROOT)
    for name, python in pythons.items():
        files = [folder / other for other in pythons if other != name]
        print(f"opened on {name}:", environments.run(python, HERE / "moving.py", "open", *files).stdout.strip())


def main(arguments: list[str]) -> None:
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    stacks, tests = arguments[:cut], arguments[cut + 1 :]
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(FOLDER / "wheel", ignore_errors=True)
    wheel = environments.build_wheel(FOLDER / "wheel")
    pythons = {name: try_stack(name, wheel, tests or list(OWN_TESTS.get(name, TESTS))) for name in stacks}
    portable = {name: python for name, python in pythons.items() if name not in ("jax", "cpu")}
    if len(portable) > 1 and not tests:
        move(portable)


if __name__ == "__main__":
    main(sys.argv[1:])
