"""Tests that every function and command accepts the same names of a checkpoint, and loads the same one."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import keras_bit
from conftest import absent
from keras_bit.checkpoints import loading
from keras_bit.checkpoints.layouts import GOOGLE
from keras_bit.hub import published
from keras_bit.hub.finding import HubOptions
from keras_bit.network.config import PUBLISHED
from keras_bit.network.weights import weights_of
from loopback_files import LoopbackFiles
from loopback_hub import LoopbackHub, run_against_hub
from store import TRAINED

TAG = "resnetv2_50x1_bit.goog_in21k_ft_in1k"

# Tries each name at each place, in a separate process: huggingface_hub reads the Hub's address when it is imported.
EVERYWHERE = """
import contextlib, hashlib, io, json, sys
import keras_bit
from keras_bit.cli import main
from convert.__main__ import main as convert

def printed(*arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main.main(list(arguments)) == 0, arguments
    return out.getvalue()

def digest(model):
    return hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in model.weights)).hexdigest()

names, thorough = json.loads({names!r}), json.loads({thorough!r})
found = {{}}
for name in names:
    config = keras_bit.BitConfig.from_pretrained(name)
    found[name] = dict(
        config=config.to_dict(),
        processor=keras_bit.BitImageProcessor.from_pretrained(name).to_dict(),
        model=digest(keras_bit.from_pretrained(name)),
        info=printed("info", "--weights", name).partition("┌")[2],  # behind the name
    )
for index, name in enumerate(thorough):
    found[name] |= dict(
        backbone=digest(keras_bit.BiTBackbone(name)),
        again=digest(keras_bit.BiT(keras_bit.BitConfig.from_pretrained(name), weights=name)),
        classified=json.loads(printed("classify", "cat.png", "--json", "--weights", name)),
        explained=printed("explain", "cat.png", "--out", "map.png", "--weights", name),
        embedded=printed("embed", "images", "--out", f"features-{{index}}", "--weights", name),
        converted=convert([name, "--out", f"converted-{{index}}", "--reference", {golden!r}]),
    )
print(json.dumps(found))
"""


@pytest.mark.slow
def test_every_function_and_command_takes_every_name(tmp_path):
    if importlib.util.find_spec("pyarrow") is None:
        absent("pyarrow is not installed: pip install -e '.[parquet]'")
    (tmp_path / "images").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "cat.png")
    shutil.copy(tmp_path / "cat.png", tmp_path / "images")
    files = {path.name: path.read_bytes() for path in TRAINED.iterdir()}
    repositories = {name: {"main": files} for name in ("google/bit-50", f"timm/{TAG}")}
    on_the_web = {f"/bit/{name}": content for name, content in files.items()}  # its signature is for one of them
    with LoopbackHub(repositories) as server, LoopbackFiles(on_the_web) as web:
        names = [
            str(TRAINED),
            "hf://google/bit-50",
            f"{server.url}/google/bit-50/resolve/main/model.safetensors?download=true",
            TAG,
            f"{web.url}/bit/model.safetensors?signature=s3cret",
        ]
        thorough = names[:2]
        code = EVERYWHERE.format(
            names=json.dumps(names), thorough=json.dumps(thorough), golden=str(TRAINED / "golden.npz")
        )
        process = run_against_hub(code, server, tmp_path)
    assert process.returncode == 0, process.stderr[-3000:]
    assert "s3cret" not in process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    local = found[names[0]]
    for name in names:
        for place, answer in found[name].items():
            if place not in ("explained", "embedded"):  # which name files
                assert answer == local[place], (name, place)
    assert web.tokens == []


@pytest.fixture
def google(monkeypatch):
    """Starts Google's server on this machine; the table's rows point to it."""
    with LoopbackFiles({}) as server:
        monkeypatch.setattr(published, "GOOGLE", f"{server.url}/bit_models/")
        tables = (published._rows, published.by_name, published.by_source)
        for table in tables:
            table.cache_clear()
        yield server
        monkeypatch.undo()
        for table in tables:
            table.cache_clear()


def npz_of(config, path):
    """Writes a file as Google did, of zeros except for its first kernel, which is returned."""
    stem, *others = weights_of(config)
    kernel = np.random.default_rng(0).normal(size=stem.shape).astype("float32")
    tensors = {stem: kernel} | {weight: np.zeros(weight.shape, "float32") for weight in others}
    names = {weight: GOOGLE.tensor_name(weight.layer, weight.variable) for weight in tensors}
    np.savez_compressed(path, **{names[weight]: GOOGLE.to_file(names[weight], tensors[weight]) for weight in tensors})
    return kernel


def test_googles_names_bring_the_file_its_architecture_and_its_processor(tmp_path, google, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    name, cache = "BiT-M-R50x1-run1-svhn", tmp_path / "cache"
    config = PUBLISHED["BiT50"].with_num_labels(10)
    kernel = npz_of(config, tmp_path / "bit.npz")
    google.files[f"/bit_models/vtab/{name}.npz"] = (tmp_path / "bit.npz").read_bytes()
    with pytest.raises(ValueError, match=rf"`weights` '{name}' is not a BiT101: its `depths` must be \(3, 4, 23, 3\)"):
        keras_bit.BiT101(weights=name, cache_dir=cache)
    assert keras_bit.BitConfig.from_pretrained(name, cache_dir=cache) == config
    assert google.requests == []  # nothing is downloaded to find that out
    stem = keras_bit.BiTBackbone(name, out_features=("stem",), cache_dir=cache)
    np.testing.assert_array_equal(stem.get_layer("stem_conv").kernel.numpy(), kernel)
    assert loading.find(name, HubOptions(cache_dir=cache)).open().head_classes == 10
    assert len([request for request in google.requests if not request.endswith("bytes=0-0")]) == 1
    with pytest.raises(FileNotFoundError, match=rf"'{name}' has no preprocessor_config\.json"):
        keras_bit.BitImageProcessor.from_pretrained(name, cache_dir=cache)  # how is not published
    processor = keras_bit.BitImageProcessor.from_pretrained("R152x2_T_384", cache_dir=cache)
    assert (processor.size, processor.resample, processor.image_std) == ({"shortest_edge": 384}, 3, (0.5, 0.5, 0.5))
    with pytest.raises(
        FileNotFoundError, match=r"The file http.*/distill/R50x1_160\.npz does not exist: .* status 404"
    ):
        keras_bit.BiT50(weights="R50x1_160", cache_dir=cache)
