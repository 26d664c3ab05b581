"""Tests files of other programs that hold a BiT: each gives the same model as a file in transformers' layout."""

import argparse
import json

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest

from keras_bit import BiTBackbone, BitConfig, from_pretrained, save_pretrained
from keras_bit.checkpoints.layouts import GOOGLE_TENSORFLOW_2, TIMM, TRANSFORMERS, recognized
from tiny_bit import (
    BOTTLENECK,
    BOTTLENECK_CONFIG,
    CONFIG,
    GOOGLE_NAMES,
    TIMM_NAMES,
    assert_holds,
    contiguous,
    random_tensors,
    variables,
    write_checkpoint,
)

TENSORS = random_tensors()
TINY = BitConfig.from_dict(CONFIG)


def under(prefix, tensors=TENSORS, names=None):
    return {prefix + (names or {}).get(name, name): tensor for name, tensor in tensors.items()}


def timm_tensors():
    named = under("", names=TIMM_NAMES)
    return named | {"head.fc.weight": named["head.fc.weight"][:, :, None, None]}


# A network inside another


def test_a_network_inside_another_is_known_by_the_name_of_its_first_kernel():
    others = {"head.weight": np.zeros(3), "encoder.layer.0.weight": np.zeros(3)}
    for prefix in ("module.", "model.backbone.", "embeddings.patch_embeddings.backbone."):
        (layout,) = recognized(under(prefix) | others)
        assert layout == TRANSFORMERS.under(prefix)
        assert layout.tensor_name("norm", "gamma") == f"{prefix}bit.norm.weight"
    (layout,) = recognized({f"timm_model.{name}": 0 for name in TIMM_NAMES.values()})
    assert layout == TIMM.under("timm_model.")
    assert recognized({f"my_{name}": 0 for name in TIMM_NAMES.values()}) == []


def test_two_networks_in_one_file_are_refused_with_their_prefixes(tmp_path):
    folder = write_checkpoint(tmp_path, under("student.") | under("teacher."))
    with pytest.raises(
        ValueError, match=r"holds 2 BiTs, whose names begin with 'student\.', 'teacher\.'\. Save only the"
    ):
        from_pretrained(folder)


def test_missing_tensors_inside_another_network_have_their_file_names(tmp_path):
    tensors = under("module.")
    del tensors["module.bit.norm.bias"]
    with pytest.raises(
        ValueError, match=r"under 'module\.'\) does not fit .*\n  missing .* \(1\): module\.bit\.norm\.b"
    ):
        from_pretrained(write_checkpoint(tmp_path, tensors))


# transformers' TimmWrapper

WRAPPED = {
    "architecture": "resnetv2_50x1_bit",
    "architectures": ["TimmWrapperForImageClassification"],
    "do_pooling": True,
    "dtype": "float32",
    "initializer_range": 0.02,
    "label_names": ["cat", "dog"],
    "model_args": {"drop_path_rate": 0.1},
    "model_type": "timm_wrapper",
    "num_classes": 2,
    "problem_type": "multi_label_classification",
    "transformers_version": "5.24.0",
}


def test_the_configuration_of_a_timm_wrapper_is_that_of_the_network_in_it(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(WRAPPED))
    assert BitConfig.from_pretrained(tmp_path) == BitConfig(
        id2label={0: "cat", 1: "dog"}, drop_path_rate=0.1, problem_type="multi_label_classification"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet50"}, "`architecture` must be one of resnetv2_50x1_bit"),
        ({"problem_type": "ranking"}, "`problem_type` must be one of"),
        ({"model_args": {"layers": [1, 1]}}, "describes a network that is not a BiT: `layers` must be left out"),
    ],
)
def test_a_timm_wrapper_around_another_network_is_refused(tmp_path, changes, message):
    (tmp_path / "config.json").write_text(json.dumps(WRAPPED | changes))
    with pytest.raises(ValueError, match=message):
        from_pretrained(tmp_path)


def test_a_timm_wrapper_gives_the_same_model(tmp_path):
    folder = write_checkpoint(tmp_path, under("timm_model.", timm_tensors()), WRAPPED)
    assert_holds(from_pretrained(folder, config=TINY), TENSORS)


# What training scripts save with torch

