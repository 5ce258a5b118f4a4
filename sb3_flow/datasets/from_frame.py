"""Reader of tables: pandas DataFrames, and parquet files that are not LeRobot's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.datasets.parquet_columns import ParquetColumns
from sb3_flow.datasets.parts import LazyColumns, user_path

#: Columns with one element of a vector each: ``obs_x``, ``observations/3``, ``action[0]``, ``next_obs.y``.
_ELEMENT = re.compile(r"(?P<next>next_)?(?P<field>observations?|obs|actions?|act)(?P<mark>[_./]|\[)(?P<element>.+?)\]?")


def read_frame(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read a table with one row per step: a pandas DataFrame, or a parquet file.

    The columns have the names of any dialect. Observations and actions are columns of arrays, or one column per element, in
    the order of the table: ``obs_x, obs_y, action_0, action_1``. A column must determine where episodes end, such as the
    number of the episode.

    :param source: A ``pandas.DataFrame``, or a path that ends with ``.parquet``
    :param env_id: Not used
    :return: The dataset, or None if the source is something else
    :raises DatasetError: If the file is missing or damaged, or a column is missing.
    """
    if type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "columns"):
        names = ["/".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in source.columns]
        positions = {name: i for i, name in enumerate(names)}
        return OfflineDataset.from_dict(
            _gather(names, lambda name: _cells(source.iloc[:, positions[name]], name)), "DataFrame"
        )
    if not isinstance(source, str | os.PathLike) or not os.fspath(source).endswith(".parquet"):
        return None
    path = user_path(source)
    table = ParquetColumns([path], path)
    return OfflineDataset.from_dict(_gather(table.names, table.column), str(path))


def _gather(names: Iterable[str], column: Callable[[str], np.ndarray]) -> LazyColumns:
    """Columns by name, with the elements of vectors joined."""
    data: dict[str, Callable[[], np.ndarray]] = {}
    vectors: dict[str, list[str]] = {}
    for name in names:
        match = _ELEMENT.fullmatch(name)
        if match is None:
            data[name] = partial(column, name)
        else:
            field = "actions" if match["field"].startswith("act") else "observations"
            vectors.setdefault(f"{match['next'] or ''}{field}", []).append(name)
    for field, elements in vectors.items():
        data[field] = partial(_vectors, elements, column)
    return LazyColumns(data)


def _vectors(elements: list[str], column: Callable[[str], np.ndarray]) -> np.ndarray:
    """Join columns of numbers to one column of vectors."""
    columns = [column(name) for name in elements]
    for name, values in zip(elements, columns, strict=True):
        if values.dtype.kind not in "fiub":
            raise DatasetError(f"`{name}` has {values.dtype} values; expected numbers.")
        if values.size != len(columns[0]):
            raise DatasetError(f"`{name}` has the shape {values.shape}; expected one number per row, as in `{elements[0]}`.")
    return np.stack([values.reshape(-1) for values in columns], axis=1).astype(np.float32)


def _cells(column: Any, name: str) -> np.ndarray:
    """A column of a DataFrame: numbers, texts, or an array in each cell."""
    values: np.ndarray = column.to_numpy()
    if values.dtype == object and len(values) and isinstance(values[0], (np.ndarray, list, tuple)):
        try:
            return np.stack([np.asarray(cell) for cell in values])
        except ValueError as error:
            raise DatasetError(f"DataFrame: `{name}` has arrays of different shapes ({error}).") from error
    return values
