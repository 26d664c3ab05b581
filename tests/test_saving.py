"""Tests saving.py: files that load bit for bit here and in transformers; refusals; uploads to a loopback Hub."""

import base64
import hashlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import keras
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import keras_bit
from keras_bit import BiT, BiTBackbone, BitConfig, BitImageProcessor, from_pretrained, save_pretrained
from keras_bit.checkpoints import publishing, safetensors_file, saving
from keras_bit.checkpoints.layouts import FILE_LAYOUTS, KERAS
from loopback_hub import run_against_hub
from tiny_bit import (
    BOTTLENECK,
    BOTTLENECK_CONFIG,
    CLASSES,
    CONFIG,
    PREACTIVATION,
    random_tensors,
    variables,
    write_checkpoint,
    write_shards,
)

PROCESSOR = BitImageProcessor(size=40, crop_size=32, resample=2, image_mean=[0.5] * 3, image_std=[0.25] * 3)
FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}


def tiny(tmp_path, rows=PREACTIVATION, config=CONFIG, **arguments):
    """Builds a tiny model that holds random numbers, in its norms and its head too."""
    return from_pretrained(write_checkpoint(tmp_path / "made", random_tensors(rows), config), **arguments)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same_variables(model, other):
    expected, found = variables(model), variables(other)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key].dtype == values.dtype
        np.testing.assert_array_equal(found[key], values, err_msg=str(key))


@pytest.mark.parametrize("layout", [*FILE_LAYOUTS, KERAS], ids=lambda layout: layout.title)
@pytest.mark.parametrize(
    ("layer", "variable", "shape"),
    [
        ("stem_conv", "kernel", (7, 5, 3, 2)),
        ("norm", "gamma", (4,)),
        ("predictions", "kernel", (4, 3)),
        ("predictions", "bias", (3,)),
    ],
)
def test_to_file_is_the_inverse_of_to_keras(layout, layer, variable, shape):
    name = layout.tensor_name(layer, variable)
    values = np.arange(np.prod(shape)).reshape(shape)
    stored = layout.to_file(name, values)
    assert stored.shape == layout.file_shape(name, shape)
    np.testing.assert_array_equal(layout.to_keras(name, stored), values)


# Keras to files to Keras


@pytest.mark.parametrize(
    ("rows", "config"), [(PREACTIVATION, CONFIG), (BOTTLENECK, BOTTLENECK_CONFIG)], ids=["pre-activation", "bottleneck"]
)
@pytest.mark.parametrize("include_top", [True, False])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, rows, config, include_top):
    model = tiny(tmp_path, rows, config | {"problem_type": "multi_label_classification"}, include_top=include_top)
    save_pretrained(model, tmp_path / "new" / "saved", PROCESSOR)
    again = from_pretrained(tmp_path / "new" / "saved", include_top=include_top)
    assert again.config == model.config
    assert again.config.id2label[1] == "bee"
    assert_same_variables(model, again)
    assert BitImageProcessor.from_pretrained(tmp_path / "new" / "saved") == PROCESSOR
    assert set(contents(tmp_path / "new" / "saved")) == FILES
    assert {path.stat().st_mode for path in (tmp_path / "new" / "saved").iterdir()} == {
        (tmp_path / "made" / "config.json").stat().st_mode  # a file made aside is as readable as any other
    }


def test_the_file_holds_what_transformers_would_have_written(tmp_path):
    tensors = random_tensors()
    save_pretrained(tiny(tmp_path), tmp_path / "saved")
    stored = safetensors.numpy.load_file(tmp_path / "saved" / "model.safetensors")
    assert stored.keys() == tensors.keys()
    for name, values in tensors.items():
        np.testing.assert_array_equal(stored[name], values, err_msg=name)
    with safetensors.safe_open(tmp_path / "saved" / "model.safetensors", framework="numpy") as file:
        assert file.metadata()["format"] == "pt"
    written = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (written["architectures"], written["dtype"]) == (["BitForImageClassification"], "float32")


def test_a_model_without_a_head_is_written_as_a_bit_model(tmp_path):
    save_pretrained(tiny(tmp_path, include_top=False, pooling="avg"), tmp_path / "saved")
    names = safetensors.numpy.load_file(tmp_path / "saved" / "model.safetensors")
    assert names.keys() == {name.removeprefix("bit.") for name in random_tensors() if name.startswith("bit.")}
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["architectures"] == ["BitModel"]


