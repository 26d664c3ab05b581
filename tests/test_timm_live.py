"""Compares with timm's networks and weights where transformers is broken: widths, output strides, `.npz` files.

timm needs torchvision, which has to fit torch, so both are kept apart from the other packages. KERAS_BIT_TIMM names
the directories (separated as in PYTHONPATH) from which a process of its own imports timm.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT, absent
from keras_bit import BiTBackbone, BitConfig, from_pretrained
from timm_probe_cases import CASES, SIZES


def run_timm(probe, *arguments):
    path = os.environ.get("KERAS_BIT_TIMM")
    if not path:
        absent("KERAS_BIT_TIMM does not say where timm is")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / probe), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Returns the directory that timm wrote."""
    folder = tmp_path_factory.mktemp("timm")
    run_timm("timm_probe.py", folder)
    return folder


def config_of(arguments):
    return BitConfig(
        embedding_size=SIZES["stem_chs"],
        hidden_sizes=SIZES["channels"],
        depths=SIZES["layers"],
        num_labels=SIZES["num_classes"],
        num_groups=8,
        num_channels=arguments.get("in_chans", 3),
        width_factor=arguments.get("width_factor", 1),
        output_stride=arguments.get("output_stride", 32),
    )


def relative(ours, theirs):
    assert np.shape(ours) == theirs.shape
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.live
@pytest.mark.parametrize("layout", ["model.safetensors", "BiT.npz"])
@pytest.mark.parametrize("case", CASES)
def test_timms_networks_and_files_give_timms_numbers(written, case, layout):
    folder, config = written / case, config_of(CASES[case])
    images = np.load(folder / "images.npy")
    with np.load(folder / "outputs.npz") as file:
        logits, features = file["logits"], file["features"]
    model = from_pretrained(folder / layout, config=config, classifier_activation=None)
    body = from_pretrained(folder / layout, config=config, include_top=False)
    off = relative(model(images), logits), relative(body(images), features)
    print(f"{case}, {layout}: logits {off[0]:.1e}, features {off[1]:.1e} relative")
    assert max(off) <= 1e-4  # float32 through 22 convolutions; measured some 1e-5
    maps = BiTBackbone(folder / layout, config=config, out_features=["stage4"])(images)
    assert maps["stage4"].shape == features.shape


@pytest.mark.live
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("layout", ["model.safetensors", "BiT.npz"])
def test_a_first_kernel_for_other_channels_is_the_one_that_timm_makes(written, channels, layout):
    folder = written / "stride 32"
    images = np.load(folder / "images.npy")[..., np.arange(channels) % 3]
    with np.load(folder / "outputs.npz") as file:
        expected = file[f"logits of {channels} channels"]
    with pytest.warns(UserWarning, match=f"its first kernel was adapted to {channels}"):
        model = from_pretrained(
            folder / layout, config=config_of({}), input_shape=(None, None, channels), classifier_activation=None
        )
    assert relative(model(images), expected) <= 1e-4  # as above


# What timm's scripts and transformers' TimmWrapper save


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    run_timm("timm_formats_probe.py", "write", folder)
    return folder


@pytest.mark.live
@pytest.mark.parametrize("source", ["wrapped", "state.pth", "last.pth.tar"])
def test_files_of_timms_networks_by_others_give_their_numbers(formats, source):
    images = np.load(formats / "images.npy")
    with np.load(formats / "outputs.npz") as file:
        off = relative(
            from_pretrained(formats / source, config=config_of({}), classifier_activation=None)(images), file["logits"]
        )
    print(f"{source}: logits {off:.1e} relative")
    assert off <= 1e-5  # float32 through 22 convolutions


@pytest.mark.live
def test_timms_features_saved_by_transformers_give_its_map(formats):
    with np.load(formats / "outputs.npz") as file:
        body = from_pretrained(formats / "features", config=config_of({}), include_top=False)
        assert relative(body(np.load(formats / "images.npy")), file["features"]) <= 1e-5  # as above
    assert BitConfig.from_pretrained(formats / "wrapped") == BitConfig(num_labels=7)
