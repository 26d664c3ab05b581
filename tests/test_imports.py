"""Who imports whom: the picture of the house, held by a table. Reads the sources, runs none of them."""

import ast
import importlib
import types
from pathlib import Path

import pytest

import keras_bit

ROOT = Path(__file__).resolve().parent.parent
ANYTHING = None
# Module to the modules of keras_bit that it may import, in functions too. A new module needs a row.
KERAS_BIT = {
    "__init__": ANYTHING,
    "activation_map": {"config", "model"},
    "applications": {"config", "model", "weights"},
    "augmentation": {"graph_decoding", "graph_preprocessing", "graph_resizing"},
    "backbone": {"applications", "config", "model", "weights"},
    "broken_files": {"examples", "graph_decoding", "graph_preprocessing"},
    "charts": {"files", "lettering"},
    "checkpoint": set(),
    "class_map": {"labels"},
    "cli": ANYTHING,
    "config": {"files", "hub"},
    "contact_sheet": {"lettering"},
    "data": {"hyperrule", "pipeline", "preprocessing", "sources"},
    "distribution": {"model"},
    "embedding": {
        "__init__",
        "applications",
        "data",
        "embedding_ray",
        "files",
        "labelled_pictures",
        "picture_lists",
        "preprocessing",
        "streams",
    },
    "embedding_ray": set(),
    "evaluation": {"charts", "class_map", "contact_sheet", "files", "metrics"},
    "examples": {"shuffling", "targets"},
    "exporting": {
        "formats.checked",
        "formats.comparison_pictures",
        "formats.job",
        "formats.placing",
        "formats.process",
        "fusion",
        "labels",
        "model",
        "preprocessing",
    },
    "files": set(),
    "finetuning": {
        "applications",
        "backbone",
        "charts",
        "data",
        "distribution",
        "evaluation",
        "files",
        "hyperrule",
        "labelled_pictures",
        "model",
        "preprocessing",
        "rematerialization",
        "run_directory",
        "saving",
        "splits",
        "training_log",
        "training_state",
        "transfer",
        "weights",
    },
    "formats.__init__": set(),
    "formats.checked": {"files", "formats.job", "formats.placing"},
    "formats.comparison_pictures": {"formats.job", "preprocessing"},
    "formats.huggingface": {"applications", "formats.job", "model", "saving"},
    "formats.job": set(),
    "formats.saved_model": {
        "formats.checked",
        "formats.comparison_pictures",
        "formats.job",
        "formats.output_names",
        "formats.serving_files",
        "formats.signatures",
        "fusion",
        "layers",
        "model",
    },
    "formats.serving_files": {"files"},
    "formats.signatures": {"broken_files", "examples", "graph_preprocessing"},
    "formats.output_names": {"formats.job", "model"},
    "formats.tflite": {"formats.job", "formats.output_names", "formats.tflite_metadata", "fusion"},
    "formats.tflite_metadata": {"preprocessing"},
    "formats.keras_exporters": {"formats.job", "formats.output_names", "fusion"},
    "formats.onnx": {"formats.job", "formats.keras_exporters"},
    "formats.openvino": {"formats.job", "formats.keras_exporters", "formats.output_names"},
    "formats.placing": {"files", "formats.job"},
    "formats.process": {"formats.checked", "formats.job", "preprocessing"},
    "for_tensorflow": set(),
    "fusion": {"layers", "normalization"},
    "graph_decoding": {"graph_resizing"},
    "graph_preprocessing": {"graph_decoding", "graph_resizing"},
    "graph_resizing": set(),
    "heat_map": {"lettering", "preprocessing"},
    "hub": set(),
    "hyperrule": set(),
    "labelled_pictures": {"data", "sources"},
    "labels": set(),
    "layers": {"for_tensorflow", "normalization"},
    "lettering": set(),
    "metrics": set(),
    "model": {"config", "layers", "normalization"},
    "normalization": {"for_tensorflow"},
    "picture_lists": {"sources"},
    "pictures": set(),
    "pipeline": {"augmentation", "broken_files", "examples", "graph_preprocessing", "shuffling"},
    "preprocessing": {"files", "graph_preprocessing", "hub", "pictures"},
    "rematerialization": {"model"},
    "run_directory": {"evaluation", "files"},
    "saving": {"checkpoint", "config", "layers", "model", "preprocessing"},
    "serving_client": set(),
    "shuffling": set(),
    "sources": {"examples", "streams", "targets"},
    "splits": {"sources", "streams", "targets"},
    "streams": {"examples", "shuffling", "targets"},
    "targets": set(),
    "tensors": {"checkpoint"},
    "training_log": {"files", "hyperrule", "training_state"},
    "training_state": {"files"},
    "transfer": {"distribution", "hyperrule", "model"},
    "weights": {"tensors", "hub", "checkpoint", "config"},
}
# Module to what it may import of torch and transformers.
CONVERT = {
    "__init__": set(),
    "__main__": set(),
    "demo": set(),
    "goldens": set(),
    "labels": set(),
    "parity": set(),
    "photographs": set(),
    "reference": {"torch", "transformers"},
    "run_saved_model": set(),
}
# Module to the modules of benchmarks that it may import, and to the peers that it may import, in functions alone.
# `__main__` imports the parts through their rows in `__main__.PARTS`.
BENCHMARKS = {
    "__init__": (set(), set()),
    "__main__": ({"chart", "report"}, set()),
    "checkpoints": (set(), set()),
    "chart": ({"report"}, set()),
    "engines": (set(), {"ai_edge_litert", "onnxruntime", "openvino", "timm", "torch", "transformers"}),
    "finetuning": ({"report"}, {"torch", "transformers"}),
    "flops": (set(), set()),
    "gpu": ({"checkpoints", "engines", "flops", "processes", "report"}, {"torch"}),
    "growth": ({"engines", "flops", "inference", "processes", "report"}, set()),
    "inference": ({"checkpoints", "engines", "flops", "processes", "report"}, set()),
    "loading": ({"checkpoints", "processes", "report"}, {"torch", "transformers"}),
    "preprocessing": ({"processes", "report"}, {"torch", "torchvision", "transformers", "timm"}),
    "processes": (set(), set()),
    "report": (set(), set()),
    "tflite": ({"report"}, {"ai_edge_litert"}),
    "training": ({"checkpoints", "flops", "processes", "report"}, {"torch", "transformers"}),
}
PEERS = {"torch", "torchvision", "transformers", "timm", "onnxruntime", "openvino", "ai_edge_litert"}
FRAMEWORKS = {"tensorflow", "torch", "jax"}
# These are TensorFlow from the first line to the last, and are imported by functions only.
TENSORFLOW = {
    "augmentation",
    "broken_files",
    "examples",
    "formats.signatures",
    "graph_decoding",
    "graph_preprocessing",
    "graph_resizing",
    "pipeline",
    "shuffling",
    "sources",
    "streams",
}


