"""onnxruntime-web, which runs the model in the browser: one version, its files and their hashes.

The page loads a script and a binary, which differ with WebGPU, and uses them only if their hashes are those of this
table, wherever they come from.
"""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
ADDRESS = f"https://cdn.jsdelivr.net/npm/{PACKAGE}@{VERSION}/dist/"
COPIED = "runtime"  # the directory in the page's folder
NAMES = re.compile(r"ort[.\w-]*\.(mjs|wasm)")  # of its files


@dataclasses.dataclass(frozen=True)
class RuntimeFile:
    """A file in the package's `dist`: its name, its size in bytes, and its hash as browsers compare it."""

    name: str
    bytes: int
    integrity: str


@dataclasses.dataclass(frozen=True)
class Engine:
    """The files for one of the browser's ways to compute."""

    script: RuntimeFile
    binary: RuntimeFile


ENGINES = {
    "wasm": Engine(
        RuntimeFile(
            "ort.wasm.bundle.min.mjs",
            73_054,
            "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
        ),
        RuntimeFile(
            "ort-wasm-simd-threaded.wasm",
            14_239_897,
            "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
        ),
    ),
    "webgpu": Engine(
        RuntimeFile(
            "ort.webgpu.bundle.min.mjs",
            117_732,
            "sha384-1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f",
        ),
        RuntimeFile(
            "ort-wasm-simd-threaded.asyncify.wasm",
            26_781_914,
            "sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR",
        ),
    ),
}
FILES = tuple(file for engine in ENGINES.values() for file in (engine.script, engine.binary))


def check_package(package: Path) -> None:
    """Refuses a directory that is not the npm package of this version.

    Raises:
        FileNotFoundError: it does not exist, or lacks a file.
        ValueError: it is another package or version, or one of its files has another hash.
    """
    advice = f"`npm install {PACKAGE}@{VERSION}` makes node_modules/{PACKAGE}; name that directory."
    try:
        described = json.loads((package / "package.json").read_text(encoding="utf-8"))
        found = f"{described['name']} {described['version']}"
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"`runtime` {str(package)!r} is not an npm package. {advice}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`runtime` {str(package)!r} has a damaged package.json. {advice}") from error
    if found != f"{PACKAGE} {VERSION}":
        raise ValueError(f"`runtime` must be {PACKAGE} {VERSION}, got {found} in {str(package)!r}. {advice}")
    for file in FILES:
        _check_file(package / "dist" / file.name, file)


def copy(package: Path, folder: Path) -> None:
    """Copies the files that the page loads to `folder`, which does not exist yet."""
    folder.mkdir()
    for file in FILES:
        copied = Path(shutil.copyfile(package / "dist" / file.name, folder / file.name))
        _check_file(copied, file)


def is_copy(folder: Path) -> bool:
    """Returns whether a directory holds nothing but files with the names of `onnxruntime-web`, as of any version."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(NAMES.fullmatch(file.name) and file.is_file() for file in folder.iterdir())


def settings(address: str) -> dict[str, Any]:
    """Returns the page's settings: the places of the files, and the table."""
    engines = {name: dataclasses.asdict(engine) for name, engine in ENGINES.items()}
    return {"name": PACKAGE, "version": VERSION, "address": address, "engines": engines}


def _check_file(path: Path, file: RuntimeFile) -> None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"`runtime` lacks the file {str(path)!r}. Install {PACKAGE} {VERSION} again.") from None
    digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
    if f"sha384-{digest}" != file.integrity:
        raise ValueError(
            f"`runtime` has a changed {str(path)!r}: its SHA-384 is {digest}, not that of {PACKAGE} {VERSION}. Install "
            "the package again."
        )
