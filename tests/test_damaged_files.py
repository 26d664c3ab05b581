"""Tests damaged files of weights: each raises a ValueError or OSError that names it, in linear time and memory."""

import io
import json
import struct
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.numpy

from keras_bit import BitConfig, from_pretrained, save_pretrained
from keras_bit.checkpoints.layouts import plain_google_name
from keras_bit.checkpoints.lazy import LONGEST_NAME
from keras_bit.checkpoints.loading import find, read
from keras_bit.hub.finding import HubOptions
from keras_bit.network.weights import weights_of
from tiny_bit import CONFIG, GOOGLE_NAMES, write_checkpoint, write_npz

CONFIGURATION = BitConfig.from_dict(CONFIG)
STEM = GOOGLE_NAMES["bit.embedder.convolution.weight"]


def load(path):
    """Loads all tensors of a file, as every function that loads reads them."""
    return read(find(path, HubOptions(), CONFIGURATION).open(), weights_of(CONFIGURATION))


def assert_refused(path, facts=None):
    with pytest.raises((ValueError, OSError), match=facts) as error:
        load(path)
    assert str(path) in str(error.value)
    assert type(error.value).__module__ == "builtins"


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def repacked(path, change, method=zipfile.ZIP_STORED):
    """Changes the bytes of every member of the tiny checkpoint: `change(name, content)`; `None` leaves one out."""
    with (
        zipfile.ZipFile(write_npz(path.with_name("whole.npz"))) as whole,
        zipfile.ZipFile(path, "w", method) as archive,
    ):
        for name in whole.namelist():
            if (content := change(name, whole.read(name))) is not None:
                archive.writestr(name, content)
    return path


def stem_becomes(content):
    return lambda name, before: content if name == f"{STEM}.npy" else before


def with_header(described, version=1):
    """Returns a member with any header, which holds nothing."""
    header = described.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header


SHAPE = "'shape': (7, 7, 3, 16), "
HEADERS = {
    "a type of 477 GiB": with_header("{'descr': '<U128000000000', 'fortran_order': False, " + SHAPE + "}"),
    "texts": with_header("{'descr': '<U40', 'fortran_order': False, " + SHAPE + "}"),
    "objects": with_header("{'descr': '|O', 'fortran_order': False, " + SHAPE + "}"),
    "records": with_header("{'descr': [('a', '<f8'), ('b', '<f8', (9,))], 'fortran_order': False, " + SHAPE + "}"),
    "an unknown type": with_header("{'descr': '<q9', 'fortran_order': False, " + SHAPE + "}"),
    "an open bracket": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (7, 7, 3, 16"),
    "an open text": with_header("{'descr': '''<f4"),
    "Python": with_header("__import__('os').abort()"),
    "many brackets": with_header("(" * 9000),
    "a shape of 400 digits": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 400 + ",)}"),
    "a shape of 5000 digits": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}"),
    "a negative shape": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-7, 7, 3, 16)}"),
    "a shape of floats": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (7., 7, 3, 16)}"),
    "no header": b"",
    "half a header": b"\x93NUMPY\x01",
    "another version": with_header("{}", 2).replace(b"\x02\x00", b"\x07\x00", 1),
    "no numbers": with_header("{'descr': '<f4', 'fortran_order': False, " + SHAPE + "}"),
    "another magic": b"PK\x03\x04" + bytes(200),
    "fewer numbers than it says": npy(np.ones((7, 7, 3, 16), "f4"))[:-1],
    "NaN": npy(np.full((7, 7, 3, 16), np.nan, "f4")),
    "complex numbers": npy(np.ones((7, 7, 3, 16), "c8")),
    "whole numbers": npy(np.ones((7, 7, 3, 16), "i8")),
    "dates": npy(np.ones((7, 7, 3, 16), "M8[s]")),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_member_that_is_not_an_array_is_refused(tmp_path, case):
    assert_refused(repacked(tmp_path / "BiT.npz", stem_becomes(HEADERS[case])))


def test_files_that_numpy_compressed_are_read(tmp_path):
    compressed = repacked(tmp_path / "BiT.npz", lambda _, content: content, zipfile.ZIP_DEFLATED)
    assert load(compressed).keys() == load(tmp_path / "whole.npz").keys()


def spoilt(path, offset, value, size=2):
    """Returns the archive with a field of every member, here and in the directory at its end, set to `value`."""
    content = bytearray(path.read_bytes())
    for signature, begin in ((b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)):
        place = content.find(signature)
        while place >= 0:
            content[place + begin : place + begin + size] = value.to_bytes(size, "little")
            place = content.find(signature, place + 4)
    path.write_bytes(content)
    return path


