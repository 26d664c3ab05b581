"""How to fine-tune a model, as values: the BiT-HyperRule, further choices, and the optimizers for them."""
