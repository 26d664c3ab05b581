"""Compares keras_bit with other libraries (its peers): see `python -m benchmarks --help`. It is not installed.

A part is a module with a row in `__main__.PARTS` and three functions: `add_arguments(parser)`; `run(options)`, which
measures and returns a `report.Report`; and `main(arguments)`, which makes one measurement in a process of its own.
"""
