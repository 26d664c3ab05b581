"""A BiT of 34 tensors and its checkpoint in transformers' layout, written out by hand as the oracle of loading."""

import json

import numpy as np
import safetensors.numpy
from keras.ops import convert_to_numpy

CLASSES = 5
CONFIG = {
    "model_type": "bit",
    "num_channels": 3,
    "embedding_size": 16,
    "hidden_sizes": [32, 64],
    "depths": [2, 1],
    "num_groups": 4,
    "id2label": {"0": "apple", "1": "bee", "2": "cat", "3": "dog", "4": "egg"},
    "label2id": {"apple": 0, "bee": 1, "cat": 2, "dog": 3, "egg": 4},
}
BOTTLENECK_CONFIG = CONFIG | {"layer_type": "bottleneck"}


def _rows(text):
    """Reads lines of a tensor's name, its shape in the file, its Keras layer and its Keras variable."""
    for line in text.strip().splitlines():
        name, shape, layer, variable = line.split()
        yield name, tuple(int(size) for size in shape.split("x")), layer, variable


PREACTIVATION = tuple(
    _rows("""
    bit.embedder.convolution.weight                        16x3x7x7   stem_conv                    kernel
    bit.encoder.stages.0.layers.0.downsample.conv.weight   32x16x1x1  stage1_block0_shortcut_conv  kernel
    bit.encoder.stages.0.layers.0.norm1.weight             16         stage1_block0_norm1          gamma
    bit.encoder.stages.0.layers.0.norm1.bias               16         stage1_block0_norm1          beta
    bit.encoder.stages.0.layers.0.conv1.weight             8x16x1x1   stage1_block0_conv1          kernel
    bit.encoder.stages.0.layers.0.norm2.weight             8          stage1_block0_norm2          gamma
    bit.encoder.stages.0.layers.0.norm2.bias               8          stage1_block0_norm2          beta
    bit.encoder.stages.0.layers.0.conv2.weight             8x8x3x3    stage1_block0_conv2          kernel
    bit.encoder.stages.0.layers.0.norm3.weight             8          stage1_block0_norm3          gamma
    bit.encoder.stages.0.layers.0.norm3.bias               8          stage1_block0_norm3          beta
    bit.encoder.stages.0.layers.0.conv3.weight             32x8x1x1   stage1_block0_conv3          kernel
    bit.encoder.stages.0.layers.1.norm1.weight             32         stage1_block1_norm1          gamma
    bit.encoder.stages.0.layers.1.norm1.bias               32         stage1_block1_norm1          beta
    bit.encoder.stages.0.layers.1.conv1.weight             8x32x1x1   stage1_block1_conv1          kernel
    bit.encoder.stages.0.layers.1.norm2.weight             8          stage1_block1_norm2          gamma
    bit.encoder.stages.0.layers.1.norm2.bias               8          stage1_block1_norm2          beta
    bit.encoder.stages.0.layers.1.conv2.weight             8x8x3x3    stage1_block1_conv2          kernel
    bit.encoder.stages.0.layers.1.norm3.weight             8          stage1_block1_norm3          gamma
    bit.encoder.stages.0.layers.1.norm3.bias               8          stage1_block1_norm3          beta
    bit.encoder.stages.0.layers.1.conv3.weight             32x8x1x1   stage1_block1_conv3          kernel
    bit.encoder.stages.1.layers.0.downsample.conv.weight   64x32x1x1  stage2_block0_shortcut_conv  kernel
    bit.encoder.stages.1.layers.0.norm1.weight             32         stage2_block0_norm1          gamma
    bit.encoder.stages.1.layers.0.norm1.bias               32         stage2_block0_norm1          beta
    bit.encoder.stages.1.layers.0.conv1.weight             16x32x1x1  stage2_block0_conv1          kernel
    bit.encoder.stages.1.layers.0.norm2.weight             16         stage2_block0_norm2          gamma
    bit.encoder.stages.1.layers.0.norm2.bias               16         stage2_block0_norm2          beta
    bit.encoder.stages.1.layers.0.conv2.weight             16x16x3x3  stage2_block0_conv2          kernel
    bit.encoder.stages.1.layers.0.norm3.weight             16         stage2_block0_norm3          gamma
    bit.encoder.stages.1.layers.0.norm3.bias               16         stage2_block0_norm3          beta
    bit.encoder.stages.1.layers.0.conv3.weight             64x16x1x1  stage2_block0_conv3          kernel
    bit.norm.weight                                        64         norm                         gamma
    bit.norm.bias                                          64         norm                         beta
    classifier.1.weight                                    5x64       predictions                  kernel
    classifier.1.bias                                      5          predictions                  bias
    """)
)

