"""Tests safetensors_file.py: others read its files, and it finds every flipped bit and swapped tensor."""

import json
import re

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from keras_bit import BiTBackbone, from_pretrained, save_pretrained
from keras_bit.checkpoints import safetensors_file
from keras_bit.checkpoints.safetensors_file import CHECKSUMS, open_tensors, write
from tiny_bit import CONFIG, PREACTIVATION, assert_holds, random_tensors, write_checkpoint

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", ml_dtypes.bfloat16]
SHAPES = [(), (0,), (1,), (3, 0, 2), (5,), (4, 3), (2, 3, 3, 2)]


def every_kind():
    rng = np.random.default_rng(0)
    kinds = [(dtype, shape) for dtype in DTYPES for shape in SHAPES]
    return {f"{np.dtype(dtype).name}/{shape}": np.array(9 * rng.random(shape)).astype(dtype) for dtype, shape in kinds}


def data_of(path):
    """Maps each tensor's name to the first and last byte of its numbers in the file."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    return {name: [start + end for end in header[name]["data_offsets"]] for name in header if name != "__metadata__"}


def flip(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


@pytest.fixture
def saved(tmp_path):
    """Saves a tiny checkpoint with `save_pretrained`. Returns the folder and the weights' file."""
    save_pretrained(from_pretrained(write_checkpoint(tmp_path / "made")), tmp_path / "saved")
    return tmp_path / "saved", tmp_path / "saved" / "model.safetensors"


def test_every_type_and_shape_is_read_by_the_library_and_here(tmp_path):
    tensors = every_kind()
    write(tensors, tmp_path / "a.safetensors", {"format": "pt"})
    theirs = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    ours = {name: tensor.read() for name, tensor in open_tensors(tmp_path / "a.safetensors")}
    assert theirs.keys() == ours.keys() == tensors.keys()
    for name, values in tensors.items():
        for found in (theirs[name], ours[name]):
            assert (found.dtype, found.shape, found.tobytes()) == (values.dtype, values.shape, values.tobytes())


def test_the_data_is_laid_out_as_the_library_lays_it_out(tmp_path):
    tensors = every_kind()
    write(tensors, tmp_path / "ours", {})
    safetensors.numpy.save_file(tensors, tmp_path / "theirs")
    with safetensors.safe_open(tmp_path / "ours", "numpy") as ours:
        assert set(ours.metadata()) == {CHECKSUMS}
    for name, (begin, _) in data_of(tmp_path / "ours").items():
        assert begin % tensors[name].dtype.itemsize == 0
    assert sum(end - begin for begin, end in data_of(tmp_path / "ours").values()) == sum(
        end - begin for begin, end in data_of(tmp_path / "theirs").values()
    )


def test_the_same_tensors_give_the_same_file(tmp_path):
    for number in range(4):
        write(random_tensors(), tmp_path / str(number), {"format": "pt", "log": "[]"})
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_tensors_of_any_memory_order_are_written_in_axis_order(tmp_path):
    values = np.arange(24.0).reshape(2, 3, 4)
    write({"turned": values.T}, tmp_path / "a", {})
    np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "a")["turned"], values.T)


@pytest.mark.live
def test_transformers_reads_the_file(saved):
    import transformers

    model = transformers.BitForImageClassification.from_pretrained(saved[0])
    for name, values in random_tensors().items():
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), values)


# Damage


def test_every_flipped_bit_is_found_and_the_tensor_named(saved):
    folder, path = saved
    places = data_of(path)
    assert len(places) == len(PREACTIVATION)
    rng = np.random.default_rng(0)
    for name, (begin, end) in places.items():
        for place in (begin, end - 1, int(rng.integers(begin, end))):
            bit = int(rng.integers(0, 8))
            flip(path, place, bit)
            tensors = dict(open_tensors(path))
            for read in (tensors[name].read, lambda tensor=tensors[name]: list(tensor.parts())):
                with pytest.raises(ValueError, match="its checksum is"):
                    read()
            flip(path, place, bit)
    assert_holds(from_pretrained(folder), random_tensors())


@pytest.mark.parametrize(
    "load",
    [
        from_pretrained,
        lambda folder: from_pretrained(folder, fused=True),
        lambda folder: BiTBackbone(folder),
        lambda folder: from_pretrained(folder, input_shape=(None, None, 1)),  # adapts the kernel that was damaged
    ],
)
@pytest.mark.filterwarnings("ignore:The checkpoint")
def test_damage_is_an_error_that_names_the_file_and_the_tensor(saved, load):
    folder, path = saved
    name = "bit.embedder.convolution.weight"
    flip(path, data_of(path)[name][0])
    with pytest.raises(
        ValueError, match=rf"The tensor {name} of .* in {re.escape(str(path))} cannot be read: its checks"
    ):
        load(folder)


def test_tensors_of_one_shape_that_were_swapped_are_found(saved):
    folder, path = saved
    content, places = path.read_bytes(), data_of(path)
    one, other = (f"bit.encoder.stages.0.layers.{block}.norm2.weight" for block in (0, 1))
    first, second = (content[slice(*places[name])] for name in (one, other))
    changed = bytearray(content)
    changed[slice(*places[one])], changed[slice(*places[other])] = second, first
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=re.escape(one)):
        from_pretrained(folder)
    # The same by their names in the header.
    start = 8 + int.from_bytes(content[:8], "little")
    swapped = content[:start].replace(f'"{one}":'.encode(), b'"-":')
    swapped = swapped.replace(f'"{other}":'.encode(), f'"{one}":'.encode()).replace(b'"-":', f'"{other}":'.encode())
    path.write_bytes(swapped + content[start:])
    with pytest.raises(ValueError, match=re.escape(one)):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("checksums", "message"),
    [
        ("{", "is damaged or not a safetensors file"),
        ("[]", "is damaged or not a safetensors file: its keras_bit_crc32 are not a JSON object"),
        ("{}", "but none was stored"),
        (json.dumps({name: 0 for name, *_ in PREACTIVATION}), "but 0 was stored"),
    ],
)
def test_checksums_that_are_damaged_are_damage(tmp_path, checksums, message):
    write_checkpoint(tmp_path)
    safetensors.numpy.save_file(random_tensors(), tmp_path / "model.safetensors", {CHECKSUMS: checksums})
    with pytest.raises(ValueError, match=message) as error:
        from_pretrained(tmp_path)
    assert str(tmp_path / "model.safetensors") in str(error.value)


def test_files_of_others_are_read_without_checksums(tmp_path, saved):
    # What another program writes after it has read ours, and changed it.
    safetensors.numpy.save_file(random_tensors(seed=1), saved[1], {"format": "pt"})
    assert_holds(from_pretrained(saved[0]), random_tensors(seed=1))
    assert_holds(from_pretrained(write_checkpoint(tmp_path / "theirs", config=CONFIG)), random_tensors())


def test_a_file_replaced_during_reading_is_checked_by_its_own_checksums(saved):
    _, path = saved
    tensors = dict(open_tensors(path))
    write(random_tensors(seed=1), path, {"format": "pt"})
    for name, values in random_tensors(seed=1).items():
        np.testing.assert_array_equal(np.concatenate(list(tensors[name].parts())), values)


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_the_checksum_of_parts_is_that_of_the_whole(saved, monkeypatch, size):
    monkeypatch.setattr(safetensors_file, "_PART", size)
    assert_holds(from_pretrained(saved[0]), random_tensors())