STATES = {
    "a state_dict": lambda state: state,
    "timm's script": lambda state: {
        "epoch": 3,
        "arch": "resnetv2_50x1_bit",
        "state_dict": state,
        "optimizer": {"state": {0: {"momentum_buffer": state["stem.conv.weight"]}}, "param_groups": []},
        "version": 2,
        "args": argparse.Namespace(lr=0.1, model="resnetv2_50x1_bit"),
        "metric": 80.1,
    },
    "timm's script, averaged": lambda state: {
        "state_dict": {name: 2 * tensor for name, tensor in state.items()},
        "state_dict_ema": state,
        "epoch": 3,
    },
    "DeiT's script": lambda state: {"model": state, "epoch": 3},
    "DeiT's script, averaged": lambda state: {
        "model": {name: 2 * tensor for name, tensor in state.items()},
        "model_ema": state,
        "epoch": 3,
    },
    "averaging off": lambda state: {"model": state, "state_dict_ema": {}, "model_ema": None, "epoch": 3},
    "PyTorch's tutorial": lambda state: {"epoch": 3, "model_state_dict": state, "loss": 0.5},
    "parallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "compiled": lambda state: {"state_dict": {f"_orig_mod.{name}": tensor for name, tensor in state.items()}},
}


@pytest.mark.live
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar", ".bin", ".ckpt"])
@pytest.mark.parametrize("form", STATES.values(), ids=STATES)
def test_a_file_of_a_script_in_torch_gives_the_same_model(tmp_path, form, suffix):
    import torch

    path = tmp_path / f"best{suffix}"
    torch.save(form({name: torch.from_numpy(tensor) for name, tensor in contiguous(timm_tensors()).items()}), path)
    assert_holds(from_pretrained(path, config=TINY), TENSORS)


def lightning(state, **hyper_parameters):
    """Writes what Lightning 2's `Trainer.save_checkpoint` writes for a module that has the network as its `net`."""
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"net.{name}": tensor for name, tensor in state.items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"completed": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": None, "dirpath": "checkpoints"}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": state["stem.conv.weight"]}}, "param_groups": []}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": hyper_parameters,
    }


@pytest.mark.live
def test_a_checkpoint_of_lightning_is_the_same_model(tmp_path):
    import torch

    state = {name: torch.from_numpy(tensor) for name, tensor in contiguous(timm_tensors()).items()}
    torch.save(lightning(state, lr=0.1, model="resnetv2_50x1_bit"), tmp_path / "last.ckpt")
    assert_holds(from_pretrained(tmp_path / "last.ckpt", config=TINY), TENSORS)
    torch.save(lightning({**state, "stem.conv.weight": state["norm.weight"]}), tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"under 'net\.'\) does not fit .*\n  wrongly shaped \(1\): net\.stem\.conv"):
        from_pretrained(tmp_path / "other.ckpt", config=TINY)


@pytest.mark.live
def test_code_in_a_checkpoint_of_lightning_is_never_run(tmp_path):
    import torch

    state = {name: torch.from_numpy(tensor) for name, tensor in contiguous(timm_tensors()).items()}
    torch.save(lightning(state, out=tmp_path), tmp_path / "last.ckpt")  # a path is an object with a class
    with pytest.raises(
        ValueError, match=r"last\.ckpt is damaged, or holds more than tensors, .*save only `model\.state_dict\(\)`"
    ):
        from_pretrained(tmp_path / "last.ckpt", config=TINY)


@pytest.mark.live
def test_a_torch_file_without_a_state_dict_is_refused_with_what_it_holds(tmp_path):
    import torch

    torch.save({"epoch": 3, "net": {"stem.conv.weight": torch.zeros(1)}}, tmp_path / "last.pth")
    with pytest.raises(
        ValueError,
        match=r"last\.pth must hold a dictionary .* under .* state_dict or model or .*: it holds epoch, net\.",
    ):
        from_pretrained(tmp_path / "last.pth", config=TINY)


# Keras' directory of a whole model


def random_model(include_top=True, **changes):
    model = keras.models.clone_model(from_tiny(include_top, **changes))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(1, 0.3, weight.shape) for weight in model.get_weights()])
    return model


