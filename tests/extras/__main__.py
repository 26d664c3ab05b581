"""Tries every extra alone, as a user installs it: `make test-extra EXTRA=openvino`, or all extras without a name.

Each extra gets an environment with the built wheel, that extra, and nothing else. There its feature runs to the end
(`features.py`), in a folder from which no checkout can be imported. Three names are not extras: "none" is the wheel
without an extra, "readme" also runs the code of the README, and "dist" is the source distribution, which has to build
the same wheel.

The dependencies, which all environments share, are installed once. An environment begins as a copy of them by hard
links, which takes seconds instead of a minute. pip then installs the wheel with its extra, and changes the version of
a dependency if the extra needs another one. Each line names the packages that were added to the dependencies or have
another version.
"""

import argparse
import concurrent.futures
import os
import shutil
import sys
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path

from stacks import environments

CHECKPOINT = environments.ROOT / "tests" / "checkpoints" / "bit-tiny-cifar10"
WITHOUT_EXTRA = ("dist", "none", "readme")
# The version of torch in the tests; otherwise pip would choose another one, with gigabytes for GPUs.
PINNED = {"torch": ("torch==2.13.0",)}
# These extras install tools for a checkout, which `make test`, `make test-all` and `make docs` use.
NOT_HERE = ("dev", "docs", "browser")
# Files of the checkout that a feature needs.
COPIED = {
    "serving": ("tests/loopback_serving.py", "benchmarks"),
    "all": ("tests/loopback_serving.py", "benchmarks"),
    "demo": ("convert",),
    "reference": ("convert",),
    "readme": ("tests/loopback.py", "tests/loopback_hub.py", "tests/page_code.py", "README.md"),
}
AT_ONCE = 2


def main(arguments: list[str]) -> int:
    names = [*WITHOUT_EXTRA, *(name for name in _extras() if name not in NOT_HERE)]
    parser = argparse.ArgumentParser("make test-extra", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="EXTRA", help=f"one or more of {', '.join(names)} (default: all)")
    chosen = parser.parse_args(arguments).names or names
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(names)}")

    failed = []
    with tempfile.TemporaryDirectory(prefix="keras-bit-extras-") as folder:
        trial = Trial(Path(folder))
        print(f"{trial.wheel.name} and the environment of its dependencies, {trial.seconds:.0f} s", flush=True)
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            waiting = {pool.submit(trial.run, name): name for name in chosen}
            for done in concurrent.futures.as_completed(waiting):
                name = waiting[done]
                try:
                    print(f"{name:<20} passed  {done.result()}", flush=True)
                except Exception as error:
                    failed.append(name)
                    print(f"{name:<20} FAILED  {type(error).__name__}: {error}", flush=True)
    print(f"{len(chosen) - len(failed)} passed, {len(failed)} failed")
    return bool(failed)


class Trial:
    """Builds the wheel and an environment with only its dependencies; runs each extra in a copy of that."""

    def __init__(self, folder: Path) -> None:
        started = time.perf_counter()
        self._folder = folder
        self.wheel = environments.build_wheel(folder / "wheel")
        python = environments.make_environment(folder / "dependencies")
        environments.install(python, self.wheel)
        # Each copy installs it again, with its own `keras-bit`.
        environments.run(python, "-m", "pip", "uninstall", "--yes", "--quiet", "keras_bit")
        self._python = python
        self._dependencies = environments.installed(python)
        self.seconds = time.perf_counter() - started

    def run(self, name: str) -> str:
        """Runs the feature `name`; returns how long it took and which packages were installed."""
        started = time.perf_counter()
        folder = self._folder / name
        brought = _dist(folder, self.wheel) if name == "dist" else self._feature(name, folder)
        shutil.rmtree(folder)  # some environments take gigabytes
        return f"{time.perf_counter() - started:4.0f} s  {brought}"

    def _feature(self, name: str, folder: Path) -> str:
        environment, work = folder / "environment", folder / "work"
        shutil.copytree(self._folder / "dependencies", environment, symlinks=True, copy_function=os.link)
        python = environment / self._python.relative_to(self._folder / "dependencies")
        wanted = f"{self.wheel}[{name}]" if name not in WITHOUT_EXTRA else str(self.wheel)
        environments.install(python, wanted, *PINNED.get(name, ()))
        environments.run(python, "-m", "pip", "check")
        found = environments.installed(python)

        shutil.copytree(CHECKPOINT, work / "bit")
        source = Path(__file__).with_name("features.py")
        for file in (source, *(environments.ROOT / copied for copied in COPIED.get(name, ()))):
            copy = shutil.copytree if file.is_dir() else shutil.copy
            copy(file, work / file.name)
        # Caches and settings of the user stay out, too.
        own = {"HOME": str(work), "USERPROFILE": str(work), "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        environments.run(python, source.name, name, cwd=work, env=own)
        more = sorted(found.items() - self._dependencies.items())
        return ", ".join(f"{package} {version}" for package, version in more if package != "keras-bit") or "-"


def _dist(folder: Path, wheel: Path) -> str:
    """Builds the source distribution and from it a wheel, which must equal `wheel`; both must be valid for PyPI."""
    tools = environments.make_environment(folder / "tools")
    environments.install(tools, "build", "twine")
    tree = environments.copy_tree(folder / "tree")
    environments.run(
        tools, "-m", "build", "--outdir", folder / "dist", tree
    )  # builds the wheel from the source distribution
    (source,), (built,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    environments.run(tools, "-m", "twine", "check", "--strict", source, built)
    if _contents(built) != _contents(wheel):
        different = sorted({name for name, _ in _contents(built).items() ^ _contents(wheel).items()})
        raise RuntimeError(f"{source.name} builds another wheel than the tree: {different}")
    return f"{source.name} builds {built.name}"


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def _extras() -> list[str]:
    project = tomllib.loads((environments.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["optional-dependencies"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
