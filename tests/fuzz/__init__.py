"""Tries damaged and unusual files of every kind that keras_bit reads: `python tests/fuzz/run.py --help`."""
