"""Writes networks of timm with random weights, and their outputs, in a process that can import timm.

    python tests/timm_probe.py OUT

Writes for every case `OUT/<case>/model.safetensors` (timm's own names), `BiT.npz` (Google's names, written from timm's
parameters and read back by timm's own reader), `images.npy` and `outputs.npz`.
"""

import json
import sys
from pathlib import Path

from timm_networks import fill, small  # isort: skip - before timm, for which it makes room
import numpy as np
import torch
from safetensors.torch import save_file
from timm.models.resnetv2 import ResNetV2

from timm_probe_cases import CASES


def google_names(model: ResNetV2) -> dict[str, np.ndarray]:
    """Returns the parameters under Google's names, as height x width x in x out."""

    def hwio(values: torch.Tensor) -> np.ndarray:
        values = values.detach().numpy()
        return values.transpose(2, 3, 1, 0) if values.ndim == 4 else values

    named = {
        "resnet/root_block/standardized_conv2d/kernel": model.stem.conv.weight,
        "resnet/group_norm/gamma": model.norm.weight,
        "resnet/group_norm/beta": model.norm.bias,
        "resnet/head/conv2d/kernel": model.head.fc.weight,
        "resnet/head/conv2d/bias": model.head.fc.bias,
    }
    for stage, blocks in enumerate(model.stages, start=1):
        for unit, block in enumerate(blocks.blocks, start=1):
            prefix = f"resnet/block{stage}/unit{unit:02d}"
            for index, letter in enumerate("abc", start=1):
                named[f"{prefix}/{letter}/standardized_conv2d/kernel"] = getattr(block, f"conv{index}").weight
                named[f"{prefix}/{letter}/group_norm/gamma"] = getattr(block, f"norm{index}").weight
                named[f"{prefix}/{letter}/group_norm/beta"] = getattr(block, f"norm{index}").bias
            if block.downsample is not None:
                named[f"{prefix}/a/proj/standardized_conv2d/kernel"] = block.downsample.conv.weight
    return {name: hwio(values) for name, values in named.items()}


def main() -> None:
    for case, arguments in CASES.items():
        folder = Path(sys.argv[1], case)
        folder.mkdir(parents=True)
        model = small(**arguments).eval()
        generator = fill(model)
        images = torch.rand(2, arguments.get("in_chans", 3), 64, 101, generator=generator) * 2 - 1
        with torch.no_grad():
            logits, features = model(images), model.forward_features(images)
        save_file(model.state_dict(), folder / "model.safetensors")
        np.savez(folder / "BiT.npz", **google_names(model))
        again = small(**arguments).eval()
        again.load_pretrained(str(folder / "BiT.npz"))
        with torch.no_grad():
            assert torch.equal(again(images), logits), "timm reads the .npz as another network"
        adapted = {}
        if not arguments:
            for channels in (1, 5):
                other = small(in_chans=channels).eval()
                other.load_pretrained(str(folder / "BiT.npz"))  # the first kernel in the file is for 3 channels
                with torch.no_grad():
                    adapted[f"logits of {channels} channels"] = other(images[:, np.arange(channels) % 3]).numpy()
        np.save(folder / "images.npy", images.permute(0, 2, 3, 1).numpy())
        features = features.permute(0, 2, 3, 1).numpy()
        np.savez(folder / "outputs.npz", logits=logits.numpy(), features=features, **adapted)
    print(json.dumps(list(CASES)))


if __name__ == "__main__":
    main()
