"""Collects the images that a data set leaves out, and warns about them at the end of each epoch."""

import warnings
from collections.abc import Iterable

from keras_bit.wording import first_of

ADVICE = " To leave such images out, pass on_error='skip'."
SHOWN = 10  # images that the warning at the end of an epoch lists


class ImagesLeftOut(UserWarning):
    """Issued if images were left out of an epoch; the data set's `skipped` lists them."""


class Skipped:
    """The images that a data set left out.

    Attributes:
        files: a line `"name problem"` for each of them, once.
    """

    def __init__(self) -> None:
        self.files: list[str] = []

    def note(self, lines: Iterable[str]) -> None:
        for line in map(_one_line, lines):
            if line not in self.files:
                self.files.append(line)

    def report(self, left_out: int, total: int) -> str:
        """Warns at the end of an epoch, or returns the error's text if no image is left."""
        if not left_out:
            return ""
        lines = [f"{left_out:,} of {total:,} images were left out; the data set's `skipped` lists them:"]
        lines += first_of(self.files, SHOWN)
        if left_out == total:
            return " ".join(lines)  # an error in a graph shows a line's end as `\\n`
        # Without a registry, which would suppress the same warning in the next epoch.
        warnings.warn_explicit("\n  ".join(lines), ImagesLeftOut, __name__, 0)
        return ""


def _one_line(text: str) -> str:
    """Puts a problem on one line: a file's name may hold line breaks. Other bytes stay as `os.fsdecode` reads them."""
    return "".join(repr(one)[1:-1] if len(f"{one}.".splitlines()) > 1 or one < " " else one for one in text)
