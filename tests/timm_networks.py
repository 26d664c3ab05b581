"""Builds small networks of timm with random weights, in the processes that can import timm."""

import contextlib
from functools import partial

with contextlib.suppress(ImportError):
    import torchvision_stub  # noqa: F401 - lets timm import with a torch that torchvision was not built for
import torch
from timm.layers import GroupNormAct, StdConv2d
from timm.models.resnetv2 import ResNetV2

from timm_probe_cases import SIZES


def small(**arguments: object) -> ResNetV2:
    """Makes a network with timm's code in smaller sizes than timm publishes; the arguments are those of `ResNetV2`."""
    conv, norm = partial(StdConv2d, eps=1e-8), partial(GroupNormAct, num_groups=8)
    return ResNetV2(**{**SIZES, **arguments}, stem_type="fixed", conv_layer=conv, norm_layer=norm)


def fill(model: torch.nn.Module) -> torch.Generator:
    """Fills the parameters with random numbers; returns the generator."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in model.named_parameters():
            scale = 0.3 if values.ndim == 1 else values[0].numel() ** -0.5
            center = 1.0 if values.ndim == 1 and name.endswith("weight") else 0.0
            values.copy_(center + scale * torch.randn(values.shape, generator=generator))
    return generator
