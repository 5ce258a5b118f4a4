"""Arrays of an HDF5 file or of one of its groups, read on access."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import BLOCK_BYTES, ColumnBuilder, DatasetError
from sb3_flow.common.files import reason
from sb3_flow.common.optional import require


class Hdf5Columns(Mapping[str, np.ndarray]):
    """
    The numeric arrays of a group by name; arrays of subgroups have a slash in their names (``observations/images/front``).

    Contiguous arrays are memory-mapped. Chunked or compressed arrays are read on access; large ones are written to a temporary
    file.

    :param path: The file
    :param group: Path of the group in the file
    :raises DatasetError: If the file cannot be read.
    """

    def __init__(self, path: Path, group: str = "/") -> None:
        self.path, self.group = path, group
        self.shapes: dict[str, tuple[int, ...]] = {}
        h5py = require("h5py", "datasets", "Reading an HDF5 file")

        def visit(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset) and node.dtype.kind in "fiub" and node.ndim > 0:
                self.shapes[name] = node.shape

        with open_hdf5(path) as file:
            file[group].visititems(visit)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        with open_hdf5(self.path) as file:
            node = file[self.group][name]
            offset = node.id.get_offset()
            whole = offset is not None and node.chunks is None and node.external is None and not node.is_virtual
            if whole and node.dtype.kind in "fiu" and node.size > 0 and file.userblock_size == 0:
                return np.memmap(self.path, dtype=node.dtype, mode="r", offset=offset, shape=node.shape)
            column, rows = ColumnBuilder(), max(1, BLOCK_BYTES * len(node) // max(node.nbytes, 1))
            for start in range(0, max(len(node), 1), rows):
                column.append(node[start : start + rows])
            return column.finish()

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class open_hdf5:
    """
    Context manager that opens an HDF5 file for reading. Its errors name the file.

    :param path: The file
    :raises DatasetError: If it is missing, damaged, or not an HDF5 file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DatasetError(f"{path}: there is no such file.")
        self.h5py = require("h5py", "datasets", "Reading an HDF5 file")

    def __enter__(self) -> Any:
        try:
            self.file = self.h5py.File(self.path, "r")
        except Exception as error:
            raise self._damage(error) from error
        return self.file

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.file.close()
        if isinstance(error, Exception) and not isinstance(error, (DatasetError, ImportError)):  # h5py raises many classes
            raise self._damage(error) from error

    def _damage(self, error: BaseException) -> DatasetError:
        return DatasetError(f"{self.path}: this is no HDF5 file, or it is damaged ({reason(error)}).")
