"""Tests loading.py: whole and damaged files of every kind, read only when needed, and loaded wholly or not at all."""

import gc
import json
import pickle
import re
import struct
import sys
import threading
import time
import weakref
from pathlib import Path

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from keras_bit import BiTBackbone, from_pretrained
from keras_bit.checkpoints import filling
from keras_bit.checkpoints.layouts import KERAS, TIMM, TRANSFORMERS, TRANSFORMERS_BASE
from keras_bit.checkpoints.loading import Checkpoint, LazyTensor, find, infer_config, read
from keras_bit.hub.finding import HubOptions
from keras_bit.network import model as network
from keras_bit.network.config import BitConfig
from keras_bit.network.layers import StdConv2D
from keras_bit.network.model import Ends
from keras_bit.network.weights import weights_of
from tiny_bit import (
    BOTTLENECK,
    BOTTLENECK_CONFIG,
    CONFIG,
    PREACTIVATION,
    assert_holds,
    contiguous,
    random_tensors,
    variables,
    write_checkpoint,
    write_npz,
    write_shards,
    write_timm,
)

STEM = "bit.embedder.convolution.weight"
CONV1 = "bit.encoder.stages.0.layers.0.conv1.weight"
NORM = "bit.norm.weight"
HEAD = "classifier.1.weight"
TENSORS = random_tensors()


def loaded(source, config=CONFIG, include_top=True, input_tensor=None):
    """Returns the network of `config` with the weights of a source or of an opened checkpoint."""
    config = BitConfig.from_dict(config) if isinstance(config, dict) else config
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    weights = [weight for weight in weights_of(config) if include_top or weight.layer != "predictions"]
    ends = Ends(include_top=include_top, input_tensor=input_tensor, classifier_activation=None)
    return network.build(config, ends, read(checkpoint, weights))


def open_checkpoint(source, **options):
    return find(source, HubOptions(**options)).open()


def in_memory(tensors, log=None):
    """Returns a checkpoint without a file; `log` gets the name of every tensor that is read."""

    def lazy(name):
        def read():
            if log is not None:
                log.append(name)
            return tensors[name]

        return LazyTensor(tensors[name].shape, read)

    return Checkpoint("somewhere", TRANSFORMERS, {name: lazy(name) for name in tensors}, ())


def save_raw(path, entries):
    """Writes a safetensors file from name to (dtype, shape, bytes), also of dtypes that numpy lacks."""
    header, data = {}, b""
    for name, (dtype, shape, content) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)
    return path


# Opening


def test_a_directory_a_file_and_shards_are_the_same_tensors(tmp_path):
    folder = write_checkpoint(tmp_path / "whole")
    shards = write_shards(tmp_path / "shards")
    opened = {
        "directory": open_checkpoint(folder),
        "file": open_checkpoint(str(folder / "model.safetensors")),
        "shards": open_checkpoint(str(shards)),
        "index": open_checkpoint(shards / "model.safetensors.index.json"),
    }
    for checkpoint in opened.values():
        assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == {
            name: shape for name, shape, _, _ in PREACTIVATION
        }
        assert checkpoint.layout is TRANSFORMERS
        assert checkpoint.config == BitConfig.from_dict(CONFIG)
        assert checkpoint.head_classes == 5
        assert checkpoint.parameters == sum(tensor.size for tensor in TENSORS.values())
    assert opened["directory"].source == str(folder)
    assert opened["directory"].files == (folder / "model.safetensors",)
    assert opened["shards"].files == tuple(shards / f"model-0000{n}-of-00002.safetensors" for n in (1, 2))


def test_a_home_directory_and_a_relative_path_are_found(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "bit")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "bit")
    for source in ("~/bit", "~/bit/model.safetensors", "model.safetensors", Path("model.safetensors")):
        assert len(open_checkpoint(source).tensors) == 34


