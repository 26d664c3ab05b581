"""Tests applications.py: the public functions on whole checkpoints, from a directory, a file, a cache and a Hub."""

import ast
import dataclasses
import hashlib
import inspect
import json
import pydoc
import re
import struct
import types
import warnings

import keras
import mypy.api
import numpy as np
import pytest

import keras_bit
from conftest import ROOT
from keras_bit import BiT, BiT50, BiTBackbone, BitConfig, from_pretrained
from keras_bit.checkpoints.layouts import TIMM, TRANSFORMERS
from keras_bit.network import model as network
from keras_bit.network.config import PUBLISHED
from keras_bit.network.weights import weights_of
from loopback_hub import LoopbackHub, closed_url, commit_of, make_cache, run_against_hub
from tiny_bit import (
    BOTTLENECK,
    BOTTLENECK_CONFIG,
    CONFIG,
    PREACTIVATION,
    assert_holds,
    in_keras,
    random_tensors,
    variables,
    write_checkpoint,
    write_npz,
    write_shards,
    write_timm,
)

ID = "google/bit-50"
HEAD = ("classifier.1.weight", "classifier.1.bias")
TENSORS = random_tensors()
BODY = {name: tensor for name, tensor in TENSORS.items() if name not in HEAD}
LABELS = {0: "apple", 1: "bee", 2: "cat", 3: "dog", 4: "egg"}
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 64, 48, 3)).astype("float32")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("bit"))


@pytest.fixture(scope="module")
def headless(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("headless"), BODY)


def without_warnings(function, *arguments, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*arguments, **keywords)


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def digest(model):
    """Returns one word for the names and numbers of all weights."""
    found = sorted((layer, variable, values.tobytes()) for (layer, variable), values in variables(model).items())
    return hashlib.sha256(repr(found).encode()).hexdigest()


# Signatures

APPLICATIONS = {
    "BiT50": ("50x1", "google/bit-50"),
    "BiT50x3": ("50x3", "timm/resnetv2_50x3_bit.goog_in21k_ft_in1k"),
    "BiT101": ("101x1", "timm/resnetv2_101x1_bit.goog_in21k_ft_in1k"),
    "BiT101x3": ("101x3", "timm/resnetv2_101x3_bit.goog_in21k_ft_in1k"),
    "BiT152x2": ("152x2", "timm/resnetv2_152x2_bit.goog_in21k_ft_in1k"),
    "BiT152x4": ("152x4", "timm/resnetv2_152x4_bit.goog_in21k_ft_in1k"),
}


class _SoughtError(Exception):
    """Ends a call that has found out what to look for."""


@pytest.fixture
def sought(monkeypatch):
    """Lists the sources that were looked for; none of them is found."""
    sources = []

    def find(source, *_):
        sources.append(source)
        raise _SoughtError

    monkeypatch.setattr("keras_bit.applications.loading.find", find)
    return sources


@pytest.mark.parametrize("title", APPLICATIONS)
def test_imagenet_is_the_architectures_own_checkpoint(title, sought):
    layers, default = APPLICATIONS[title]
    pretrained = f"timm/resnetv2_{layers}_bit.goog_in21k"
    config = dataclasses.replace(PUBLISHED[title].with_num_labels(5), drop_path_rate=0.1)
    for weights in ("imagenet", "imagenet21k"):
        for call in (
            lambda weights: getattr(keras_bit, title)(weights=weights),
            lambda weights: BiT(config, weights=weights),
            lambda weights: BiTBackbone(weights=weights, config=config),
        ):
            with pytest.raises(_SoughtError):
                call(weights)
    assert sought == [f"hf://{default}"] * 3 + [f"hf://{pretrained}"] * 3
    assert default in {row.source for row in keras_bit.list_checkpoints(title)}


def test_a_backbone_is_that_of_bit_50_by_default(sought):
    for weights in ("imagenet", "imagenet21k"):
        with pytest.raises(_SoughtError):
            BiTBackbone(weights)
    assert sought == ["hf://google/bit-50", "hf://timm/resnetv2_50x1_bit.goog_in21k"]


@pytest.mark.parametrize("word", ["imagenet", "imagenet21k"])
def test_imagenet_needs_an_architecture_and_does_not_name_a_folder(word, tmp_path, monkeypatch):
    write_checkpoint(tmp_path / word)
    monkeypatch.chdir(tmp_path)
    for read in (from_pretrained, BitConfig.from_pretrained, keras_bit.BitImageProcessor.from_pretrained):
        with pytest.raises(
            ValueError, match=rf"`source` '{word}' does not say which arch.*`BiT50\(weights='{word}'\)`"
        ):
            read(word)
    with pytest.raises(ValueError, match=rf"`weights` '{word}' means the architecture's .*, BiT152x4\. Pass"):
        BiT(BitConfig.from_dict(CONFIG), weights=word)
    assert digest(from_pretrained(f"./{word}")) == digest(from_pretrained(tmp_path / word))


