"""Tests packages.py: the message about a missing package. test_extras.py tries every function that needs one."""

import pytest

from keras_bit import packages


def test_a_package_that_is_missing_is_named_with_what_installs_it():
    packages.require("numpy", "any", "This")
    with pytest.raises(ImportError) as caught:
        packages.require("no_such_package", "tflite", "The format 'tflite'")
    # The whole sentence; other tests look for the package and the extra.
    assert str(caught.value) == (
        "The format 'tflite' needs the package no_such_package, which is not installed. Install it with "
        "`pip install 'keras_bit[tflite]'`, or `pip install -e '.[tflite]'` in a checkout."
    )
