"""Tests what is required of a version, and configs that every version reads."""

import json
import zipfile

import pytest

from keras_bit import BiT, BitConfig, versions
from keras_bit.network.layers import StdConv2D
from keras_bit.network.model import BiTModel

SMALL = {"embedding_size": 16, "hidden_sizes": (32, 64), "depths": (1, 1), "num_groups": 4, "num_labels": 3}
NEW = ("input_axes", "output_axes", "quantization_config")


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [
        ("2.18.0", "2.20", True),
        ("2.9.1", "2.20", True),
        ("2.20.0", "2.20", False),
        ("2.20.0rc0", "2.20", False),
        ("2.22.0-dev20260801", "2.20", False),
        ("3.13.2", "3.14", True),
        ("4.0", "3.14", False),
    ],
)
def test_versions_are_compared_by_their_first_two_numbers(version, than, older):
    assert versions.is_older(version, than) == older


def test_the_error_of_an_older_version_names_the_required_one():
    versions.require("Keras", "3.14.0", "3.14", "`this`")
    with pytest.raises(ImportError) as caught:
        versions.require("Keras", "3.8.0", "3.14", "`this`")
    assert str(caught.value) == (
        "`this` needs Keras 3.14 or newer, but 3.8.0 is installed. Install a newer one with "
        "`pip install --upgrade 'keras>=3.14'`."
    )


def names_in(config):
    if isinstance(config, dict):
        return set(config) | set().union(*map(names_in, config.values()))
    return set().union(*map(names_in, config)) if isinstance(config, list) else set()


def test_a_saved_model_holds_no_argument_that_an_older_keras_refuses(tmp_path):
    BiT(BitConfig(**SMALL)).save(tmp_path / "bit.keras")
    with zipfile.ZipFile(tmp_path / "bit.keras") as opened:
        assert names_in(json.loads(opened.read("config.json"))) & set(NEW) == set()


@pytest.mark.parametrize("initializer", ["glorot_uniform", "he_normal", "zeros"])
def test_a_layer_with_a_keras_initializer_holds_no_newer_argument(initializer):
    config = StdConv2D(8, 3, kernel_initializer=initializer).get_config()
    assert names_in(config) & set(NEW) == set()
    assert StdConv2D.from_config(config).get_config() == config


def test_only_arguments_that_are_none_are_left_out():
    given = {"input_axes": [0], "a": [{"output_axes": None, "b": None}], "quantization_config": None}
    assert versions.portable(given) == {"input_axes": [0], "a": [{"b": None}]}


def test_a_config_with_the_newer_arguments_is_read():
    config = BiT(BitConfig(**SMALL)).get_config()
    for layer in config["layers"]:
        if layer["class_name"] == "Dense":
            layer["config"]["quantization_config"] = None
        if "kernel_initializer" in layer["config"]:
            layer["config"]["kernel_initializer"]["config"] |= {"input_axes": None, "output_axes": None}
    again = BiTModel.from_config(config)
    assert names_in(again.get_config()) & set(NEW) == set()
