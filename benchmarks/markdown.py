"""Writes a table as Markdown between two marks of a page, so that the page shows the command of its figures."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Report, cells, columns
from keras_bit.files import writing

END = "<!-- end -->"
SETTINGS = ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA")  # environment variables that change what is measured


def insert(report: Report, arguments: Sequence[str], file: Path) -> None:
    """Replaces the text between the mark of this command and the next end mark; a page without the mark gets both.

    Args:
        report: the results.
        arguments: the arguments of `python -m benchmarks`, without the names of files to write.
        file: the page, which is created if needed.
    """
    mark = f"<!-- {_command(arguments)} -->"
    page = file.read_text(encoding="utf-8") if file.exists() else ""
    before, found, rest = page.partition(mark)
    after = rest.partition(END)[2] if found else "\n"
    if found and END not in rest:
        raise ValueError(f"{file} has the mark {mark} without {END} after it. Add that line.")
    before = before if found or not before else f"{before.rstrip()}\n\n"
    with writing.replacing(file) as beside:
        beside.write_text(f"{before}{mark}\n{text(report, arguments)}\n{END}{after}", encoding="utf-8")


def text(report: Report, arguments: Sequence[str]) -> str:
    """Returns the table, followed by lines with the command, the machine and the versions."""
    from keras_bit.exporters import machine

    lines = [columns(report), *cells(report)]
    # A page is narrow, so a column without content is left out.
    places = [place for place in range(len(lines[0])) if any(line[place] for line in lines[1:])]
    heading, *rows = (f"| {' | '.join(line[place].replace('|', '/') for place in places)} |" for line in lines)
    rows = [heading, f"|{'---|' * len(places)}", *rows]
    here = machine.machine()
    instructions = ", ".join(here["instructions"])
    versions = ", ".join(f"{name} {value}" for name, value in machine.versions(report.packages).items() if value)
    return "\n".join(
        [
            *rows,
            "",
            f"`{_command(arguments)}` on {here['processor']} ({instructions}), {here['threads']} cores; {versions}.",
            *(line for note in report.notes for line in ("", note)),  # a paragraph each
        ]
    )


def _command(arguments: Sequence[str]) -> str:
    settings = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    return " ".join([*settings, "python -m benchmarks", shlex.join(arguments)])
