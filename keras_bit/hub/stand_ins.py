"""Recognizes files that are not the real ones: Git LFS pointers, and web pages that a download saved."""

import re
from pathlib import Path

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|\?xml|!--)", re.IGNORECASE)
_BEGIN = 1024  # bytes; a pointer has about 130


def refuse(path: Path) -> None:
    """Refuses such a file.

    Raises:
        ValueError: it is a Git LFS pointer or a web page. A file that cannot be read is left to its reader.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(_BEGIN)
    except OSError:
        return
    if begin.startswith(_POINTER):
        size = re.search(rb"^size (\d{1,18})\s*$", begin, re.MULTILINE)
        whole = f" (which has {int(size[1]):,} bytes)" if size else ""
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file itself{whole}. Run `git lfs pull` in its repository (after "
            "`git lfs install`), or download the file."
        )
    if _PAGE.match(begin):
        raise ValueError(
            f"{path} is a web page (HTML or XML), not the expected file. Probably a download saved a login or an error "
            "page. Remove it, and download the file again."
        )