BOTTLENECK = tuple(
    _rows("""
    bit.embedder.convolution.weight                        16x3x7x7   stem_conv                    kernel
    bit.embedder.norm.weight                               16         stem_norm                    gamma
    bit.embedder.norm.bias                                 16         stem_norm                    beta
    bit.encoder.stages.0.layers.0.downsample.conv.weight   32x16x1x1  stage1_block0_shortcut_conv  kernel
    bit.encoder.stages.0.layers.0.downsample.norm.weight   32         stage1_block0_shortcut_norm  gamma
    bit.encoder.stages.0.layers.0.downsample.norm.bias     32         stage1_block0_shortcut_norm  beta
    bit.encoder.stages.0.layers.0.conv1.weight             8x16x1x1   stage1_block0_conv1          kernel
    bit.encoder.stages.0.layers.0.norm1.weight             8          stage1_block0_norm1          gamma
    bit.encoder.stages.0.layers.0.norm1.bias               8          stage1_block0_norm1          beta
    bit.encoder.stages.0.layers.0.conv2.weight             8x8x3x3    stage1_block0_conv2          kernel
    bit.encoder.stages.0.layers.0.norm2.weight             8          stage1_block0_norm2          gamma
    bit.encoder.stages.0.layers.0.norm2.bias               8          stage1_block0_norm2          beta
    bit.encoder.stages.0.layers.0.conv3.weight             32x8x1x1   stage1_block0_conv3          kernel
    bit.encoder.stages.0.layers.0.norm3.weight             32         stage1_block0_norm3          gamma
    bit.encoder.stages.0.layers.0.norm3.bias               32         stage1_block0_norm3          beta
    bit.encoder.stages.0.layers.1.conv1.weight             8x32x1x1   stage1_block1_conv1          kernel
    bit.encoder.stages.0.layers.1.norm1.weight             8          stage1_block1_norm1          gamma
    bit.encoder.stages.0.layers.1.norm1.bias               8          stage1_block1_norm1          beta
    bit.encoder.stages.0.layers.1.conv2.weight             8x8x3x3    stage1_block1_conv2          kernel
    bit.encoder.stages.0.layers.1.norm2.weight             8          stage1_block1_norm2          gamma
    bit.encoder.stages.0.layers.1.norm2.bias               8          stage1_block1_norm2          beta
    bit.encoder.stages.0.layers.1.conv3.weight             32x8x1x1   stage1_block1_conv3          kernel
    bit.encoder.stages.0.layers.1.norm3.weight             32         stage1_block1_norm3          gamma
    bit.encoder.stages.0.layers.1.norm3.bias               32         stage1_block1_norm3          beta
    bit.encoder.stages.1.layers.0.downsample.conv.weight   64x32x1x1  stage2_block0_shortcut_conv  kernel
    bit.encoder.stages.1.layers.0.downsample.norm.weight   64         stage2_block0_shortcut_norm  gamma
    bit.encoder.stages.1.layers.0.downsample.norm.bias     64         stage2_block0_shortcut_norm  beta
    bit.encoder.stages.1.layers.0.conv1.weight             16x32x1x1  stage2_block0_conv1          kernel
    bit.encoder.stages.1.layers.0.norm1.weight             16         stage2_block0_norm1          gamma
    bit.encoder.stages.1.layers.0.norm1.bias               16         stage2_block0_norm1          beta
    bit.encoder.stages.1.layers.0.conv2.weight             16x16x3x3  stage2_block0_conv2          kernel
    bit.encoder.stages.1.layers.0.norm2.weight             16         stage2_block0_norm2          gamma
    bit.encoder.stages.1.layers.0.norm2.bias               16         stage2_block0_norm2          beta
    bit.encoder.stages.1.layers.0.conv3.weight             64x16x1x1  stage2_block0_conv3          kernel
    bit.encoder.stages.1.layers.0.norm3.weight             64         stage2_block0_norm3          gamma
    bit.encoder.stages.1.layers.0.norm3.bias               64         stage2_block0_norm3          beta
    classifier.1.weight                                    5x64       predictions                  kernel
    classifier.1.bias                                      5          predictions                  bias
    """)
)


