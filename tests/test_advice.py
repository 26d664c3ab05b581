"""Tests that an error only advises what the called function or command has.

Such a fault arises if several callers share a message, and the message names an argument that only one of them has.
"""

import inspect
import re
import warnings

import pytest

from command_line import run
from keras_bit import (
    BiT,
    BiT50,
    BiTBackbone,
    BitBackbone,
    BitConfig,
    BitForImageClassification,
    BitImageProcessor,
    BitModel,
    from_pretrained,
    list_checkpoints,
    preprocess_input,
    push_to_hub,
    save_pretrained,
)
from tiny_bit import CONFIG, random_tensors, write_checkpoint

TINY = BitConfig.from_dict(CONFIG)
TENSORS = random_tensors()
BODY = {name: tensor for name, tensor in TENSORS.items() if not name.startswith("classifier")}
OTHER_NAMES = CONFIG | {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
LARGE = {**CONFIG, "hidden_sizes": [4096, 4096], "embedding_size": 4096}

# What is wrong with a checkpoint.
SOURCES = {
    "no head": lambda folder: write_checkpoint(folder, BODY),
    "a tensor is missing": lambda folder: write_checkpoint(folder, {**TENSORS, "bit.norm.bias": TENSORS[NORM][1:]}),
    "its head contradicts its names": lambda folder: write_checkpoint(folder, config=OTHER_NAMES),
    "no config.json": lambda folder: write_checkpoint(folder, config=None),
    "a far larger config.json": lambda folder: write_checkpoint(folder, config=LARGE),
    "no weights": lambda folder: folder.mkdir(),
    "not in the cache": lambda folder: "google/bit-50",
}
NORM = "bit.norm.bias"
READERS = {
    "from_pretrained": from_pretrained,
    "BiTBackbone": BiTBackbone,
    "BiT50": lambda source, **hub: BiT50(weights=source, **hub),
    "BiT": lambda source, **hub: BiT(BitConfig.from_dict(CONFIG), weights=source, **hub),
    "BitModel": BitModel.from_pretrained,
    "BitForImageClassification": BitForImageClassification.from_pretrained,
    "BitBackbone": BitBackbone.from_pretrained,
    "BitConfig": BitConfig.from_pretrained,
    "BitImageProcessor": BitImageProcessor.from_pretrained,
}
SIGNATURES = READERS | {"BiT50": BiT50, "BiT": BiT}
# Of all that reads a checkpoint.
ARGUMENTS = {name for one in SIGNATURES.values() for name in inspect.signature(one).parameters}


def advised(text):
    """Returns the arguments that a message names, as `name` or `name=...`."""
    return {name for name in re.findall(r"`(\w+)(?:=[^`]*)?`", text) if name in ARGUMENTS}


def error_of(function, *args, **kwargs):
    """Returns the message if the function fails, and an empty text if it reads the source, as some do."""
    try:
        function(*args, **kwargs)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("source", SOURCES)
def test_no_error_advises_an_argument_that_the_called_function_lacks(tmp_path, source, reader):
    found = SOURCES[source](tmp_path / "bit") or tmp_path / "bit"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a new head
        told = error_of(READERS[reader], found, cache_dir=tmp_path / "cache", local_files_only=True)
    own = set(inspect.signature(SIGNATURES[reader]).parameters) | {"source"}
    assert advised(told) - own == set(), told


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "no weights"])
def test_no_error_of_a_command_advises_an_argument_of_python(tmp_path, capsys, source):
    found = SOURCES[source](tmp_path / "bit")
    code, _, err = run(
        capsys, "explain", "no.jpg", "--out", tmp_path / "map.png", "--weights", found, "--local-files-only"
    )
    assert code == 1
    assert advised(err) - {"source"} == set(), err


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: from_pretrained(None), "source"),
        (lambda: BitImageProcessor.from_pretrained(5), "source"),
        (lambda: list_checkpoints(None), "pattern"),
        (lambda: save_pretrained(BiT(TINY), None), "directory"),
        (lambda: push_to_hub(BiT(TINY), None), "repo_id"),
        (lambda: BitConfig.from_dict(None), "values"),
        (lambda: preprocess_input(None), "x"),
    ],
)
def test_an_argument_of_another_type_is_named(call, argument):
    with pytest.raises(TypeError, match=f"^`{argument}` must be "):
        call()


def test_an_error_about_another_head_size_names_the_requested_one(tmp_path):
    folder = write_checkpoint(tmp_path, config=OTHER_NAMES)
    with pytest.raises(ValueError, match=r"has 5 classes, and the configuration has 2\. .* or `num_labels=5` for its"):
        BitForImageClassification.from_pretrained(folder)
    assert BitForImageClassification.from_pretrained(folder, num_labels=5).config.num_labels == 5
    with pytest.raises(ValueError, match="or leave out `num_labels` and `id2label`"):
        BitForImageClassification.from_pretrained(folder, num_labels=3)