def test_arguments_are_those_of_keras_and_ours_are_keyword_only():
    keras_own = inspect.signature(keras.applications.ResNet50V2).parameters
    ours = inspect.signature(BiT50).parameters
    positional = [name for name, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == list(keras_own)
    hub = ["revision", "cache_dir", "token", "local_files_only"]
    assert [name for name, p in ours.items() if p.kind is p.KEYWORD_ONLY] == [*hub, "config"]
    assert {name: p.default for name, p in ours.items()} == {
        "include_top": True,
        "weights": "google/bit-50",
        "input_tensor": None,
        "input_shape": None,
        "pooling": None,
        "classes": None,
        "classifier_activation": "auto",
        "name": "bit50",
        "revision": None,
        "cache_dir": None,
        "token": None,
        "local_files_only": False,
        "config": None,
    }
    assert list(inspect.signature(from_pretrained).parameters) == ["source", *set_aside(ours, "weights"), "fused"]
    assert list(inspect.signature(BiT).parameters) == ["config", *set_aside(ours, "config")]


def set_aside(parameters, name):
    return [parameter for parameter in parameters if parameter != name]


@pytest.mark.parametrize("title", APPLICATIONS)
def test_the_six_applications_differ_in_weights_name_and_first_line(title):
    application = getattr(keras_bit, title)
    layers, weights = APPLICATIONS[title]
    expected = inspect.signature(BiT50)
    replaced = {"weights": weights, "name": title.lower()}
    parameters = [p.replace(default=replaced.get(p.name, p.default)) for p in expected.parameters.values()]
    assert inspect.signature(application) == expected.replace(parameters=parameters)
    assert application.__name__ == title
    first, _, sections = inspect.getdoc(application).partition("\n\nArgs:\n")
    assert first.startswith(f"Builds BiT-R{layers}, ")
    assert f"{PUBLISHED[title].depths} blocks" in first
    assert sections == inspect.getdoc(BiT50).partition("\n\nArgs:\n")[2]


@pytest.mark.parametrize("function", [BiT, BiT50, BiTBackbone, from_pretrained], ids=lambda one: one.__name__)
def test_signature_and_docstring_document_every_argument(function):
    (written,) = (
        node
        for node in ast.parse(inspect.getsource(inspect.getmodule(function))).body
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__
    )
    assert not written.args.vararg
    assert not written.args.kwarg
    assert all(argument.annotation for argument in (*written.args.args, *written.args.kwonlyargs))
    assert ast.get_docstring(written) == inspect.getdoc(function)
    arguments, *others = re.split(r"\n\n(?=Returns:|Raises:|Checked)", inspect.getdoc(function).partition("Args:\n")[2])
    assert re.findall(r"^    (\w+): ", arguments, re.M) == list(inspect.signature(function).parameters)
    assert [section.split()[0] for section in others] == ["Returns:", "Raises:", "Checked"]
    assert f"{function.__name__}(" in pydoc.render_doc(function, renderer=pydoc.plaintext)


CALLS_TO_CHECK = {
    "keras_bit.BiT50(classes=2)": None,
    'keras_bit.from_pretrained("x").config': None,
    "keras_bit.BitConfig(num_labels=2).id2label.values()": None,
    'keras_bit.BitImageProcessor(size=448).size["shortest_edge"] + 1': None,
    "keras_bit.BiT50(clases=2)": 'Unexpected keyword argument "clases" for "BiT50"',
    "keras_bit.BiT60()": 'Module has no attribute "BiT60"',
    "keras_bit.evaluation.evalute()": 'Module has no attribute "evalute"',
    "keras_bit.embedding.embedd()": 'Module has no attribute "embedd"',
    "keras_bit.from_pretrained()": 'Missing positional argument "source" in call to "from_pretrained"',
    'keras_bit.BiT152x4(pooling=2, weights="x")': 'Argument "pooling" to "BiT152x4" has incompatible type "int"',
}


@pytest.mark.slow
def test_a_type_checker_reads_the_signatures_through_the_lazy_names(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("\n".join(("import keras_bit", *CALLS_TO_CHECK)))
    # The cache of `make test`, which has checked the package before.
    settings = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    output, problems, _ = mypy.api.run([*settings, str(script)])
    assert problems == ""
    found = dict(re.findall(r"script\.py:(\d+): error: (.*)", output))
    for line, (call, message) in enumerate(CALLS_TO_CHECK.items(), start=2):
        if message is None:
            assert str(line) not in found, call
        else:
            assert message in found[str(line)], call


# Sources


def test_a_directory_a_file_shards_and_a_keras_file_give_the_same_model(tmp_path, checkpoint):
    from_pretrained(checkpoint).save(tmp_path / "bit.keras")
    shards = write_shards(tmp_path / "shards")
    sources = checkpoint, str(checkpoint), checkpoint / "model.safetensors", shards, tmp_path / "bit.keras"
    for source in sources:
        model = without_warnings(from_pretrained, source)
        assert_holds(model, TENSORS)
        assert model.config == BitConfig.from_dict(CONFIG)
        assert dict(model.config.id2label) == LABELS
        assert isinstance(model, keras.Model)
        assert model.name == "bit"
        assert [tensor.name for tensor in model.inputs] == ["pixel_values"]
        assert model.input_shape == (None, None, None, 3)
        assert model.layers[-1].name == "predictions"


def test_a_bottleneck_checkpoint_is_loaded(tmp_path):
    tensors = random_tensors(BOTTLENECK)
    model = from_pretrained(write_checkpoint(tmp_path, tensors, BOTTLENECK_CONFIG))
    assert_holds(model, tensors, BOTTLENECK)
    assert model.config.layer_type == "bottleneck"


def test_bit_takes_any_config_with_random_or_checkpoint_weights(checkpoint):
    config = BitConfig.from_dict(CONFIG)
    one, other = BiT(config), BiT(config)
    assert not np.array_equal(one.get_layer("stem_conv").kernel, other.get_layer("stem_conv").kernel)
    assert one.config == config
    assert_holds(BiT(config, weights=checkpoint), TENSORS)


def test_bit50_is_the_published_architecture_unless_a_config_replaces_it(checkpoint):
    config = BitConfig.from_dict(CONFIG)
    model = BiT50(weights=None, config=config)
    assert (model.name, model.config) == ("bit50", config)
    assert_holds(BiT50(weights=checkpoint, config=config), TENSORS)


def test_bit50_knows_its_architecture_by_shapes_and_labels_by_config(tmp_path):
    header, size = {}, 0
    for weight in weights_of(BitConfig(num_labels=7)):
        name = TRANSFORMERS.tensor_name(weight.layer, weight.variable)
        shape = TRANSFORMERS.file_shape(name, weight.shape)
        end = size + 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [size, end]}
        size = end
    encoded = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.truncate(8 + len(encoded) + size)  # zeros that take no room on the disk
    # The published architectures are known by the shapes of their tensors.
    for model in (without_warnings(BiT50, weights=tmp_path), without_warnings(from_pretrained, tmp_path)):
        assert model.config == BitConfig(num_labels=7)
    assert not any(np.any(variable) for variable in model.get_weights())
    theirs = {"model_type": "bit", "id2label": dict(enumerate("abcdefg")), "problem_type": "multi_label_classification"}
    (tmp_path / "config.json").write_text(json.dumps(theirs))
    model = BiT50(weights=tmp_path)
    assert "".join(model.config.id2label.values()) == "abcdefg"
    assert model.get_layer("predictions").activation is keras.activations.sigmoid


@pytest.mark.parametrize("form", ["directory", "keras"])
def test_bit50_refuses_a_checkpoint_of_another_architecture(tmp_path, checkpoint, form):
    source = checkpoint
    if form == "keras":
        source = tmp_path / "bit.keras"
        from_pretrained(checkpoint).save(source)
    with pytest.raises(
        ValueError,
        match=r"^`weights` '.*' is not a BiT50: its `depths` must be \(3, 4, 6, 3\), got \(2, 1\)\. Use `from_pre",
    ):
        BiT50(weights=source)


# What the model ends in


def test_without_the_top_the_map_comes_out_and_pooling_pools_it(checkpoint):
    maps = from_pretrained(checkpoint, include_top=False)
    assert maps.output_shape == (None, None, None, 64)
    assert_holds(maps, BODY)
    found = np.asarray(maps(IMAGES))
    assert found.shape == (2, 8, 6, 64)
    for pooling, pooled in (("avg", found.mean((1, 2))), ("max", found.max((1, 2)))):
        model = from_pretrained(checkpoint, include_top=False, pooling=pooling)
        np.testing.assert_allclose(model(IMAGES), pooled, rtol=1e-5, atol=1e-6)  # summed in another order


@pytest.mark.parametrize(
    ("problem_type", "asked", "activation"),
    [
        (None, "auto", "softmax"),
        ("single_label_classification", "auto", "softmax"),
        ("multi_label_classification", "auto", "sigmoid"),
        ("regression", "auto", "linear"),
        ("multi_label_classification", None, "linear"),
        (None, None, "linear"),
        ("regression", "relu", "relu"),
    ],
)
def test_the_heads_activation_follows_the_checkpoints_problem(tmp_path, problem_type, asked, activation):
    folder = write_checkpoint(tmp_path, config=CONFIG | {"problem_type": problem_type})
    model = from_pretrained(folder, classifier_activation=asked)
    assert model.get_layer("predictions").activation.__name__ == activation
    assert model.config.problem_type == problem_type


MULTI_LABEL = CONFIG | {"problem_type": "multi_label_classification"}
# What carries the labels and the problem: the layout's own config.json, or else `config=`.
MULTI_LABEL_CHECKPOINTS = {
    "transformers'": lambda path: {"source": write_checkpoint(path, config=MULTI_LABEL)},
    "shards": lambda path: {"source": write_shards(path, config=MULTI_LABEL)},
    "timm's": lambda path: {"source": write_timm(path), "config": BitConfig.from_dict(MULTI_LABEL)},
    "Google's": lambda path: {"source": write_npz(path / "BiT.npz"), "config": BitConfig.from_dict(MULTI_LABEL)},
    "a .keras file": lambda path: {"source": saved_by_keras(write_checkpoint(path, config=MULTI_LABEL))},
}


def saved_by_keras(folder):
    from_pretrained(folder).save(folder / "bit.keras")
    return folder / "bit.keras"


@pytest.mark.parametrize("write", MULTI_LABEL_CHECKPOINTS.values(), ids=MULTI_LABEL_CHECKPOINTS)
def test_multi_label_checkpoints_have_labels_and_sigmoid_in_each_layout(tmp_path, checkpoint, write):
    tmp_path = tmp_path / "bit"
    tmp_path.mkdir()
    model = without_warnings(from_pretrained, **write(tmp_path))
    assert (model.config.problem_type, model.config.num_labels) == ("multi_label_classification", 5)
    assert dict(model.config.id2label) == LABELS
    assert model.get_layer("predictions").activation is keras.activations.sigmoid
    logits = np.asarray(from_pretrained(checkpoint, classifier_activation=None)(IMAGES), "float64")
    scores = np.asarray(model(IMAGES))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), rtol=1e-5, atol=1e-7)  # float32 against float64
    best = keras_bit.decode_predictions(scores, top=1, labels=model.config.id2label)
    assert [labels[0][1] for labels in best] == [LABELS[index] for index in logits.argmax(1)]