# Name of each tensor in transformers to those in timm and in Google's files.
TIMM_NAMES = {
    "bit.embedder.convolution.weight": "stem.conv.weight",
    "bit.norm.weight": "norm.weight",
    "bit.norm.bias": "norm.bias",
    "classifier.1.weight": "head.fc.weight",
    "classifier.1.bias": "head.fc.bias",
    **{
        f"bit.encoder.stages.{stage}.layers.{block}.{part}": f"stages.{stage}.blocks.{block}.{part}"
        for stage, block in ((0, 0), (0, 1), (1, 0))
        for part in (
            "downsample.conv.weight",
            *("conv1.weight", "norm1.weight", "norm1.bias"),
            *("conv2.weight", "norm2.weight", "norm2.bias"),
            *("conv3.weight", "norm3.weight", "norm3.bias"),
        )
        if (block, part) != (1, "downsample.conv.weight")
    },
}
GOOGLE_NAMES = {
    "bit.embedder.convolution.weight": "resnet/root_block/standardized_conv2d/kernel",
    "bit.norm.weight": "resnet/group_norm/gamma",
    "bit.norm.bias": "resnet/group_norm/beta",
    "classifier.1.weight": "resnet/head/conv2d/kernel",
    "classifier.1.bias": "resnet/head/conv2d/bias",
    **{
        f"bit.encoder.stages.{stage}.layers.{block}.{theirs}": f"resnet/{unit}/{ours}"
        for stage, block, unit in ((0, 0, "block1/unit01"), (0, 1, "block1/unit02"), (1, 0, "block2/unit01"))
        for theirs, ours in (
            ("downsample.conv.weight", "a/proj/standardized_conv2d/kernel"),
            ("conv1.weight", "a/standardized_conv2d/kernel"),
            ("norm1.weight", "a/group_norm/gamma"),
            ("norm1.bias", "a/group_norm/beta"),
            ("conv2.weight", "b/standardized_conv2d/kernel"),
            ("norm2.weight", "b/group_norm/gamma"),
            ("norm2.bias", "b/group_norm/beta"),
            ("conv3.weight", "c/standardized_conv2d/kernel"),
            ("norm3.weight", "c/group_norm/gamma"),
            ("norm3.bias", "c/group_norm/beta"),
        )
        if (block, theirs) != (1, "downsample.conv.weight")
    },
}


def random_tensors(rows=PREACTIVATION, seed=0):
    """Returns float32 arrays by name; no two are equal."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape, _, _ in rows}


def write_checkpoint(folder, tensors=None, config=CONFIG):
    """Writes `config.json` (unless None) and `model.safetensors` as transformers does; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    tensors = random_tensors() if tensors is None else tensors
    (folder / "model.safetensors").write_bytes(safetensors.numpy.save(contiguous(tensors)))
    return folder


def write_shards(folder, tensors=None, config=CONFIG):
    """Writes the same in two shards with an index; the stem and the head are in different shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = contiguous(random_tensors() if tensors is None else tensors)
    weight_map = {}
    for shard, name in enumerate(tensors):
        weight_map[name] = f"model-0000{shard % 2 + 1}-of-00002.safetensors"
    for file in set(weight_map.values()):
        part = {name: tensors[name] for name in tensors if weight_map[name] == file}
        (folder / file).write_bytes(safetensors.numpy.save(part))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def contiguous(tensors):
    return {name: np.array(tensor, order="C") for name, tensor in tensors.items()}


def in_keras(tensor):
    """Returns the tensor of a file in Keras' axis order."""
    return {1: lambda: tensor, 2: lambda: tensor.T, 4: lambda: np.einsum("oihw->hwio", tensor)}[tensor.ndim]()


def variables(model):
    """Returns numpy arrays by names of layer and variable, for every layer with weights."""
    return {(layer.name, v.name): convert_to_numpy(v).copy() for layer in model.layers for v in layer.weights}


def assert_holds(model, tensors, rows=PREACTIVATION):
    """Asserts that every variable of `model` equals its tensor in the table bit for bit, and that each has one."""
    expected = {(layer, variable): in_keras(tensors[name]) for name, _, layer, variable in rows if name in tensors}
    found = variables(model)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=str(key))


def write_timm(folder, config=None, tensors=None):
    """Writes the random tensors as timm saves them: with its names, and with a convolution as the head."""
    tensors = random_tensors() if tensors is None else tensors
    named = {TIMM_NAMES[name]: values for name, values in tensors.items()}
    if "head.fc.weight" in named:
        named["head.fc.weight"] = named["head.fc.weight"][:, :, None, None]
    return write_checkpoint(folder, named, config)


def write_npz(path, named=lambda name, number: name, extra=None, tensors=None):
    """Writes the random tensors as Google saved them: height, width, in, out.

    `named` makes a tensor's name in the file from Google's own name and the position in the file.
    """
    arrays = {}
    for number, (name, values) in enumerate((random_tensors() if tensors is None else tensors).items()):
        if values.ndim == 4:
            values = values.transpose(2, 3, 1, 0)
        elif values.ndim == 2:
            values = values.T[None, None]
        arrays[named(GOOGLE_NAMES[name], number)] = values
    np.savez(path, **arrays | (extra or {}))
    return path
