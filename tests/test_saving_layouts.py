"""Tests save_pretrained's other layouts: the files, what they cannot hold, and (live) timm reading them."""

import json
import types

import keras
import numpy as np
import pytest
import safetensors.numpy
from test_timm_live import relative, run_timm

import keras_bit
from keras_bit import BiT, BiTBackbone, BitConfig, BitImageProcessor, from_pretrained, save_pretrained
from keras_bit.checkpoints import publishing, timm_config
from keras_bit.network.config import PUBLISHED
from tiny_bit import (
    BOTTLENECK_CONFIG,
    CONFIG,
    GOOGLE_NAMES,
    TIMM_NAMES,
    assert_holds,
    random_tensors,
    variables,
    write_checkpoint,
)

TINY = BitConfig.from_dict(CONFIG)
TENSORS = random_tensors()
SQUARE = BitImageProcessor(size=40, crop_size=32, resample=2, image_mean=[0.5] * 3, image_std=[0.25] * 3)
EXACT = BitImageProcessor(
    size={"height": 32, "width": 48}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[1] * 3
)


@pytest.fixture
def tiny_is_published(monkeypatch):
    monkeypatch.setattr(timm_config, "PUBLISHED", PUBLISHED | {"BiT50": TINY})


def tiny(tmp_path, **arguments):
    return from_pretrained(write_checkpoint(tmp_path / "made"), **arguments)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_timms_layout_holds_timms_names_and_shapes_and_comes_back(tmp_path, tiny_is_published):
    save_pretrained(tiny(tmp_path), tmp_path / "saved", SQUARE, layout="timm")
    assert names(tmp_path / "saved") == {"config.json", "model.safetensors", "preprocessor_config.json"}
    stored = safetensors.numpy.load_file(tmp_path / "saved" / "model.safetensors")
    assert stored.keys() == set(TIMM_NAMES.values())
    for name, values in TENSORS.items():
        np.testing.assert_array_equal(np.squeeze(stored[TIMM_NAMES[name]]), np.squeeze(values))
    assert stored["head.fc.weight"].shape == (5, 64, 1, 1)
    assert_holds(from_pretrained(tmp_path / "saved", config=TINY), TENSORS)
    (tmp_path / "saved" / "preprocessor_config.json").unlink()
    assert BitImageProcessor.from_pretrained(tmp_path / "saved") == SQUARE  # from timm's words


def test_timms_layout_without_a_head_has_no_classes(tmp_path, tiny_is_published):
    save_pretrained(tiny(tmp_path, include_top=False), tmp_path / "saved", layout="timm")
    written = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (written["num_classes"], "label_names" in written) == (0, False)
    assert not any(
        name.startswith("head") for name in safetensors.numpy.load_file(tmp_path / "saved/model.safetensors")
    )
    with pytest.raises(FileNotFoundError, match=r"has no preprocessor_config\.json"):  # nor timm's defaults
        BitImageProcessor.from_pretrained(tmp_path / "saved")


