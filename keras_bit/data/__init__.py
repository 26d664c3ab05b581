"""From images on a disk to the batches that `model.fit` takes: a `tf.data` pipeline, or a `PyDataset`."""
