"""What a head is for, in transformers' words."""

ONE, SEVERAL, NUMBER = "single_label_classification", "multi_label_classification", "regression"