def test_a_pre_training_head_is_read_from_an_npz_and_decoded(tmp_path):
    classes = 21843
    head = {HEAD[0]: np.zeros((classes, 64), np.float32), HEAD[1]: np.eye(1, classes, 359, dtype=np.float32)[0]}
    path = write_npz(tmp_path / "BiT-M-R50x1.npz", tensors=TENSORS | head)
    # A config without labels takes the head's number of classes.
    model = without_warnings(from_pretrained, path, config=BitConfig.from_dict(CONFIG).with_num_labels(1000))
    assert model.config.num_labels == classes
    assert keras_bit.decode_predictions(model(IMAGES[:1]), top=1)[0][0][:2] == ("n01440764", "tench")


def test_the_scores_are_the_softmax_of_the_logits(checkpoint):
    logits = np.asarray(from_pretrained(checkpoint, classifier_activation=None)(IMAGES), "float64")
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(from_pretrained(checkpoint)(IMAGES), scores, rtol=1e-5, atol=1e-7)


def test_an_input_tensor_and_an_input_shape_are_taken(checkpoint):
    assert from_pretrained(checkpoint, input_shape=(64, 48, 3)).input_shape == (None, 64, 48, 3)
    bytes_in = keras.Input((64, 48, 3), name="bytes")
    scaled = keras.layers.Rescaling(1 / 127.5, -1)(bytes_in)
    model = from_pretrained(checkpoint, input_tensor=scaled, name="mine")
    assert (model.name, model.inputs[0].name) == ("mine", "bytes")
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 48, 3)).astype("float32")
    # atol: the one rounds 1/127.5, the other divides.
    np.testing.assert_allclose(model(images), from_pretrained(checkpoint)(images / 127.5 - 1), atol=1e-4)


