"""Judges what came of one input."""

import time
import traceback
import warnings
from typing import NamedTuple

from fuzz.kinds import Input, Kind, digest

SECONDS = 5.0  # of all processors together, for files that are all below 1 MB
LONGEST_MESSAGE = 20_000  # characters

SAME, OTHER, REFUSED, FORBIDDEN = "same", "other", "refused", "forbidden"


class Verdict(NamedTuple):
    """`SAME` or `OTHER` values were read, the input was `REFUSED` as documented, or the outcome is `FORBIDDEN`."""

    verdict: str
    why: str = ""


def judge(kind: Kind, tried: Input, whole: str, seconds: float = SECONDS) -> Verdict:
    """Reads an input and judges the outcome.

    Args:
        whole: the digest of the values in the undamaged file.
        seconds: how long reading may take.
    """
    kind.file.write_bytes(tried.content)
    began = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of metadata
            found = digest(kind.read(kind.file))
        verdict = Verdict(SAME if found == whole else OTHER)
    except Exception as error:
        verdict = _judged(kind, tried, error)
    took = time.process_time() - began
    return Verdict(FORBIDDEN, f"took {took:.1f} s") if took > seconds else verdict


def _judged(kind: Kind, tried: Input, error: Exception) -> Verdict:
    said = str(error)
    documented = isinstance(error, kind.errors) and (
        type(error) in kind.errors or type(error).__module__.partition(".")[0] in ("builtins", "keras_bit")
    )
    if not documented:
        return Verdict(FORBIDDEN, "".join(traceback.format_exception(error))[-3000:])
    if not any(name in said for name in kind.named):
        return Verdict(FORBIDDEN, f"does not name the file: {type(error).__name__}: {said[:1000]}")
    if tried.words and not any(word in said for word in tried.words):
        return Verdict(FORBIDDEN, f"names none of {', '.join(tried.words)}: {said[:1000]}")
    if len(said) > LONGEST_MESSAGE:
        return Verdict(FORBIDDEN, f"says {len(said):,} characters: {said[:200]}")
    return Verdict(REFUSED)
