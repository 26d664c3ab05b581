"""Loads the model inside one of transformers' classes."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_bit.checkpoints import building, loading
from keras_bit.checkpoints.loading import Checkpoint
from keras_bit.hub.finding import HubOptions
from keras_bit.network import model as network
from keras_bit.network.config import BitConfig, read_label2id
from keras_bit.network.model import BiTModel, Ends
from keras_bit.network.weights import weights_of


@dataclasses.dataclass(frozen=True)
class Changes:
    """Changes of the configuration; the fields are arguments of `from_pretrained`."""

    num_labels: int | None = None
    id2label: Mapping[int, str] | None = None
    label2id: Mapping[str, int] | None = None
    problem_type: str | None = None
    output_hidden_states: bool | None = None
    return_dict: bool | None = None
    out_features: Sequence[str] | None = None
    out_indices: Sequence[int] | None = None

    @property
    def of_classes(self) -> bool:
        """Whether they set the number of classes."""
        return self.num_labels is not None or self.id2label is not None

    def made_to(self, config: BitConfig) -> BitConfig:
        """Returns `config` with these changes. As in transformers, another number of labels replaces their names."""
        if self.id2label is not None:
            config = dataclasses.replace(
                config,
                num_labels=self.num_labels,  # type: ignore[arg-type] # None is the number of the names
                id2label=self.id2label,
                label2id=self.label2id,  # type: ignore[arg-type] # None is their inverse
            )
        else:
            if self.num_labels is not None:
                config = config.with_num_labels(self.num_labels)
            if self.label2id is not None:
                # The configuration has no names and would ignore these.
                labels = {index: label for label, index in read_label2id(self.label2id).items()}
                id2label = config.id2label if config.has_named_labels else labels
                config = dataclasses.replace(config, id2label=id2label, label2id=self.label2id)
        for name in ("problem_type", "output_hidden_states", "return_dict"):
            if getattr(self, name) is not None:
                config = dataclasses.replace(config, **{name: getattr(self, name)})
        if self.out_features is None and self.out_indices is None:
            return config
        return building.with_outputs(config, self.out_features, self.out_indices)


def opened(source: str | Path, hub: HubOptions, config: BitConfig | None, changes: Changes) -> Checkpoint:
    """Opens the checkpoint without reading tensors, with its configuration, or `config`, changed."""
    if config is not None and not isinstance(config, BitConfig):
        raise ValueError(f"`config` must be a BitConfig, got {type(config).__name__}: {config!r}.")
    found = loading.find(source, hub, config, ("config",))
    if found.config is not None:
        changes.made_to(found.config)  # before the weights, so that a wrong argument costs no download
    checkpoint = found.open()
    changed = changes.made_to(checkpoint.known_config())
    if (
        config is None
        and not changes.of_classes
        and not changed.has_named_labels
        and checkpoint.head_classes is not None
    ):
        changed = changed.with_num_labels(checkpoint.head_classes)  # a file without names may not mention their number
    return dataclasses.replace(checkpoint, config=changed)


def classifier(checkpoint: Checkpoint, ends: Ends, changes: Changes, ignore_mismatched_sizes: bool) -> BiTModel:
    """Builds the network with its head, or a new head of zeros if the checkpoint's is missing or has another size.

    Args:
        checkpoint: the checkpoint, with its configuration changed.
        ends: the beginning and the end of the network.
        changes: the requested changes.
        ignore_mismatched_sizes: whether a head of another size is replaced.

    Raises:
        ValueError: it has a head of another size, and `ignore_mismatched_sizes` is False.
    """
    config = checkpoint.known_config()
    held = checkpoint.head_classes
    if held == config.num_labels:
        return building.build_model(checkpoint, ends)
    if held is not None and not ignore_mismatched_sizes:
        wanted, otherwise = "the model should have", "leave out `num_labels` and `id2label`"
        if not changes.of_classes:
            wanted, otherwise = "the configuration has", f"`num_labels={held}` for its own head without names"
        raise ValueError(
            f"The head of the checkpoint {checkpoint.source!r} has {held} classes, and {wanted} {config.num_labels}. "
            f"Pass `ignore_mismatched_sizes=True` for a new head, which must be trained, or {otherwise}."
        )
    if config.num_labels:
        warnings.warn(
            f"The checkpoint {checkpoint.source!r} has {'no head' if held is None else f'a head of {held} classes'}: "
            f"the model gets a new head of zeros for {config.num_labels} classes, which must be trained.",
            building.NewHead,
            stacklevel=5,  # the caller of `from_pretrained`
        )
    loading.refuse_larger(config, checkpoint)
    values = loading.read(checkpoint, (one for one in weights_of(config) if one.layer != "predictions"))
    return network.build(config, ends, values)