def modules(package):
    """Dotted name inside the package to file; the commands have a rule of their own."""
    paths = sorted(path for path in (ROOT / package).rglob("*.py") if path.parent.name != "commands")
    return {".".join(path.relative_to(ROOT / package).with_suffix("").parts): path for path in paths}


def imported(path, whole=True):
    """The dotted names that a file imports, `from a import b` as `a.b`; not `whole`: only those at module level.

    Module level is everything that runs on import: `if` and `try` and the bodies of classes too, functions not.
    """
    names = set()

    def visit(node):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; name the package"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif not whole and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
    return names


def packages(path, whole=True):
    return {name.partition(".")[0] for name in imported(path, whole)}


def edges(path, package, whole=True):
    """The modules of `package` that the file imports; what is no module of it is a name in its `__init__`."""
    inside = {name.partition(".")[2] for name in imported(path, whole) if name.split(".")[0] == package}
    known = modules(package)
    folders = {name.rpartition(".")[0] for name in known} - {""}

    def module_of(name):
        depth = 2 if name.split(".")[0] in folders else 1
        found = ".".join(name.split(".")[:depth])
        return found if found in known else "__init__"

    return {module_of(name) for name in inside}


def table_of(package):
    return [pytest.param(name, path, id=f"{package}.{name}") for name, path in modules(package).items()]


def every_source():
    folders = ("keras_bit", "convert", "benchmarks")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@pytest.mark.parametrize(
    ("package", "table"), [("keras_bit", KERAS_BIT), ("convert", CONVERT), ("benchmarks", BENCHMARKS)]
)
def test_every_module_has_a_row_and_no_row_is_without_its_module(package, table):
    assert sorted(modules(package)) == sorted(table), "a new module: add it, and what it may import, to the table"