def from_tiny(include_top=True, **changes):
    from keras_bit import BiT

    return BiT(BitConfig.from_dict(CONFIG | changes), include_top=include_top)


def assert_same(model, other):
    expected, found = variables(model), variables(other)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=str(key))
    assert found
    assert model.config == other.config


@pytest.mark.parametrize("include_top", [True, False])
def test_a_directory_that_keras_wrote_is_the_same_model(tmp_path, include_top):
    model = random_model(include_top)
    keras.saving.save_model(model, tmp_path / "bit", zipped=False)
    assert {path.name for path in (tmp_path / "bit").iterdir()} >= {"config.json", "metadata.json", "model.weights.h5"}
    again = from_pretrained(tmp_path / "bit", include_top=include_top)
    assert_same(model, again)
    assert BitConfig.from_pretrained(tmp_path / "bit") == model.config
    assert_same(model, from_pretrained(tmp_path / "bit" / "model.weights.h5", include_top=include_top))
    assert list(BiTBackbone(tmp_path / "bit", out_features=["stage1"]).output) == ["stage1"]


def test_a_directory_that_keras_wrote_of_another_model_is_refused(tmp_path):
    pixels = keras.Input((8, 8, 3))
    keras.saving.save_model(keras.Model(pixels, keras.layers.Flatten()(pixels)), tmp_path / "other", zipped=False)
    with pytest.raises(ValueError, match=r"other' is not a BiT: config\.json describes a Functional of Keras"):
        from_pretrained(tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda layers: layers["config"]["layers"].append({"class_name": "Lambda", "config": {}}),
            "holds a Python func",
        ),
        (lambda layers: layers["config"]["layers"].pop(), "is damaged, or not a model that Keras can load"),
        (lambda layers: layers["config"]["layers"][3]["config"].update(epsilon=0.5), "holds other layers than its"),
    ],
    ids=["code", "a layer is missing", "another layer"],
)
def test_a_directory_of_keras_whose_layers_were_changed_is_refused(tmp_path, change, message):
    keras.saving.save_model(random_model(), tmp_path, zipped=False)
    layers = json.loads((tmp_path / "config.json").read_text())
    change(layers)
    (tmp_path / "config.json").write_text(json.dumps(layers))
    with pytest.raises(ValueError, match=message) as error:
        from_pretrained(tmp_path)
    assert str(error.value).startswith(str(tmp_path))


def test_a_directory_of_keras_with_half_of_its_weights_is_called_damaged(tmp_path):
    keras.saving.save_model(random_model(), tmp_path, zipped=False)
    path = tmp_path / "model.weights.h5"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"is damaged, or not a model that Keras can load"):
        from_pretrained(tmp_path)


# Weights that Keras saved in several files