def test_safetensors_are_preferred_to_what_takes_torch(tmp_path):
    folder = write_checkpoint(tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    assert open_checkpoint(folder).files == (folder / "model.safetensors",)


NO_SOURCE = {
    "an empty directory": (
        "empty",
        {},
        FileNotFoundError,
        r"holds no weights. These names were tried: model\.safetensors, .*index.$",
    ),
    "files of other names": (
        ".",
        {},
        FileNotFoundError,
        r"holds no weights\. .* were tried: .*\. It has file\.bin, last\.ckpt: pass the path of the file, such as",
    ),
    "a path that does not exist": ("./none", {}, FileNotFoundError, r"No such file or directory: '\./none'"),
    "a file that does not exist": ("none.safetensors", {}, FileNotFoundError, "No such file or directory"),
    "a null character": ("a\0b", {}, ValueError, "`source` 'a.x00b' is not a local file or directory"),
    "an endless name": ("a" * 5000, {}, ValueError, "`source` 'aaa"),
    "a home of nobody": ("~nobody/bit", {}, FileNotFoundError, "No such file or directory: '~nobody/bit'"),
    "nothing": ("", {}, ValueError, "`source` must not be empty"),
    "None": (None, {}, TypeError, "`source` must be a path or a Hub id .*, got NoneType"),
    "a number": (5, {}, TypeError, "`source` must be a path or a Hub id .*, got int"),
    "a revision of a directory": (".", {"revision": "v1"}, ValueError, "`revision` 'v1' was given, but `source` '.'"),
    "a revision of a file": ("file.bin", {"revision": "v1"}, ValueError, "`revision` 'v1' was given, but `source`"),
    "a file of another kind": ("file.onnx", {}, ValueError, r"file\.onnx' is of an unknown kind\. Expected .*\.h5, .*"),
}


@pytest.mark.parametrize(("source", "arguments", "error", "message"), NO_SOURCE.values(), ids=NO_SOURCE)
def test_a_source_without_weights_is_named(tmp_path, monkeypatch, source, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("file.onnx", "file.bin", "last.ckpt", "part-00001-of-00002.safetensors", "tokenizer.json"):
        (tmp_path / name).touch()
    with pytest.raises(error, match=message):
        open_checkpoint(source, **arguments)


def test_a_file_that_is_not_safetensors_or_is_cut_is_reported_as_damaged(tmp_path):
    whole = safetensors.numpy.save(TENSORS)
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    path = tmp_path / "model.safetensors"
    cut_off = [whole[:size] for size in (0, 4, 8, header // 2, header, len(whole) // 2, len(whole) - 1)]
    for content in (*cut_off, b"Not found", whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"^{re.escape(str(path))} is damaged or not a safetensors file: .*Fetch it"
        ):
            open_checkpoint(tmp_path)


# Shards


INDICES = {
    "not JSON": ("{", r"index\.json is not JSON: "),
    "a list": ("[]", r"index\.json must hold a JSON object"),
    "no weight_map": ("{}", "is not an index of shards: it must have a `weight_map`"),
    "a list as weight_map": ('{"weight_map": []}', "is not an index of shards: it must have a `weight_map`"),
    "numbers as files": ('{"weight_map": {"a": 1}}', "is not an index of shards: it must have a `weight_map`"),
    **{
        name: (
            json.dumps({"weight_map": {STEM: name}}),
            "names the shard .*; expected a .safetensors, .bin or .weights.h5 file",
        )
        for name in (
            "../a.safetensors",
            "/etc/a.safetensors",
            "b/a.safetensors",
            "..",
            "",
            "a.pkl",
            "a.json",
            "a.keras",
        )
    },
}


@pytest.mark.parametrize(("index", "message"), INDICES.values(), ids=INDICES)
def test_an_index_that_cannot_be_followed_is_refused(tmp_path, index, message):
    folder = write_shards(tmp_path / "in")
    write_checkpoint(tmp_path, config=None).joinpath("model.safetensors").rename(tmp_path / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=message):
        open_checkpoint(folder)


def test_a_shard_that_is_absent_is_named(tmp_path):
    folder = write_shards(tmp_path)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks the shard model-00002-of-00002\.safetensors that model\.safetensors\.index"
    ):
        open_checkpoint(folder)


def test_a_shard_that_is_cut_off_is_named(tmp_path):
    path = write_shards(tmp_path) / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors is damaged or not a safetensors file"):
        open_checkpoint(tmp_path)


def test_a_tensor_that_its_shard_lacks_is_named_wherever_else_it_may_be(tmp_path):
    folder = write_shards(tmp_path)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"][STEM] = "model-00002-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(
        ValueError,
        match=rf"00002\.safetensors lacks tensors that model\.safetensors\.index\.json lists for it: {STEM}",
    ):
        open_checkpoint(folder)


def test_a_tensor_in_two_shards_is_not_taken_from_either(tmp_path):
    folder = write_shards(tmp_path)
    path = folder / "model-00002-of-00002.safetensors"
    safetensors.numpy.save_file(safetensors.numpy.load_file(path) | {STEM: TENSORS[STEM]}, path)
    with pytest.raises(ValueError, match=rf"00002\.safetensors holds tensors that another shard holds too: {STEM}"):
        open_checkpoint(folder)


# Lazily


def test_opening_reads_no_tensor(tmp_path, monkeypatch):
    opened = []

    class Handle:
        def __init__(self, path, framework):
            self.handle = safetensors_open(path, framework=framework)
            opened.append(path)

        def __getattr__(self, name):
            assert name in ("keys", "get_slice")
            return getattr(self.handle, name)

    safetensors_open = safetensors.safe_open
    monkeypatch.setattr(safetensors, "safe_open", Handle)
    assert len(open_checkpoint(write_shards(tmp_path)).tensors) == 34
    assert len(opened) == 2


def test_tensors_are_read_once_each_and_the_largest_first(monkeypatch):
    monkeypatch.setattr(filling, "processors", lambda: 1)  # two take turns as they like
    log = []
    assert_holds(loaded(in_memory(TENSORS, log)), TENSORS)
    assert sorted(log) == sorted(TENSORS)
    sizes = [TENSORS[name].size for name in log]
    assert sizes == sorted(sizes, reverse=True)


def test_of_what_was_read_nothing_is_kept_but_the_variables():
    values = read(in_memory(TENSORS), weights_of(BitConfig.from_dict(CONFIG)))
    kernel = weakref.ref(values["stage1_block0_conv2", "kernel"])
    model = network.build(BitConfig.from_dict(CONFIG), Ends(), values)
    assert values == {}
    gc.collect()
    assert kernel() is None
    assert_holds(model, TENSORS)


def test_tensors_do_not_stay_mapped_into_memory(tmp_path):
    path = write_checkpoint(tmp_path) / "model.safetensors"
    checkpoint = open_checkpoint(path)
    read(checkpoint, weights_of(BitConfig.from_dict(CONFIG)))
    mapped = Path("/proc/self/maps")
    if mapped.exists():  # on Linux
        assert str(path) not in mapped.read_text()


def test_a_file_that_changed_after_it_was_opened_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path)
    checkpoint = open_checkpoint(folder)
    write_checkpoint(folder, TENSORS | {STEM: TENSORS[STEM][:8]})
    with pytest.raises(ValueError, match=rf"{STEM} .* cannot be read: it had shape .16, 3, 7, 7. and now has .8, 3"):
        loaded(checkpoint)


def test_a_checkpoint_that_does_not_fit_is_not_read():
    log = []
    with pytest.raises(ValueError, match="does not fit"):
        loaded(in_memory(TENSORS | {STEM: np.zeros((16, 3, 7, 6))}, log))
    assert log == []


# Loading


@pytest.mark.parametrize(("config", "rows"), [(CONFIG, PREACTIVATION), (BOTTLENECK_CONFIG, BOTTLENECK)])
@pytest.mark.parametrize("write", [write_checkpoint, write_shards])
def test_every_tensor_comes_to_its_variable(tmp_path, write, config, rows):
    tensors = random_tensors(rows)
    assert_holds(loaded(write(tmp_path, tensors, config), config), tensors, rows)


def test_stochastic_depth_has_no_tensors(tmp_path):
    config = CONFIG | {"drop_path_rate": 0.2}
    assert_holds(loaded(write_checkpoint(tmp_path, config=config), config), TENSORS)


def test_a_bit_model_saved_by_itself_is_read_without_the_prefix(tmp_path):
    tensors = {name.removeprefix("bit."): TENSORS[name] for name in TENSORS if name.startswith("bit.")}
    checkpoint = open_checkpoint(write_checkpoint(tmp_path, tensors))
    assert checkpoint.layout is TRANSFORMERS_BASE
    assert checkpoint.head_classes is None
    assert_holds(
        loaded(checkpoint, include_top=False), {name: TENSORS[name] for name in TENSORS if name.startswith("bit.")}
    )


def test_without_the_head_its_tensors_are_neither_read_nor_missed():
    log = []
    spoilt = TENSORS | {HEAD: np.full((7, 3), np.nan), "classifier.1.bias": np.zeros(7, np.int8)}
    model = loaded(in_memory(spoilt, log), include_top=False)
    assert not {HEAD, "classifier.1.bias"} & set(log)
    assert_holds(model, {name: TENSORS[name] for name in TENSORS if name.startswith("bit.")})


def test_layers_in_front_of_the_network_keep_their_weights():
    pixels = keras.Input((None, None, 3))
    adapted = keras.layers.Dense(3, name="adapter")(pixels)
    before = np.asarray(keras.Model(pixels, adapted).get_layer("adapter").kernel.value)
    found = variables(loaded(in_memory(TENSORS), input_tensor=adapted))
    np.testing.assert_array_equal(found["adapter", "kernel"], before)
    assert len(found) == 34 + 2


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_floating_point_types_are_read_as_float32(tmp_path, dtype):
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    tensors = {name: tensor.astype(kind) for name, tensor in TENSORS.items()}
    assert_holds(
        loaded(write_checkpoint(tmp_path, tensors)), {name: t.astype(np.float32) for name, t in tensors.items()}
    )


def without(*names):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


def changed(name, change):
    return lambda tensors: tensors | {name: change(tensors[name])}


MISFITS = {
    "one is missing": (without(STEM), [f"missing from the checkpoint (1): {STEM}\n"]),
    "the head is missing": (
        without(HEAD, "classifier.1.bias"),
        [
            "missing from the checkpoint (2): classifier.1.weight, classifier.1.bias\n",
            "Its config.json must describe the network that was saved.",
        ],
    ),
    "one is extra": (
        lambda tensors: tensors | {"bit.pooler.weight": np.zeros(3)},
        ["not part of the model (1): bit.pooler.weight\n"],
    ),
    "a convolution in Keras' axis order": (
        changed(STEM, lambda tensor: tensor.transpose(2, 3, 1, 0)),
        [
            f"wrongly shaped (1): {STEM} expected (16, 3, 7, 7), got (7, 7, 3, 16) "
            "(transposed: the same sizes in another order)\n"
        ],
    ),
    "a transposed head": (
        changed(HEAD, np.transpose),
        [
            "wrongly shaped (1): classifier.1.weight expected (5, 64), got (64, 5) "
            "(transposed: the same sizes in another order)\n"
        ],
    ),
    "a wrong size": (
        changed(CONV1, lambda tensor: tensor[:, :-1]),
        [f"wrongly shaped (1): {CONV1} expected (8, 16, 1, 1), got (8, 15, 1, 1)\n"],
    ),
    "a wrong rank": (
        changed(CONV1, lambda tensor: tensor[:, :, 0, 0]),
        [f"wrongly shaped (1): {CONV1} expected (8, 16, 1, 1), got (8, 16)\n"],
    ),
    "a number for a vector": (changed(NORM, np.mean), [f"wrongly shaped (1): {NORM} expected (64,), got ()\n"]),
    "an empty vector": (changed(NORM, lambda t: t[:0]), [f"wrongly shaped (1): {NORM} expected (64,), got (0,)\n"]),
    "everything at once": (
        lambda tensors: (
            changed(NORM, lambda t: t[1:])(without(STEM, CONV1)(tensors)) | {"x": np.zeros(3), "y": np.ones(1)}
        ),
        [
            f"missing from the checkpoint (2): {STEM}, {CONV1}\n",
            "not part of the model (2): x, y\n",
            f"wrongly shaped (1): {NORM} expected (64,), got (63,)\n",
        ],
    ),
    "another layer type": (
        lambda _: random_tensors(BOTTLENECK),
        [
            "missing from the checkpoint (2): bit.norm.weight, bit.norm.bias\n",
            "not part of the model (6): bit.embedder.norm.bias, ",
            "wrongly shaped (12): bit.encoder",
        ],
    ),
}


@pytest.mark.parametrize(("change", "messages"), MISFITS.values(), ids=MISFITS)
def test_tensors_that_do_not_fit_are_listed_and_none_is_loaded(tmp_path, change, messages):
    folder = write_checkpoint(tmp_path, change(TENSORS))
    with pytest.raises(ValueError, match=r"does not fit the model\. Nothing was loaded\.") as error:
        loaded(folder)
    text = str(error.value)
    assert text.startswith(f"The checkpoint {str(folder)!r} (transformers layout) does not fit the model.")
    for message in messages:
        assert message in text
    sections = ("missing from the checkpoint (", "not part of the model (", "wrongly shaped (")
    assert sum(section in text for section in sections) == sum(message.startswith(sections) for message in messages)


def spoilt_by(value):
    def spoil(tensor):
        tensor = tensor.copy()
        tensor.flat[-1] = value
        return tensor

    return spoil


DAMAGES = {
    "NaN": (changed(STEM, spoilt_by(np.nan)), f"{STEM} holds NaN or infinity"),
    "infinity": (changed(NORM, spoilt_by(-np.inf)), f"{NORM} holds NaN or infinity"),
    "NaN in float16": (changed(NORM, lambda t: spoilt_by(np.nan)(t.astype("float16"))), f"{NORM} holds NaN or inf"),
    "NaN in bfloat16": (
        changed(NORM, lambda t: spoilt_by(np.nan)(t.astype(ml_dtypes.bfloat16))),
        f"{NORM} holds NaN or inf",
    ),
    "more than float32 holds": (changed(NORM, lambda t: spoilt_by(1e300)(t.astype("float64"))), f"{NORM} holds NaN or"),
    "whole numbers": (changed(STEM, lambda t: t.astype("int64")), f"{STEM} holds int64, expected floating point"),
    "truth values": (changed(STEM, lambda t: t > 0), f"{STEM} holds bool, expected floating point"),
    "several": (
        lambda tensors: changed(HEAD, spoilt_by(np.inf))(changed(STEM, spoilt_by(np.nan))(tensors)),
        f"{STEM} holds NaN or infinity; {HEAD} holds NaN or infinity. Nothing was loaded.",
    ),
}


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES)
@pytest.mark.filterwarnings("error")
def test_tensors_with_values_that_are_not_finite_are_listed(tmp_path, change, message):
    folder = write_checkpoint(tmp_path, change(TENSORS))
    with pytest.raises(ValueError, match=f"^The checkpoint {str(folder)!r} is damaged: {message}"):
        loaded(folder)


def one_after_the_other(tensors, slow, error=None):
    """Returns a checkpoint whose tensors `slow` come last, or raise `error`."""

    def lazy(name):
        def read():
            if name in slow:
                time.sleep(0.2)
                if error is not None:
                    raise error
            return tensors[name]

        return LazyTensor(tensors[name].shape, read)

    return Checkpoint("somewhere", TRANSFORMERS, {name: lazy(name) for name in tensors}, ())


def test_damage_is_listed_in_the_networks_order_for_any_thread_order():
    names = [STEM, CONV1, NORM, HEAD]
    spoilt = TENSORS | {name: spoilt_by(np.nan)(TENSORS[name]) for name in names}
    listed = "; ".join(f"{name} holds NaN or infinity" for name in names)
    for slow in ([], [STEM], [HEAD], [NORM, CONV1]):
        with pytest.raises(ValueError, match=rf"^The checkpoint 'somewhere' is damaged: {listed}\. Nothing was loaded"):
            loaded(one_after_the_other(spoilt, slow))


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError("disk on fire"), ValueError, f"The tensor {CONV1} of .* cannot be read: disk on fire. Nothing was"),
        (KeyboardInterrupt("Ctrl-C"), KeyboardInterrupt, "Ctrl-C"),
        (MemoryError("too large"), MemoryError, "too large"),
    ],
    ids=["unreadable", "Ctrl-C", "no memory"],
)
def test_loading_leaves_no_thread_however_it_ends(error, raised, message):
    with pytest.raises(raised, match=message):
        loaded(one_after_the_other(TENSORS, [CONV1], error))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("keras_bit")]