def test_a_model_is_saved_after_training_and_after_a_clone(tmp_path):
    model = tiny(tmp_path)
    before = model.get_weights()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(np.ones((2, 32, 32, 3), np.float32), np.array([0, 4]), epochs=1, verbose=0)
    assert any(not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for number, one in enumerate((model, clone)):
        save_pretrained(one, tmp_path / str(number))
        assert_same_variables(model, from_pretrained(tmp_path / str(number)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_tensor_keeps_the_dtype_of_its_variable(tmp_path, dtype):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        model = BiT(BitConfig.from_dict(CONFIG))
        save_pretrained(model, tmp_path / "saved")
        assert_same_variables(model, from_pretrained(tmp_path / "saved"))
    finally:
        keras.config.set_dtype_policy(before)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == dtype


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "selu"}, "transformers has no activation 'selu'. Load these files with `keras_bit.from_pretr"),
        ({"output_stride": 8}, "transformers ignores the dilation of `output_stride` 8 and gives other numbers. "),
    ],
)
def test_checkpoints_that_only_keras_bit_reads_are_written_with_a_warning(tmp_path, change, message):
    model = BiT(BitConfig.from_dict(CONFIG | change))
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        save_pretrained(model, tmp_path / "saved")
    assert [one.filename for one in caught if one.category is UserWarning] == [__file__]
    assert_same_variables(model, from_pretrained(tmp_path / "saved"))


# Directories that exist, and errors on the way


def test_own_files_are_replaced_and_others_left(tmp_path):
    model = tiny(tmp_path)
    save_pretrained(BiT(BitConfig.from_dict(BOTTLENECK_CONFIG), classes=3), tmp_path / "saved", PROCESSOR)
    (tmp_path / "saved" / "README.md").write_text("mine")
    save_pretrained(model, tmp_path / "saved")
    assert_same_variables(model, from_pretrained(tmp_path / "saved"))
    assert set(contents(tmp_path / "saved")) == FILES | {"README.md"}
    assert BitImageProcessor.from_pretrained(tmp_path / "saved") == PROCESSOR


@pytest.mark.parametrize("failing", sorted(FILES))
@pytest.mark.parametrize("existing", [True, False])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch, failing, existing):
    model, folder = tiny(tmp_path), tmp_path / "saved"
    if existing:
        save_pretrained(BiT(BitConfig.from_dict(CONFIG), classes=3), folder)
    before = contents(folder) if existing else None
    replace = os.replace

    def interrupted(source, target):
        if str(target) == str(folder / failing):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_pretrained(model, folder, PROCESSOR)
    assert (contents(folder) if folder.exists() else None) == before


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    model = tiny(tmp_path)
    save_pretrained(model, tmp_path / "saved")
    before = contents(tmp_path / "saved")

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors_file, "write", full)
    with pytest.raises(OSError, match="No space left"):
        save_pretrained(model, tmp_path / "saved", PROCESSOR)
    assert contents(tmp_path / "saved") == before


@pytest.mark.parametrize(
    "name",
    ["model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json", "processor_config.json"],
)
def test_another_checkpoint_in_the_directory_is_left_alone(tmp_path, name):
    model, folder = tiny(tmp_path), write_shards(tmp_path / "saved")
    (folder / "model.safetensors.index.json").rename(folder / name)
    before = contents(folder)
    message = (
        f"`directory` {str(folder)!r} holds files of another checkpoint, which would contradict or shadow the new "
        f"ones: {name}. Move them away, or choose another directory. Nothing was written."
    )
    with pytest.raises(FileExistsError, match=re.escape(message)):
        save_pretrained(model, folder, PROCESSOR)
    assert contents(folder) == before


def not_ours(tmp_path):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


def with_a_layer_in_front(tmp_path):
    images = keras.Input((64, 64, 3))
    return tiny(tmp_path, input_tensor=keras.layers.Rescaling(2.0, name="brighter")(images))


def fused(tmp_path):
    def plain(layer):
        if isinstance(layer, saving.StdConv2D):
            options = {name: value for name, value in layer.get_config().items() if name != "epsilon"}
            return keras.layers.Conv2D.from_config(options)
        return layer.__class__.from_config(layer.get_config())

    return keras.models.clone_model(tiny(tmp_path), clone_function=plain)


def cut_backbone(tmp_path):
    return BiTBackbone(None, config=BitConfig.from_dict(CONFIG), out_features=["stage1"])