def save_sharded(folder, model, kilobytes=9.19, name="bit.weights.json"):
    """Saves shards of at least 9.19 kB, which the largest kernel has."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_weights(folder / name, max_shard_size=kilobytes * 1024 / 1024**3)
    return folder / name


@pytest.mark.parametrize("include_top", [True, False])
def test_weights_that_keras_saved_in_several_files_are_the_same_model(tmp_path, include_top):
    model = random_model(include_top)
    index = save_sharded(tmp_path, model)
    assert_same(model, from_pretrained(index, include_top=include_top, config=TINY))
    model.config.save_pretrained(tmp_path)
    assert_same(model, from_pretrained(index, include_top=include_top))
    folder = save_sharded(tmp_path / "folder", model, name="model.weights.json").parent
    model.config.save_pretrained(folder)
    assert_same(model, from_pretrained(folder, include_top=include_top))


def test_a_layer_in_two_files_is_found_though_the_second_does_not_name_it(tmp_path):
    model = random_model()
    for kilobytes in np.arange(9.2, 12, 0.05):  # where a file ends between the two vectors of a norm
        index = save_sharded(tmp_path, model, kilobytes)
        if any(isinstance(files, list) for files in json.loads(index.read_text())["weight_map"].values()):
            break
    else:
        pytest.fail("no size divides a layer")
    assert_same(model, from_pretrained(index, config=TINY))


def damaged(path):
    path.write_bytes(path.read_bytes()[:1000])


def without(path):
    with h5py.File(path, "a") as file:
        del file["layers/std_conv2d"]


def twice(path):
    with h5py.File(path, "a") as file, h5py.File(path.with_name("bit_00001.weights.h5")) as other:
        other.copy([layer for layer in other["layers"].values() if len(layer["vars"])][-1], file["layers"])


SHARD_FAULTS = {
    "absent": (
        lambda path: path.unlink(),
        FileNotFoundError,
        r"lacks the shard bit_00000\.weights\.h5 that bit\.wei",
    ),
    "damaged": (damaged, ValueError, r"bit_00000\.weights\.h5 is damaged or not a \.weights\.h5 file"),
    "a layer is absent": (
        without,
        ValueError,
        r"bit_00000\.weights\.h5 lacks tensors that bit\.weights\.json lists",
    ),
    "a layer twice": (twice, ValueError, r"holds tensors that another shard holds too: layers/"),
}


@pytest.mark.parametrize(("change", "error", "message"), SHARD_FAULTS.values(), ids=SHARD_FAULTS)
def test_a_damaged_shard_of_keras_is_named(tmp_path, change, error, message):
    index = save_sharded(tmp_path, random_model())
    change(tmp_path / "bit_00000.weights.h5")
    with pytest.raises(error, match=message):
        from_pretrained(index, config=TINY)


# The BiT in transformers' hybrid ViT and DPT

HYBRIDS = {
    "ViT": ({"model_type": "vit-hybrid"}, "vit.embeddings.patch_embeddings.backbone."),
    "ViT by itself": ({"model_type": "vit-hybrid"}, "embeddings.patch_embeddings.backbone."),
    "DPT": ({"model_type": "dpt", "is_hybrid": True}, "dpt.embeddings.backbone."),
}
HYBRID_FORM = {"layer_type": "bottleneck", "global_padding": "same", "embedding_dynamic_padding": True}
BODY = {name: tensor for name, tensor in random_tensors(BOTTLENECK).items() if name.startswith("bit.")}


@pytest.mark.parametrize("typed", [True, False], ids=["of a named type", "of none"])
@pytest.mark.parametrize(("model", "prefix"), HYBRIDS.values(), ids=HYBRIDS)
def test_the_bit_inside_a_hybrid_is_read_by_its_prefix(tmp_path, model, prefix, typed):
    backbone = {name: value for name, value in BOTTLENECK_CONFIG.items() if typed or name != "model_type"}
    others = {"encoder.layer.0.weight": np.ones(3, np.float32), "classifier.weight": np.ones((2, 3), np.float32)}
    config = model | {"backbone_config": backbone, "id2label": {"0": "other", "1": "labels"}}
    folder = write_checkpoint(tmp_path, under(prefix, BODY) | others, config)
    assert BitConfig.from_pretrained(folder) == BitConfig.from_dict(BOTTLENECK_CONFIG)
    assert_holds(from_pretrained(folder, include_top=False), BODY, BOTTLENECK)
    assert list(BiTBackbone(folder).output) == ["stage2"]
    with pytest.raises(
        ValueError, match=rf"missing .* \(2\): {prefix}classifier\.1\.weight, {prefix}classifier\.1\.bias"
    ):
        from_pretrained(folder)
    with pytest.warns(UserWarning, match="has no head; `classes=3` gives the model a new head"):
        assert from_pretrained(folder, classes=3).output.shape == (None, 3)


@pytest.mark.live
@pytest.mark.parametrize(("model_type", "stages"), [("dpt", (1, 2, 3)), ("vit-hybrid", (3,))])
def test_a_hybrid_without_a_backbone_config_means_transformers_default(tmp_path, model_type, stages):
    import transformers

    values = {"model_type": model_type, "is_hybrid": True, "backbone_config": None}
    (tmp_path / "config.json").write_text(json.dumps(values))
    found = BitConfig.from_pretrained(tmp_path)
    assert found.out_features == tuple(f"stage{stage}" for stage in stages)
    # transformers 5 has no hybrid ViT any more; in version 4 both mean the same network.
    theirs = BitConfig.from_dict(transformers.DPTConfig(is_hybrid=True).backbone_config.to_dict())
    for name in ("depths", "hidden_sizes", "layer_type", "global_padding", "embedding_dynamic_padding", "num_groups"):
        assert getattr(found, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"model_type": "dpt"}, "has model_type 'dpt', expected 'bit'"),
        ({"model_type": "dpt", "is_hybrid": False, "backbone_config": None}, "has model_type 'dpt', expected 'bit'"),
        ({"model_type": "upernet", "backbone_config": {"model_type": "swin"}}, "has model_type 'swin', expected 'bit'"),
        ({"model_type": "upernet", "backbone_config": {}}, "has model_type None, expected 'bit'"),
    ],
)
def test_a_model_around_another_backbone_is_refused(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        from_pretrained(write_checkpoint(tmp_path, under("dpt.embeddings.backbone.", BODY), model))


@pytest.mark.live
@pytest.mark.parametrize("kind", ["DPTModel", "DPTForDepthEstimation", "UperNetForSemanticSegmentation"])
def test_a_transformers_model_around_bit_gives_its_feature_maps(tmp_path, kind):
    import torch
    import transformers

    stages = ["stage1", "stage2", "stage3"]
    backbone = transformers.BitConfig(
        embedding_size=16,
        hidden_sizes=[32, 64, 96],
        depths=[1, 2, 1],
        num_groups=4,
        out_features=stages,
        **(
            {"layer_type": "bottleneck", "global_padding": "same", "embedding_dynamic_padding": True}
            if "DPT" in kind
            else {}
        ),
    )
    if "DPT" in kind:
        config = transformers.DPTConfig(
            backbone_config=backbone,
            is_hybrid=True,
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=64,
            backbone_featmap_shape=[1, 96, 4, 4],
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            backbone_out_indices=[0, 1, 2, 3],
        )
    else:
        config = transformers.UperNetConfig(backbone_config=backbone, hidden_size=8, use_auxiliary_head=False)
    torch.manual_seed(0)
    theirs = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(torch.rand(parameter.shape) + 0.5).add_(0.1 * torch.randn(parameter.shape))
    theirs.save_pretrained(tmp_path)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    inside = next(module for module in theirs.modules() if isinstance(module, transformers.BitBackbone))
    with torch.no_grad():
        expected = inside(images).feature_maps
    ours = BiTBackbone(tmp_path)(images.permute(0, 2, 3, 1).numpy())
    assert list(ours) == stages
    for name, values in zip(stages, expected, strict=True):
        values = values.permute(0, 2, 3, 1).numpy()
        off = np.abs(np.asarray(ours[name]) - values).max() / np.abs(values).max()
        print(f"{kind} {name}: {off:.1e} of the largest")
        assert off <= 1e-5  # float32


# big_vision's .npz


def big_vision_tensors():
    """Returns the random tensors with the names and shapes of big_vision's `models/bit_paper.py`."""
    renamed = (
        ("resnet/root_block/standardized_conv2d", "root_block/conv_root"),
        ("resnet/group_norm/", "norm-pre-head/"),
        ("resnet/head/conv2d", "head"),
        ("/a/proj/standardized_conv2d", "/conv_proj"),
        *((f"/{letter}/standardized_conv2d", f"/conv{index}") for index, letter in enumerate("abc", 1)),
        *((f"/{letter}/group_norm", f"/gn{index}") for index, letter in enumerate("abc", 1)),
        ("gamma", "scale"),
        ("beta", "bias"),
        ("resnet/", ""),
    )
    found = {}
    for ours, tensor in TENSORS.items():
        name = GOOGLE_NAMES[ours]
        for before, after in renamed:
            name = name.replace(before, after)
        if tensor.ndim == 4:
            tensor = tensor.transpose(2, 3, 1, 0)
        elif tensor.ndim == 2:
            tensor = tensor.T
        elif not name.startswith("head"):
            tensor = tensor[None, None, None]
        found[name] = tensor
    return found