# The same damage in the other layouts: how they are written, what they are called, their names of conv1 in the first
# block, of the final norm's beta, and of conv1 in a block that a smaller network lacks.
LAYOUTS = {
    "a BitModel's": (
        lambda path, tensors: write_checkpoint(path, {n.removeprefix("bit."): t for n, t in tensors.items()}),
        "transformers layout of a BitModel",
        ("encoder.stages.0.layers.0.conv1.weight", "norm.bias", "encoder.stages.0.layers.1.conv1.weight"),
    ),
    "shards": (
        lambda path, tensors: write_shards(path, tensors),
        "transformers layout",
        (CONV1, "bit.norm.bias", "bit.encoder.stages.0.layers.1.conv1.weight"),
    ),
    "timm's": (
        lambda path, tensors: write_timm(path, tensors=tensors),
        "timm layout",
        ("stages.0.blocks.0.conv1.weight", "norm.bias", "stages.0.blocks.1.conv1.weight"),
    ),
    "Google's": (
        lambda path, tensors: write_npz(path.with_suffix(".npz"), tensors=tensors),
        "Google's .npz layout",
        (
            "resnet/block1/unit01/a/standardized_conv2d/kernel",
            "resnet/group_norm/beta",
            "resnet/block1/unit02/a/standardized_conv2d/kernel",
        ),
    ),
}


