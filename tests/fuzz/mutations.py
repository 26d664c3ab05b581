"""Damages bytes at random; the same seed gives the same damage."""

import numpy as np

MOST_AT_ONCE = 3  # mutations of one file
LONGEST_PIECE = 64  # bytes
# Values that replace lengths and counts in headers: in 2, 4 or 8 bytes, in either byte order.
LENGTHS = (0, 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
HEADER = 256  # bytes at the beginning and at the end, where most bytes that are not numbers are


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns `content` with one to three mutations, half of them in the first or last `HEADER` bytes."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, MOST_AT_ONCE + 1))):
        MUTATIONS[int(rng.integers(len(MUTATIONS)))](changed, rng)
    return bytes(changed)


def _place(content: bytearray, rng: np.random.Generator) -> int:
    size = max(len(content), 1)
    end = min(HEADER, size)
    where = rng.integers(4)
    if where == 0:
        return int(rng.integers(end))
    if where == 1:
        return int(size - 1 - rng.integers(end))
    return int(rng.integers(size))


def _piece(content: bytearray, rng: np.random.Generator) -> slice:
    begin = _place(content, rng)
    return slice(begin, begin + int(rng.integers(1, LONGEST_PIECE)))


def _flip(content: bytearray, rng: np.random.Generator) -> None:
    place = _place(content, rng)
    content[place : place + 1] = bytes(value ^ (1 << int(rng.integers(8))) for value in content[place : place + 1])


def _insert(content: bytearray, rng: np.random.Generator) -> None:
    place = _place(content, rng)
    content[place:place] = rng.bytes(int(rng.integers(1, LONGEST_PIECE)))


def _delete(content: bytearray, rng: np.random.Generator) -> None:
    del content[_piece(content, rng)]


def _duplicate(content: bytearray, rng: np.random.Generator) -> None:
    piece = _piece(content, rng)
    content[piece.start : piece.start] = content[piece]


def _truncate(content: bytearray, rng: np.random.Generator) -> None:
    del content[_place(content, rng) :]


def _swap(content: bytearray, rng: np.random.Generator) -> None:
    one, other = _piece(content, rng), _piece(content, rng)
    content[one], content[other] = content[other], content[one]


def _overwrite(content: bytearray, rng: np.random.Generator) -> None:
    piece = _piece(content, rng)
    content[piece] = bytes([int(rng.choice([0, 255]))]) * len(content[piece])


def _length(content: bytearray, rng: np.random.Generator) -> None:
    size = int(rng.choice([2, 4, 8]))
    value = LENGTHS[int(rng.integers(len(LENGTHS)))] % 2 ** (8 * size)
    place = _place(content, rng)
    content[place : place + size] = value.to_bytes(size, "little" if rng.integers(2) else "big")


MUTATIONS = (_flip, _insert, _delete, _duplicate, _truncate, _swap, _overwrite, _length)