def test_weights_of_layers_before_the_input_tensor_are_not_the_checkpoints(checkpoint):
    adapter = keras.layers.Conv2D(3, 1, name="adapter")
    model = from_pretrained(checkpoint, input_tensor=adapter(keras.Input((None, None, 1))))
    found = {key: value for key, value in variables(model).items() if key[0] != "adapter"}
    assert {key: value.tobytes() for key, value in found.items()} == {
        key: value.tobytes() for key, value in variables(from_pretrained(checkpoint)).items()
    }


# Classes


@pytest.mark.parametrize("classes", [None, 5])
def test_the_checkpoints_number_of_classes_keeps_its_head_and_labels(checkpoint, classes):
    model = without_warnings(from_pretrained, checkpoint, classes=classes)
    assert_holds(model, TENSORS)
    assert dict(model.config.id2label) == LABELS


@pytest.mark.parametrize(
    ("fixture", "held"), [("checkpoint", "a head of 5 classes"), ("headless", "no head")], ids=["a head", "no head"]
)
def test_another_number_of_classes_gives_a_head_of_zeros_and_one_warning(request, fixture, held):
    folder = request.getfixturevalue(fixture)
    calls = {
        "from_pretrained": lambda: from_pretrained(folder, classes=3),
        "BiT": lambda: BiT(BitConfig.from_dict(CONFIG), weights=folder, classes=3),
        "BiT50": lambda: BiT50(weights=folder, classes=3, config=BitConfig.from_dict(CONFIG)),
    }
    for call in calls.values():
        with pytest.warns(UserWarning, match="new head of zeros") as caught:
            model = call()
        assert [str(warning.message) for warning in caught] == [
            f"The checkpoint {str(folder)!r} has {held}; `classes=3` gives the model a new head of zeros, which must "
            "be trained."
        ]
        assert caught[0].filename == __file__  # the line that asked for it
        zeros = {HEAD[0]: np.zeros((3, 64)), HEAD[1]: np.zeros(3)}
        assert_holds(model, BODY | zeros)
        assert (model.output_shape, model.config.num_labels) == ((None, 3), 3)
        assert dict(model.config.id2label) == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
        np.testing.assert_allclose(model(IMAGES), np.full((2, 3), 1 / 3), rtol=1e-6)


def test_without_the_top_neither_classes_nor_the_head_matter(checkpoint, headless):
    for folder in (checkpoint, headless):
        assert_holds(without_warnings(from_pretrained, folder, include_top=False, classes=3), BODY)


def test_the_head_gives_the_number_of_classes_if_the_config_does_not(tmp_path):
    config = {name: value for name, value in CONFIG.items() if name not in ("id2label", "label2id")}
    assert BitConfig.from_dict(config).num_labels == 2  # transformers leaves its default out
    model = without_warnings(from_pretrained, write_checkpoint(tmp_path, config=config))
    assert_holds(model, TENSORS)
    assert model.config.num_labels == 5


def test_labels_that_contradict_the_head_are_refused_if_it_is_kept(tmp_path):
    labels = {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}
    folder = write_checkpoint(tmp_path, config=CONFIG | labels)
    with pytest.raises(
        ValueError,
        match=r"contradicts itself: its head has 5 classes but its configuration names 2\. Correct its config\.json, "
        r"pass `config`, or pass `classes=` for a new head\.",
    ):
        from_pretrained(folder)
    assert from_pretrained(folder, config=BitConfig.from_dict(CONFIG)).config.num_labels == 5
    with pytest.warns(UserWarning, match="a new head of zeros"):
        model = from_pretrained(folder, classes=2)
    assert dict(model.config.id2label) == {0: "cat", 1: "dog"}


@pytest.mark.parametrize("classes", [0, -1, 2.5, True, "5"])
def test_an_invalid_number_of_classes_is_refused(checkpoint, classes):
    for call in (
        lambda: from_pretrained(checkpoint, classes=classes),
        lambda: BiT(BitConfig.from_dict(CONFIG), classes=classes),
    ):
        with pytest.raises(ValueError, match=f"`classes` .* whole number .* got {classes!r}"):
            call()


# Configuration


def test_a_config_serves_weights_without_one_and_replaces_the_checkpoints(tmp_path, checkpoint):
    bare = write_checkpoint(tmp_path, config=None)
    config = BitConfig.from_dict(CONFIG | {"problem_type": "multi_label_classification", "drop_path_rate": 0.1})
    for source in (bare, bare / "model.safetensors", checkpoint):
        model = from_pretrained(source, config=config)
        assert_holds(model, TENSORS)
        assert model.config == config
        assert model.get_layer("predictions").activation.__name__ == "sigmoid"
    (tmp_path / "config.json").write_text("not JSON, and not read")
    assert from_pretrained(bare, config=config).config == config


@pytest.mark.parametrize("config", [CONFIG, {}, "bit", 5], ids=["dict", "empty dict", "str", "int"])
def test_a_config_of_none_is_refused(checkpoint, config):
    for call in (
        lambda: from_pretrained(checkpoint, config=config),
        lambda: BiT50(weights=checkpoint, config=config),
        lambda: BiT50(weights=None, config=config),
        lambda: BiT(config),
    ):
        with pytest.raises(ValueError, match=f"^`config` must be a BitConfig, got {type(config).__name__}"):
            call()


def test_bit_without_a_config_points_to_from_pretrained():
    with pytest.raises(ValueError, match=r"`config` must be a BitConfig, got None\. .* `from_pretrained\(source\)`"):
        BiT(None)