def cut(tmp_path):
    model = tiny(tmp_path)
    return type(model)(model.input, model.get_layer("stage1_block1_add").output)


def with_nan(tmp_path):
    model = tiny(tmp_path)
    model.get_layer("norm").gamma.assign(np.full(64, np.nan))
    return model


def quantized(tmp_path):
    model = tiny(tmp_path)
    model.quantize("int8")
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (not_ours, "`model` must be a model that keras_bit built, got Sequential without its `config`. For a new head"),
        (
            with_a_layer_in_front,
            "`model` has layers before BiT (brighter), which this format cannot hold. Save it with",
        ),
        (
            fused,
            "`model` is fused: 12 of its convolutions are not StdConv2D (stem_conv is a Conv2D), but this format",
        ),
        (fused, "are lost. Save before fusing."),
        (cut, "it lacks the layers stage2_block0_shortcut_conv, stage2_block0_norm1, stage2_block0_conv1, stage2"),
        (cut_backbone, "that keras_bit returned. A `BiTBackbone` must have its last stage among its outputs."),
        (with_nan, "`model` has weights that cannot be saved: norm/gamma holds NaN or infinity. Nothing was written."),
        (
            quantized,
            "`model` is quantized: predictions (int8). This format needs the weights before quantization, which are "
            "lost. Save",
        ),
    ],
)
def test_models_that_the_format_cannot_hold_are_refused(tmp_path, make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        save_pretrained(make(tmp_path), tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match=re.escape("`processor` must be a keras_bit.BitImageProcessor, got dict. ")):
        save_pretrained(tiny(tmp_path), tmp_path / "saved", {})
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"^`directory` must be a directory, or a new name for one\. .*file"):
        save_pretrained(tiny(tmp_path), tmp_path / "file")


# transformers


@pytest.mark.live
@pytest.mark.parametrize(
    ("rows", "config"), [(PREACTIVATION, CONFIG), (BOTTLENECK, BOTTLENECK_CONFIG)], ids=["pre-activation", "bottleneck"]
)
@pytest.mark.parametrize("include_top", [True, False])
def test_transformers_loads_it_with_equal_numbers_and_saves_it_back(tmp_path, rows, config, include_top):
    import torch
    import transformers

    arguments = {"classifier_activation": None} if include_top else {"include_top": False}
    model = tiny(tmp_path, rows, config, **arguments)
    save_pretrained(model, tmp_path / "saved", PROCESSOR)
    kind = transformers.BitForImageClassification if include_top else transformers.BitModel
    theirs, report = kind.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert {name: list(found) for name, found in report.items() if found} == {}
    assert theirs.config.id2label == model.config.id2label

    images = np.random.default_rng(1).uniform(0, 255, (2, 50, 44, 3)).astype(np.uint8)
    batch = PROCESSOR(list(images))
    for loader, options in (
        (transformers.BitImageProcessorPil, {}),
        (transformers.AutoImageProcessor, {"backend": "pil"}),
    ):
        processor = loader.from_pretrained(tmp_path / "saved", **options)
        again = processor(list(images), return_tensors="np")["pixel_values"]
        np.testing.assert_array_equal(batch, again.transpose(0, 2, 3, 1))
    with torch.no_grad():
        outputs = theirs.eval()(torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2))))
    expected = outputs.logits if include_top else outputs.last_hidden_state.permute(0, 2, 3, 1)
    expected = expected.numpy()
    difference = np.abs(model.predict(batch, verbose=0) - expected).max() / np.abs(expected).max()
    print(f"relative difference of the outputs: {difference:.2e}")
    assert difference < 1e-4  # two frameworks' float32 sums

    theirs.save_pretrained(tmp_path / "theirs")
    assert_same_variables(model, from_pretrained(tmp_path / "theirs", **arguments))


@pytest.mark.live
@pytest.mark.parametrize("factor", [2, 3])
def test_transformers_builds_a_wider_network_from_its_files(tmp_path, factor):
    import torch
    import transformers

    model = BiT(BitConfig.from_dict(CONFIG | {"width_factor": factor}), classifier_activation=None)
    save_pretrained(model, tmp_path)
    theirs = transformers.BitForImageClassification.from_pretrained(tmp_path).eval()
    images = np.random.default_rng(1).uniform(-1, 1, (2, 50, 44, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).logits.numpy()
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-4 * np.abs(expected).max())
    again = from_pretrained(tmp_path)
    assert (again.config.width_factor, again.config.stage_widths) == (1, model.config.stage_widths)
    assert_same_variables(model, again)


