"""Fine-tuning: the recipe as one call of `model.fit`, and the run of `keras-bit finetune`."""