@pytest.mark.parametrize(("name", "path"), table_of("keras_bit"))
def test_a_module_of_keras_bit_imports_only_what_the_picture_allows(name, path):
    allowed = KERAS_BIT[name]
    if allowed is not ANYTHING:
        assert edges(path, "keras_bit") - allowed == set()


def test_the_import_graph_has_no_circle():
    left = {name: edges(path, "keras_bit") - {name} for name, path in modules("keras_bit").items()}
    left = {name: found for name, found in left.items() if KERAS_BIT[name] is not ANYTHING}
    while left:
        ready = {name for name, found in left.items() if not found & set(left)}
        assert ready, f"these import each other: {left}"
        left = {name: found for name, found in left.items() if name not in ready}


@pytest.mark.parametrize(("name", "path"), table_of("keras_bit"))
def test_what_is_installed_imports_nothing_of_the_repository_around_it(name, path):
    assert packages(path) & {"convert", "tests", "benchmarks"} == set()


@pytest.mark.parametrize(("name", "path"), table_of("keras_bit"))
def test_keras_bit_imports_no_framework_before_it_is_used(name, path):
    if name in TENSORFLOW:
        assert packages(path, whole=False) & FRAMEWORKS == {"tensorflow"}
    else:
        assert packages(path, whole=False) & FRAMEWORKS == set()
        assert edges(path, "keras_bit", whole=False) & TENSORFLOW == set()


@pytest.mark.parametrize("path", sorted((ROOT / "keras_bit" / "commands").glob("*.py")), ids=lambda path: path.stem)
def test_a_command_imports_no_other_and_the_library_only_when_it_runs(path):
    shared = {"arguments", "terminal"}
    allowed = set() if path.stem in shared else shared
    ours = {name for name in imported(path) if name.startswith("keras_bit.commands.")}
    assert {name.split(".")[2] for name in ours} - allowed == set()
    at_once = {name for name in imported(path, whole=False) if name.startswith("keras_bit")}
    assert at_once == ours
    assert packages(path, whole=False) & (FRAMEWORKS | {"keras", "numpy"}) == set()
    if path.stem in shared:
        assert {name for name in imported(path) if name.startswith("keras_bit")} == set()


@pytest.mark.parametrize("name", ["layers", "model"])
def test_layers_and_model_know_no_backend(name):
    assert packages(ROOT / "keras_bit" / f"{name}.py") & FRAMEWORKS == set()


@pytest.mark.parametrize(("name", "path"), table_of("convert"))
def test_only_the_reference_imports_torch_and_transformers(name, path):
    assert packages(path) & {"torch", "transformers"} == CONVERT[name]
    assert packages(path, whole=False) & {"torch", "transformers"} == set()  # convert starts without them


@pytest.mark.parametrize(("name", "path"), table_of("benchmarks"))
def test_a_benchmark_imports_its_own_peers_inside_functions_alone(name, path):
    modules_allowed, peers_allowed = BENCHMARKS[name]
    assert edges(path, "benchmarks") - modules_allowed == set()
    assert packages(path) & PEERS == peers_allowed
    assert packages(path, whole=False) & (PEERS | FRAMEWORKS) == set()
    assert {part for part in imported(path) if part.startswith("convert")} <= {"convert.photographs"}


@pytest.mark.parametrize("path", every_source())
def test_only_a_benchmark_imports_timm(path):
    assert "timm" not in packages(path) or path.parent.name == "benchmarks"


def test_all_is_what_the_package_imports_for_its_users():
    names = imported(ROOT / "keras_bit" / "__init__.py")
    assert sorted(keras_bit.__all__) == sorted(name.rpartition(".")[2] for name in names)
    assert sorted(keras_bit.__all__) == sorted(set(keras_bit.__all__))


@pytest.mark.parametrize("name", keras_bit.__all__)
def test_every_public_name_is_importable_and_says_what_it_is(name):
    public = getattr(importlib.import_module("keras_bit"), name)
    assert public.__doc__
    assert isinstance(public, types.ModuleType) or public.__name__ == name


def test_the_checks_see_an_import_wherever_it_hides(tmp_path):
    source = "import a.b\nif True:\n    from c import d\ndef f():\n    import torch\nclass C:\n    import e\n"
    (tmp_path / "module.py").write_text(source)
    assert imported(tmp_path / "module.py") == {"a.b", "c.d", "torch", "e"}
    assert packages(tmp_path / "module.py", whole=False) == {"a", "c", "e"}