@pytest.mark.parametrize(("write", "title", "names"), LAYOUTS.values(), ids=LAYOUTS)
def test_misfits_are_reported_in_the_names_of_every_layout(tmp_path, write, title, names):
    conv, beta, rest = names
    body = without(HEAD, "classifier.1.bias")(TENSORS)  # a BitModel has no head

    def refusal(change, config=CONFIG):
        source = write(tmp_path / "bit", change(body))
        with pytest.raises(ValueError, match=r"Nothing was loaded\.") as error:
            loaded(source, config, include_top=False)
        assert str(source) in str(error.value)
        return str(error.value)

    text = refusal(without("bit.norm.bias"))
    assert f"({title}) does not fit the model" in text
    assert f"missing from the checkpoint (1): {beta}\n" in text
    text = refusal(lambda tensors: tensors, CONFIG | {"depths": [1, 1]})
    assert "not part of the model (9): " in text
    assert rest in text
    text = refusal(changed(CONV1, lambda t: t.transpose(2, 3, 1, 0)))
    shapes = ("(1, 1, 16, 8)", "(16, 8, 1, 1)") if title.startswith("Google") else ("(8, 16, 1, 1)", "(1, 1, 16, 8)")
    assert f"wrongly shaped (1): {conv} expected {shapes[0]}, got {shapes[1]} (transposed: the same sizes in" in text
    assert f"is damaged: {beta} holds NaN or infinity" in refusal(changed("bit.norm.bias", spoilt_by(np.nan)))
    assert f"{conv} holds int64, expected floating point" in refusal(changed(CONV1, lambda t: t.astype("int64")))


def test_a_type_that_numpy_lacks_is_reported_with_the_tensor(tmp_path):
    entries = {name: ("F32", tensor.shape, tensor.tobytes()) for name, tensor in TENSORS.items()}
    path = save_raw(tmp_path / "bit.safetensors", entries | {NORM: ("F8_E4M3", [64], bytes(64))})
    with pytest.raises(ValueError, match=f"The tensor {NORM} of the checkpoint .* cannot be read: .*float8_e4m3fn"):
        loaded(path)


HEADS = {
    "a head": ({}, 5),
    "no head": (None, None),
    "a transposed kernel": ({HEAD: (64, 5)}, 5),
    "a wrong bias": ({"classifier.1.bias": (4,)}, 5),
    "no bias": ({"classifier.1.bias": None}, 5),
    "no kernel": ({HEAD: None}, None),
    "a number as kernel": ({HEAD: ()}, None),
    "one class": ({HEAD: (1, 64), "classifier.1.bias": (1,)}, 1),
}


@pytest.mark.parametrize(("change", "classes"), HEADS.values(), ids=HEADS)
def test_the_number_of_classes_is_that_of_the_head_tensors(change, classes):
    shapes = {HEAD: (5, 64), "classifier.1.bias": (5,)} | (change or {})
    if change is None:
        shapes = {}
    tensors = {name: LazyTensor(shape, pytest.fail) for name, shape in shapes.items() if shape is not None}
    assert Checkpoint("here", TRANSFORMERS, tensors, ()).head_classes == classes


# config.json


def test_a_config_next_to_the_weights_is_found_or_known_to_be_absent(tmp_path):
    folder = write_checkpoint(tmp_path / "with")
    bare = write_checkpoint(tmp_path / "without", config=None)
    for source in (folder, folder / "model.safetensors"):
        assert find(source, HubOptions()).config == BitConfig.from_dict(CONFIG)
    assert find(bare, HubOptions()).config is None
    assert find(tmp_path / "model.keras", HubOptions()).config is None  # says it itself
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        find(tmp_path / "none", HubOptions())
    with pytest.raises(FileNotFoundError, match=r"does not have config\.json of 'google/bit-50'"):
        find("google/bit-50", HubOptions(cache_dir=tmp_path, local_files_only=True))


# .keras files


