"""Checkpoints of several files, with an index from tensors to files."""

from pathlib import Path

from keras_bit.checkpoints.lazy import LazyTensor, check_name
from keras_bit.checkpoints.readers import open_file
from keras_bit.files.damage import refusing_damage
from keras_bit.hub import finding
from keras_bit.hub.finding import HubOptions

_SUFFIXES = (".safetensors", ".bin", ".weights.h5")


def shards(source: str | Path, index: Path, options: HubOptions) -> dict[Path, list[str]]:
    """Returns the files that an index names, and the tensors that it lists for each.

    Keras' index (`save_weights("bit.weights.json", max_shard_size=...)`) has places of layers instead of names of
    tensors. For a layer that is in several files it has a list of files.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: `index` is not an index, or it names files in another directory or of another kind.
    """
    weight_map = finding.read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(map(_are_names, weight_map.values())):
        raise ValueError(
            f"{index} is not an index of shards: it must have a `weight_map` from tensor names to file names. "
            "Fetch it again."
        )
    promised: dict[str, list[str]] = {}
    with refusing_damage(index, "not an index of shards", "Fetch it again."):
        for tensor, names in weight_map.items():
            check_name(tensor)
            for shard in [names] if isinstance(names, str) else names:
                check_name(shard)
                promised.setdefault(shard, []).append(tensor)
    found = {}
    for name in sorted(promised):
        if Path(name).name != name or not name.endswith(_SUFFIXES):
            raise ValueError(
                f"{index} names the shard {name!r}; expected a .safetensors, .bin or .weights.h5 file in the same "
                f"folder."
            )
        file = finding.find_file(source, (name,), options)
        if file is None:
            raise FileNotFoundError(
                f"`source` {finding.shown(source)!r} lacks the shard {name} that {index.name} names. "
                "Fetch that file too."
            )
        found[file] = promised[name]
    return found


def merged(path: Path, shards: dict[Path, list[str]]) -> dict[str, LazyTensor]:
    """Opens the tensors of all files of `shards`, which `path` names.

    Raises:
        ValueError: a file is damaged, lacks a tensor of the index, or holds one that another file holds too.
    """
    tensors: dict[str, LazyTensor] = {}
    for file, promised in shards.items():
        held = dict(open_file(file))
        if lacking := [name for name in promised if name not in held]:
            raise ValueError(
                f"{file} lacks tensors that {path.name} lists for it: {', '.join(lacking)}. Fetch it again."
            )
        if twice := [name for name in held if name in tensors]:
            raise ValueError(
                f"{file} holds tensors that another shard holds too: {', '.join(twice)}. Save the checkpoint again."
            )
        tensors.update(held)
    return tensors


def _are_names(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(name, str) for name in value))
