"""Writes `keras_bit/imagenet1k.tsv`, the 1000 classes of ImageNet-1k, from the lists in timm's wheel.

The classes are facts: a wordnet id and its names in WordNet, in the order of the model's outputs. timm carries them as
two text files; only these are read, nothing is imported or unpacked. The table of this repository was made from timm
1.0.31:

    pip download --no-deps timm==1.0.31 -d out
    python -m convert.labels out/timm-1.0.31-py3-none-any.whl --out keras_bit/imagenet1k.tsv
"""

import argparse
import os
import zipfile
from pathlib import Path

NUM_CLASSES = 1000
SYNSETS = "timm/data/_info/imagenet_synsets.txt"  # a wordnet id per line, in the order of the model's outputs
NAMES = "timm/data/_info/imagenet_synset_to_lemma.txt"  # wordnet id, tab, its names; all of ImageNet-21k


def read_wheel(wheel: Path) -> tuple[str, str]:
    """The texts of `SYNSETS` and `NAMES` in the wheel."""
    if not zipfile.is_zipfile(wheel):
        raise ValueError(f"Expected a wheel of timm (a zip file); got {wheel}. `pip download --no-deps timm` gets one.")
    with zipfile.ZipFile(wheel) as archive:
        missing = sorted({SYNSETS, NAMES} - set(archive.namelist()))
        if missing:
            raise ValueError(f"Expected a wheel of timm 1.0.31 or similar; {wheel} lacks {', '.join(missing)}.")
        return archive.read(SYNSETS).decode("utf-8"), archive.read(NAMES).decode("utf-8")


def label_table(synsets: str, names: str) -> str:
    """A line `wordnet_id<TAB>names` per class, in the order of `synsets`.

    Args:
        synsets: a wordnet id per line.
        names: a line `wordnet_id<TAB>names` for at least these ids, in any order.

    Raises:
        ValueError: an id is listed twice or has no name, or there are not `NUM_CLASSES` of them.
    """
    ids = synsets.split()
    name_of = dict(line.split("\t", maxsplit=1) for line in names.splitlines())
    problems = []
    if len(ids) != NUM_CLASSES:
        problems.append(f"expected {NUM_CLASSES} classes, got {len(ids)}")
    if repeated := sorted({wordnet_id for wordnet_id in ids if ids.count(wordnet_id) > 1}):
        problems.append(f"listed more than once: {', '.join(repeated)}")
    if nameless := [wordnet_id for wordnet_id in ids if not name_of.get(wordnet_id, "").strip()]:
        problems.append(f"without a name: {', '.join(nameless)}")
    if problems:
        raise ValueError(f"The class list does not fit: {'; '.join(problems)}. Was it read from a release of timm?")
    return "".join(f"{wordnet_id}\t{name_of[wordnet_id].strip()}\n" for wordnet_id in ids)


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 with plain newlines, or leaves `path` as it was."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(text.encode("utf-8"))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m convert.labels",
        description="Write the table of ImageNet-1k classes (wordnet id, tab, names; one line per model output) "
        "from the lists in a wheel of timm. timm itself need not be installed.",
        epilog="example: pip download --no-deps timm==1.0.31 -d out && python -m convert.labels "
        "out/timm-1.0.31-py3-none-any.whl --out keras_bit/imagenet1k.tsv",
    )
    parser.add_argument("wheel", type=Path, metavar="TIMM_WHEEL", help="a timm-*.whl, as `pip download` gets it")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table to write or replace")
    args = parser.parse_args(argv)
    try:
        write_atomically(args.out, label_table(*read_wheel(args.wheel)))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{NUM_CLASSES} classes from {args.wheel.name} written to {args.out}")


if __name__ == "__main__":
    main()
