"""Converts a PyTorch BiT checkpoint to Keras, and writes it only if its numbers equal the reference's.

    python -m convert SOURCE --out DIR                          compares with transformers itself, on photographs
    python -m convert SOURCE --out DIR --reference GOLDEN.npz   compares with a golden file; does not need torch
    python -m convert SOURCE --write-golden GOLDEN.npz          writes a golden file; needs torch and transformers

SOURCE is a Hub id such as google/bit-50 (hf://google/bit-50 and the address of its page also work), or a directory or
file in transformers' layout. The written files are read back and compared: the embedding, every stage, the pooled
features and the logits. Exit codes: 0 if all are equal and the files are written; 1 for a difference or an error, with
nothing written; 2 for wrong usage; 130 if interrupted; 143 if terminated.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from convert import goldens, parity, photographs, reference
from keras_bit import BitImageProcessor, from_pretrained
from keras_bit.cli import signals
from keras_bit.files import writing
from keras_bit.hub.finding import HubOptions
from keras_bit.network.model import BiTModel

MODEL_NAME = "model.keras"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.out is None and options.write_golden is None:
        parser.error("nothing to write: give --out DIR, --write-golden FILE, or both")
    console = Console(markup=False, emoji=False, highlight=False)  # a path like out[1] is printed as it is
    hub = HubOptions(options.revision, options.cache_dir, local_files_only=options.local_files_only)
    try:
        with signals.as_interrupts():
            return _run(options, hub, console)
    except KeyboardInterrupt as error:
        said, code = signals.ended_by(error)
        print(f"convert: {said}", file=sys.stderr)
        return code
    except (OSError, ValueError, ImportError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, hub: HubOptions, console: Console) -> int:
    if options.out is not None and options.out.exists():
        raise FileExistsError(f"`--out` {options.out} exists already. Name another directory, or remove it first.")
    if options.write_golden is not None:
        goldens.write(options.write_golden, options.source, hub)
        console.print(f"wrote {options.write_golden}", soft_wrap=True)
    if options.out is None:
        return 0
    rows = convert(options.source, options.out, options.reference, options.images, hub, console)
    return 0 if all(row.passed for row in rows) else 1


def convert(
    source: str,
    out: Path,
    golden: Path | None,
    images: Sequence[Path],
    hub: HubOptions,
    console: Console,
) -> list[parity.Row]:
    """Writes `model.keras`, `config.json` and the processor to `out` if every row passes; prints and returns the rows.

    Args:
        source: Hub id, directory or file in transformers' layout.
        out: directory to write, which does not exist.
        golden: golden file to compare with; `None` runs transformers and compares with it.
        images: photographs, or folders of them, to compare on; if empty, those of scikit-image. Not used with `golden`.
        hub: how to download from the Hub.
        console: prints the table.
    """
    console.print(f"reading {source}", soft_wrap=True)
    model = from_pretrained(source, **hub.arguments)
    processor = BitImageProcessor.from_pretrained(source, **hub.arguments)
    batches, theirs, made_by = _reference(source, golden, images, processor, hub, console)
    try:
        with writing.staged(out.parent) as staging:
            written = _write(model, processor, staging / out.name)
            rows = parity.compare(parity.outputs(written, batches), theirs)
            console.print(parity.table(rows, f"keras_bit beside {made_by}"))
            if not all(row.passed for row in rows):
                raise _DifferenceError
            writing.take_places(staging, out.parent, last=out.name)
    except _DifferenceError:
        console.print("the numbers differ: nothing was written", style="bold red", soft_wrap=True)
    else:
        console.print(f"wrote {out / MODEL_NAME}, config.json and preprocessor_config.json", soft_wrap=True)
    return rows


class _DifferenceError(Exception):
    """Ends the writing, so that nothing is left behind, not even a parent directory."""


def _reference(
    source: str,
    golden: Path | None,
    images: Sequence[Path],
    processor: BitImageProcessor,
    hub: HubOptions,
    console: Console,
) -> tuple[list[np.ndarray], list[dict[str, np.ndarray]], str]:
    """Returns the inputs, the reference's outputs, and the names and versions of what made them."""
    if golden is None:
        photos = photographs.find(images)
        batches = [processor(photo) for photo in photos]
        names = ", ".join(photo.name for photo in photos)
        console.print(f"running transformers on {len(photos)} photographs: {names}", soft_wrap=True)
        theirs, versions = reference.outputs(source, batches, **hub.arguments), reference.versions()
    else:
        batches, theirs, versions = goldens.read(golden)
        console.print(f"comparing with {golden} ({len(batches)} generated images)", soft_wrap=True)
    return batches, theirs, ", ".join(f"{name} {version}" for name, version in versions.items())


def _write(model: BiTModel, processor: BitImageProcessor, directory: Path) -> BiTModel:
    """Writes the three files, and returns the model that is read back from them."""
    directory.mkdir()
    model.save(directory / MODEL_NAME)
    model.config.save_pretrained(directory)
    processor.save_pretrained(directory)
    return from_pretrained(directory / MODEL_NAME, classifier_activation=None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE", help="Hub id, directory or file in transformers' layout")
    target = parser.add_argument_group("what to write (at least one)")
    target.add_argument("--out", type=Path, metavar="DIR", help="new directory for the Keras model")
    target.add_argument(
        "--write-golden", type=Path, metavar="FILE", help="write a golden file of SOURCE, made by transformers"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="GOLDEN.npz", help="compare with this golden file, without torch"
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="photographs, or folders of them, to compare on",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument("--cache-dir", help="directory of huggingface_hub's cache")
    parser.add_argument("--local-files-only", action="store_true", help="only use the cache, do not ask the Hub")
    return parser


if __name__ == "__main__":
    sys.exit(main())
