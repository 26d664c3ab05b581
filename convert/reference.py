"""Runs the reference, transformers' own BiT. Only this file of convert/ imports torch or transformers."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_bit import packages
from keras_bit.hub import finding
from keras_bit.hub.names import Address, Repository


def versions() -> dict[str, str]:
    """Returns the versions of the packages that compute the reference."""
    torch, transformers = _import()
    return {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}


def outputs(source: str, batches: Sequence[np.ndarray], **arguments: Any) -> list[dict[str, np.ndarray]]:
    """Returns the outputs of transformers' `BitForImageClassification` for every batch, channels last.

    Args:
        source: a Hub id in any form, or a local directory in transformers' layout or its file of weights.
        batches: float32 pixel values, `(batch, height, width, channels)` each.
        arguments: arguments of transformers' `from_pretrained`, such as `revision`.

    Returns:
        For each batch a dictionary with `embedding` (the stem, after its pool), `stage1` ..., `pooled` and `logits`.

    Raises:
        ImportError: torch or transformers is not installed.
    """
    torch, transformers = _import()
    place = finding.place_of(source)
    if isinstance(place, Address):
        raise ValueError("transformers reads no single file on the web: download the whole checkpoint, and name that.")
    if isinstance(place, Repository):
        source, arguments = place.id, arguments | {"revision": arguments.get("revision") or place.revision}
    elif os.path.isfile(place):
        # transformers takes a directory, and chooses itself which file it reads there.
        source, named = os.path.split(os.path.abspath(place))
        if named not in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
            raise ValueError(f"transformers reads no {named}: name the directory of a checkpoint in its layout.")
    model = transformers.BitForImageClassification.from_pretrained(source, **arguments).eval()
    results = []
    for pixel_values in batches:
        pooled = []
        handle = model.bit.pooler.register_forward_hook(lambda _module, _inputs, output, to=pooled: to.append(output))
        with torch.no_grad():
            found = model(torch.from_numpy(pixel_values).permute(0, 3, 1, 2), output_hidden_states=True)
        handle.remove()
        maps = [feature_map.permute(0, 2, 3, 1).numpy() for feature_map in found.hidden_states]
        stages = {f"stage{stage}": feature_map for stage, feature_map in enumerate(maps[1:], start=1)}
        results.append(
            {"embedding": maps[0], **stages, "pooled": pooled[0].flatten(1).numpy(), "logits": found.logits.numpy()}
        )
    return results


@packages.needing("reference", "The reference itself, in place of a golden file (--reference GOLDEN.npz),")
def _import() -> tuple[Any, Any]:
    import torch
    import transformers

    transformers.BitForImageClassification  # noqa: B018 - transformers imports torch only when a name is used
    return torch, transformers
