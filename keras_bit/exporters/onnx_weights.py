"""The tensors of an ONNX file: inside it, or in a data file next to it if they are too large."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

# Protocol buffers hold at most 2 GiB. The nodes take a few MB.
MOST_BYTES = 2**31 - 2**25
ALIGNMENT = 4096  # bytes; a page, so that engines can map the data into memory


def data_file(path: Path) -> Path:
    """Returns the data file next to the ONNX file `path`."""
    return path.with_name(f"{path.name}.data")


class Tensors:
    """The constants of a graph by name, each once. It is a context, at whose end the data are written.

    Args:
        data: the file for the values; the graph then holds their places. `None` keeps the values in the graph.
    """

    def __init__(self, data: Path | None) -> None:
        self._data = data
        self._file = None if data is None else data.open("wb")
        self._tensors: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, name: str, values: np.ndarray) -> str:
        """Adds `values` unless there is a tensor of this name; returns the name."""
        if name not in self._tensors:
            from onnx import numpy_helper

            values = np.require(values, requirements="C")  # a scalar stays a scalar
            if self._file is None or values.nbytes < ALIGNMENT:  # engines need shapes without the data
                self._tensors[name] = numpy_helper.from_array(values, name)
            else:
                self._tensors[name] = self._written(name, values)
        return name

    def integers(self, *values: int) -> str:
        """Adds a constant list of whole numbers, such as a shape or axes."""
        return self.add(f"[{', '.join(map(str, values))}]", np.array(values, np.int64))

    def protos(self) -> list[Any]:
        """Returns the graph's tensors as `onnx.TensorProto`."""
        return list(self._tensors.values())

    def _written(self, name: str, values: np.ndarray) -> Any:
        import onnx

        assert self._data is not None and self._file is not None  # noqa: PT018 - for type checkers
        self._file.seek(-self._file.tell() % ALIGNMENT, os.SEEK_CUR)
        place = {"location": self._data.name, "offset": self._file.tell(), "length": values.nbytes}
        self._file.write(values.data)
        proto = onnx.TensorProto(
            name=name, dims=values.shape, data_type=onnx.TensorProto.FLOAT, data_location=onnx.TensorProto.EXTERNAL
        )
        for key, value in place.items():
            proto.external_data.add(key=key, value=str(value))
        return proto
