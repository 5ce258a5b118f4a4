"""Named arrays on disk: an ``.npz`` file, or a folder with one ``.npy`` file per field, the unpacked form of the same file."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import BLOCK_BYTES, ColumnBuilder, DatasetError, blocks
from sb3_flow.common.files import reason
from sb3_flow.datasets.hdf5_columns import Hdf5Columns

#: Errors of numpy and zipfile for files that are truncated, empty, or have another format.
DAMAGE = (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error)

#: File types of which a folder may have several, each with a recording.
SEVERAL = (".npz", ".hdf5", ".h5", ".parquet")

#: Whether the arrays of ``.npz`` files are read into temporary files, and not into memory.
into_files: ContextVar[bool] = ContextVar("into_files", default=False)


class ArrayFile(Mapping[str, np.ndarray]):
    """
    The arrays of an ``.npz`` file or of a folder of ``.npy`` files, each read on access.

    The arrays of a folder are memory-mapped, so that data larger than memory can be used. Field names may have a slash
    (``observations/camera``), which is a subfolder on disk.

    :param path: The file or the folder
    :raises DatasetError: If it is neither, or is damaged; the message names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._load: dict[str, Callable[[], Any]] = {}
        if path.is_dir():
            for file in sorted(path.rglob("*.npy")):
                field = file.relative_to(path).with_suffix("").as_posix()
                self._load[field] = partial(np.load, file, mmap_mode="r", allow_pickle=False)
            if not self._load:
                kinds = sorted({file.suffix for file in path.iterdir() if file.suffix in SEVERAL})
                hint = f" To join the {kinds[0]} files in it, write {str(path / f'*{kinds[0]}')!r}." if kinds else ""
                raise DatasetError(
                    f"{path}: the folder has no .npy file; expected one per field, such as observations.npy.{hint}"
                )
            return
        if not path.is_file():
            raise DatasetError(f"{path}: there is no such file.")
        if path.stat().st_size == 0:
            raise DatasetError(f"{path}: the file is empty.")
        try:
            archive = np.load(path, allow_pickle=False)
        except Exception as error:  # numpy raises many classes for damaged files
            raise DatasetError(f"{path}: this is no .npz file, or it is damaged ({reason(error)}).") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DatasetError(f"{path}: this is a single array; expected an .npz file with one array per field.")
        for field in archive.files:
            load = partial(_read_member, path, field) if into_files.get() else partial(archive.__getitem__, field)
            self._load[field] = load

    def __getitem__(self, field: str) -> np.ndarray:
        load = self._load[field]
        try:
            column = load()
        except Exception as error:
            raise DatasetError(
                f"{self.path}: `{field}` cannot be read; the file is damaged or foreign ({reason(error)})."
            ) from error
        if not isinstance(column, np.ndarray):  # the archive has a file that is not in numpy's format
            raise DatasetError(f"{self.path}: `{field}` is not an array in numpy's format.")
        return column

    def __contains__(self, field: object) -> bool:
        return field in self._load  # the method of Mapping would load the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._load)

    def __len__(self) -> int:
        return len(self._load)


def _read_member(path: Path, field: str) -> np.ndarray:
    """Read an array of an ``.npz`` file block by block."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{field}.npy") as file:
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(file)
        shape, by_columns, dtype = read_header[version](file)
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        if by_columns or not shape or 0 in shape:
            return np.load(path, allow_pickle=False)[field]  # type: ignore[no-any-return]
        builder, row_bytes = ColumnBuilder(), dtype.itemsize * math.prod(shape[1:])
        size = max(1, BLOCK_BYTES // row_bytes)
        for start in range(0, shape[0], size):
            rows = min(size, shape[0] - start)
            content = file.read(rows * row_bytes)
            builder.append(np.frombuffer(content, dtype).reshape(rows, *shape[1:]))
    return builder.finish()


def unpack(source: str | os.PathLike[str], directory: str | os.PathLike[str]) -> Path:
    """
    Convert an ``.npz`` file, or an HDF5 file with arrays at the top level, to a folder of ``.npy`` files, which can be
    memory-mapped.

    The arrays are copied block by block, so that the file may be larger than memory. The folder appears only when it is
    complete.

    :param source: The file
    :param directory: The new folder; it must not exist.
    :return: The folder, for the argument ``dataset``
    :raises DatasetError: If the file is damaged.
    :raises FileExistsError: If the folder exists.
    """
    source, directory = Path(source), Path(directory)
    if directory.exists():
        raise FileExistsError(f"{directory} exists; name a new folder, or remove this one.")
    of_hdf5 = source.suffix in (".hdf5", ".h5", ".hdf")
    columns: Mapping[str, np.ndarray] = Hdf5Columns(source) if of_hdf5 else ArrayFile(source)
    for field in columns:
        if Path(field).is_absolute() or ".." in Path(field).parts:
            raise DatasetError(f"{source}: the field name {field!r} leads out of the folder.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        for field in columns:
            target = scratch / f"{field}.npy"
            target.parent.mkdir(parents=True, exist_ok=True)
            if of_hdf5:
                _copy_blocks(columns[field], target)
            else:
                _copy_member(source, field, target)
        scratch.chmod(0o755)  # mkdtemp makes private folders
        scratch.replace(directory)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return directory


def _copy_member(source: Path, field: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive, archive.open(f"{field}.npy") as member, target.open("wb") as file:
            shutil.copyfileobj(member, file, length=1 << 20)
    except DAMAGE as error:
        raise DatasetError(f"{source}: `{field}` cannot be read; the file is damaged ({error}).") from error


def _copy_blocks(column: np.ndarray, target: Path) -> None:
    copy = np.lib.format.open_memmap(target, mode="w+", dtype=column.dtype, shape=column.shape)
    for start, block in blocks(column):
        copy[start : start + len(block)] = block
    copy.flush()
