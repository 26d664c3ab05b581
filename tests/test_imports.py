"""Tests which modules import which, by tables. It reads the sources and runs none of them."""

import ast
import importlib
import types
from pathlib import Path

import pytest

import keras_bit
from keras_bit import registration
from keras_bit.exporters import registry

ROOT = Path(__file__).resolve().parent.parent
ANYTHING = None
# Room to the rooms whose modules it may import, in functions too. A file beside the rooms is a room of one module. Data
# flows one way: a room stands below all that it may import.
KERAS_BIT = {
    "__init__": ANYTHING,
    # By their names, after Keras.
    "registration": {"classifier", "network", "recipes", "transformers_shape"},
    "counts": set(),
    "versions": set(),
    "packages": set(),
    "wording": set(),
    "files": set(),
    "labels": {"wording"},
    "recipes": {"counts"},
    "hub": {"files"},
    "network": {"files", "hub", "versions"},
    "images": {"counts", "files", "hub", "packages", "versions", "wording"},
    "layers": {"network"},
    "checkpoints": {"counts", "files", "hub", "images", "network", "packages", "versions", "wording"},
    "applications": {"checkpoints", "hub", "network"},
    "transformers_shape": {"checkpoints", "hub", "network"},
    "data": {"counts", "files", "images", "packages", "recipes", "wording"},
    "classifier": {"counts", "data", "images", "labels", "network", "versions"},
    "drawing": {"files", "images", "packages"},
    "evaluation": {"counts", "drawing", "files", "images", "labels", "network", "wording"},
    "training": {
        "applications",
        "checkpoints",
        "counts",
        "data",
        "drawing",
        "evaluation",
        "files",
        "hub",
        "images",
        "network",
        "packages",
        "recipes",
        "wording",
    },
    "distribution": {"training"},
    "exporters": {
        "applications",
        "checkpoints",
        "classifier",
        "counts",
        "data",
        "drawing",
        "evaluation",
        "files",
        "images",
        "labels",
        "network",
        "packages",
        "wording",
    },
    "embedding": {"applications", "data", "files", "hub", "images", "packages", "wording"},
    "examining": {"counts", "data", "drawing", "embedding", "files", "images", "packages"},
    "cli": ANYTHING,
}
# Of these edges, those that only some modules of a room have.
ONLY = {("exporters", room): {"benchmark_images", "benchmark_report"} for room in ("data", "drawing", "evaluation")}
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
    "__main__": ({"chart", "markdown", "report"}, set()),
    "arguments": (set(), set()),
    "audit": ({"arguments", "processes", "report"}, set()),
    "checkpoints": (set(), set()),
    "chart": ({"report"}, set()),
    "distillation": ({"arguments", "report"}, set()),
    "engines": (set(), {"timm", "torch", "transformers"}),
    "finetuning": ({"arguments", "report"}, {"torch", "transformers"}),
    "flops": (set(), set()),
    "gpu": ({"checkpoints", "engines", "flops", "processes", "report"}, {"torch"}),
    "growth": ({"engines", "flops", "inference", "processes", "report"}, set()),
    "inference": ({"checkpoints", "engines", "flops", "processes", "report"}, set()),
    "loading": ({"checkpoints", "processes", "report"}, {"torch", "transformers"}),
    "preprocessing": ({"processes", "report"}, {"torch", "torchvision", "transformers", "timm"}),
    "markdown": ({"report"}, set()),
    "prediction_service": (set(), set()),
    "processors": ({"checkpoints", "inference", "processes", "report"}, set()),
    "processes": (set(), set()),
    "recipe_runs": (set(), set()),
    "recipes": ({"arguments", "recipe_runs", "report"}, set()),
    "report": (set(), set()),
    "serving": ({"arguments", "prediction_service", "processes", "report", "serving_images"}, set()),
    "serving_images": (set(), set()),
    "tflite": ({"arguments", "report"}, set()),
    "training": ({"checkpoints", "flops", "processes", "report"}, {"torch", "transformers"}),
}
PEERS = {"torch", "torchvision", "transformers", "timm", "onnxruntime", "openvino", "ai_edge_litert"}
FRAMEWORKS = {"tensorflow", "torch", "jax"}
# TensorFlow is imported in these rooms, and by these modules of others; everything else runs on every backend.
TENSORFLOW_ROOMS = {"data", "evaluation", "exporters", "training"}
TENSORFLOW_MODULES = {
    "checkpoints.filling",  # which lets TensorFlow take over memory
    "checkpoints.tensorflow_files",  # the variables of a SavedModel
    "images.graph_containers",
    "images.graph_decoding",
    "images.graph_faults",
    "images.graph_orientation",
    "images.graph_preprocessing",
    "images.graph_resizing",
    "network.tracing",  # how a graph of TensorFlow is traced and called
}
# These are TensorFlow from the first line to the last, and are imported by functions only.
TENSORFLOW = {
    "data.builders",
    "data.graph_augmentation",
    "data.graph_engine",
    "data.host_engine",
    "data.mixing",
    "data.pipeline",
    "data.records",
    "data.source",
    "data.streams",
    "exporters.signatures",
    "images.graph_containers",
    "images.graph_decoding",
    "images.graph_faults",
    "images.graph_orientation",
    "images.graph_preprocessing",
    "images.graph_resizing",
}


