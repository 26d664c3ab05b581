"""From images on a disk to the batches that `model.fit` takes: one `tf.data` pipeline."""
