"""Tests the messages if an optional package is missing, lacks a package itself, or does not fit the others.

`make test-extra` tests that each extra installs what its feature needs, in environments with nothing else.
"""

import ast
import functools
import importlib
import importlib.util
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from PIL import Image

import keras_bit
from conftest import ROOT, absent
from extras.features import ALL, FEATURES
from keras_bit import packages
from keras_bit.examining import label_errors, probing
from keras_bit.examining.features import Features
from store import TRAINED, smallest

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def of(module, name):
    return getattr(importlib.import_module(module), name)


@functools.cache
def model():
    return smallest()


def own_model():
    """Builds a BiT with a head of the user's own, which Keras' exporters write."""
    return keras.Model(model().input, model().output * 2)


def embed(folder, engine):
    Image.new("RGB", (8, 8)).save(folder / "gray.png")
    keras_bit.embedding.embed(folder, folder / "out", weights=str(TRAINED), engine=engine)


def probe():
    rows = np.eye(4, dtype=np.float32)
    data = Features(rows, np.array([0, 0, 1, 1], np.int32), ("a", "b", "c", "d"))
    probing.probe(data, data)


def examined():
    labels = np.arange(20, dtype=np.int32) % 2
    label_errors.label_quality(np.eye(20, dtype=np.float32), labels, np.arange(20))


class Use(NamedTuple):
    """A place where an extra's packages are imported."""

    extra: str
    packages: tuple[str, ...]
    call: Callable[[Path], object]  # with an empty folder
    before: tuple[str, ...] = ()  # packages of another extra, which are looked for first


USES = [
    Use("openvino", ("openvino", "onnx"), lambda folder: keras_bit.export(model(), folder / "bit.xml", "openvino")),
    Use(
        "own-models",
        ("tf2onnx",),
        lambda folder: keras_bit.export(own_model(), folder / "bit.onnx", "onnx"),
        before=("onnx", "onnxruntime"),
    ),
    Use(
        "onnx",
        ("onnx", "onnxruntime"),
        lambda folder: keras_bit.export(model(), folder / "bit.onnx", "onnx", batch_size=1, image_size=32),
    ),
    Use(
        "tflite",
        ("ai_edge_litert",),
        lambda folder: keras_bit.export(model(), folder / "bit.tflite", "tflite", image_size=32),
    ),
    Use("examine", ("sklearn",), lambda folder: probe()),
    Use("audit", ("cleanlab",), lambda folder: examined()),
    Use("parquet", ("pyarrow",), lambda folder: embed(folder, "local")),
    Use("ray", ("ray", "pyarrow"), lambda folder: embed(folder, "ray")),
    Use(
        "plots",
        ("matplotlib",),
        lambda folder: of("keras_bit.drawing.charts", "curves")([{"step": 1, "loss": 1.0}], folder / "curves.png"),
    ),
    Use("tensorboard", ("tensorboard",), lambda folder: of("keras_bit.training.tracking", "check")(["tensorboard"])),
    Use("wandb", ("wandb",), lambda folder: of("keras_bit.training.tracking", "check")(["wandb"])),
    Use("mlflow", ("mlflow",), lambda folder: of("keras_bit.training.tracking", "check")(["mlflow"])),
    Use(
        "serving",
        ("tensorflow_serving", "grpc"),
        lambda folder: of("keras_bit.exporters.serving_client", "connect")("grpc://127.0.0.1:1", "bit"),
    ),
    Use(
        "torch",
        ("torch",),
        lambda folder: list(of("keras_bit.checkpoints.readers", "open_file")(folder / "pytorch_model.bin")),
    ),
    Use("reference", ("torch", "transformers"), lambda folder: of("convert.reference", "_import")()),
]
IMPORTED = [pytest.param(use, package, id=f"{use.extra}-{package}") for use in USES for package in use.packages]
# Packages whose own import is not at the place where they are used: the caller's data set has imported it, or a file of
# the package is looked for alone.
ELSEWHERE = {"datasets", "tensorflow_datasets", "skimage"}
# Keras' backends are installed where they are used.
BACKENDS = {"jax", "tensorflow", "torch"}
# By `import` name; what a dependency brings stands with it.
DEPENDENCIES = {
    *("tensorflow", "flatbuffers", "google", "grpc", "h5py", "ml_dtypes"),
    *("keras", "rich", "numpy", "PIL", "safetensors", "huggingface_hub", "tqdm", "click", "filelock"),
}


def needs_the_others(use, package):
    others = (*use.before, *use.packages)
    missing = [name for name in others if name != package and importlib.util.find_spec(name) is None]
    if missing:
        extras = "onnx,own-models" if use.before else use.extra
        absent(f"{' and '.join(missing)} not installed: pip install -e '.[{extras}]'")