@pytest.mark.parametrize(("config", "rows"), [(CONFIG, PREACTIVATION), (BOTTLENECK_CONFIG, BOTTLENECK)])
def test_a_keras_file_is_read_with_its_configuration(tmp_path, config, rows):
    model = loaded(write_checkpoint(tmp_path, random_tensors(rows), config), config)
    path = tmp_path / "model.keras"
    model.save(path)
    (tmp_path / "model.safetensors").unlink()
    for source in (path, tmp_path):
        checkpoint = open_checkpoint(source)
        assert checkpoint.layout is KERAS
        assert checkpoint.config == BitConfig.from_dict(config)
        assert checkpoint.head_classes == 5
        assert checkpoint.files == (path,)
        assert_holds(loaded(checkpoint, config), random_tensors(rows), rows)


def test_a_keras_file_of_another_model_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(ValueError, match=rf"{path} holds a Sequential, expected a model that keras_bit built\."):
        open_checkpoint(path)


def test_a_keras_file_that_holds_code_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x + 1)]).save(path)
    with pytest.raises(ValueError, match=r"not a model that Keras can load: .*\n?.*[Ll]ambda"):
        open_checkpoint(path)


def test_a_keras_file_whose_other_layers_would_be_lost_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    pixels = keras.Input((None, None, 3))
    loaded(in_memory(TENSORS), input_tensor=keras.layers.Rescaling(1 / 127.5, -1, name="rescale")(pixels)).save(path)
    with pytest.raises(
        ValueError,
        match=r"holds layers before BiT \(rescale\), which would be lost\. Load the model with `keras\.saving",
    ):
        open_checkpoint(path)


def test_a_damaged_keras_file_is_reported_as_damaged(tmp_path):
    path = tmp_path / "model.keras"
    loaded(in_memory(TENSORS)).save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:-1], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"^{re.escape(str(path))} is damaged, or not a model that Keras can load: "
        ):
            open_checkpoint(path)


# .weights.h5 files

# What a network may have of layers, with and without weights: each of them is in the file.
FORMS = {
    "pre-activation": {},
    "bottleneck": {"layer_type": "bottleneck"},
    "width 2": {"width_factor": 2},
    "stochastic depth": {"drop_path_rate": 0.3},
    "same padding": {"global_padding": "SAME"},
    "dynamic padding": {"embedding_dynamic_padding": True},
    "dilated": {"output_stride": 8},
}
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 40, 33, 3)).astype("float32")


def random_network(include_top=True, input_tensor=None, **changes):
    """Builds a network of random weights, norms included."""
    config = BitConfig.from_dict(CONFIG | changes)
    ends = Ends(include_top=include_top, input_tensor=input_tensor, classifier_activation=None)
    model = network.build(config, ends)
    rng = np.random.default_rng(1)
    model.set_weights([rng.standard_normal(weight.shape) for weight in model.weights])
    return model


def save_weights(folder, model, config=True):
    """Writes `bit.weights.h5` as Keras does, and `config.json` next to it."""
    path = folder / "bit.weights.h5"
    model.save_weights(path)
    if config:
        model.config.save_pretrained(folder)
    return path


@pytest.mark.parametrize("include_top", [True, False], ids=["head", "headless"])
@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
@pytest.mark.slow
def test_weights_saved_by_keras_load_as_with_load_weights(tmp_path, changes, include_top):
    model = random_network(include_top, **changes)
    path = save_weights(tmp_path, model)
    ours = from_pretrained(path, include_top=include_top, classifier_activation=None)
    keras_own = random_network(include_top, **changes)
    for weight in keras_own.weights:
        weight.assign(weight * 0)
    keras_own.load_weights(path)
    found, expected = variables(ours), variables(keras_own)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=str(name))
    np.testing.assert_array_equal(ours(IMAGES), keras_own(IMAGES))
    np.testing.assert_array_equal(ours(IMAGES), model(IMAGES))
    assert ours.config == model.config


def test_saved_weights_are_known_by_a_config_a_directory_or_their_shapes(tmp_path, monkeypatch):
    model = random_network()
    path = save_weights(tmp_path, model, config=False)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        from_pretrained(path)
    assert_same_numbers(from_pretrained(str(path), config=model.config), model)
    path = path.rename(tmp_path / "model.weights.h5")
    model.config.save_pretrained(tmp_path)
    assert_same_numbers(from_pretrained(tmp_path), model)
    shapes = {
        KERAS.tensor_name(weight.layer, weight.variable): LazyTensor(weight.shape, lambda: pytest.fail("read"))
        for weight in weights_of(BitConfig(width_factor=3, num_labels=21))
    }
    assert infer_config(Checkpoint("here", KERAS, shapes, ())) == BitConfig(width_factor=3, num_labels=21)


def assert_same_numbers(ours, theirs):
    found, expected = variables(ours), variables(theirs)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=str(name))


def test_saved_weights_are_opened_without_reading_a_number(tmp_path, monkeypatch):
    path = save_weights(tmp_path, random_network())
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *_: pytest.fail("read before it was asked for"))
    checkpoint = open_checkpoint(path)
    assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == {
        KERAS.tensor_name(weight.layer, weight.variable): weight.shape
        for weight in weights_of(BitConfig.from_dict(CONFIG))
    }
    assert (checkpoint.layout, checkpoint.head_classes, checkpoint.files) == (KERAS, 5, (path,))


def test_the_head_of_saved_weights_is_replaced_or_left_as_in_every_layout(tmp_path):
    model = random_network()
    path = save_weights(tmp_path, model)
    headless = from_pretrained(path, include_top=False)
    assert variables(headless).keys() == variables(model).keys() - {("predictions", "kernel"), ("predictions", "bias")}
    with pytest.warns(UserWarning, match="has a head of 5 classes; `classes=3` gives the model a new head of zeros"):
        replaced = from_pretrained(path, classes=3)
    assert not np.any(replaced.get_layer("predictions").kernel)
    np.testing.assert_array_equal(replaced.get_layer("norm").gamma, model.get_layer("norm").gamma)
    with pytest.warns(UserWarning, match="its first kernel was adapted to 1"):
        gray = from_pretrained(path, input_shape=(None, None, 1))
    expected = np.asarray(model.get_layer("stem_conv").kernel).sum(axis=2, keepdims=True)
    np.testing.assert_array_equal(gray.get_layer("stem_conv").kernel, expected)
    path = save_weights(tmp_path, random_network(include_top=False))
    with pytest.raises(ValueError, match=r"missing from the checkpoint \(2\): predictions/kernel, predictions/bias\n"):
        from_pretrained(path)


