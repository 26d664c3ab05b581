"""Tests names.py and published.py: which place a name of a checkpoint means, without files and network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_bit
from conftest import absent
from keras_bit.hub import published
from keras_bit.hub.names import HUB, Address, Repository, is_safe, resolve
from keras_bit.network.architectures import ARCHITECTURES
from keras_bit.network.config import PUBLISHED, BitConfig

GOOGLE = "https://storage.googleapis.com/bit_models/"
MIRROR = "http://user:secret@127.0.0.1:8080/hub"
BIT_50 = Repository("google/bit-50")

# What is typed, and what it means where no file and no directory has that name.
PLACES = {
    "hf://google/bit-50": BIT_50,
    "hf://google/bit-50@v1": Repository("google/bit-50", "v1"),
    "hf-hub:google/bit-50": BIT_50,
    "hf-hub:timm/resnetv2_50x1_bit.goog_in21k@refs/pr/1": Repository("timm/resnetv2_50x1_bit.goog_in21k", "refs/pr/1"),
    "hf://google/bit-50/": BIT_50,
    "hf://google/bit-50@v1/": Repository("google/bit-50", "v1"),
    "HF://google/bit-50": BIT_50,
    "hf://bare": Repository("bare"),
    "resnetv2_50x1_bit.goog_in21k_ft_in1k": Repository("timm/resnetv2_50x1_bit.goog_in21k_ft_in1k"),
    "resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k_384": Repository(
        "timm/resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k_384"
    ),
    "https://huggingface.co/google/bit-50": BIT_50,
    "https://huggingface.co/google/bit-50/": BIT_50,
    "https://huggingface.co/google/bit-50?library=transformers#how-to-use": BIT_50,
    "HTTPS://HuggingFace.co/google/bit-50": BIT_50,
    "http://huggingface.co/google/bit-50": BIT_50,  # asked for at the Hub's own address, which is encrypted
    "https://hf.co/google/bit-50": BIT_50,
    "https://huggingface.co/bare": Repository("bare"),
    "https://huggingface.co/google/bit-50/tree/main": Repository("google/bit-50", "main"),
    "https://huggingface.co/bare/tree/v1": Repository("bare", "v1"),
    "https://huggingface.co/google/bit-50/tree/refs%2Fpr%2F1": Repository("google/bit-50", "refs/pr/1"),
    "https://huggingface.co/google/bit-50/tree/refs/pr/1": Repository("google/bit-50", "refs/pr/1"),
    "https://huggingface.co/google/bit-50/blob/main/pytorch_model.bin": Repository(
        "google/bit-50", "main", "pytorch_model.bin"
    ),
    "https://huggingface.co/google/bit-50/resolve/refs/pr/1/model.safetensors?download=true": Repository(
        "google/bit-50", "refs/pr/1", "model.safetensors"
    ),
    "https://example.org/bit/model.safetensors": Address("https://example.org/bit/model.safetensors"),
    "https://example.org/a%20b.npz?signature=x#top": Address("https://example.org/a%20b.npz?signature=x"),
    "http://localhost:8000/bit.npz": Address("http://localhost:8000/bit.npz"),
    "http://127.0.0.1/bit.npz": Address("http://127.0.0.1/bit.npz"),
    "http://[::1]/bit.npz": Address("http://[::1]/bit.npz"),
    # A path or an id on the Hub: not this function's to tell.
    "google/bit-50": None,
    "timm/resnetv2_50x1_bit.goog_in21k": None,
    "bit-50": None,
    "./imagenet": None,
    "imagenet/": None,
    "ImageNet": None,
    "/no/such/BiT-M-R50x1": None,
}


@pytest.mark.parametrize("text", PLACES)
def test_a_source_is_resolved_to_its_place(text):
    assert resolve(text, exists=False) == PLACES[text]


@pytest.mark.parametrize("text", ["google/bit-50", "BiT-M-R50x1", "resnetv2_50x1_bit.goog_in21k", "./imagenet"])
def test_a_path_that_exists_comes_before_a_name(text):
    assert resolve(text, exists=True) == Path(text)


@pytest.mark.parametrize("text", ["hf://google/bit-50", "https://huggingface.co/google/bit-50", GOOGLE + "x.npz"])
def test_a_path_that_exists_does_not_come_before_an_address(text):
    assert resolve(text, exists=True) == resolve(text, exists=False)


def test_a_mirrors_pages_are_the_hubs():
    assert resolve("http://127.0.0.1:8080/hub/google/bit-50/tree/v1", False, MIRROR) == Repository(
        "google/bit-50", "v1"
    )
    assert resolve("https://huggingface.co/google/bit-50", False, MIRROR) == BIT_50
    assert resolve("http://127.0.0.1:8080/elsewhere/bit.npz", False, MIRROR) == Address(
        "http://127.0.0.1:8080/elsewhere/bit.npz"
    )


# What is refused, and words of the sentence that says why.
REFUSED = {
    "imagenet": "does not say which architecture to build. Call `BiT50(weights='imagenet')`",
    "imagenet21k": "For a folder of that name, pass './imagenet21k'",
    "resnetv2_50x1_bit": "The closest names are 'resnetv2_50x1_bit.goog_in21k'",
    "resnetv2_50x1_bitm": "`keras_bit.list_checkpoints()` has all of them",
    "resnetv2_50x1_bit.goog_in21k_ft_in1": "'resnetv2_50x1_bit.goog_in21k_ft_in1k'",
    "bit-m-r50x1": "'BiT-M-R50x1'",
    "BiT-M-R50x1-ILSVRC2021": "'BiT-M-R50x1-ILSVRC2012'",
    "BiT-M-R50x1.npz": "is neither a local file or directory nor a published checkpoint",
    "hf://": "names no repository of the Hub: expected 'hf://owner/name'",
    "hf://google/bit-50/model.safetensors": "expected 'hf://owner/name', or 'hf://owner/name@revision'",
    "hf-hub:google bit": "expected 'hf-hub:owner/name'",
    "gs://bucket/bit.npz": "begins with gs://, but only hf:// and https:// are supported",
    "s3://user:secret@bucket/bit": "begins with s3://, but only",
    "file:///tmp/bit": "begins with file://, but only hf:// and https:// are supported. Copy",
    "https://": "is not a complete web address",
    "https://host:port/bit.npz": "is not a complete web address",
    "https://[::1/bit.npz": "is not a complete web address",
    "https://example.org/bit.npz\0": "is not a complete web address",
    "http://example.org/bit.npz": "is an http:// address of example.org. Anyone on the network",
    "http://127.0.0.1.example.org/bit.npz": "is an http:// address of 127.0.0.1.example.org",
    "https://huggingface.co": "is not the page of a model or of a file in it",
    "https://huggingface.co/datasets/ILSVRC/imagenet-1k": "is not the page of a model or of a file in it",
    "https://huggingface.co/spaces/google/bit": "is not the page of a model",
    "https://huggingface.co/google/bit-50/discussions": "is not the page of a model",
    "https://huggingface.co/google/bit-50/tree/main/folder": "folders in a repository are not read",
    "https://huggingface.co/google/bit-50/resolve/main/folder/model.safetensors": "folders in a repository",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_source_without_a_place_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match="`source`") as error:
        resolve(text, exists=False)
    assert REFUSED[text] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["https://me:s3cret@example.org/bit.npz", "https://s3cret@huggingface.co/google/bit-50"]
)
def test_an_address_with_a_password_is_refused_unseen(text):
    with pytest.raises(ValueError, match="with a user name or a password in it") as error:
        resolve(text, exists=False)
    assert "s3cret" not in str(error.value)


def test_the_words_win_over_a_folder_of_that_name():
    with pytest.raises(ValueError, match="does not say which architecture to build"):
        resolve("imagenet", exists=True)


@pytest.mark.parametrize(
    ("url", "file", "beside"),
    [
        ("https://h/a/bit.npz", "bit.npz", "https://h/a/config.json"),
        ("https://h/a/my%20bit.npz?x=1", "my bit.npz", "https://h/a/config.json"),
        ("https://h/..%2F..%2Fbit.npz", "bit.npz", "https://h/config.json"),
        ("https://h/a\\b.npz", "b.npz", "https://h/config.json"),
        ("https://h/", "", "https://h/config.json"),
    ],
)
def test_an_address_has_a_files_name_and_addresses_of_other_files(url, file, beside):
    assert Address(url).file == file
    assert Address(url).beside("config.json") == Address(beside)
    assert Address(url).beside(file or "x").url == (url if file else "https://h/x")


def test_safe_is_what_is_encrypted_or_of_this_machine():
    assert is_safe("https://example.org/")
    assert is_safe("http://127.0.0.1:80/")
    assert not is_safe("http://example.org/")
    assert not is_safe("ftp://127.0.0.1/")


# The table


def test_the_table_has_every_published_checkpoint_once():
    rows = keras_bit.list_checkpoints()
    assert len({row.name for row in rows}) == len({row.source for row in rows}) == len(rows)
    # Of big_transfer's README: 6 architectures as BiT-S, BiT-M and BiT-M-ILSVRC2012, 4 distilled ones and their
    # teachers, 5 architectures x 19 tasks x 3 runs.
    assert sum(row.source.startswith(GOOGLE) for row in rows) == 3 * 6 + 4 + 285
    assert sum(row.source.startswith("timm/") for row in rows) == 15
    assert rows[0].source == "google/bit-50"
    assert {row.license for row in rows} == {"apache-2.0"}


def test_the_bytes_are_those_of_the_network():
    """BitConfig counts the parameters, which other tests compare with the networks."""
    for row in keras_bit.list_checkpoints():
        assert row.bytes == 4 * PUBLISHED[row.architecture].with_num_labels(row.classes).num_parameters, row


def test_the_architectures_are_those_of_the_applications():
    assert {row.architecture for row in keras_bit.list_checkpoints()} == {one.title for one in ARCHITECTURES}
    for one in ARCHITECTURES:
        for row in keras_bit.list_checkpoints(one.title):
            assert f"{one.layers}" in row.name or row.name == "google/bit-50"


def test_every_row_is_found_by_its_name_and_by_its_source():
    for row in keras_bit.list_checkpoints():
        by_name, by_source = resolve(row.name, False), resolve(row.source, False)
        if row.source.startswith("https:"):
            assert by_name == by_source == Address(row.source, by_name.config)
            # What is known of it is the configuration of that architecture.
            config = BitConfig.from_timm(by_name.config)
            assert config == PUBLISHED[row.architecture].with_num_labels(row.classes)
            assert ("pretrained_cfg" in by_name.config) == (row.image_size is not None)
        else:
            assert by_name == (None if row.name == row.source else Repository(row.source))
            assert by_source is None  # an id like any other


@pytest.mark.parametrize("title", PUBLISHED)
def test_the_words_mean_the_architectures_own_checkpoints(title):
    rows = {row.source: row for row in keras_bit.list_checkpoints(title)}
    fine_tuned = rows[published.of_architecture("imagenet", title).removeprefix("hf://")]
    pretrained = rows[published.of_architecture("imagenet21k", title).removeprefix("hf://")]
    assert (fine_tuned.classes, pretrained.classes) == (1000, 21843)
    assert published.of_architecture("./imagenet", title) == "./imagenet"
    assert published.of_architecture(Path("imagenet"), title) == Path("imagenet")


def test_the_words_need_a_published_architecture():
    with pytest.raises(ValueError, match=r"`weights` 'imagenet' means the architecture's .* './imagenet'"):
        published.of_architecture("imagenet", None)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("*", 323),
        ("google/bit-50", 1),
        ("bit-m-*-ilsvrc2012", 6),
        ("timm/*", 15),
        ("https://*", 307),
        ("BiT152x2", 9),
        ("*-run?-svhn", 15),
        ("", 0),
        ("nothing", 0),
    ],
)
def test_a_pattern_chooses_rows_by_name_source_or_architecture(pattern, count):
    assert len(keras_bit.list_checkpoints(pattern)) == count


def test_a_row_is_printed_as_a_line_of_a_table():
    rows = keras_bit.list_checkpoints()
    lines = [str(row) for row in rows]
    assert " ".join(lines[0].split()) == "google/bit-50 BiT50 1,000 classes 448 px 80.386 % 102 MB apache-2.0"
    assert len({line.index(" BiT", 40) for line in lines}) == 1
    assert max(map(len, lines)) <= 120


PROBE = """
import contextlib, json
with contextlib.suppress(ImportError):
    import torchvision_stub  # lets timm import beside a torch that torchvision was not built for