def without(monkeypatch, package):
    """Makes the next `import` of a package start from the beginning."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(("use", "package"), IMPORTED)
def test_a_package_that_is_missing_is_named_with_its_command(use, package, tmp_path, monkeypatch):
    needs_the_others(use, package)
    without(monkeypatch, package)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf" {package}, .*keras_bit\[{use.extra}\]"):
        use.call(tmp_path)


@pytest.mark.parametrize(("use", "package"), IMPORTED)
def test_a_package_that_lacks_another_says_what_to_install(use, package, tmp_path, monkeypatch):
    """The package is installed: what is looked for before anything is computed finds it."""
    needs_the_others(use, package)
    (tmp_path / "site" / package).mkdir(parents=True)
    (tmp_path / "site" / package / "__init__.py").write_text("import no_such_package.inside")
    (tmp_path / "work").mkdir()
    without(monkeypatch, package)
    monkeypatch.syspath_prepend(tmp_path / "site")
    words = rf" no_such_package, .*keras_bit\[{use.extra}\]"
    with pytest.raises(ImportError, match=words):
        use.call(tmp_path / "work")


@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_missing_package_of_a_converter_is_not_a_fault_of_the_model(format, wrapped, tmp_path, monkeypatch):
    """Keras' exporters import what neither of the two brings."""
    for package in (format, *{"onnx": ("onnxruntime", "tf2onnx"), "openvino": ("onnx", "scipy")}[format]):
        if importlib.util.find_spec(package) is None:
            absent(f"{package} is not installed: pip install -e '.[{format},own-models]'")

    def export(self, *arguments, **options):
        missing = ModuleNotFoundError("No module named 'no_such_package'", name="no_such_package")
        if wrapped:
            raise RuntimeError("the conversion has failed") from missing
        raise missing

    monkeypatch.setattr(keras.Model, "export", export)
    message = rf"`format` '{format}', for .*, needs the package no_such_package, .*\[own-models\]'"
    with pytest.raises(ImportError, match=message):
        keras_bit.export(own_model(), tmp_path / f"bit{'.xml' * (format == 'openvino')}", format)
    assert list(tmp_path.iterdir()) == []


def test_scipy_is_required_only_where_keras_exporter_imports_it(tmp_path, monkeypatch):
    for package in ("onnx", "openvino"):
        if importlib.util.find_spec(package) is None:
            absent(f"{package} is not installed: pip install -e '.[openvino]'")
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r" scipy, .*keras_bit\[own-models\]"):
        keras_bit.export(own_model(), tmp_path / "own.xml", "openvino")
    keras_bit.export(model(), tmp_path / "bit.xml", "openvino")


def missing(name="gone.inside"):
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def raised_while(error, other):
    """Raises `error` while `other` is handled, without `from`, so that `other` is the context and not the cause."""
    error.__context__ = other
    return error


def caused(error, other):
    error.__cause__ = other
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (missing(), r"^This needs the package gone, which is not installed\. Install .*'keras_bit\[some\]'"),
        (caused(RuntimeError("failed"), caused(OSError("failed"), missing())), "needs the package gone"),
        (raised_while(ImportError("Please install it."), missing()), "needs the package gone"),
        (
            ImportError("libGL.so.1: cannot open shared object file"),
            r"^This needs a package that is installed but cannot be imported: libGL.so.1: .* file\. .* versions .*some",
        ),
        (
            missing("numpy.no_such_module"),
            "cannot be imported: No module named 'numpy.no_such_module'. To get versions",
        ),
    ],
)
def test_a_failed_import_becomes_what_to_install(error, words):
    with pytest.raises(packages.MissingPackageError, match=words) as caught, packages.needing("some", "This"):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        raised_while(ValueError("the model has a layer that is not known"), missing()),  # done without, before
        MemoryError("no room"),
        missing("keras_bit.no_such_module"),
        packages.MissingPackageError("This needs pyarrow."),
        caused(ValueError("it says so already"), packages.MissingPackageError("This needs pyarrow.")),
    ],
)
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error), match=f"^{re.escape(str(error))}$") as caught, packages.needing("some", "This"):
        raise error
    assert caught.value is error


def test_every_extra_has_a_feature_that_make_test_extra_runs():
    assert FEATURES.keys() == (EXTRAS.keys() | {"none", "readme"}) - {"dev", "docs", "browser"}


def test_the_extra_all_leaves_out_torch_services_and_checkout_tools():
    brought = [name for line in EXTRAS["all"] for name in re.fullmatch(r"keras_bit\[(.+)\]", line)[1].split(",")]
    left_out = {"all", "torch", "wandb", "mlflow", "reference", "demo", "dev", "docs", "browser"}
    assert sorted(brought) == sorted(ALL) == sorted(EXTRAS.keys() - left_out)


def test_every_optional_import_is_in_these_tests():
    found = set()
    for path in (ROOT / "keras_bit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    optional = found - sys.stdlib_module_names - DEPENDENCIES - {"keras_bit"}
    assert optional - BACKENDS <= {package for use in USES for package in use.packages} | ELSEWHERE
    assert {use.extra for use in USES} <= EXTRAS.keys()
