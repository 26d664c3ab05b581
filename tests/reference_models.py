"""Writes transformers' models with random weights, in a form that keras_bit reads."""

# The smallest network with every path: four stages, of one block and of more.
TINY = {
    "embedding_size": 16,
    "hidden_sizes": [32, 64, 96, 128],
    "depths": [1, 2, 1, 2],
    "num_groups": 8,
    "num_labels": 7,
}


def saved_with_random_weights(config, directory, seed=0):
    """Saves a transformers model in which no parameter has its default: norms scale by 1 +- 0.3, shift by 0 +- 0.3."""
    import torch
    import transformers

    model = transformers.BitForImageClassification(transformers.BitConfig(**config)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if (
                parameter.ndim == 4
            ):  # mean and variance are not 0 and 1, so that the standardization has to make them so
                values = 0.05 + 0.1 * values
            elif parameter.ndim == 2:
                values = values / parameter.shape[1] ** 0.5
            else:
                values = 0.3 * values + (1.0 if name.endswith("weight") else 0.0)
            parameter.copy_(values)
    model.save_pretrained(directory)
    return model
