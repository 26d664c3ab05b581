"""The commands of `keras-bit`, a file each: `add` its arguments, `run` it. None imports another."""