@pytest.mark.live
@pytest.mark.parametrize("config", [CONFIG, BOTTLENECK_CONFIG], ids=["pre-activation", "bottleneck"])
def test_a_backbone_is_written_for_transformers_backbone(tmp_path, config):
    import torch
    import transformers

    names = ["stem", "stage1", "stage2"]
    model = BiTBackbone(None, config=BitConfig.from_dict(config), out_features=names)
    save_pretrained(model, tmp_path)
    theirs, report = transformers.BitBackbone.from_pretrained(tmp_path, output_loading_info=True)
    assert {name: list(found) for name, found in report.items() if found} == {}
    images = np.random.default_rng(1).uniform(-1, 1, (1, 50, 44, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).feature_maps
    for name, maps in zip(names, expected, strict=True):
        maps = maps.permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(model(images)[name], maps, atol=1e-4 * np.abs(maps).max(), err_msg=name)
    assert_same_variables(model, BiTBackbone(tmp_path))


@pytest.mark.live
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_transformers_reads_half_precision_as_it_is(tmp_path, dtype):
    import torch
    import transformers

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        model = BiT(BitConfig.from_dict(CONFIG))
    finally:
        keras.config.set_dtype_policy(before)
    save_pretrained(model, tmp_path / "saved")
    theirs, report = transformers.BitForImageClassification.from_pretrained(
        tmp_path / "saved", output_loading_info=True
    )
    assert {name: list(found) for name, found in report.items() if found} == {}
    assert theirs.dtype == getattr(torch, dtype)
    kernel = theirs.classifier[1].weight.detach().float().numpy().T
    np.testing.assert_array_equal(kernel, np.float32(variables(model)["predictions", "kernel"]))


# The Hub


class RecordingHub:
    """Takes one repository's uploads at `url`; `present` are the files it has, `log` what it was asked.

    Files named *.safetensors go by Git LFS, as on the real Hub where hf_xet is not installed or turned off; without
    `lfs` all go into the commit, as the real Hub's small files do.
    """

    def __init__(self, present=(), lfs=True):
        self.lfs = lfs
        self.present, self.log, self.bodies, self.uploads, self.commits = present, [], [], {}, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (RecordingHandler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method, path, body):
        if path == "/api/repos/create":
            return {"url": f"{self.url}/someone/bit"}
        if "/tree/" in path:
            return [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in self.present]
        if re.fullmatch(r"/api/models/someone/bit(/revision/.+)?", path):
            return {"id": "someone/bit", "siblings": [{"rfilename": name} for name in self.present]}
        if "/preupload/" in path:
            modes = {True: "lfs", False: "regular"}
            names = [file["path"] for file in json.loads(body)["files"]]
            return {
                "files": [
                    {
                        "path": name,
                        "uploadMode": modes[self.lfs and name.endswith(".safetensors")],
                        "shouldIgnore": False,
                    }
                    for name in names
                ]
            }
        if path.endswith("/objects/batch"):
            return {
                "transfer": "basic",
                "objects": [
                    one | {"actions": {"upload": {"href": f"{self.url}/storage/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ],
            }
        if path.startswith("/storage/"):
            self.uploads[path.removeprefix("/storage/")] = body
            return {}
        if "/commit/" in path:
            self.commits.append([json.loads(line) for line in body.splitlines()])
            return {"commitUrl": f"{self.url}/someone/bit/commit/{'1' * 40}", "commitOid": "1" * 40}
        return {}


class RecordingHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(self.path).split("?")[0]
        self.hub.log.append(f"{self.command} {path}")
        self.hub.bodies.append((path, self.headers.get("Authorization"), body))
        content = json.dumps(self.hub.answer(self.command, path, body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


PUSH = """
import keras_bit
model = keras_bit.from_pretrained({made!r})
processor = keras_bit.BitImageProcessor.from_pretrained({made!r})
commit = keras_bit.push_to_hub(model, "someone/bit", processor=processor, token="hf_right", **{arguments!r})
print(commit.oid)
"""


def push(hub, tmp_path, disable_xet="1", **arguments):
    made = write_checkpoint(tmp_path / "made")
    PROCESSOR.save_pretrained(made)
    code = PUSH.format(made=str(made), arguments=arguments)
    # hf_xet speaks its own protocol with a storage that no small server can stand for.
    process = run_against_hub(code, hub.url, tmp_path, HF_HUB_DISABLE_XET=disable_xet)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[-1] == "1" * 40


def committed(hub):
    """Returns the files of the only commit, the names that it deletes, and its message."""
    (lines,) = hub.commits
    files, deleted, message = {}, set(), None
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            files[value["path"]] = hub.uploads[value["oid"]]
            assert hashlib.sha256(files[value["path"]]).hexdigest() == value["oid"]
        elif line["key"] == "deletedFile":
            deleted.add(value["path"])
        else:
            message = value["summary"]
    return files, deleted, message


@pytest.mark.slow
def test_a_pushed_model_is_one_commit_of_what_is_saved_and_a_card(tmp_path):
    with RecordingHub() as hub:
        push(hub, tmp_path, private=True)
    files, deleted, message = committed(hub)
    assert (set(files), deleted, message) == (FILES | {"README.md"}, set(), "Upload BiT")
    save_pretrained(from_pretrained(tmp_path / "made"), tmp_path / "saved", PROCESSOR)
    assert {name: content for name, content in files.items() if name != "README.md"} == contents(tmp_path / "saved")
    create = json.loads(next(body for path, _, body in hub.bodies if path == "/api/repos/create"))
    assert (create["organization"], create["name"], create["visibility"]) == ("someone", "bit", "private")
    to_the_api = {token for path, token, _ in hub.bodies if path.startswith("/api/")}
    assert to_the_api == {"Bearer hf_right"}
    assert not [line for line in hub.log if "/branch/" in line]

    card = files["README.md"].decode()
    assert card.startswith(
        "---\nlibrary_name: transformers\npipeline_tag: image-classification\ntags:\n- bit\n- keras\n"
    )
    assert "license" not in card
    assert f"a head of {CLASSES} labels" in card
    assert 'keras_bit.from_pretrained("someone/bit")' in card
    assert 'BitForImageClassification.from_pretrained("someone/bit")' in card
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        compile(block, "README.md", "exec")


@pytest.mark.slow
def test_a_push_with_hf_xet_is_one_commit_too(tmp_path):
    with RecordingHub(present=["pytorch_model.bin"], lfs=False) as hub:
        push(hub, tmp_path, disable_xet="0")
    files, deleted, _ = committed(hub)
    assert (set(files), deleted) == (FILES | {"README.md"}, {"pytorch_model.bin"})


@pytest.mark.slow
def test_a_push_keeps_a_card_and_removes_what_would_contradict(tmp_path):
    stale = {
        "pytorch_model.bin",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "processor_config.json",
    }
    with RecordingHub(present=[*stale, "README.md", "config.json", "notes.bin"]) as hub:
        push(hub, tmp_path, revision="better", commit_message="Train longer")
    files, deleted, message = committed(hub)
    assert (set(files), deleted, message) == (FILES, stale, "Train longer")
    assert "POST /api/models/someone/bit/branch/better" in hub.log
    assert "POST /api/models/someone/bit/commit/better" in hub.log


@pytest.mark.slow
def test_a_card_of_ones_own_replaces_the_one_on_the_hub(tmp_path):
    with RecordingHub(present=["README.md"]) as hub:
        push(hub, tmp_path, model_card="---\nlicense: mit\n---\n# Mine\n")
    assert committed(hub)[0]["README.md"] == b"---\nlicense: mit\n---\n# Mine\n"


@pytest.mark.parametrize(
    ("change", "include_top", "expected", "absent"),
    [
        ({}, False, ["pipeline_tag: image-feature-extraction", "include_top=False", "import BitModel"], "labels"),
        (
            {"hidden_act": "selu"},
            True,
            ["library_name: keras_bit", "Only keras_bit reads it: transformers has no"],
            "import Bit",
        ),
    ],
)
def test_a_card_says_how_its_model_is_loaded(change, include_top, expected, absent):
    model = BiT(BitConfig.from_dict(CONFIG | change), include_top=include_top)
    card = str(keras_bit.model_card(model, "someone/bit"))
    assert [text for text in expected if text not in card] == []
    assert absent not in card


def test_a_model_that_cannot_be_saved_makes_no_repository(tmp_path):
    with pytest.raises(ValueError, match="norm/gamma holds NaN"):
        publishing.push_to_hub(with_nan(tmp_path), "someone/bit")
