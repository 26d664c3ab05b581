"""Labels of unnamed classes, made on access, so that a large `num_labels` in a file takes no memory."""

import re
from collections.abc import Iterator, Mapping


class UnnamedLabels(Mapping[int, str]):
    """`LABEL_0`, `LABEL_1` ... by class index, as in transformers; equal to a dictionary of the same items."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))

    def __getitem__(self, index: int) -> str:
        if not isinstance(index, int) or not 0 <= index < self.count:
            raise KeyError(index)
        return f"LABEL_{index}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, UnnamedLabels):
            return self.count == other.count
        if not isinstance(other, Mapping):
            return NotImplemented
        return len(other) == self.count and all(other.get(index) == label for index, label in self.items())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.count})"


class UnnamedIndices(Mapping[str, int]):
    """The inverse of `UnnamedLabels`."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        return map("LABEL_{}".format, range(self.count))

    def __getitem__(self, label: str) -> int:
        match = re.fullmatch("LABEL_(0|[1-9][0-9]{0,17})", label) if isinstance(label, str) else None
        if match is None or int(match[1]) >= self.count:
            raise KeyError(label)
        return int(match[1])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, UnnamedIndices):
            return self.count == other.count
        if not isinstance(other, Mapping):
            return NotImplemented
        return len(other) == self.count and all(other.get(label) == index for label, index in self.items())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.count})"