CONFIGS = {
    "another model": ('{"model_type": "vit"}', ("'vit'", "'bit'")),
    "no model type": ("{}", ("None", "'bit'")),
    "not JSON": ("{", ("JSON",)),
    "a list": ("[]", ("JSON object",)),
    "a wrong value": (json.dumps(CONFIG | {"depths": [2, 1, 1]}), ("`hidden_sizes`", "`depths`")),
}


@pytest.mark.parametrize(("content", "facts"), CONFIGS.values(), ids=CONFIGS)
def test_another_networks_config_is_refused_before_weights_are_opened(tmp_path, content, facts):
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "model.safetensors").write_bytes(b"never opened")
    for call in (lambda: from_pretrained(tmp_path), lambda: BiT50(weights=tmp_path)):
        with pytest.raises(ValueError, match=r"config\.json") as raised:
            call()
        assert [fact for fact in facts if fact not in str(raised.value)] == []


def test_a_checkpoint_without_a_config_json_has_no_architecture(tmp_path):
    folder = write_checkpoint(tmp_path, config=None)
    with pytest.raises(
        FileNotFoundError, match=r"has no config\.json, so its architecture is unknown.*pass `config=BitConfig"
    ):
        from_pretrained(folder)


# Damage


def damaged(name, change):
    return TENSORS | {name: change(TENSORS[name])}


DAMAGES = {
    "missing": (
        {n: t for n, t in TENSORS.items() if n != "bit.norm.bias"},
        "missing from the checkpoint .1.: bit.norm.b",
    ),
    "extra": (TENSORS | {"extra": np.zeros(1)}, "not part of the model .1.: extra"),
    "transposed": (
        damaged(HEAD[0], np.transpose),
        "1.weight expected .5, 64., got .64, 5. .transposed: the same sizes",
    ),
    "wrongly shaped": (damaged("bit.norm.bias", lambda t: t[1:]), "bit.norm.bias expected .64,., got .63,."),
    "NaN": (damaged("bit.norm.bias", lambda t: t * np.nan), "is damaged: bit.norm.bias holds NaN or infinity"),
    "without a head": (BODY, "missing from the checkpoint .2.: .*\n.*use `include_top=False` or `classes=`"),
}


@pytest.mark.parametrize(("tensors", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_checkpoint_that_does_not_fit_gives_an_error_and_no_model(tmp_path, tensors, message):
    folder = write_checkpoint(tmp_path, tensors)
    with pytest.raises(ValueError, match=message) as error:
        from_pretrained(folder)
    assert str(error.value).startswith(f"The checkpoint {str(folder)!r} ")
    assert "Nothing was loaded." in str(error.value)


def test_a_config_of_another_network_is_a_misfit(checkpoint):
    with pytest.raises(
        ValueError, match=r"missing from the checkpoint \(9\): bit\.encoder\.stages\.1\.layers\.1\.norm1"
    ):
        from_pretrained(checkpoint, config=BitConfig.from_dict(CONFIG | {"depths": [2, 2]}))


INPUTS = {
    "no channels": ({"input_shape": (64, 64)}, "`input_shape` must be channels-last with 3 channels, .*64, 64"),
    "no number": ({"input_shape": ("a", 64, 3)}, r"`input_shape` must be channels-last .*'a', 64, 3"),
    "no tuple": ({"input_shape": 64}, "`input_shape` must be channels-last with 3 channels, .*got 64"),
    "channels first": ({"input_shape": (3, 64, 64)}, "`input_shape` must be channels-last with 3 channels"),
    "too low": ({"input_shape": (31, 64, 3)}, "`input_shape`.* 32 px.* 31x64"),
    "too narrow": ({"input_shape": (None, 31, 3)}, "`input_shape`.* 32 px.* Nonex31"),
    "another pooling": (
        {"include_top": False, "pooling": "sum"},
        "`pooling` must be one of None, 'avg', 'max', got 'sum'",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), INPUTS.values(), ids=INPUTS)
def test_images_that_the_network_cannot_take_are_refused(checkpoint, arguments, message):
    with pytest.raises(ValueError, match=message):
        from_pretrained(checkpoint, **arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 64, 64, 1), "shape"), ((1, 16, 64, 3), "32 px.* 16x64")],
)
def test_a_loaded_model_refuses_them_too(checkpoint, shape, message):
    with pytest.raises(ValueError, match=message):
        from_pretrained(checkpoint)(np.zeros(shape, "float32"))


# Initial values and what survives


@pytest.fixture
def drawn(monkeypatch):
    """Lists the shapes of all random numbers that initializers draw."""
    shapes = []
    draw = keras.initializers.VarianceScaling.__call__  # glorot_uniform, Keras' default, inherits it
    spy = lambda self, shape, dtype=None: shapes.append(tuple(shape)) or draw(self, shape, dtype)  # noqa: E731
    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", spy)
    return shapes


def test_nothing_is_drawn_that_a_checkpoint_overwrites(checkpoint, drawn):
    from_pretrained(checkpoint)
    from_pretrained(checkpoint, include_top=False)
    with pytest.warns(UserWarning, match="new head of zeros"):
        from_pretrained(checkpoint, classes=3)
    assert drawn == []
    BiT(BitConfig.from_dict(CONFIG))
    assert len(drawn) == 12 + 1  # 12 convolutions and the head


def test_a_loaded_model_initializes_its_clones_as_a_random_one_does(checkpoint, drawn):
    with pytest.warns(UserWarning, match="new head of zeros"):
        new_head = from_pretrained(checkpoint, classes=3)
    for model in (from_pretrained(checkpoint), new_head):
        drawn.clear()
        clone = keras.models.clone_model(model)
        assert len(drawn) == 12 + 1
        random = BiT(model.config)
        for layer in random.layers:
            if hasattr(layer, "kernel_initializer"):
                expected = layer.kernel_initializer.get_config()
                assert clone.get_layer(layer.name).kernel_initializer.get_config() == expected
                assert np.any(clone.get_layer(layer.name).kernel)