def modules(package):
    """Maps the dotted name of each module inside the package to its file."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT / package).with_suffix("").parts): path for path in paths}


def imported(path, whole=True, types=True):
    """Returns the dotted names that a file imports, `from a import b` as `a.b`.

    Without `whole`, only those at module level.

    Not `types`: without what only type checkers see.

    Module level is everything that runs on import: `if`, `try` and the bodies of classes too, but neither functions nor
    what only type checkers see.
    """
    names = set()

    def is_for_types(node):
        return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"

    def runs_later(node):
        return is_for_types(node) or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)

    def visit(node):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; name the package"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif (not whole and runs_later(node)) or (not types and is_for_types(node)):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
    return names


def packages(path, whole=True):
    return {name.partition(".")[0] for name in imported(path, whole)}


def edges(path, package, whole=True, types=True):
    """Returns the modules of `package` that the file imports; `__init__` stands for a name that is not a module."""
    inside = {name.partition(".")[2] for name in imported(path, whole, types) if name.split(".")[0] == package}
    known = modules(package)

    def module_of(name):
        parts = name.split(".")
        found = [".".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
        inits = [f"{one}.__init__" for one in found]
        return next((one for one in (*found, *inits) if one in known), "__init__")

    return {module_of(name) for name in inside}


def room_of(module):
    return module.partition(".")[0]


def table_of(package):
    return [pytest.param(name, path, id=f"{package}.{name}") for name, path in modules(package).items()]


def every_source():
    folders = ("keras_bit", "convert", "benchmarks")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@pytest.mark.parametrize(("package", "table"), [("convert", CONVERT), ("benchmarks", BENCHMARKS)])
def test_every_module_has_a_row_and_no_row_is_without_its_module(package, table):
    assert sorted(modules(package)) == sorted(table), "a new module: add it, and what it may import, to the table"


def test_every_room_has_a_row_and_no_row_is_without_its_room():
    assert {room_of(name) for name in modules("keras_bit")} == set(KERAS_BIT), "a new room: add it to the table"


@pytest.mark.parametrize(("name", "path"), table_of("keras_bit"))
def test_a_module_imports_only_the_rooms_below_its_own(name, path):
    allowed = KERAS_BIT[room_of(name)]
    if allowed is not ANYTHING:
        assert {room_of(edge) for edge in edges(path, "keras_bit")} - allowed - {room_of(name)} == set()


@pytest.mark.parametrize(("room", "below"), ONLY)
def test_some_edges_are_of_few_modules(room, below):
    files = {name: path for name, path in modules("keras_bit").items() if room_of(name) == room}
    importing = {name for name, path in files.items() if below in map(room_of, edges(path, "keras_bit"))}
    assert importing <= {f"{room}.{name}" for name in ONLY[room, below]}


def test_the_table_allows_only_edges_that_exist():
    found = {room: set() for room in KERAS_BIT}
    for name, path in modules("keras_bit").items():
        found[room_of(name)] |= {room_of(edge) for edge in edges(path, "keras_bit")} - {room_of(name)}
    found["registration"] |= {room_of(name.removeprefix("keras_bit.")) for name in registration.MODULES}
    assert {room: found[room] for room, allowed in KERAS_BIT.items() if allowed is not ANYTHING} == {
        room: allowed for room, allowed in KERAS_BIT.items() if allowed is not ANYTHING
    }


@pytest.mark.parametrize(("name", "path"), table_of("keras_bit"))
def test_only_the_modules_with_graphs_use_tensorflow(name, path):
    if "tensorflow" in packages(path):
        assert room_of(name) in TENSORFLOW_ROOMS or name in TENSORFLOW_MODULES


def test_no_room_stands_above_one_that_it_imports():
    left = {room: allowed for room, allowed in KERAS_BIT.items() if allowed is not ANYTHING}
    while left:
        ready = {room for room, allowed in left.items() if not allowed & set(left)}
        assert ready, f"these import each other: {left}"
        left = {room: allowed for room, allowed in left.items() if room not in ready}


def test_the_import_graph_has_no_circle():
    left = {name: edges(path, "keras_bit", types=False) - {name} for name, path in modules("keras_bit").items()}
    del left["__init__"]  # imports the others when they are used
    left["exporters.registry"] |= {f"exporters.{place.partition(':')[0]}" for place in registry.FORMATS.values()}
    while left:
        ready = {name for name, found in left.items() if not found & set(left)}
        assert ready, f"these import each other: {left}"
        left = {name: found for name, found in left.items() if name not in ready}


@pytest.mark.parametrize(("name", "path"), table_of("keras_bit"))
def test_the_installed_package_imports_nothing_of_the_repository(name, path):
    assert packages(path) & {"convert", "tests", "benchmarks"} == set()


@pytest.mark.parametrize(("name", "path"), table_of("keras_bit"))
def test_keras_bit_imports_no_framework_before_it_is_used(name, path):
    if name in TENSORFLOW:
        assert packages(path, whole=False) & FRAMEWORKS == {"tensorflow"}
    else:
        assert packages(path, whole=False) & FRAMEWORKS == set()
        assert edges(path, "keras_bit", whole=False) & TENSORFLOW == set()


@pytest.mark.parametrize("path", sorted((ROOT / "keras_bit" / "cli").glob("[!m_]*.py")), ids=lambda path: path.stem)
def test_a_command_imports_no_other_and_the_library_only_when_it_runs(path):
    shared = {"command", "images", "kernels", "options", "terminal"}
    # Commands of several files.
    parts = {"evaluate": {"evaluate_csv", "evaluate_summary"}, "finetune": {"found_rate", "recipe_options"}}
    others = {part: {"command", "options", "terminal"} for names in parts.values() for part in names}
    others |= {"options": {"command"}} | {name: shared | names for name, names in parts.items()}
    allowed = others.get(path.stem, set() if path.stem in shared else shared)
    ours = {name for name in imported(path) if name.startswith("keras_bit.cli.")}
    assert {name.split(".")[2] for name in ours} - allowed == set()
    at_once = {name for name in imported(path, whole=False) if name.startswith("keras_bit")}
    assert at_once == ours
    # Help and completion import a command's file.
    assert packages(path, whole=False) & (FRAMEWORKS | {"keras", "numpy", "PIL", "rich"}) == set()


@pytest.mark.parametrize("name", ["layers", "model"])
def test_layers_and_model_know_no_backend(name):
    assert packages(ROOT / "keras_bit" / "network" / f"{name}.py") & FRAMEWORKS == set()


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


def test_a_room_lists_at_most_five_names_and_imports_nothing_heavy_at_once():
    for room in (path.parent for path in (ROOT / "keras_bit").glob("*/__init__.py")):
        at_once = packages(room / "__init__.py", whole=False) & (FRAMEWORKS | {"keras", "keras_bit", "numpy", "PIL"})
        assert at_once == ({"keras"} if room.name == "network" else set()), room  # its file says why
        listed = getattr(importlib.import_module(f"keras_bit.{room.name}"), "__all__", [])
        assert len(listed) <= 5, room
        # A function of that name would hide the module, or the other way round.
        assert not {path.stem for path in room.glob("*.py")} & set(listed), room


def test_the_lazy_names_are_those_that_type_checkers_see():
    source = (ROOT / "keras_bit" / "__init__.py").read_text(encoding="utf-8")
    checked = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
    seen = {}
    for node in checked.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, "without `as` it is not exported"
                seen[alias.name] = None if node.module == "keras_bit" else node.module.removeprefix("keras_bit.")
    assert seen == keras_bit._MODULES
    assert sorted(keras_bit.__all__) == sorted(seen)
    assert set(keras_bit.__all__) <= set(dir(keras_bit))


@pytest.mark.parametrize("room", ["evaluation", "embedding"])
def test_a_room_lists_the_names_that_it_gives(room):
    module = importlib.import_module(f"keras_bit.{room}")
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    with pytest.raises(AttributeError, match=f"keras_bit.{room}.*missing"):
        _ = module.missing


@pytest.mark.parametrize("name", keras_bit.__all__)
def test_every_public_name_is_importable_and_says_what_it_is(name):
    public = getattr(importlib.import_module("keras_bit"), name)
    assert public.__doc__
    assert isinstance(public, types.ModuleType) or public.__name__ == name


@pytest.mark.parametrize(("name", "path"), table_of("keras_bit"))
def test_the_docstring_of_a_function_begins_with_a_verb(name, path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        # Decorators make other things: properties and contexts are named by nouns.
        if isinstance(node, ast.FunctionDef) and not node.decorator_list and (said := ast.get_docstring(node)):
            assert said.split()[0].rstrip(",").endswith("s"), (path, node.lineno, said)


def test_the_checks_see_an_import_wherever_it_hides(tmp_path):
    source = "import a.b\nif True:\n    from c import d\ndef f():\n    import torch\nclass C:\n    import e\n"
    source += "if TYPE_CHECKING:\n    import keras\n"
    (tmp_path / "module.py").write_text(source)
    assert imported(tmp_path / "module.py") == {"a.b", "c.d", "torch", "e", "keras"}
    assert packages(tmp_path / "module.py", whole=False) == {"a", "c", "e"}