@pytest.mark.parametrize("changes", [{}, {"layer_type": "bottleneck"}], ids=["pre-activation", "bottleneck"])
def test_a_backbone_is_read_from_saved_weights_of_the_whole_and_of_itself(tmp_path, changes):
    whole = save_weights(tmp_path, random_network(**changes))
    backbone = BiTBackbone(whole, out_features=["stem", "stage1"])
    itself = tmp_path / "itself"
    itself.mkdir()
    again = BiTBackbone(save_weights(itself, backbone))
    assert list(again.output) == ["stem", "stage1"]
    for name, feature_map in backbone(IMAGES).items():
        np.testing.assert_array_equal(again(IMAGES)[name], feature_map)


@pytest.mark.slow
def test_saved_weights_of_a_compiled_model_come_without_its_optimizer(tmp_path):
    model = random_network()
    model.compile(optimizer="adam", loss="mse", metrics=["accuracy"])
    model.fit(IMAGES, np.zeros((2, 5)), verbose=0)
    assert_same_numbers(from_pretrained(save_weights(tmp_path, model)), model)


def test_saved_weights_in_bfloat16_are_read_as_float32(tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = random_network()
    finally:
        keras.config.set_dtype_policy(policy)
    found = variables(from_pretrained(save_weights(tmp_path, model)))
    for name, values in variables(model).items():
        assert found[name].dtype == "float32"
        np.testing.assert_array_equal(found[name], values.astype("float32"))


def rescaled():
    pixels = keras.Input((None, None, 3))
    return random_network(input_tensor=keras.layers.Rescaling(2.0, name="rescale")(pixels))


def inside_another():
    pixels = keras.Input((64, 64, 3))
    return keras.Model(pixels, random_network()(pixels))


def with_another_head():
    backbone = random_network(include_top=False)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(backbone.output)
    return keras.Model(backbone.input, keras.layers.Dense(3, name="mine")(x))


def fused():
    def plain(layer):
        if not isinstance(layer, StdConv2D):
            return type(layer).from_config(layer.get_config())
        arguments = layer.get_config()
        del arguments["epsilon"]
        return keras.layers.Conv2D.from_config(arguments)

    return keras.models.clone_model(random_network(), clone_function=plain)


def other():
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv1_conv")(pixels)
    return keras.Model(pixels, keras.layers.BatchNormalization(name="conv1_bn")(x))


STRANGERS = {
    "a layer before": (rescaled, r"not of BiT \(1\): rescale \(rescaling\)"),
    "a model around": (inside_another, r"not of BiT \(\d+\): bit \(bi_t_model\), layers/bi_t_model/layers/"),
    "another head": (with_another_head, r"not of BiT \(1\): mine \(dense\)"),
    "fused": (fused, r"not of BiT \(12\): stem_conv \(conv2d\), stage1_block0_conv1 \(conv2d_1\), "),
    "another network": (other, r"not of BiT \(2\): conv1_bn \(batch_normalization\), conv1_conv \(conv2d\)"),
}


@pytest.mark.parametrize(("build", "message"), STRANGERS.values(), ids=STRANGERS)
def test_weights_of_another_model_are_refused_with_all_foreign_layers(tmp_path, build, message):
    path = save_weights(tmp_path, build(), config=False)
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(path))} does not hold just a BiT, .*\n  {message}"
    ) as error:
        from_pretrained(path)
    assert str(error.value).endswith(
        "If the BiT is inside another model, save only the BiT. If it is fused, save it before `fuse`."
    )
    with pytest.raises(ValueError, match="does not hold just a BiT"):
        BiTBackbone(path, config=BitConfig.from_dict(CONFIG))


def test_weights_of_another_bit_are_refused_with_all_mismatches(tmp_path):
    path = save_weights(tmp_path, random_network(), config=False)
    with pytest.raises(ValueError, match=r"\(Keras layout\) does not fit the model\. Nothing was loaded\.") as error:
        from_pretrained(path, config=BitConfig.from_dict(BOTTLENECK_CONFIG))
    text = str(error.value)
    assert "missing from the checkpoint (6): stem_norm/gamma, stem_norm/beta, stage1_block0_shortcut_norm/gamma" in text
    assert "not part of the model (2): norm/gamma, norm/beta" in text
    assert "wrongly shaped (" in text
    with pytest.raises(ValueError, match=r"wrongly shaped \(\d+\): stem_conv/kernel expected \(7, 7, 3, 32\), got"):
        from_pretrained(path, config=BitConfig.from_dict(CONFIG | {"width_factor": 2}))


def without_names(file):
    for group in file["layers"].values():
        del group["vars"].attrs["name"]


def linked(link):
    def change(file):
        del file["layers/std_conv2d/vars/0"]
        file["layers/std_conv2d/vars/0"] = link

    return change


def replaced(values, **arguments):
    def change(file):
        del file["layers/std_conv2d/vars/0"]
        file.create_dataset("layers/std_conv2d/vars/0", data=values, **arguments)

    return change