from timm.models import resnetv2
found = {}
for name, default in resnetv2.default_cfgs.items():
    for tag, cfg in default.cfgs.items():
        if "_bit" in name:
            found[f"{name}.{tag}"] = [cfg.hf_hub_id, cfg.num_classes, cfg.input_size[-1], cfg.crop_pct,
                                      cfg.interpolation, list(cfg.mean), list(cfg.std), cfg.license]
print(json.dumps(found))
"""
# Google's files, which timm's were made of (timm before 0.9 has their addresses).
TIMMS_SOURCES = {
    "goog_in21k_ft_in1k": "BiT-M-R{}-ILSVRC2012",
    "goog_in21k": "BiT-M-R{}",
    "goog_distilled_in1k": "R{}_224",
    "goog_teacher_in21k_ft_in1k": "R{}_T_224",
    "goog_teacher_in21k_ft_in1k_384": "R{}_T_384",
}


@pytest.mark.live
def test_timms_rows_are_those_of_timm():
    if not (path := os.environ.get("KERAS_BIT_TIMM")):
        absent("KERAS_BIT_TIMM does not say where timm is")
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    timms = json.loads(done.stdout)
    ours = {row.name: row for row in keras_bit.list_checkpoints("timm/*")}
    assert set(ours) == set(timms)
    for name, (hub_id, classes, size, crop_pct, interpolation, mean, std, license) in timms.items():
        assert ours[name].source in (hub_id, f"{hub_id}{name}")
        assert (ours[name].classes, ours[name].image_size, ours[name].license) == (classes, size, license)
        layers, _, tag = name.removeprefix("resnetv2_").partition("_bit.")
        google = resolve(TIMMS_SOURCES[tag].format(layers), False)
        assert google.config["pretrained_cfg"] == {
            "input_size": [3, size, size],
            "crop_pct": crop_pct,
            "interpolation": interpolation,
            "mean": mean,
            "std": std,
        }
        assert published.by_source()[google.url].top_1 == ours[name].top_1


def test_the_hubs_address_is_huggingface_hubs():
    from huggingface_hub import constants

    assert HUB in (constants.ENDPOINT, constants._HF_DEFAULT_ENDPOINT)


def test_imagenet_does_not_mean_a_directory_with_the_published_name(tmp_path, monkeypatch):
    (tmp_path / "google" / "bit-50").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"does not have config\.json of 'google/bit-50'"):
        keras_bit.BiT50(weights="imagenet", cache_dir=tmp_path / "cache", local_files_only=True)
