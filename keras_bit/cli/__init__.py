"""The command line `keras-bit`: a file per command. None imports another."""