BIG_VISION_FILES = {
    "parameters": {"": 1},
    "a training run": {"params/": 1, "opt/1/0/mu/": 0, "opt/1/0/nu/": 0},
    "an older training run": {"opt/target/": 1, "opt/state/param_states/": 0},
}


@pytest.mark.parametrize("factors", BIG_VISION_FILES.values(), ids=BIG_VISION_FILES)
def test_a_file_of_big_vision_gives_the_same_model(tmp_path, factors):
    tensors = big_vision_tensors()
    assert tensors["block1/unit02/gn3/scale"].shape == (1, 1, 1, 8)
    arrays = {prefix + name: factor * tensor for prefix, factor in factors.items() for name, tensor in tensors.items()}
    np.savez(tmp_path / "checkpoint.npz", **arrays)
    assert_holds(from_pretrained(tmp_path / "checkpoint.npz", config=TINY), TENSORS)


def test_bfloat16_of_big_vision_is_read_as_float32(tmp_path):
    tensors = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in big_vision_tensors().items()}
    np.savez(tmp_path / "checkpoint.npz", **tensors)  # which numpy writes as bytes without a type
    rounded = {name: tensor.astype(ml_dtypes.bfloat16).astype(np.float32) for name, tensor in TENSORS.items()}
    assert_holds(from_pretrained(tmp_path / "checkpoint.npz", config=TINY), rounded)


