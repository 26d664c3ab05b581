"""keras_bit beside its peers, in one run: `python -m benchmarks --help`. Not installed.

A part is a module with a row in `__main__.PARTS` and three functions: `add_arguments(parser)`, `run(options)`, which
measures and returns a `report.Report`, and `main(arguments)`, which is one measurement in a process of its own.
"""
