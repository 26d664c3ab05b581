"""Selects the weights that a recipe trains: frozen stages, and LoRA for convolutions."""

import keras

from keras_bit.network.model import BiTModel, network_layers
from keras_bit.network.transforms import freeze
from keras_bit.network.weights import HEAD
from keras_bit.recipes.recipe import Recipe


def adapt(model: BiTModel, recipe: Recipe) -> None:
    """Freezes stages and enables LoRA as a recipe says, unless this was done before.

    Raises:
        ValueError: the model has no such stage, its head is frozen, none of its convolutions is trainable, or one has
            LoRA of another rank.
    """
    if recipe.freeze_up_to is not None:
        freeze(model, up_to=recipe.freeze_up_to)
    if recipe.lora is not None:
        _enable_lora(model, recipe.lora)


def _enable_lora(model: BiTModel, rank: int) -> None:
    if not model.get_layer(HEAD).trainable:
        raise ValueError(
            f"`lora` needs a trainable head, got {rank} and a frozen layer {HEAD!r}. Set "
            f"`model.get_layer({HEAD!r}).trainable = True`."
        )
    convolutions = [
        layer for layer in network_layers(model) if isinstance(layer, keras.layers.Conv2D) and layer.trainable
    ]
    if not convolutions:
        raise ValueError(
            f"`lora` needs trainable convolutions, got {rank} and a model whose convolutions are all frozen. Leave "
            "`lora` out, or freeze less."
        )
    other = {layer.lora_rank for layer in convolutions if layer.lora_enabled} - {rank}
    if other:
        raise ValueError(
            f"`lora` must be the model's rank, {other.pop()}, got {rank}. For another rank, save the model with "
            "`save_pretrained`, which merges LoRA, and load it again."
        )
    for layer in network_layers(model):
        if layer in convolutions:
            if not layer.lora_enabled:
                layer.enable_lora(rank)
        elif layer.name != HEAD and layer.weights:
            layer.trainable = False
