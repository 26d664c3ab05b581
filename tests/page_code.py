"""Runs the code of the README and of the pages in docs/, against a loopback Hub with a generated google/bit-50.

All Python blocks of a page run, in order. Of the shell blocks only those below the mark `<!-- run -->` run, and of
these only the lines that begin with `keras-bit`. Every page has its own names, but shares the folder with the pages
before it. `tests/extras` runs the README outside of a checkout, where only the built wheel is installed.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save

from keras_bit import BiT50, BitConfig, BitImageProcessor
from keras_bit.checkpoints.layouts import TRANSFORMERS
from keras_bit.labels import imagenet_labels
from loopback_hub import LoopbackHub, run_against_hub

BLOCK = re.compile(r"(?P<run><!-- run -->\n)?```(?P<language>python|sh)\n(?P<code>.*?)```", flags=re.DOTALL)
PAGE = """
exec(compile({code!r}, {page!r}, "exec"), {{"__name__": "__main__"}})
"""


def run(pages: Sequence[Path], folder: Path, checkpoint: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs pages, one after the other, in one process and in `folder`, which gets a `cat.jpg`.

    Args:
        pages: Markdown files.
        folder: working directory of the code.
        checkpoint: directory that the Hub serves as google/bit-50; `None` makes a BiT-50 with random weights.
    """
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(folder / "cat.jpg")
    if checkpoint is None:
        files = _bit50(folder / "bit-50")
    else:
        files = {file.name: file.read_bytes() for file in checkpoint.iterdir() if file.name != "README.md"}
    script = "".join(PAGE.format(code=code(page), page=str(page)) for page in pages)
    with LoopbackHub({"google/bit-50": {"main": files}}) as server:
        return run_against_hub(script, server, folder)


def code(page: Path) -> str:
    """Returns the code of a page that runs, as Python."""
    return "\n".join(_parts(page.read_text(encoding="utf-8")))


def _parts(text: str) -> Iterator[str]:
    for block in BLOCK.finditer(text):
        if block["language"] == "python":
            yield block["code"]
        elif block["run"]:
            yield "from keras_bit.cli.main import main as keras_bit_command"
            for line in block["code"].splitlines():
                program, *arguments = shlex.split(line, comments=True) or [""]
                if program == "keras-bit":
                    yield f"assert keras_bit_command({arguments!r}) == 0, {line!r}"


def predictions(printed: str) -> list[str]:
    """Returns the lines with labels and scores that the README's first block prints."""
    return re.findall(r"^[\w' -]+: 0\.\d{3}$", printed, flags=re.MULTILINE)


def _bit50(directory: Path) -> dict[str, bytes]:
    """Returns the files of a google/bit-50 with random weights."""
    config = BitConfig(id2label={index: name for index, (_, name) in enumerate(imagenet_labels())})
    config.save_pretrained(directory)
    BitImageProcessor(
        size=448, crop_size=448, resample=2, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
    ).save_pretrained(directory)
    axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
    tensors = {}
    for layer in BiT50(weights=None).layers:
        for variable, values in zip(layer.weights, layer.get_weights(), strict=True):
            name = TRANSFORMERS.tensor_name(layer.name, variable.name)
            tensors[name] = np.ascontiguousarray(values.transpose(axes[values.ndim]))
    files = {file.name: file.read_bytes() for file in directory.iterdir()}
    return {**files, "model.safetensors": save(tensors)}