def test_tensors_that_do_not_fit_are_named_as_in_big_visions_file(tmp_path):
    tensors = {f"params/{name}": tensor for name, tensor in big_vision_tensors().items()}
    tensors["params/norm-pre-head/scale"] = np.zeros(64, np.float32)
    del tensors["params/head/bias"]
    np.savez(tmp_path / "checkpoint.npz", **tensors)
    with pytest.raises(ValueError, match=r"big_vision's \.npz layout under 'params/'\) does not fit") as error:
        from_pretrained(tmp_path / "checkpoint.npz", config=TINY)
    assert "missing from the checkpoint (1): params/head/bias\n" in str(error.value)
    assert "params/norm-pre-head/scale expected (1, 1, 1, 64), got (64,)" in str(error.value)


# Google's TensorFlow 2 files, in the structure that `bit_tf2/models.py` of big_transfer gives them


def tensorflow_tensors():
    """Returns the random tensors under the names and in the shapes of the variables of Google's Keras classes."""
    found = {}
    for ours, tensor in TENSORS.items():
        name = GOOGLE_NAMES[ours].replace("head/conv2d", "head/dense")
        found[name] = {1: lambda t: t, 2: lambda t: t.T, 4: lambda t: t.transpose(2, 3, 1, 0)}[tensor.ndim](tensor)
    return found


# From a variable's name to what stands in a file: TensorFlow's versions scope the names otherwise.
H5_NAMES = {
    "in full": lambda name: f"{name}:0",
    "from the layer on": lambda name: f"{name.removeprefix('resnet/')}:0",
    "inside the layer": lambda name: name.removeprefix("resnet/").partition("/")[2] + ":0",
    "numbered": lambda name: name.replace("conv2d/", "conv2d_3/") + ":0",
}


def write_older_h5(path, tensors, named=H5_NAMES["in full"]):
    """Writes a file as `save_weights` of TensorFlow's Keras 2 does: with a group for each of the model's own layers."""
    layers = ["root_block", "block1", "block2", "group_norm", "re_lu", "global_average_pooling2d", "head/dense"]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"] = b"tensorflow"
        for layer in layers:
            group = file.create_group(layer)
            inside = [name for name in tensors if name.startswith(f"resnet/{layer}/")]
            group.attrs["weight_names"] = [named(name).encode() for name in inside]
            for name in inside:
                stored = named(name)
                if layer == "head/dense" and stored.startswith("dense/"):
                    stored = stored.removeprefix("dense/")
                group.create_dataset(stored, data=tensors[name])
    return path


@pytest.mark.parametrize("named", H5_NAMES.values(), ids=H5_NAMES)
def test_an_h5_of_googles_classes_is_the_same_model(tmp_path, named):
    path = write_older_h5(tmp_path / "BiT-M-R50x1.h5", tensorflow_tensors(), named)
    assert_holds(from_pretrained(path, config=TINY), TENSORS)
    assert_holds(
        from_pretrained(path, config=TINY, include_top=False),
        {name: tensor for name, tensor in TENSORS.items() if name.startswith("bit.")},
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {n: v for n, v in t.items() if "block2" not in n},
            r"missing from the checkpoint \(10\): resnet/block2",
        ),
        (
            lambda t: t | {"resnet/block1/unit09/a/x/kernel": np.ones(1)},
            r"not part of the model \(1\): resnet/block1/unit09",
        ),
        (lambda t: t | {"resnet/head/dense/kernel": np.ones((5, 64))}, r"resnet/head/dense/kernel expected \(64, 5\)"),
        (lambda t: t | {"resnet/block1/unit01/a/group_norm_2/beta": np.ones(16)}, r"BiT\.h5 is damaged .* twice"),
    ],
    ids=["missing", "extra", "transposed", "twice"],
)
def test_an_h5_of_googles_classes_that_does_not_fit_is_refused(tmp_path, change, message):
    path = write_older_h5(tmp_path / "BiT.h5", change(tensorflow_tensors()))
    with pytest.raises(ValueError, match=message):
        from_pretrained(path, config=TINY)


