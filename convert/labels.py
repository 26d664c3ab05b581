"""Writes the class lists of the package, `keras_bit/imagenet1k.tsv` and `imagenet21k.tsv`, from those in timm's wheel.

The classes are facts: a wordnet id and its names in WordNet, in the order of the models' outputs. timm has them as text
files; only these are read, nothing is imported or unpacked. The tables of this repository were made from timm 1.0.31:

    pip download --no-deps timm==1.0.31 -d out
    python -m convert.labels out/timm-1.0.31-py3-none-any.whl --out keras_bit
"""

import argparse
import collections
import dataclasses
import zipfile
from pathlib import Path

from keras_bit import wording
from keras_bit.files import writing


@dataclasses.dataclass(frozen=True)
class ClassList:
    """A list of classes: the name of our table, its number of lines, and the file of ids in timm's wheel."""

    name: str
    classes: int
    synsets: str  # a wordnet id per line, in the order of the models' outputs


CLASS_LISTS = (
    ClassList("imagenet1k", 1000, "timm/data/_info/imagenet_synsets.txt"),
    # Google's list has two ids more than the 21,841 in ImageNet's fall11.tar, so every index after these two differs.
    ClassList("imagenet21k", 21843, "timm/data/_info/imagenet21k_goog_synsets.txt"),
)
NAMES = "timm/data/_info/imagenet_synset_to_lemma.txt"  # a line per class of both lists: wordnet id, tab, names


def read_wheel(wheel: Path) -> dict[str, str]:
    """Reads `NAMES` and the ids of every list from the wheel; returns each text by its path in the wheel."""
    if not zipfile.is_zipfile(wheel):
        raise ValueError(f"Expected a wheel of timm (a zip file); got {wheel}. `pip download --no-deps timm` gets one.")
    members = {NAMES, *(class_list.synsets for class_list in CLASS_LISTS)}
    with zipfile.ZipFile(wheel) as archive:
        missing = sorted(members - set(archive.namelist()))
        if missing:
            raise ValueError(f"Expected a wheel of timm 1.0.31 or similar; {wheel} lacks {', '.join(missing)}.")
        return {member: archive.read(member).decode("utf-8") for member in members}


def label_table(class_list: ClassList, synsets: str, names: str) -> str:
    """Returns a line `wordnet_id<TAB>names` per class, in the order of `synsets`.

    Args:
        class_list: the list, with the expected number of classes.
        synsets: a wordnet id per line.
        names: a line `wordnet_id<TAB>names` for at least these ids, in any order.

    Raises:
        ValueError: an id is listed twice or has no name, or the number of ids is not `class_list.classes`.
    """
    ids = synsets.split()
    name_of = dict(line.split("\t", maxsplit=1) for line in names.splitlines())
    problems = []
    if len(ids) != class_list.classes:
        problems.append(f"expected {class_list.classes} classes, got {len(ids)}")
    if repeated := sorted(wordnet_id for wordnet_id, times in collections.Counter(ids).items() if times > 1):
        problems.append(f"listed more than once: {wording.some(repeated, most=8)}")
    if nameless := [wordnet_id for wordnet_id in ids if not name_of.get(wordnet_id, "").strip()]:
        problems.append(f"without a name: {wording.some(nameless, most=8)}")
    if problems:
        raise ValueError(
            f"The class list {class_list.name} does not fit: {'; '.join(problems)}. Use a wheel of a timm release."
        )
    return "".join(f"{wordnet_id}\t{name_of[wordnet_id].strip()}\n" for wordnet_id in ids)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m convert.labels",
        description="Write the tables of ImageNet-1k and ImageNet-21k classes (wordnet id, tab, names; one line per "
        "model output) from the lists in a wheel of timm. timm itself need not be installed.",
        epilog="example: pip download --no-deps timm==1.0.31 -d out && python -m convert.labels "
        "out/timm-1.0.31-py3-none-any.whl --out keras_bit",
    )
    parser.add_argument("wheel", type=Path, metavar="TIMM_WHEEL", help="a timm-*.whl, as `pip download` gets it")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help=f"the directory in which to write or replace {' and '.join(f'{one.name}.tsv' for one in CLASS_LISTS)}",
    )
    args = parser.parse_args(argv)
    if not args.out.is_dir():
        parser.error(f"--out must be a directory that exists; got {args.out}.")
    try:
        texts = read_wheel(args.wheel)
        # Every table is made before the first one is written, so that a wrong wheel changes nothing.
        tables = [(one, label_table(one, texts[one.synsets], texts[NAMES])) for one in CLASS_LISTS]
        for class_list, table in tables:
            path = args.out / f"{class_list.name}.tsv"
            with writing.replacing(path) as beside:
                beside.write_bytes(table.encode("utf-8"))  # with plain newlines on every system
            print(f"{class_list.classes} classes from {args.wheel.name} written to {path}")
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
