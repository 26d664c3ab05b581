"""Writes and reads the files of timm, its scripts and transformers' TimmWrapper, in a process that can import timm.

    python tests/timm_formats_probe.py write OUT

writes to `OUT` a network of timm with random weights: `wrapped` and `features` (directories that transformers'
TimmWrapper saves), `last.pth.tar` (a checkpoint of timm's training script), `images.npy` and `outputs.npz`.

    python tests/timm_formats_probe.py read OUT

reads `OUT/timm` with `timm.create_model` and `OUT/npz/model.npz` with timm's reader of Google's files. It writes the
logits for `OUT/images.npy` to `OUT/outputs.npz`, and what timm knows about labels and images to `OUT/found.json`.
"""

import argparse
import json
import sys
from pathlib import Path

from timm_networks import fill, small  # isort: skip - before timm, for which it makes room
import numpy as np
import timm
import torch
import transformers
from timm.utils import CheckpointSaver
from transformers.models.timm_wrapper import modeling_timm_wrapper


def create(architecture: str, pretrained: bool = False, **arguments: object) -> torch.nn.Module:
    """Makes a small network under a published name, for which timm only has published sizes."""
    return small(**arguments)


def write(out: Path) -> None:
    modeling_timm_wrapper.timm.create_model = create
    config = transformers.TimmWrapperConfig(architecture="resnetv2_50x1_bit", num_labels=7)
    model = transformers.TimmWrapperForImageClassification(config).eval()
    fill(model)
    model.save_pretrained(out / "wrapped")
    features = transformers.TimmWrapperModel(config).eval()
    inner = model.timm_model.state_dict()
    features.timm_model.load_state_dict({name: inner[name] for name in features.timm_model.state_dict()})
    features.save_pretrained(out / "features")
    saver = CheckpointSaver(
        model=model.timm_model,
        optimizer=torch.optim.SGD(model.timm_model.parameters(), lr=0.1),
        args=argparse.Namespace(model="resnetv2_50x1_bit", lr=0.1),
        checkpoint_dir=str(out),
        recovery_dir=str(out),
    )
    saver.save_checkpoint(0, metric=80.1)
    torch.save(model.timm_model.state_dict(), out / "state.pth")
    images = torch.rand(2, 3, 64, 101, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        logits, maps = model(images).logits, features(images).last_hidden_state
    np.save(out / "images.npy", images.permute(0, 2, 3, 1).numpy())
    np.savez(out / "outputs.npz", logits=logits.numpy(), features=maps.permute(0, 2, 3, 1).numpy())


def read(out: Path) -> None:
    model = timm.create_model(f"local-dir:{out / 'timm'}", pretrained=True).eval()
    google = timm.create_model("resnetv2_50x1_bit", num_classes=2, act_layer="gelu_tanh", output_stride=16).eval()
    google.load_pretrained(str(out / "npz" / "model.npz"))
    images = torch.from_numpy(np.load(out / "images.npy")).permute(0, 3, 1, 2)
    with torch.no_grad():
        np.savez(out / "outputs.npz", timm=model(images).numpy(), npz=google(images).numpy())
    data = timm.data.resolve_data_config(model=model)
    names = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
    found = {"labels": model.pretrained_cfg["label_names"], "data": {name: data[name] for name in names}}
    (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
