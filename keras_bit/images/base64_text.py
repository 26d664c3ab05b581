"""Recognizes encoded images in text form (data URIs, base64), which are not paths."""

import base64
import binascii
import re

# The beginnings of JPEG, PNG, GIF, WebP and TIFF files.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
LONGEST_NAME = 255  # bytes in a file's name, on common file systems
ALPHABET = re.compile(r"[A-Za-z0-9+/_\-\s]+=*")


def described(text: str) -> str:
    """Returns "a data URI" or "a base64 string" for such a string; an empty text if it may be a path."""
    if text[:5].lower() == "data:" and "," in text:
        return "a data URI"
    try:
        start = base64.b64decode("".join(text[:24].split())[:16], validate=True)
    except (binascii.Error, ValueError):
        start = b""
    long = len(text) > LONGEST_NAME and ALPHABET.fullmatch(text.rstrip()) is not None
    return "a base64 string" if long or start.startswith(SIGNATURES) else ""
