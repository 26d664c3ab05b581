"""PNG files that Pillow refuses because of chunks besides their pixels."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEPT = (b"tRNS", b"eXIf")  # optional chunks that matter here: transparency and orientation


def without_extras(contents: bytes | bytearray | memoryview) -> bytes | None:
    """Removes profiles, texts and similar chunks from a PNG; `None` if it has none, or is not a PNG.

    libpng, and so TensorFlow, skips such a chunk if it is damaged. Pillow refuses the file, also if a color profile or
    a text unpacks to more than a mebibyte.
    """
    if bytes(contents[:8]) != SIGNATURE:
        return None
    kept, place, left_out = [SIGNATURE], 8, False
    while place + 12 <= len(contents):
        end = place + 12 + int.from_bytes(contents[place : place + 4], "big")
        name = bytes(contents[place + 4 : place + 8])
        is_extra = name[:1].islower() and name not in KEPT and end <= len(contents)
        if not is_extra:
            kept.append(bytes(contents[place:end]))
        left_out |= is_extra
        place = end
    return b"".join([*kept, bytes(contents[place:])]) if left_out else None
