"""Which of a model's weights a recipe trains: frozen stages, and convolutions that learn by two small factors."""

import keras

from keras_bit.network.model import BiTModel, network_layers
from keras_bit.network.transforms import freeze
from keras_bit.recipes.recipe import Recipe

HEAD = "predictions"


def adapt(model: BiTModel, recipe: Recipe) -> None:
    """Freezes stages and enables LoRA as a recipe says. What has been done already stays as it is.

    Raises:
        ValueError: the model has no such stage, its head is frozen, no convolution of it is trained, or one has learned
            by factors of another rank.
    """
    if recipe.freeze_up_to is not None:
        freeze(model, up_to=recipe.freeze_up_to)
    if recipe.lora is not None:
        _enable_lora(model, recipe.lora)


def _enable_lora(model: BiTModel, rank: int) -> None:
    if not model.get_layer(HEAD).trainable:
        raise ValueError(
            f"`lora` needs a head that is trained, got {rank} and a frozen layer {HEAD!r}. Set "
            f"`model.get_layer({HEAD!r}).trainable = True`."
        )
    convolutions = [
        layer for layer in network_layers(model) if isinstance(layer, keras.layers.Conv2D) and layer.trainable
    ]
    if not convolutions:
        raise ValueError(
            f"`lora` needs convolutions that are trained, got {rank} and a model whose convolutions are all frozen. "
            "Leave `lora` out, or freeze less."
        )
    other = {layer.lora_rank for layer in convolutions if layer.lora_enabled} - {rank}
    if other:
        raise ValueError(
            f"`lora` must be the rank that the model has, {other.pop()}, got {rank}. Save it with `save_pretrained`, "
            "which merges what was learned, and load it again for another one."
        )
    for layer in network_layers(model):
        if layer in convolutions:
            if not layer.lora_enabled:
                layer.enable_lora(rank)
        elif layer.name != HEAD and layer.weights:
            layer.trainable = False
