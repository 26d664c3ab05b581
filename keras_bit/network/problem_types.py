"""What a head predicts, in transformers' words."""

ONE, SEVERAL, NUMBER = "single_label_classification", "multi_label_classification", "regression"
