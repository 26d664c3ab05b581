"""Fuzzes files of weights, as `from_pretrained` reads them."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors.numpy

from fuzz import mending
from fuzz.kinds import Kind, changed, damaged
from keras_bit import BitConfig, from_pretrained, save_pretrained
from keras_bit.checkpoints.loading import find, read
from keras_bit.hub.finding import HubOptions
from keras_bit.network.weights import weights_of
from tiny_bit import CONFIG, random_tensors, write_checkpoint, write_npz, write_shards

CONFIGURATION = BitConfig.from_dict(CONFIG)
# One block: Keras builds every layer of each `.keras` file that is tried.
SMALLEST = BitConfig(embedding_size=8, hidden_sizes=(8,), depths=(1,), num_groups=2, num_labels=2)
IMAGE = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)


def tensors_of(path: Path) -> dict[str, Any]:
    """Returns all tensors of a file, as every function that loads reads them, without building a model."""
    found = read(find(path, HubOptions(), CONFIGURATION).open(), weights_of(CONFIGURATION))
    return {"/".join(name): keras.ops.convert_to_numpy(values) for name, values in found.items()}


def _saved(folder: Path) -> bytes:
    """Writes a file as keras_bit does, with checksums, and returns its bytes."""
    save_pretrained(from_pretrained(write_checkpoint(folder / "made")), folder / "saved")
    return (folder / "saved" / "model.safetensors").read_bytes()


def _foreign(folder: Path) -> bytes:
    """Writes a file as transformers does, and returns its bytes."""
    return (write_checkpoint(folder / "made") / "model.safetensors").read_bytes()


def _npz(folder: Path) -> bytes:
    return write_npz(folder / "whole.npz").read_bytes()


def _h5(folder: Path) -> bytes:
    from_pretrained(write_checkpoint(folder / "made")).save_weights(folder / "whole.weights.h5")
    return (folder / "whole.weights.h5").read_bytes()


def _bin(folder: Path) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save({name: torch.from_numpy(values) for name, values in random_tensors().items()}, file)
    return file.getvalue()


def weights(suffix: str, make: Callable[[Path], bytes], member: str | None = None) -> Callable[[Path], Kind]:
    """Makes a file of weights with damaged bytes.

    Args:
        member: the end of the name of the archive's part that is damaged, with a right checksum; `None` is the file.
    """

    def kind(folder: Path) -> Kind:
        whole = make(folder)
        inputs = damaged(whole)
        if member is not None:
            name = mending.member_of(whole, member)
            inputs = damaged(mending.read_member(whole, name), mending.in_zip(whole, name))
        return Kind(folder / f"bit.{suffix}", whole, inputs, tensors_of)

    return kind


def header(folder: Path) -> Kind:
    """Makes a file of safetensors with changes in the JSON at its beginning."""
    whole = safetensors.numpy.save(dict(list(random_tensors().items())[:4]))
    end = 8 + int.from_bytes(whole[:8], "little")
    values, mend = json.loads(whole[8:end]), mending.safetensors(whole[end:])

    def read_header(path: Path) -> dict[str, Any]:
        from keras_bit.checkpoints.readers import open_file

        return {name: tensor.read() for name, tensor in open_file(path)}

    return Kind(folder / "bit.safetensors", whole, changed(values, mend), read_header)


def index(structured: bool) -> Callable[[Path], Kind]:
    """Makes a `model.safetensors.index.json` next to its shards."""

    def kind(folder: Path) -> Kind:
        file = write_shards(folder / "shards") / "model.safetensors.index.json"
        whole = file.read_bytes()
        return Kind(
            file,
            whole,
            changed(json.loads(whole)) if structured else damaged(whole),
            tensors_of,
            names=(str(file), str(file.parent)),  # of a shard that is not there
        )

    return kind


def keras_file(part: str | None, structured: bool = False) -> Callable[[Path], Kind]:
    """Makes a `.keras` file, or a part of it.

    Keras and keras_bit read it with the same outputs, or keras_bit refuses it.
    """

    def kind(folder: Path) -> Kind:
        from keras_bit import BiT

        file = folder / "bit.keras"
        keras.utils.set_random_seed(0)
        BiT(SMALLEST, input_shape=(32, 32, 3)).save(file)
        whole = file.read_bytes()
        inputs = damaged(whole)
        if part is not None:
            content, mend = mending.read_member(whole, part), mending.in_zip(whole, part)
            inputs = changed(json.loads(content), mend) if structured else damaged(content, mend)
        return Kind(file, whole, inputs, _in_both)

    return kind


def _in_both(path: Path) -> dict[str, Any]:
    keras.backend.clear_session()
    ours = from_pretrained(path)
    outputs = keras.ops.convert_to_numpy(ours(IMAGE[..., : ours.input_shape[-1]], training=False))
    try:
        theirs = keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise AssertionError(f"keras_bit reads a file that Keras does not: {error}") from error
    same = keras.ops.convert_to_numpy(theirs(IMAGE[..., : theirs.input_shape[-1]], training=False))
    # The same layers compute both.
    np.testing.assert_allclose(outputs, same, rtol=1e-4, atol=1e-5)
    return {"outputs": np.round(outputs, 4), "config": ours.config.to_dict()}


def whole_checkpoint(folder: Path) -> Kind:
    """Makes a directory with a changed config.json, which is loaded as a model."""
    source = write_checkpoint(folder / "checkpoint")

    def load(path: Path) -> Any:
        keras.backend.clear_session()
        return from_pretrained(path.parent).config.to_dict()

    whole = json.dumps(CONFIG).encode()
    return Kind(source / "config.json", whole, changed(CONFIG), load, names=(str(source),))


KINDS = {
    "safetensors": weights("safetensors", _saved),
    "safetensors of transformers": weights("safetensors", _foreign),
    "safetensors header": header,
    "index": index(structured=False),
    "index, values": index(structured=True),
    "npz": weights("npz", _npz),
    "npz member": weights("npz", _npz, ".npy"),
    "h5": weights("weights.h5", _h5),
    "bin": weights("bin", _bin),
    "bin pickle": weights("bin", _bin, "data.pkl"),
}
# Slower: a model is built for each.
MODEL_KINDS = {
    "checkpoint, config values": whole_checkpoint,
    "keras": keras_file(None),
    "keras config": keras_file("config.json"),
    "keras config, values": keras_file("config.json", structured=True),
    "keras metadata, values": keras_file("metadata.json", structured=True),
    "keras weights": keras_file("model.weights.h5"),
}
