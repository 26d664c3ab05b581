"""Tests stand_ins.py: files that stand in for others (such as LFS pointers), at every place that reads checkpoints."""

import shutil

import pytest

from keras_bit import BitConfig, BitImageProcessor, from_pretrained
from keras_bit.checkpoints.loading import WEIGHT_NAMES
from keras_bit.hub import stand_ins
from store import TRAINED

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 102212368\n"
)
PAGES = {
    "a page": b"<!DOCTYPE html>\n<html><body>Sign in</body></html>",
    "a page that begins later": b"\xef\xbb\xbf \r\n<HTML lang=en>",
    "an error of a storage service": b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code></Error>",
}
FILES = {
    "empty": b"",
    "JSON": b'{"model_type": "bit"}',
    "safetensors": (8).to_bytes(8, "little") + b"{}      ",
    "a zip archive": b"PK\x03\x04",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "a text about pointers": b"The version https://git-lfs.github.com/spec/v1 ...",
    "no page": b"<svg>",
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_is_taken_as_it_is(tmp_path, case):
    (tmp_path / "file").write_bytes(FILES[case])
    stand_ins.refuse(tmp_path / "file")


def test_a_file_that_cannot_be_opened_is_left_to_its_reader(tmp_path):
    stand_ins.refuse(tmp_path)


@pytest.mark.parametrize("case", PAGES)
def test_a_web_page_in_place_of_a_file_is_reported(tmp_path, case):
    (tmp_path / "bit.npz").write_bytes(PAGES[case])
    with pytest.raises(ValueError, match=r"bit\.npz is a web page .*, not the expected file") as error:
        stand_ins.refuse(tmp_path / "bit.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [POINTER, POINTER.replace(b"size", b"ext-0-x y\nsize"), POINTER[:60]])
def test_a_git_lfs_pointer_is_reported(tmp_path, content):
    (tmp_path / "bit.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"bit\.npz is a Git LFS pointer, .*`git lfs pull`") as error:
        stand_ins.refuse(tmp_path / "bit.npz")
    assert ("(which has 102,212,368 bytes)" in str(error.value)) == (b"size" in content)
    assert "\n" not in str(error.value)


@pytest.fixture
def checkpoint(tmp_path):
    """Makes a directory in transformers' layout with a processor."""
    return shutil.copytree(TRAINED, tmp_path / "bit")


@pytest.mark.parametrize("content", [POINTER, PAGES["a page"]])
@pytest.mark.parametrize("name", [*WEIGHT_NAMES, "bit.npz", "bit.h5"])
def test_stand_ins_for_weights_of_every_kind_are_reported(checkpoint, name, content):
    for path in checkpoint.glob("*model*"):
        path.unlink()
    (checkpoint / name).parent.mkdir(exist_ok=True)
    (checkpoint / name).write_bytes(content)
    sources = [checkpoint / name, *([checkpoint] if name in WEIGHT_NAMES else [])]
    for source in sources:
        with pytest.raises(ValueError, match=r"is a (Git LFS pointer|web page)"):
            from_pretrained(source)


@pytest.mark.parametrize("content", [POINTER, PAGES["a page"]])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.json", BitConfig.from_pretrained),
        ("config.json", from_pretrained),
        ("preprocessor_config.json", BitImageProcessor.from_pretrained),
    ],
)
def test_stand_ins_for_configurations_are_reported(checkpoint, name, read, content):
    (checkpoint / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is a (Git LFS pointer|web page)"):
        read(checkpoint)