ARCHIVES = {
    "encrypted": (6, 1),
    "strongly encrypted": (6, 0x41),
    "an unknown compression": (8, 99),
    "not compressed as it says": (8, 8),
    "lzma": (8, 14),
    "bzip2": (8, 12),
    "a version to come": (4, 99),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_of_another_kind_is_refused(tmp_path, case):
    assert_refused(spoilt(write_npz(tmp_path / "BiT.npz"), *ARCHIVES[case]))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_few_bytes_that_unpack_to_a_header_of_gigabytes_take_no_memory(tmp_path, method):
    bomb = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**25) + b" " * 2**25
    path = repacked(tmp_path / "BiT.npz", stem_becomes(bomb), method)
    del bomb
    tracemalloc.start()
    try:
        assert_refused(path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_long_name_in_an_archives_directory_makes_no_long_message(tmp_path):
    path = write_npz(tmp_path / "BiT.npz")
    content = bytearray(path.read_bytes())
    first = content.find(b"PK\x03\x04")
    content[first + 26 : first + 28] = b"\xff\xff"  # the length of the first member's name, of which zipfile shows all
    path.write_bytes(content)
    with pytest.raises(ValueError, match="File name in directory") as error:
        load(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 6000


def a_file(kind, folder):
    """Writes a whole file of a kind."""
    path = folder / f"bit.{kind}"
    if kind == "npz":
        return write_npz(path)
    if kind == "deflated.npz":
        return repacked(path, lambda _, content: content, zipfile.ZIP_DEFLATED)
    model = from_pretrained(write_checkpoint(folder / "made"))
    if kind == "weights.h5":
        model.save_weights(path)
    else:
        save_pretrained(model, folder / "saved")
        path.write_bytes((folder / "saved" / "model.safetensors").read_bytes())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npz", "deflated.npz", "weights.h5", "safetensors"])
def test_bytes_anywhere_that_changed_are_documented_errors(tmp_path, kind):
    path = a_file(kind, tmp_path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    ends = [*range(0, 200, 5), *range(len(content) - 600, len(content), 15)]  # most bytes that are not numbers are here
    places = [*ends, *rng.integers(0, len(content), 40).tolist()]
    for place in places:
        changed = bytearray(content)
        changed[place : place + 2] = rng.integers(0, 256, len(changed[place : place + 2]), dtype=np.uint8).tobytes()
        path.write_bytes(changed)
        try:
            load(path)
        except (ValueError, OSError) as error:
            assert str(path) in str(error)  # noqa: PT017 - it may load, too: not all bytes mean something
    for size in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        assert_refused(path)


# Names


LONG = ["resnet/" * 4000 + "\n", "resnet/" * 4000 + "\n/", "a/" * 50_000, "conv2d_" + "1" * 60_000, "/" * 60_000]


@pytest.mark.parametrize("name", LONG)
def test_a_name_takes_linear_time(name):
    plain_google_name(name * 50)  # which would take hours


def write_named(kind, path, name):
    if kind == "npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}.npy", npy(np.ones(2, "f4")))
    elif kind == "safetensors":
        safetensors.numpy.save_file({name: np.ones(2, "f4")}, path)
    elif kind == "weights.h5":
        with h5py.File(path, "w") as file:
            file[f"layers/{name}/vars/0"] = np.ones(2)
    elif kind == "layer.weights.h5":
        with h5py.File(path, "w") as file:
            file["layers/std_conv2d/vars/0"] = np.ones(2)
            file["layers/std_conv2d/vars"].attrs["name"] = name
    else:
        path.write_text(json.dumps({"weight_map": {name: "a.safetensors"}}))


@pytest.mark.parametrize("kind", ["npz", "safetensors", "weights.h5", "layer.weights.h5", "safetensors.index.json"])
def test_a_name_that_is_too_long_is_refused(tmp_path, kind):
    path = tmp_path / f"bit.{kind}"
    write_named(kind, path, "resnet/" * 4000)
    assert_refused(path, f"has .* characters, expected at most {LONGEST_NAME:,}")


@pytest.mark.parametrize("kind", ["npz", "safetensors", "weights.h5", "layer.weights.h5"])
@pytest.mark.parametrize(
    "name", ["", "a", "resnet/", "resnet/\n", "layers/x", "std_conv2d/vars/²", "stem_conv", "é\ud7ff"]
)
def test_other_names_are_documented_errors(tmp_path, kind, name):
    path = tmp_path / f"bit.{kind}"
    write_named(kind, path, name)
    with pytest.raises((ValueError, OSError)) as error:
        load(path)
    assert str(path) in str(error.value)


def test_shards_are_sorted_in_linear_time(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {str(number): f"{number}.safetensors" for number in range(100_000)}}))
    with pytest.raises(FileNotFoundError, match=r"lacks the shard 0\.safetensors"):
        find(path, HubOptions(), CONFIGURATION).open()