def test_the_configuration_and_the_numbers_survive_saving_and_cloning(tmp_path, checkpoint):
    model = from_pretrained(checkpoint)
    model.save(tmp_path / "bit.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for copy in (keras.saving.load_model(tmp_path / "bit.keras"), from_pretrained(tmp_path / "bit.keras"), clone):
        assert copy.config == model.config
        assert dict(copy.config.id2label) == LABELS
        assert copy.inputs[0].name == "pixel_values"
        assert_holds(copy, TENSORS)
        np.testing.assert_array_equal(copy(IMAGES), model(IMAGES))


# The Hub


def test_a_cache_made_by_hand_answers_without_a_hub(tmp_path, checkpoint):
    cache = tmp_path / "cache"
    make_cache(cache, ID, files_in(checkpoint))
    make_cache(cache, "someone/sharded", files_in(write_shards(tmp_path / "shards")))
    where = {"cache_dir": cache, "local_files_only": True}
    for model in (
        from_pretrained(ID, **where),
        from_pretrained("someone/sharded", **where),
        BiT(BitConfig.from_dict(CONFIG), weights=ID, **where),
        BiT50(config=BitConfig.from_dict(CONFIG), **where),  # google/bit-50 is its default
    ):
        assert_holds(model, TENSORS)
    with pytest.raises(ValueError, match=f"`weights` '{ID}' is not a BiT50"):
        BiT50(**where)


def test_a_file_that_the_cache_lacks_or_has_in_part_is_named(tmp_path, checkpoint):
    files = files_in(checkpoint)
    half = files["model.safetensors"][:-100]
    make_cache(tmp_path, "someone/half", files | {"model.safetensors": half})
    make_cache(tmp_path, "someone/config", {"config.json": files["config.json"]})
    make_cache(tmp_path, ID, {"model.safetensors": files["model.safetensors"]})
    where = {"cache_dir": tmp_path, "local_files_only": True}
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or not a safetensors file: .*Fetch it again"):
        from_pretrained("someone/half", **where)
    with pytest.raises(FileNotFoundError, match=r"does not have model\.safetensors or .* of 'someone/config'"):
        from_pretrained("someone/config", **where)
    # Not "it has none": BiT50 would give it labels and an activation that may be wrong.
    with pytest.raises(FileNotFoundError, match=rf"does not have config\.json of '{ID}', and `local_files_only=True`"):
        BiT50(**where)


CALLS = """
import hashlib, json, sys
import numpy as np
import keras_bit
answers = []
for arguments in json.loads({calls!r}):
    source = arguments.pop("source")
    try:
        model = keras_bit.from_pretrained(source, **arguments)
        found = sorted((l.name, v.name, np.asarray(v.value).tobytes()) for l in model.layers for v in l.weights)
        answers.append(hashlib.sha256(repr(found).encode()).hexdigest())
    except Exception as error:
        answers.append([type(error).__name__, str(error)])
    print("-- answered", file=sys.stderr)
print(json.dumps(answers))
"""


def ask(server, tmp_path, *calls, **env):
    """Calls from_pretrained(**call) for each of `calls` in one process.

    Returns digests of weights or [error, text], and stderr.
    """
    process = run_against_hub(CALLS.format(calls=json.dumps(calls)), server, tmp_path, **env)
    assert process.returncode == 0, process.stderr
    assert "Retrying in" not in process.stderr  # huggingface_hub's words before it sleeps
    return json.loads(process.stdout.splitlines()[-1]), process.stderr


@pytest.mark.slow
def test_a_hub_is_asked_by_revision_token_and_cache_and_once_for_each_file(tmp_path, checkpoint):
    version_1, secret = random_tensors(seed=1), random_tensors(seed=2)
    repositories = {
        ID: {"main": files_in(checkpoint), "v1": files_in(write_shards(tmp_path / "v1", version_1))},
        "someone/private": {"main": files_in(write_checkpoint(tmp_path / "secret", secret))},
    }
    with LoopbackHub(repositories, private={"someone/private": "hf_right"}) as server:
        answers, stderr = ask(
            server,
            tmp_path,
            {"source": ID},
            {"source": ID},
            {"source": ID, "local_files_only": True},
            {"source": ID, "revision": "v1"},
            {"source": "someone/private", "token": "hf_right"},
            {"source": ID, "cache_dir": str(tmp_path / "other")},
            TQDM_POSITION="-1",  # makes huggingface_hub show progress bars without a terminal
        )
        requests = server.requests
    main, v1, private = (digest(from_pretrained(f)) for f in (checkpoint, tmp_path / "v1", tmp_path / "secret"))
    assert answers == [main, main, main, v1, private, main]
    fetched = [request for request in requests if request.startswith("GET")]
    # Each file once, and again for the other cache; v1's config.json is main's, which huggingface_hub sees.
    assert len(fetched) == 2 + 3 + 2 + 2
    assert (tmp_path / "other" / "models--google--bit-50").is_dir()
    assert "model.safetensors" in stderr.split("-- answered")[0]  # the progress bar of the download
    assert "model.safetensors" not in stderr.split("-- answered")[1]


HUB_ERRORS = {
    "an id that does not exist": (
        {"source": "google/bit-5o"},
        "FileNotFoundError",
        ("'google/bit-5o'", "{hub}", "repository"),
    ),
    "a private repository": (
        {"source": "someone/private"},
        "FileNotFoundError",
        ("'someone/private'", "{hub}", "private", "`hf auth login`", "`token=`"),
    ),
    "a gated repository": ({"source": "someone/gated"}, "PermissionError", ("'someone/gated'", "gated", "{hub}")),
    "a revision that does not exist": (
        {"source": ID, "revision": "v9"},
        "FileNotFoundError",
        ("'google/bit-50'", "revision 'v9'", "{hub}"),
    ),
    "another model": (
        {"source": "someone/vit"},
        "ValueError",
        ("`source` 'someone/vit'", "config.json", "'vit'", "'bit'"),
    ),
    "a config.json that is not JSON": (
        {"source": "someone/text"},
        "ValueError",
        ("{cache}/models--someone--text/snapshots/{text_commit}/config.json", "JSON"),
    ),
    "no config.json": (
        {"source": "someone/bare"},
        "FileNotFoundError",
        ("`source` 'someone/bare'", "config.json", "architecture"),
    ),
    "no weights": (
        {"source": "someone/empty"},
        "FileNotFoundError",
        ("`source` 'someone/empty'", "weights", "model.safetensors"),
    ),
    "no id": ({"source": "not an id"}, "ValueError", ("`source` 'not an id'",)),
}


@pytest.fixture(scope="module")
def hub_errors(tmp_path_factory, checkpoint):
    tmp_path = tmp_path_factory.mktemp("errors")
    files = files_in(checkpoint)
    repositories = {
        ID: {"main": files},
        "someone/private": {"main": files},
        "someone/gated": {"main": files},
        "someone/vit": {"main": files | {"config.json": b'{"model_type": "vit"}'}},
        "someone/text": {"main": files | {"config.json": b"{"}},
        "someone/bare": {"main": {"model.safetensors": files["model.safetensors"]}},
        "someone/empty": {"main": {"config.json": files["config.json"]}},
    }
    with LoopbackHub(repositories, private={"someone/private": "hf_right"}, gated=["someone/gated"]) as server:
        places = {"hub": server.url, "cache": tmp_path / "hub", "text_commit": commit_of("someone/text")}
        answers, _ = ask(server, tmp_path, *(call for call, _, _ in HUB_ERRORS.values()))
        fetched = [request for request in server.requests if request.startswith("GET")]
    return dict(zip(HUB_ERRORS, answers, strict=True)), places, fetched


@pytest.mark.parametrize("case", HUB_ERRORS)
def test_a_refusal_or_a_wrong_file_of_the_hub_is_reported_in_a_sentence(hub_errors, case):
    answers, places, fetched = hub_errors
    _, error, facts = HUB_ERRORS[case]
    assert answers[case][0] == error
    assert [fact for fact in facts if fact.format(**places) not in answers[case][1]] == []
    # Nothing is downloaded for an error that can be seen without it.
    weights = [request.split("/resolve/")[0] for request in fetched if request.endswith("model.safetensors")]
    assert weights == ["GET /someone/bare"]


@pytest.mark.slow
def test_offline_the_cache_answers_and_misses_fail_after_one_request(tmp_path, checkpoint):
    make_cache(tmp_path / "hub", ID, files_in(checkpoint))
    url = closed_url()
    (cached, absent), _ = ask(url, tmp_path, {"source": ID}, {"source": "google/bit-5o"})
    assert cached == digest(from_pretrained(checkpoint))
    assert absent[0] == "ConnectionError"
    assert absent[1].startswith(f"The connection to {url} for config.json of 'google/bit-5o' failed (")


# The published architectures


TIMM_ID = "timm/resnetv2_50x1_bit.goog_in21k_ft_in1k"


@pytest.fixture(scope="module")
def timms(tmp_path_factory):
    """Writes directories in timm's layout with the same random R50x1 and two classes, and returns them with the model.

    The widths of a published architecture are needed here: timm's config.json names one and no widths.
    """
    expected = BiT50(weights=None, classes=2)
    tensors = {}
    for layer in expected.layers:
        for variable, values in zip(layer.weights, layer.get_weights(), strict=True):
            name = TIMM.tensor_name(layer.name, variable.name)
            tensors[name] = TIMM.to_file(name, values)
    pretrained_cfg = {
        "input_size": [3, 448, 448],
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    config = {"architecture": "resnetv2_50x1_bit", "num_classes": 2, "pretrained_cfg": pretrained_cfg}
    folder = tmp_path_factory.mktemp("timm")
    write_checkpoint(folder, tensors, config | {"label_names": ["cat", "dog"]})
    return folder, expected


def test_a_checkpoint_in_timms_layout_loads_with_its_config_and_labels(timms, monkeypatch):
    folder, expected = timms
    model = from_pretrained(folder)
    assert model.config.id2label == {0: "cat", 1: "dog"}
    for ours, theirs in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    monkeypatch.setattr(network, "build", lambda config, *_: types.SimpleNamespace(config=config, layers=[]))
    assert BiT50(weights=folder).config == model.config


TIMM_CALLS = """
import hashlib, json
import numpy as np
import keras_bit
identifier = {identifier!r}
model = keras_bit.from_pretrained(identifier)
processor = keras_bit.BitImageProcessor.from_pretrained(identifier)
pixels = processor(np.full((50, 70, 3), 200, np.uint8))
scores = np.array([[0.25, 0.75]])
found = sorted((l.name, v.name, np.asarray(v.value).tobytes()) for l in model.layers for v in l.weights)
print(json.dumps({{
    "digest": hashlib.sha256(repr(found).encode()).hexdigest(),
    "shape": pixels.shape,
    "pixel": float(pixels[0, 224, 224, 0]),
    "best": keras_bit.decode_predictions(scores, top=1, labels=model.config.id2label),
}}))
"""


@pytest.mark.slow
def test_a_hub_id_of_timm_gives_model_processor_and_labels(tmp_path, timms):
    folder, expected = timms
    with LoopbackHub({TIMM_ID: {"main": files_in(folder)}}) as server:
        process = run_against_hub(TIMM_CALLS.format(identifier=TIMM_ID), server, tmp_path)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["digest"] == digest(expected)
    assert found["shape"] == [1, 448, 448, 3]
    assert found["pixel"] == pytest.approx(200 / 127.5 - 1, abs=1e-6)
    assert found["best"] == [[["1", "dog", 0.75]]]


DEFAULTS = """
import hashlib, json
import numpy as np
import keras_bit
answers = {{}}
for title in {titles!r}:
    application = getattr(keras_bit, title)
    try:
        application()
        refusal = None
    except ValueError as error:
        refusal = str(error)
    model = application(config=keras_bit.BitConfig.from_dict(json.loads({config!r})))
    found = sorted((l.name, v.name, np.asarray(v.value).tobytes()) for l in model.layers for v in l.weights)
    answers[title] = [hashlib.sha256(repr(found).encode()).hexdigest(), refusal]
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_by_default_an_application_only_asks_for_its_checkpoint(tmp_path):
    # Small networks, each with different weights, under the ids of the published ones: what is tested is which
    # repository is asked and that its tensors arrive, not the size.
    repositories, expected = {}, {}
    for seed, title in enumerate(APPLICATIONS):
        weights = APPLICATIONS[title][1]
        folder, tensors = tmp_path / title, random_tensors(seed=seed)
        if title == "BiT50":
            write_checkpoint(folder, tensors)
            refusal = ("`weights` 'google/bit-50'", "a BiT50", "depths", "(2, 1)", "(3, 4, 6, 3)")
        else:
            other = "resnetv2_101x1_bit" if title == "BiT50x3" else "resnetv2_50x3_bit"
            write_timm(folder, {"architecture": other, "num_classes": 5}, tensors)
            refusal = (f"`weights` '{weights}'", f"a {title}:")
        repositories[weights] = {"main": files_in(folder)}
        expected[title] = digest(BiT(BitConfig.from_dict(CONFIG), weights=folder)), refusal
    with LoopbackHub(repositories) as server:
        code = DEFAULTS.format(titles=list(APPLICATIONS), config=json.dumps(CONFIG))
        process = run_against_hub(code, server, tmp_path)
    assert process.returncode == 0, process.stderr
    for title, (found, refusal) in json.loads(process.stdout.splitlines()[-1]).items():
        assert found == expected[title][0]
        assert [fact for fact in expected[title][1] if fact not in refusal] == []
    assert len({found for found, _ in expected.values()}) == 6


def test_an_npz_of_another_network_needs_a_config(tmp_path):
    path = write_npz(tmp_path / "BiT.npz")
    with pytest.raises(FileNotFoundError, match=r"BiT\.npz'.*config\.json.*`config="):
        from_pretrained(path)
    assert_holds(from_pretrained(path, config=BitConfig.from_dict(CONFIG)), TENSORS)


# Images of other channels


@pytest.mark.parametrize("given", ["input_shape", "input_tensor"])
@pytest.mark.parametrize("channels", [1, 5])
def test_images_of_other_channels_adapt_the_first_kernel_with_one_warning(checkpoint, given, channels):
    shape = (None, None, channels)
    arguments = {given: shape if given == "input_shape" else keras.Input(shape)}
    with pytest.warns(UserWarning, match=rf"for images of 3 channels; its first kernel was adapted to {channels}") as w:
        model = from_pretrained(checkpoint, **arguments)
    assert len(w) == 1
    assert w[0].filename == __file__
    assert model.config.num_channels == channels
    kernel = TENSORS["bit.embedder.convolution.weight"].transpose(2, 3, 1, 0)
    expected = kernel.sum(2, keepdims=True) if channels == 1 else kernel[:, :, [0, 1, 2, 0, 1]] * 3 / 5
    np.testing.assert_allclose(model.get_layer("stem_conv").get_weights()[0], expected, rtol=1e-5, atol=1e-6)
    others = {name: values for name, values in TENSORS.items() if "embedder" not in name}
    model.get_layer("stem_conv").set_weights([np.zeros_like(expected)])
    for name, _, layer, variable in PREACTIVATION:
        if name in others:
            found = next(v for v in model.get_layer(layer).weights if v.name == variable)
            assert found.shape == in_keras(others[name]).shape
            np.testing.assert_array_equal(found, in_keras(others[name]))


def test_other_channels_and_another_number_of_classes_warn_once_each(checkpoint):
    with pytest.warns(UserWarning, match="gives the model a new head|its first kernel was adapted") as caught:
        model = from_pretrained(checkpoint, input_shape=(None, None, 1), classes=3)
    assert [re.search("first kernel|new head", str(warning.message))[0] for warning in caught] == [
        "first kernel",
        "new head",
    ]
    assert (model.config.num_channels, model.config.num_labels) == (1, 3)


def test_a_config_of_a_far_larger_network_is_refused_before_it_is_built(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path, config=CONFIG | {"hidden_sizes": [32, 61_440]})
    monkeypatch.setattr(network, "build", lambda *_, **__: pytest.fail("was built"))
    with pytest.raises(ValueError, match=r"holds [\d,]+ parameters and its config\.json, .* stages \(32, 61440"):
        from_pretrained(folder)


@pytest.mark.parametrize("channels", [1, 4])
def test_random_weights_take_any_number_of_channels(channels, monkeypatch):
    monkeypatch.setattr(network, "build", lambda config, *_: config)
    config = BiT50(weights=None, input_shape=(None, None, channels), include_top=False)
    assert config == BitConfig(num_channels=channels)


@pytest.mark.parametrize("shape", [(64, 64, 0), (64, 64, -1), (1, 64, 64)])
def test_impossible_channels_are_refused_without_a_warning(shape, tmp_path, recwarn):
    folder = write_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="`input_shape` must be"):
        from_pretrained(folder, input_shape=shape)
    assert [str(one.message) for one in recwarn if "adapted" in str(one.message)] == []


def test_a_number_of_classes_may_be_numpys(tmp_path):
    with pytest.warns(UserWarning, match="a new head of zeros"):
        assert from_pretrained(write_checkpoint(tmp_path), classes=np.int64(3)).output_shape == (None, 3)
