"""Encoded images that were made text, as web pages and JSON carry them, told apart from paths."""

import base64
import binascii
import re

# How the files of JPEG, PNG, GIF, WebP and TIFF begin.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
LONGEST_NAME = 255  # bytes in the name of a file, on every file system that matters
ALPHABET = re.compile(r"[A-Za-z0-9+/_\-\s]+=*")


def described(text: str) -> str:
    """What a string is that should be a path, "a data URI" or "a base64 string"; empty if it may be a path."""
    if text[:5].lower() == "data:" and "," in text:
        return "a data URI"
    try:
        start = base64.b64decode("".join(text[:24].split())[:16], validate=True)
    except (binascii.Error, ValueError):
        start = b""
    long = len(text) > LONGEST_NAME and ALPHABET.fullmatch(text.rstrip()) is not None
    return "a base64 string" if long or start.startswith(SIGNATURES) else ""
