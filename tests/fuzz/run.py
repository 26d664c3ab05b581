"""Tries damaged and unusual files of every kind that keras_bit reads, and reports what is forbidden.

    python tests/fuzz/run.py --count 5000 --seed 0 --kinds models images --forbidden /tmp/forbidden

Prints a table with a row for each kind: how many inputs were tried, loaded (with the same values or with others),
refused and forbidden. An input is forbidden if reading it
* raises an exception that is not documented, or one that does not name the file (for a configuration: the field);
* takes more than 5 s or more than 1 GB, or ends the process;
* gives another model by `from_pretrained` than by `keras.saving.load_model` (for a `.keras` file).
Each forbidden input is written to a directory, with a text file that says why. Then the exit code is 1.
"""

import argparse
import collections
import sys
from pathlib import Path

if __name__ == "__main__":
    TESTS = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from fuzz import registry
from fuzz.judging import FORBIDDEN, OTHER, REFUSED, SAME
from fuzz.processes import Result, results

VERDICTS = (SAME, OTHER, REFUSED, FORBIDDEN)


def keep(directory: Path, found: Result, seed: int) -> None:
    """Writes a forbidden input, and a text with the reason."""
    directory.mkdir(parents=True, exist_ok=True)
    name = f"{found.kind}-{seed}-{found.number}".replace(" ", "_").replace(",", "")
    (directory / name).write_bytes(found.content)
    (directory / f"{name}.txt").write_text(found.why, encoding="utf-8", errors="backslashreplace")


def main() -> int:
    groups = [group for group in registry.GROUPS if group != "pitfalls"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="inputs of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kinds", nargs="+", default=groups, help=f"groups ({', '.join(groups)}) or single kinds (default: all)"
    )
    parser.add_argument(
        "--forbidden",
        type=Path,
        default=Path("forbidden"),
        help="directory for forbidden inputs (default: %(default)s)",
    )
    arguments = parser.parse_args()
    total: collections.Counter[str] = collections.Counter()
    print(f"{'kind':32}{'tried':>8}" + "".join(f"{verdict:>11}" for verdict in VERDICTS))
    for group in groups:
        kinds = [kind for kind in registry.table(group) if {group, kind} & {*arguments.kinds}]
        counted: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in kinds}
        for found in results(group, kinds, arguments.count, arguments.seed) if kinds else ():
            counted[found.kind][found.verdict] += 1
            if found.verdict == FORBIDDEN:
                keep(arguments.forbidden, found, arguments.seed)
        for kind, verdicts in counted.items():
            print(_row(kind, verdicts), flush=True)
            total += verdicts
    print(_row("all", total))
    return int(total[FORBIDDEN] > 0)


def _row(kind: str, verdicts: collections.Counter[str]) -> str:
    return f"{kind:32}{verdicts.total():>8}" + "".join(f"{verdicts[verdict]:>11}" for verdict in VERDICTS)


if __name__ == "__main__":
    sys.exit(main())
