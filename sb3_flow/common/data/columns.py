"""Columns of datasets: arrays with one row per step, in memory or in files."""

from __future__ import annotations

import reprlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np

Observations = np.ndarray | dict[str, np.ndarray]

#: Bytes read at once by the checks, so that memory-mapped data is never loaded as a whole.
BLOCK_BYTES = 2**24
#: Larger columns that a reader assembles are stored in a temporary file, not in memory.
SPOOL_BYTES = 2**24
#: Called with the number of bytes that a reader has read, to show its progress; None: it is not shown.
reading: ContextVar[Callable[[int], None] | None] = ContextVar("reading", default=None)


class DatasetError(ValueError):
    """The data cannot be used; the message names the field, the row and the value."""


def parts(observations: Observations) -> dict[str, np.ndarray]:
    """The columns of observations by key; observations that are not a dictionary have the empty key."""
    return observations if isinstance(observations, dict) else {"": observations}


def listed(parts: Mapping[str, Any]) -> str:
    """Description of the keys of observations, for messages."""
    return "one array" if set(parts) == {""} else f"the parts {', '.join(sorted(parts))}"


def short(value: Any) -> str:
    """A value as one short line."""
    text = np.array2string(value, threshold=8, edgeitems=3) if isinstance(value, np.ndarray) else _repr.repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:80]} ... {text[-30:]}"


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 100


def blocks(column: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of rows of a column, of about ``BLOCK_BYTES`` each, with the index of the first row."""
    size = max(1, BLOCK_BYTES * len(column) // max(column.nbytes, 1))
    for start in range(0, len(column), size):
        yield start, column[start : start + size]


def as_array(value: Any, field: str, name: str) -> np.ndarray:
    """
    Convert a value of a dictionary to an array of numbers.

    :param value: An array, or a value that ``numpy.asanyarray`` converts
    :param field: Name of the field
    :param name: Name of the data for messages
    :raises DatasetError: If it is a dictionary, has rows of different lengths, or has masked values.
    """
    if isinstance(value, Mapping):
        raise DatasetError(f"{name}: `{field}` is a dictionary with the keys {sorted(map(str, value))}; expected an array.")
    try:
        array: np.ndarray = np.asanyarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # for instance rows of different lengths, or tensors with gradients
        raise DatasetError(f"{name}: `{field}` is no array of numbers ({error}).") from error
    if isinstance(array, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(array).reshape(len(array), -1).any(axis=1) if array.ndim else np.ma.getmaskarray(array)
        if masked.any():
            raise DatasetError(
                f"{name}: `{field}` row {int(masked.argmax())} is masked; fill masked values, or leave the rows out."
            )
        array = np.asarray(array)
    return array


def check_finite(column: np.ndarray, field: str, name: str, rows: np.ndarray) -> None:
    """
    Check that all numbers are finite in single precision, which training uses.

    :param column: ``(N, *shape)``
    :param field: Name of the field
    :param name: Name of the data for messages
    :param rows: The rows to check, ``(N,)`` of bool
    :raises DatasetError: If a number is not; the message names field, row and value.
    """
    if column.dtype.kind != "f":
        return
    for start, block in blocks(column):
        with np.errstate(over="ignore"):
            finite = np.isfinite(block.astype(np.float32, copy=False))
        if finite.all():
            continue
        finite = finite.reshape(len(block), -1)
        wrong = ~finite.all(axis=1) & rows[start : start + len(block)]
        if wrong.any():
            row = int(wrong.argmax())
            element = int((~finite[row]).argmax())
            value = block[row].reshape(-1)[element]
            reason = ", which is too large for single precision" if np.isfinite(value) else ""
            raise DatasetError(f"{name}: `{field}` row {start + row} has the value {value} (element {element}){reason}.")


class ColumnBuilder:
    """
    Assembles a column from blocks of rows. A column larger than ``SPOOL_BYTES`` is written to a temporary file without a name
    (in ``$TMPDIR``), which is memory-mapped and deleted at the end of the process.
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._file: Any = None
        self._rows = self._bytes = 0

    def append(self, block: np.ndarray) -> None:
        """
        :param block: The next rows, ``(n, *shape)``, of the same shape and type in all blocks
        :raises ValueError: If shape or type differs from that of the previous blocks.
        """
        if self._blocks and (block.shape[1:], block.dtype) != (self._blocks[0].shape[1:], self._blocks[0].dtype):
            first = self._blocks[0]
            raise ValueError(f"rows of {block.shape[1:]} {block.dtype} after rows of {first.shape[1:]} {first.dtype}")
        self._blocks.append(block)
        self._rows += len(block)
        self._bytes += block.nbytes
        count_read(block.nbytes)
        if self._bytes > SPOOL_BYTES:
            self._file = self._file or tempfile.TemporaryFile()
            self._write()

    def _write(self) -> None:
        """Write the waiting blocks to the file."""
        first = self._blocks[0]
        for waiting in self._blocks:
            self._file.write(np.ascontiguousarray(waiting).data)
        self._blocks, self._bytes = [np.empty((0, *first.shape[1:]), first.dtype)], 0  # remembers shape and type

    def finish(self) -> np.ndarray:
        """The column, ``(N, *shape)``."""
        if self._file is None:
            return self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks)
        self._write()
        first = self._blocks[0]
        with self._file as file:  # the map stays open
            file.flush()
            return np.memmap(file, dtype=first.dtype, mode="r", shape=(self._rows, *first.shape[1:]))


def count_read(n_bytes: int) -> None:
    """Report that so many bytes have been read."""
    if (report := reading.get()) is not None:
        report(n_bytes)


def take(column: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """
    Select rows of a column, block by block.

    :param column: ``(N, *shape)``
    :param rows: Their indices, ``(n,)``
    :return: ``(n, *shape)``; a large result is in a temporary file, see ``ColumnBuilder``
    """
    size = max(1, BLOCK_BYTES * len(column) // max(column.nbytes, 1))
    builder = ColumnBuilder()
    for start in range(0, max(len(rows), 1), size):
        builder.append(column[rows[start : start + size]])
    return builder.finish()


def concatenate(columns: list[np.ndarray]) -> np.ndarray:
    """Concatenate columns; different types are promoted to a common one."""
    if len({column.dtype for column in columns}) > 1:
        dtype = np.result_type(*columns)
        columns = [column.astype(dtype, copy=False) for column in columns]
    builder = ColumnBuilder()
    for column in columns:
        for _, block in blocks(column):
            builder.append(block)
    return builder.finish() if any(len(column) for column in columns) else columns[0]