def external(file):
    del file["layers/std_conv2d/vars/0"]
    where = [("other.raw", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("layers/std_conv2d/vars/0", (7, 7, 3, 16), "float32", external=where)


def virtual(file):
    del file["layers/std_conv2d/vars/0"]
    layout = h5py.VirtualLayout((7, 7, 3, 16), "float32")
    layout[:] = h5py.VirtualSource("other.h5", "kernel", (7, 7, 3, 16))
    file.create_virtual_dataset("layers/std_conv2d/vars/0", layout)


def named_twice(file):
    file["layers/std_conv2d_5/vars"].attrs["name"] = "stage1_block0_conv1"


# What a file of saved weights may have become.
CHANGES = {
    "without names": (without_names, r"does not name its layers \(add, add_1, .*\): an older Keras wrote it\."),
    "without layers": (lambda file: file.__delitem__("layers"), "does not hold just a BiT.*\n  it holds no weights of"),
    "an extra array": (lambda file: file.create_dataset("x/y", data=[1.0]), r"not of BiT \(1\): x/y \(x/y\)"),
    "a name twice": (named_twice, r"holds stage1_block0_conv1/kernel twice, as layers/std_conv2d_1/vars/0 and as"),
    "a soft link": (linked(h5py.SoftLink("/layers/std_conv2d_1/vars/0")), r"missing .* \(1\): stem_conv/kernel\n"),
    "an external link": (linked(h5py.ExternalLink("x.h5", "/x")), r"missing .* \(1\): stem_conv/kernel\n"),
    "external storage": (external, r"is damaged or .*: layers/std_conv2d/vars/0 is kept in another file"),
    "a virtual array": (virtual, r"is damaged or .*: layers/std_conv2d/vars/0 is kept in another file"),
    "a wrong shape": (replaced(np.zeros((16, 3, 7, 7))), r"stem_conv/kernel expected \(7, 7, 3, 16\), got .* \(transp"),
    "a vast shape": (
        lambda file: replaced(None, shape=(2**40,), dtype="f4", chunks=(4,))(file),
        r"stem_conv/kernel expected \(7, 7, 3, 16\), got \(1099511627776,\)\n",
    ),
    "no array": (replaced(h5py.Empty("f4")), r"stem_conv/kernel expected \(7, 7, 3, 16\), got \(\)\n"),
    "text": (replaced("kernel"), r"stem_conv/kernel expected \(7, 7, 3, 16\), got \(\)\n"),
    "NaN": (replaced(np.full((7, 7, 3, 16), np.nan)), "is damaged: stem_conv/kernel holds NaN or infinity"),
    "whole numbers": (replaced(np.ones((7, 7, 3, 16), int)), "is damaged: stem_conv/kernel holds int64, expected"),
    "more variables": (
        lambda file: file.create_dataset("layers/dense/vars/2", data=np.ones(5)),
        r"not part of the model \(1\): predictions/2\n",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
@pytest.mark.slow
def test_saved_weights_that_were_changed_are_refused(tmp_path, change, message):
    path = save_weights(tmp_path, random_network())
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(ValueError, match=message) as error:
        from_pretrained(path)
    assert str(path) in str(error.value)


def test_damaged_saved_weights_are_reported_as_damaged(tmp_path):
    path = save_weights(tmp_path, random_network())
    whole = path.read_bytes()
    cut_off = [whole[:size] for size in (0, 7, 8, 100, 2000, len(whole) // 2, len(whole) - 1)]
    for content in (*cut_off, b"Not found"):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"^{re.escape(str(path))} is damaged or not a \.weights\.h5 file of Keras: "
        ):
            from_pretrained(path)


def test_an_older_h5_of_a_whole_model_is_refused(tmp_path):
    path = tmp_path / "bit.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("model_weights/stem_conv/stem_conv/kernel:0", data=np.zeros((7, 7, 3, 16)))
    with pytest.raises(ValueError, match=r"does not hold just a BiT.*\n  not of BiT \(1\): model_weights/stem_conv/"):
        from_pretrained(path)


# pytorch_model.bin


def test_without_torch_the_error_names_the_extra_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(ImportError, match=r"pytorch_model\.bin.* torch, .*keras_bit\[torch\]"):
        open_checkpoint(tmp_path)


class Intruder:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture
def save_bin(tmp_path):
    def save(content, **arguments):
        import torch

        torch.save(content, tmp_path / "pytorch_model.bin", **arguments)
        return tmp_path

    return save


def torch_tensors():
    import torch

    return {name: torch.from_numpy(tensor) for name, tensor in contiguous(TENSORS).items()}


@pytest.mark.live
@pytest.mark.parametrize("zipped", [True, False], ids=["of today", "from before torch 1.6"])
def test_a_torch_file_is_read_by_weights_only(save_bin, monkeypatch, zipped):
    import torch

    folder = save_bin(torch_tensors(), _use_new_zipfile_serialization=zipped)
    asked = []
    torch_load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: asked.append(k["weights_only"]) or torch_load(*a, **k))
    assert_holds(loaded(folder), TENSORS)
    assert asked == [True]


@pytest.mark.live
def test_torch_tensors_of_other_kinds_are_read_as_float32(save_bin):
    import torch

    tensors = {name: tensor.bfloat16() for name, tensor in torch_tensors().items()}
    tensors[NORM] = torch.nn.Parameter(tensors[NORM].half())  # a Parameter will not be turned into numpy as it is
    expected = {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}
    assert_holds(loaded(save_bin(tensors)), expected)


@pytest.mark.live
def test_shards_of_torch_files_are_read_through_their_index(tmp_path):
    import torch

    tensors = torch_tensors()
    weight_map = {name: f"pytorch_model-{index % 3}.bin" for index, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        torch.save({name: tensors[name] for name in tensors if weight_map[name] == file}, tmp_path / file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_holds(loaded(tmp_path), TENSORS)


@pytest.mark.live
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch.save", "torch.save, legacy", "pickle"])
def test_a_torch_file_that_holds_code_is_refused_and_the_code_is_not_run(tmp_path, save_bin, form):
    trace = tmp_path / "it was run"
    content = torch_tensors() | {"extra": Intruder(trace)}
    if form == "pickle":
        (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(content))
    else:
        save_bin(content, _use_new_zipfile_serialization=form == "torch.save")
    with pytest.raises(
        ValueError, match="holds more than tensors, which is refused because unpickling can run"
    ) as error:
        open_checkpoint(tmp_path)
    assert "weights_only" not in str(error.value)  # torch's own words end in advice to switch it off
    assert not trace.exists()


@pytest.mark.live
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_torch_file_is_reported_as_damaged(tmp_path, save_bin):
    path = tmp_path / "pytorch_model.bin"
    contents = [b"", b"hello", b"\x80\x02."]
    for zipped in (True, False):
        save_bin(torch_tensors(), _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        contents += [whole[:size] for size in (1, 4, 30, 100, len(whole) // 2, len(whole) - 1)]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is damaged, or holds more than tensors"):
            open_checkpoint(path)


@pytest.mark.live
def test_a_torch_file_that_holds_something_else_is_refused(tmp_path, save_bin):
    import torch

    for content in ([torch.zeros(1)], torch.zeros(1), {"net": torch_tensors()}, {1: torch.zeros(1)}, None):
        save_bin(content)
        with pytest.raises(ValueError, match="must hold a dictionary from names to tensors"):
            open_checkpoint(tmp_path)


@pytest.mark.live
def test_damaged_torch_tensors_are_reported_like_others(save_bin):
    import torch

    tensors = torch_tensors() | {STEM: torch.full((16, 3, 7, 7), torch.nan), NORM: torch.ones(64, dtype=torch.int64)}
    with pytest.raises(ValueError, match=f"is damaged: {STEM} holds NaN or infinity; {NORM} holds int64"):
        loaded(save_bin(tensors))


@pytest.mark.live
@pytest.mark.parametrize(("config", "rows"), [(CONFIG, PREACTIVATION), (BOTTLENECK_CONFIG, BOTTLENECK)])
def test_files_of_transformers_whole_or_sharded_and_torch_are_equal(tmp_path, config, rows):
    import torch
    import transformers

    theirs = transformers.BitForImageClassification(transformers.BitConfig(**config))
    with torch.no_grad():
        for parameter in theirs.parameters():  # some start as ones or zeros, and would not tell one from another
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    (tmp_path / "bin").mkdir()
    theirs.config.save_pretrained(tmp_path / "bin")
    torch.save(theirs.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    expected = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    for form, files in (("whole", 1), ("shards", 3), ("bin", 1)):
        checkpoint = open_checkpoint(tmp_path / form)
        assert len(checkpoint.files) >= files
        model = loaded(checkpoint, BitConfig.from_pretrained(tmp_path / form))
        assert_holds(model, expected, rows)


@pytest.mark.live
def test_a_backbone_that_transformers_saved_is_read(tmp_path):
    import transformers

    for kind in (transformers.BitModel, transformers.BitBackbone):
        theirs = kind(transformers.BitConfig(**CONFIG))
        theirs.save_pretrained(tmp_path / kind.__name__)
        model = loaded(tmp_path / kind.__name__, include_top=False)
        state = {f"bit.{name.removeprefix('bit.')}": tensor.numpy() for name, tensor in theirs.state_dict().items()}
        assert_holds(model, state)


# Layouts


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["vit.embeddings.cls_token"], r"vit.embeddings.cls_token\."),
        ([f"vit.{index}" for index in range(6)], r"vit.0, vit.1, vit.2, vit.3 and 2 more\."),
        ([], "with nothing: it is empty"),
    ],
)
def test_an_unknown_layout_is_refused_with_the_expected_names(tmp_path, names, shown):
    folder = write_checkpoint(tmp_path, {name: np.zeros((1, 1, 8), np.float32) for name in names})
    looked_for = r"bit\.\* .*encoder\.\* .*stages\.\* \(timm layout\), .* resnet/\* \(Google's \.npz layout\), .*"
    with pytest.raises(ValueError, match=rf"holds no BiT. Expected tensors {looked_for}; its names begin {shown}"):
        open_checkpoint(folder)


# Google's names as TensorFlow left them in files: some numbered, or taken from a TF Hub module's variables.
GOOGLE_FORMS = {
    "plain": lambda name, number: name,
    "some convolutions numbered": lambda name, number: (
        name.replace("standardized_conv2d/", f"standardized_conv2d_{number}/") if number % 3 else name
    ),
    "every operation numbered": lambda name, number: re.sub(r"(conv2d|group_norm)/", rf"\1_{number}/", name),
    "variables": lambda name, number: f"{name}:0",
    "variables of a scope": lambda name, number: f"keras_layer/{name}:0",
}


def assert_same_model(source, classes=5):
    expected = variables(loaded(in_memory(TENSORS)))
    checkpoint = open_checkpoint(source)
    assert checkpoint.head_classes == classes
    found = variables(loaded(checkpoint))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_the_same_weights_in_timms_layout_make_the_same_model(tmp_path):
    assert_same_model(write_timm(tmp_path))


@pytest.mark.parametrize("named", GOOGLE_FORMS.values(), ids=GOOGLE_FORMS)
def test_the_same_weights_under_every_form_of_googles_names_make_the_same_model(tmp_path, named):
    # The name of one of the files that Google fine-tuned on VTAB-1k.
    assert_same_model(write_npz(tmp_path / "BiT-M-R50x1-run0-caltech101.npz", named))


def test_an_npz_that_holds_a_tensor_under_two_of_its_names_is_refused(tmp_path):
    kernel = "resnet/block1/unit01/a/standardized_conv2d"
    path = write_npz(tmp_path / "BiT.npz", extra={f"{kernel}_3/kernel": np.zeros((1, 1, 16, 8), np.float32)})
    with pytest.raises(ValueError, match=rf"holds {kernel}/kernel twice, as {kernel}/kernel and as {kernel}_3/kernel"):
        open_checkpoint(path)


def test_an_npz_is_read_array_by_array(tmp_path, monkeypatch):
    path = write_npz(tmp_path / "BiT.npz")
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("read before it was asked for"))
    checkpoint = open_checkpoint(path)
    assert checkpoint.tensors["resnet/root_block/standardized_conv2d/kernel"].shape == (7, 7, 3, 16)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "is damaged or not an .npz file"),
        (lambda _: b"not a zip", "is damaged or not an .npz file"),
    ],
)
def test_a_damaged_npz_is_refused(tmp_path, damage, message):
    path = write_npz(tmp_path / "BiT.npz")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        open_checkpoint(path)


def test_an_npz_with_a_byte_that_changed_is_refused(tmp_path):
    path = write_npz(tmp_path / "BiT.npz")
    content = bytearray(path.read_bytes())
    kernel = TENSORS[STEM].transpose(2, 3, 1, 0).tobytes()
    content[content.index(kernel) + len(kernel) - 1] ^= 1  # far from its header, which is read on opening
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"root_block/standardized_conv2d/kernel .* cannot be read: .* Nothing was"):
        loaded(path)


def test_an_npz_that_would_be_unpickled_is_refused(tmp_path):
    path = write_npz(tmp_path / "BiT.npz", extra={"resnet/group_norm/gamma": np.array([{}] * 64, dtype=object)})
    with pytest.raises(ValueError, match=r"resnet/group_norm/gamma .* cannot be read"):
        loaded(path)


@pytest.mark.parametrize("width", [1, 3])
def test_only_published_architectures_are_known_by_their_shapes(tmp_path, width):
    config = BitConfig(width_factor=width)
    shapes = {}
    for stage, (depth, size) in enumerate(zip(config.depths, config.stage_widths, strict=True)):
        for block in range(depth):
            shapes[f"stages.{stage}.blocks.{block}.conv3.weight"] = (size, size // 4, 1, 1)
    shapes["stem.conv.weight"] = (config.stem_width, 3, 7, 7)
    shapes["head.fc.weight"] = (21, config.stage_widths[-1], 1, 1)

    def infer():
        tensors = {name: LazyTensor(shape, lambda: pytest.fail("read")) for name, shape in shapes.items()}
        return infer_config(Checkpoint("somewhere", TIMM, tensors, ()))

    assert infer() == BitConfig(width_factor=width, num_labels=21)
    shapes["stages.3.blocks.3.conv3.weight"] = shapes["stages.3.blocks.2.conv3.weight"]
    assert infer() is None


def test_a_network_that_a_layout_has_no_names_for_is_refused(tmp_path):
    path = write_npz(tmp_path / "BiT.npz")
    with pytest.raises(ValueError, match=r"does not fit the model: no rule of Google's \.npz layout .* 'stem_norm'"):
        loaded(path, BOTTLENECK_CONFIG)