CONFIGS = {
    **PUBLISHED,
    "labels": BitConfig(id2label={0: "cat", 1: "dog"}, problem_type="multi_label_classification"),
    "other channels": BitConfig(num_channels=5, output_stride=8, drop_path_rate=0.2, hidden_act="gelu_new"),
    "widths written out": BitConfig(embedding_size=192, hidden_sizes=(768, 1536, 3072, 6144)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_network_in_timms_words_is_read_again(config):
    again = BitConfig.from_timm(json.loads(json.dumps(timm_config.values(config, True, None))))
    for name in ("stem_width", "stage_widths", "depths", "id2label", "num_channels", "output_stride", "problem_type"):
        assert getattr(again, name) == getattr(config, name)
    assert (again.drop_path_rate, again.hidden_act) == (config.drop_path_rate, config.hidden_act)


@pytest.mark.parametrize(
    "processor",
    [
        SQUARE,
        EXACT,
        *(BitImageProcessor(size=size, crop_size=size - 29) for size in range(30, 520, 7)),
        BitImageProcessor(size=256, crop_size=224, image_mean=0.5, image_std=0.5, resample=1),
    ],
)
def test_the_processor_in_timms_words_is_read_again(processor):
    again = BitImageProcessor.from_timm(json.loads(json.dumps(timm_config.image_options(processor, 3))))
    unused = {} if processor.do_center_crop else {"crop_size": None}
    assert again.to_dict() | unused == processor.to_dict() | unused


@pytest.mark.parametrize(
    "changes",
    [{"orientation": "ignore"}, {"do_normalize": False}, {"crop_size": (32, 40)}, {"do_center_crop": False}],
    ids=str,
)
def test_a_processor_that_timm_cannot_describe_is_written_with_a_warning(tmp_path, tiny_is_published, changes):
    processor = BitImageProcessor(**{"size": 40, "crop_size": 32} | changes)
    with pytest.warns(UserWarning, match="timm cannot express the steps of `processor`"):
        save_pretrained(tiny(tmp_path), tmp_path / "saved", processor, layout="timm")
    assert BitImageProcessor.from_pretrained(tmp_path / "saved") == processor


@pytest.mark.filterwarnings("ignore:Google's code")
def test_googles_layout_holds_googles_names_and_comes_back(tmp_path):
    save_pretrained(tiny(tmp_path), tmp_path / "saved", SQUARE, layout="npz")
    assert names(tmp_path / "saved") == {"config.json", "model.npz", "preprocessor_config.json"}
    with np.load(tmp_path / "saved" / "model.npz") as stored:
        assert set(stored.files) == set(GOOGLE_NAMES.values())
        for name, values in TENSORS.items():
            values = {1: lambda v: v, 2: lambda v: v.T, 4: lambda v: v.transpose(2, 3, 1, 0)}[values.ndim](values)
            np.testing.assert_array_equal(np.squeeze(stored[GOOGLE_NAMES[name]]), np.squeeze(values))
        assert stored["resnet/head/conv2d/kernel"].shape == (1, 1, 64, 5)
    again = from_pretrained(tmp_path / "saved")
    assert_holds(again, TENSORS)
    assert again.config == TINY
    assert BitImageProcessor.from_pretrained(tmp_path / "saved") == SQUARE


@pytest.mark.parametrize("layout", ["npz", "timm"])
@pytest.mark.filterwarnings("ignore:Google's code")
def test_a_backbone_gets_the_final_norm_that_the_layout_has(tmp_path, tiny_is_published, layout):
    write_checkpoint(tmp_path / "made")
    save_pretrained(BiTBackbone(tmp_path / "made"), tmp_path / "saved", layout=layout)
    held = variables(from_pretrained(tmp_path / "saved", config=TINY, include_top=False))
    np.testing.assert_array_equal(held["norm", "gamma"], 1)
    np.testing.assert_array_equal(held["norm", "beta"], 0)


@pytest.mark.filterwarnings("ignore:Google's code")
def test_bfloat16_becomes_float32_in_an_npz(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = BiT(TINY)
    finally:
        keras.config.set_dtype_policy(before)
    save_pretrained(model, tmp_path, layout="npz")
    found = variables(from_pretrained(tmp_path))
    for key, values in variables(model).items():
        np.testing.assert_array_equal(found[key], values.astype("float32"))


REFUSED = {
    "another layout": ("tf", CONFIG, r"`layout` must be one of 'transformers', 'timm', 'npz', got 'tf'"),
    "a network that timm has no name for": (
        "timm",
        CONFIG,
        r"`layout` 'timm' cannot hold `model`: timm knows net",
    ),
    "post-activation": ("npz", BOTTLENECK_CONFIG, r"`layout` 'npz' cannot hold `model`: .* pre-activation networks"),
}


@pytest.mark.parametrize(("layout", "config", "message"), REFUSED.values(), ids=REFUSED)
def test_models_that_a_layout_cannot_hold_are_refused_and_nothing_is_written(tmp_path, layout, config, message):
    with pytest.raises(ValueError, match=message):
        save_pretrained(BiT(BitConfig.from_dict(config)), tmp_path / "saved", layout=layout)
    assert not (tmp_path / "saved").exists()


def test_a_network_unlike_googles_is_written_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"Google's code builds a network without num_groups=4 from these weights"):
        save_pretrained(tiny(tmp_path), tmp_path / "saved", layout="npz")


@pytest.mark.parametrize(("first", "second"), [("npz", "transformers"), ("transformers", "npz"), ("timm", "npz")])
@pytest.mark.filterwarnings("ignore:Google's code")
def test_weights_of_another_layout_in_the_directory_are_not_contradicted(tmp_path, tiny_is_published, first, second):
    model = tiny(tmp_path)
    save_pretrained(model, tmp_path / "saved", layout=first)
    before = {path: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    with pytest.raises(FileExistsError, match=r"holds files of another checkpoint, .*model\.(npz|safetensors)\. Move"):
        save_pretrained(model, tmp_path / "saved", layout=second)
    assert {path: path.read_bytes() for path in (tmp_path / "saved").iterdir()} == before


class Hub:
    """In place of `huggingface_hub.HfApi`: what is uploaded, and what is removed."""

    present: tuple[str, ...] = ()
    uploaded: dict[str, bytes]
    removed: set[str]

    def __init__(self, token):
        pass

    def create_repo(self, repo_id, **_):
        return types.SimpleNamespace(repo_id=repo_id)

    def list_repo_files(self, *_, **__):
        return list(self.present)

    def upload_folder(self, *, folder_path, delete_patterns, **_):
        type(self).uploaded = {path.name: path.read_bytes() for path in folder_path.iterdir()}
        type(self).removed = set(delete_patterns or ())


@pytest.mark.parametrize(
    ("layout", "weights", "other", "card"),
    [
        ("timm", "model.safetensors", "model.npz", ["library_name: timm", 'timm.create_model("hf-hub:someone/bit"']),
        (
            "npz",
            "model.npz",
            "model.safetensors",
            ["library_name: keras_bit", "without num_groups=4 from these weights"],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Google's code builds a network without num_groups=4")
def test_a_push_in_another_layout_equals_the_saved_files(
    tmp_path, tiny_is_published, monkeypatch, layout, weights, other, card
):
    monkeypatch.setattr(publishing.huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(Hub, "present", (other, "pytorch_model.bin", "notes.txt"))
    model = tiny(tmp_path)
    keras_bit.push_to_hub(model, "someone/bit", processor=SQUARE, layout=layout)
    save_pretrained(model, tmp_path / "saved", SQUARE, layout=layout)
    assert Hub.uploaded.keys() == {*names(tmp_path / "saved"), "README.md"} >= {weights}
    for path in (tmp_path / "saved").iterdir():
        assert Hub.uploaded[path.name] == path.read_bytes()
    assert Hub.removed == {other, "pytorch_model.bin"}
    assert [text for text in card if text not in Hub.uploaded["README.md"].decode()] == []
    with pytest.raises(ValueError, match="`layout` must be one of 'transformers', 'timm', 'npz', got 'tf'"):
        keras_bit.push_to_hub(model, "someone/bit", layout="tf")


@pytest.mark.live
@pytest.mark.slow
def test_timm_reads_both_layouts_as_the_same_network(tmp_path):
    config = BitConfig(id2label={0: "cat", 1: "dog"}, hidden_act="gelu_new", output_stride=16)
    model = BiT(config, classifier_activation=None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if "norm" in layer.name:
            layer.set_weights([rng.normal(mean, 0.3, layer.gamma.shape) for mean in (1, 0)])
    model.get_layer("predictions").bias.assign([0.5, -0.5])
    images = rng.uniform(-1, 1, (2, 64, 96, 3)).astype("float32")
    processor = BitImageProcessor(size=256, crop_size=224, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    save_pretrained(model, tmp_path / "timm", processor, layout="timm")
    with pytest.warns(UserWarning, match=r"without hidden_act='gelu_new', output_stride=16 from these weights"):
        save_pretrained(model, tmp_path / "npz", layout="npz")
    np.save(tmp_path / "images.npy", images)
    run_timm("timm_formats_probe.py", "read", tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == {
        "labels": ["cat", "dog"],
        "data": {"input_size": [3, 224, 224], "interpolation": "bilinear", "crop_pct": 0.875, "crop_mode": "center"}
        | {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    with np.load(tmp_path / "outputs.npz") as file:
        for layout in ("timm", "npz"):
            off = relative(model(images), file[layout])
            print(f"{layout}: {off:.1e} of the largest")
            assert off <= 5e-5  # float32 through 50 convolutions
