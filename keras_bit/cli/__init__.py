"""The command line `keras-bit`: a file per command. Commands do not import each other."""
