"""How a model is fine-tuned, as values: BiT-HyperRule, what is chosen beside it, and the optimizers that follow."""
