"""Compares the whole network with transformers' for every argument, with random weights, and BiT-50 at full size."""

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from convert import goldens, parity, photographs, reference
from keras_bit import from_pretrained
from reference_models import TINY, saved_with_random_weights

pytestmark = pytest.mark.live

BOTTLENECK = {"layer_type": "bottleneck"}
# Not in the table, because transformers is wrong there, so it is no oracle: it drops the dilation of
# pre-activation blocks (`output_stride` below 32; test_model.py has timm's rule), crashes on `width_factor` and cannot
# add up the branches under `global_padding="valid"`.
CONFIGS = {
    "pre-activation": {},
    "pre-activation, SAME": {"global_padding": "same"},
    "pre-activation, dynamic pool": {"embedding_dynamic_padding": True},
    "pre-activation, SAME, dynamic pool": {"global_padding": "SAME", "embedding_dynamic_padding": True},
    "pre-activation, gelu": {"hidden_act": "gelu"},
    "pre-activation, gelu_new": {"hidden_act": "gelu_new"},
    "pre-activation, selu": {"hidden_act": "selu"},
    "pre-activation, drop path": {"drop_path_rate": 0.4},
    "one channel": {"num_channels": 1},
    "five channels": {"num_channels": 5},
    "four groups": {"num_groups": 4},
    "one group": {"num_groups": 1},
    "three stages": {"hidden_sizes": [32, 64, 128], "depths": [2, 1, 3]},
    "two labels": {"num_labels": 2},
    "no labels": {"num_labels": 0},
    "bottleneck": BOTTLENECK,
    "bottleneck, SAME": {**BOTTLENECK, "global_padding": "same"},
    "bottleneck, dynamic pool": {**BOTTLENECK, "embedding_dynamic_padding": True},
    "bottleneck, SAME, dynamic pool": {**BOTTLENECK, "global_padding": "same", "embedding_dynamic_padding": True},
    "bottleneck, gelu": {**BOTTLENECK, "hidden_act": "gelu"},
    "bottleneck, gelu_new": {**BOTTLENECK, "hidden_act": "gelu_new"},
    "bottleneck, selu": {**BOTTLENECK, "hidden_act": "selu"},
    "bottleneck, drop path": {**BOTTLENECK, "drop_path_rate": 0.4},
    "bottleneck, output stride 16": {**BOTTLENECK, "output_stride": 16},
    "bottleneck, output stride 8": {**BOTTLENECK, "output_stride": 8},
    "bottleneck, output stride 4": {**BOTTLENECK, "output_stride": 4},
    "bottleneck, output stride 64": {**BOTTLENECK, "output_stride": 64},
    "bottleneck, output stride 8, SAME": {**BOTTLENECK, "output_stride": 8, "global_padding": "same"},
}


def last_hidden_states(ours, theirs, batches):
    """Returns the output of the final norm, on both sides."""
    import keras
    import torch

    probe = keras.Model(ours.input, ours.get_layer("avg_pool").input)
    found = [{"last_hidden_state": keras.ops.convert_to_numpy(probe(batch, training=False))} for batch in batches]
    with torch.no_grad():
        maps = [theirs.bit(torch.from_numpy(batch).permute(0, 3, 1, 2)).last_hidden_state for batch in batches]
    return found, [{"last_hidden_state": values.permute(0, 2, 3, 1).numpy()} for values in maps]


def show(rows, title):
    Console(width=120).print(parity.table(rows, title))


@pytest.mark.parametrize("arguments", CONFIGS.values(), ids=CONFIGS)
def test_every_stage_of_a_tiny_network_is_that_of_transformers(arguments, tmp_path, request, monkeypatch):
    import torch
    from transformers.activations import ACT2FN

    monkeypatch.setitem(ACT2FN, "selu", torch.nn.SELU)  # transformers 5 has no name for it
    config = {**TINY, **arguments}
    theirs = saved_with_random_weights(config, tmp_path)
    ours = from_pretrained(tmp_path, classifier_activation=None)
    # 64x64 and 45x61, two images each: even and odd sizes take different pads.
    sizes = [np.concatenate([batch, batch[:, ::-1, ::-1]]) for batch in goldens.generated_images()]
    channels = np.arange(config.get("num_channels", 3)) % 3
    batches = [goldens.to_pixel_values(batch)[..., channels].copy() for batch in sizes]
    found, expected = last_hidden_states(ours, theirs, batches)
    rows = [
        *parity.compare(parity.outputs(ours, batches), reference.outputs(str(tmp_path), batches)),
        *parity.compare(found, expected),
    ]
    show(rows, request.node.callspec.id)
    assert [row.name for row in rows] == [
        "embedding",
        *(f"stage{stage}" for stage in range(1, len(config["depths"]) + 1)),
        "pooled",
        "logits",
        "last_hidden_state",
    ]
    # parity.LIMIT is 1e-4 of a row's largest magnitude: two float32 programs that add up in another order drift by some
    # 1e-6 in so few layers, and by 1e-5 and more through fifty. A wrong pad, stride or epsilon is off by 1e-2.
    assert parity.LIMIT == 1e-4
    assert [row for row in rows if not row.passed] == []


# Full size

SIZES = {"448x448, the size of google/bit-50": (448, 448), "225x301, both sides odd": (225, 301)}


def photograph_batches():
    """Returns a photograph in each size, or soft shapes if scikit-image is not installed."""
    try:
        photos = [Image.open(file).convert("RGB") for file in photographs.find([])]
    except ImportError:
        photos = [Image.fromarray(batch[0]) for batch in goldens.generated_images()]
    resized = [
        np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR))
        for photo, (height, width) in zip(photos, SIZES.values(), strict=False)
    ]
    return [goldens.to_pixel_values(image[None]) for image in resized]


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """Returns for each size the outputs of BiT-50 in Keras and in torch in float32 and float64, with the same weights.

    Photographs, one to a batch, because that is what the network is for: neighboring pixels are alike. Norms scale by
    1 +- 0.3 and shift by 0 +- 0.3, as in the tiny networks. The largest of a batch of uniform noise is up to 1.7e-4 off
    at stage 4, nearly all of it torch's own error in float32, whose group norm takes E[x^2] - E[x]^2.
    """
    import torch

    directory = tmp_path_factory.mktemp("bit-50")
    saved_with_random_weights({"num_labels": 1000}, directory)
    batches = photograph_batches()
    ours = parity.outputs(from_pretrained(directory, classifier_activation=None), batches)
    single = reference.outputs(str(directory), batches)
    double = reference.outputs(str(directory), [batch.astype("float64") for batch in batches], dtype=torch.float64)
    assert double[0]["logits"].dtype == np.float64
    return dict(zip(SIZES, zip(ours, single, double, strict=True), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_bit_50_at_full_size_is_that_of_transformers(full_size, size):
    ours, single, _ = full_size[size]
    rows = parity.compare([ours], [single])
    show(rows, f"keras_bit beside torch float32, {size}")
    assert len(rows) == 7  # embedding, four stages, pooled, logits
    # 1e-4 of the row's largest magnitude, as above. Measured: 5e-5 at stage 4, 7e-6 in the logits.
    assert [row for row in rows if not row.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_bit_50_at_full_size_is_float64s(full_size, size):
    ours, single, double = full_size[size]
    rows = parity.compare([ours], [double])
    show(rows, f"keras_bit beside torch float64, {size}")
    # The error of torch itself: below it, float32 programs cannot be distinguished.
    show(parity.compare([single], [double]), f"torch float32 beside torch float64, {size}")
    assert [row for row in rows if not row.passed] == []
