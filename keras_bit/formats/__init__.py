"""What a model is written as: a module per format, each with the same functions; `job.Format` describes them."""
