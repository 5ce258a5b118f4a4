"""Columns of parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import ColumnBuilder, DatasetError
from sb3_flow.common.files import reason
from sb3_flow.common.optional import require

#: Rows that are read at once; a row of a column may be an image.
BATCH_ROWS = 256


class ParquetColumns:
    """
    The concatenated columns of several parquet files.

    :param files: The files
    :param path: Path for messages
    :raises DatasetError: If a file cannot be read, or has other columns than the first one.
    """

    def __init__(self, files: list[Path], path: Path) -> None:
        self.parquet = require("pyarrow.parquet", "datasets", "Reading a parquet file")
        self.arrow = require("pyarrow", "datasets", "Reading a parquet file")
        self.files = files
        self.names: list[str] = []
        #: Columns of structures (an image, or a position in a video): names of their fields.
        self.structures: dict[str, list[str]] = {}
        #: Columns with an array in each cell.
        self.arrays: set[str] = set()
        for i, file in enumerate(files):
            schema = self._open(file).schema_arrow
            incomplete = set(self.names) ^ set(schema.names) if i else set()
            if incomplete:
                raise DatasetError(f"{path}: not all of its files have the column `{min(incomplete)}`.")
            self.names = schema.names
            for name in schema.names:
                if self.arrow.types.is_struct(schema.field(name).type):
                    self.structures[name] = [part.name for part in schema.field(name).type]
                elif self.arrow.types.is_nested(schema.field(name).type):
                    self.arrays.add(name)

    def _open(self, file: Path) -> Any:
        try:
            return self.parquet.ParquetFile(file)
        except Exception as error:  # Arrow raises many classes for damaged files
            raise DatasetError(f"{file}: this is no parquet file, or it is damaged ({reason(error)}).") from error

    def column(self, name: str) -> np.ndarray:
        """A column of numbers, ``(N,)`` or ``(N, *shape)``."""
        column, texts = ColumnBuilder(), list[np.ndarray]()
        for file in self.files:
            label = f"{file}: `{name}`"
            try:
                for values in self._blocks(file, name):
                    block = _numbers(values, label)
                    (texts if block.dtype.kind == "U" else column).append(block)
            except DatasetError:
                raise
            except Exception as error:
                raise DatasetError(f"{label} is no array of numbers ({reason(error)}).") from error
        return np.concatenate(texts) if texts else column.finish()

    def _blocks(self, file: Path, name: str) -> Iterator[Any]:
        """Arrays of Arrow with the rows of a column, at least one."""
        parquet = self._open(file)
        if parquet.metadata.num_rows == 0:
            yield parquet.read(columns=[name])[name].combine_chunks()
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=[name]):
            yield batch.column(0)

    def rows(self, name: str) -> Iterator[Any]:
        """Iterate over the rows of a column, without loading all of it."""
        for file in self.files:
            for batch in self._open(file).iter_batches(batch_size=64, columns=[name]):
                yield from batch.column(0).to_pylist()


def _numbers(values: Any, label: str) -> np.ndarray:
    """Convert an array of Arrow; nested lists become further axes."""
    shape: list[int] = []
    while hasattr(values.type, "value_type"):
        width = getattr(values.type, "list_size", None)
        flat = values.flatten()
        rows = len(values)
        if width is None:
            lengths = set(values.value_lengths().to_pylist())
            if len(lengths) > 1 or None in lengths:
                raise ValueError("its rows have different lengths")
            width = lengths.pop() if lengths else 0
        if len(flat) != rows * width:
            raise ValueError("a row is missing")
        shape.append(width)
        values = flat
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype == object and not shape and all(isinstance(text, str) for text in array):
        names: np.ndarray = array.astype(str)  # of episodes
        return names
    if array.dtype == object:
        raise DatasetError(f"{label} has {values.type}; expected numbers, and none missing.")
    if array.dtype.kind == "f" and shape:  # not single numbers, which may be times since 1970
        array = array.astype(np.float32)
    column: np.ndarray = array.reshape(-1, *shape)
    return column
