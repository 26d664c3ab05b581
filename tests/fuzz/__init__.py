"""Damaged and unusual files for everything that keras_bit reads: `python tests/fuzz/run.py --help`."""
