"""Helpers for the tests of the commands: they run a command in this process and open the tiny checkpoint only once."""

import functools
import re

import keras_bit
from conftest import ROOT
from keras_bit.applications import from_pretrained
from keras_bit.cli import main

TINY = ROOT / "tests" / "checkpoints" / "bit-tiny-cifar10"


def run(capsys, *arguments):
    """Runs `keras-bit`; returns the exit code, standard output, and standard error without the progress bar."""
    capsys.readouterr()
    code = main.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    # Slow machines show a progress bar, which the next line overwrites on a terminal.
    return code, captured.out, re.sub(r"\r.*\r", "", captured.err)


@functools.cache
def tiny(**options):
    """Returns the model of the tiny checkpoint. No test may change it."""
    return from_pretrained(TINY, **options)


@functools.cache
def tiny_processor():
    return keras_bit.BitImageProcessor.from_pretrained(TINY)


def open_tiny_once(monkeypatch):
    """Gives the commands the model that `tiny` has opened; other tests test the opening."""

    def opened(source, *, fused=False, **hub):
        return tiny(fused=fused) if str(source) == str(TINY) else from_pretrained(source, fused=fused, **hub)

    monkeypatch.setattr(keras_bit, "from_pretrained", opened)


def copy_of_tiny(directory, *, processor=None):
    """Copies the checkpoint with another processor, or without one; returns the directory."""
    directory.mkdir()
    for file in ("config.json", "model.safetensors"):
        (directory / file).write_bytes((TINY / file).read_bytes())
    if processor is not None:
        processor.save_pretrained(directory)
    return directory