def test_an_older_h5_of_another_network_is_refused(tmp_path):
    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        file.attrs["layer_names"] = [b"block1_conv1"]
        file.create_dataset("block1_conv1/block1_conv1_W_1:0", data=np.ones((3, 3, 3, 8)))
    with pytest.raises(ValueError, match=r"vgg\.h5' holds no BiT.* its names begin block1_conv1/block1_conv1_W_1\."):
        from_pretrained(tmp_path / "vgg.h5", config=TINY)


def write_saved_model(folder, tensors, named=lambda name: name):
    import tensorflow as tf

    module = tf.Module()
    module.all = [tf.Variable(tensor, name=named(name)) for name, tensor in tensors.items()]
    tf.saved_model.save(module, str(folder))
    return folder


@pytest.mark.parametrize("head", [True, False], ids=["classifier", "features"])
@pytest.mark.parametrize("scope", ["", "keras_layer/"])
def test_the_variables_of_a_saved_model_are_the_same_model(tmp_path, head, scope):
    tensors = {name: tensor for name, tensor in tensorflow_tensors().items() if head or "/head/" not in name}
    folder = write_saved_model(tmp_path / "bit", tensors, lambda name: scope + name)
    held = {name: tensor for name, tensor in TENSORS.items() if head or name.startswith("bit.")}
    assert_holds(from_pretrained(folder, config=TINY, include_top=head), held)
    if not head:
        with pytest.raises(ValueError, match=r"missing from the checkpoint \(2\): resnet/head/"):
            from_pretrained(folder, config=TINY)


def test_a_saved_model_of_another_network_or_half_of_one_is_refused(tmp_path):
    folder = write_saved_model(tmp_path / "other", {"dense/kernel": np.ones(3)})
    with pytest.raises(
        ValueError, match=r"variables\.index is damaged or not a SavedModel's variables: .*it has no variables `resnet/"
    ):
        from_pretrained(folder, config=TINY)
    folder = write_saved_model(tmp_path / "bit", tensorflow_tensors())
    data = folder / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"variables\.index"):
        from_pretrained(folder, config=TINY)
    data.unlink()
    with pytest.raises((ValueError, OSError), match=r"variables\.index"):
        from_pretrained(folder, config=TINY)
    index = folder / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"variables\.index is damaged or not a SavedModel's variables"):
        from_pretrained(folder, config=TINY)


# From the Hub


def cached(folder):
    """Returns the folder for files of the Hub repository `me/bit` in the cache `folder`."""
    repository = folder / "models--me--bit"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    return repository / "snapshots" / ("a" * 40)


ON_THE_HUB = {
    "a directory of Keras": lambda model, folder: keras.saving.save_model(model, folder, zipped=False),
    "shards of Keras": lambda model, folder: save_sharded(folder, model, name="model.weights.json"),
    "Google's npz": lambda model, folder: save_pretrained(model, folder, layout="npz"),
    "a SavedModel": lambda model, folder: write_saved_model(
        folder, {GOOGLE_TENSORFLOW_2.tensor_name(*key): values for key, values in variables(model).items()}
    ),
}


@pytest.mark.parametrize("save", ON_THE_HUB.values(), ids=ON_THE_HUB)
@pytest.mark.filterwarnings("ignore:Google's code")
def test_these_files_are_found_in_a_repository_of_the_hub(tmp_path, save):
    model = random_model()
    save(model, cached(tmp_path))
    assert_same(model, from_pretrained("me/bit", cache_dir=tmp_path, local_files_only=True, config=TINY))
