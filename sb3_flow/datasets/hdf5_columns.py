"""Arrays of an HDF5 file or of one of its groups, read on access."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import BLOCK_BYTES, DatasetError, count_read
from sb3_flow.common.data.gather import INFORMATION_GROUPS
from sb3_flow.common.files import reason
from sb3_flow.common.optional import require

#: Arrays in a temporary file begin at multiples of this number of bytes.
ALIGNMENT = 16


class Hdf5Columns(Mapping[str, np.ndarray]):
    """
    The numeric arrays of a group by name; arrays of subgroups have a slash in their names (``observations/images/front``).

    No array is in memory, see ``MappedArrays``.

    :param path: The file
    :param group: Path of the group in the file
    :param mapped: The arrays of the file, shared by its groups; None: new
    :raises DatasetError: If the file cannot be read.
    """

    def __init__(self, path: Path, group: str = "/", mapped: MappedArrays | None = None) -> None:
        self.path, self.group = path, group
        self.mapped = mapped or MappedArrays(path)
        self.shapes: dict[str, tuple[int, ...]] = {}
        #: Names of arrays that do not have numbers.
        self.left_out: list[str] = []
        h5py = require("h5py", "datasets", "Reading an HDF5 file")

        def visit(name: str, node: Any) -> None:
            if not isinstance(node, h5py.Dataset) or node.ndim == 0:
                return
            if node.dtype.kind in "fiub":
                self.shapes[name] = node.shape
            elif name.split("/")[0] not in INFORMATION_GROUPS:
                self.left_out.append(name)

        with open_hdf5(path) as file:
            file[group].visititems(visit)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        with open_hdf5(self.path) as file:
            return self.mapped.read(file, file[self.group][name])

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class MappedArrays:
    """
    Memory-mapped arrays of an HDF5 file. Those that lie in one piece are mapped where they are, others (chunked, compressed)
    are copied to a temporary file. There is one map of each file, because each map takes a file handle, and a file may have
    an array for each field and episode.

    :param path: The file
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: np.ndarray | None = None
        #: The temporary file, its map, and the number of its bytes that are used.
        self._temporary: Any = None
        self._copies = np.zeros(0, np.uint8)
        self._used = 0
        #: The copied arrays by their names.
        self._copied: dict[str, np.ndarray] = {}

    def read(self, file: Any, node: Any) -> np.ndarray:
        """
        :param file: The opened file
        :param node: One of its arrays
        :return: The array
        """
        if node.size == 0:
            empty: np.ndarray = node[()]
            return empty
        offset = node.id.get_offset()
        whole = offset is not None and node.chunks is None and node.external is None and not node.is_virtual
        if whole and node.dtype.kind in "fiu" and file.userblock_size == 0:
            if self._map is None:
                self._map = np.memmap(self.path, dtype=np.uint8, mode="r")
            count_read(node.nbytes)
            return _view(self._map, offset, node)
        if node.name not in self._copied:
            self._copied[node.name] = self._copy(file, node)
        return self._copied[node.name]

    def _copy(self, file: Any, node: Any) -> np.ndarray:
        """Copy an array to the temporary file, block by block."""
        if self._temporary is None:
            self._temporary = tempfile.TemporaryFile()
            weakref.finalize(self, self._temporary.close)  # the map stays open
            self._temporary.truncate(_total_bytes(file))  # takes no space before it is written to
            self._copies = np.memmap(self._temporary, dtype=np.uint8, mode="r")
        start = -(-self._used // ALIGNMENT) * ALIGNMENT
        rows = max(1, BLOCK_BYTES * len(node) // max(node.nbytes, 1))
        self._temporary.seek(start)
        for row in range(0, len(node), rows):
            block = np.ascontiguousarray(node[row : row + rows])
            self._temporary.write(block.data)
            count_read(block.nbytes)
        self._temporary.flush()
        self._used = start + node.nbytes
        return _view(self._copies, start, node)


def _view(mapped: np.ndarray, offset: int, node: Any) -> np.ndarray:
    view: np.ndarray = mapped[offset : offset + node.nbytes].view(node.dtype).reshape(node.shape)
    return view


def _total_bytes(file: Any) -> int:
    """An upper bound of the bytes of all arrays, each aligned."""
    sizes: list[int] = []
    file.visititems(lambda name, node: sizes.append(node.nbytes + ALIGNMENT) if hasattr(node, "nbytes") else None)
    return sum(sizes)


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
