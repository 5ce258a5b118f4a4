"""Reader of tables: pandas DataFrames, and parquet files that are not LeRobot's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Set
from functools import partial
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.warn import warn
from sb3_flow.datasets.parquet_columns import ParquetColumns
from sb3_flow.datasets.parts import LazyColumns, user_path

#: Columns with one element of a vector each: ``obs_x``, ``observations/3``, ``action[0]``, ``next_obs.y``.
_ELEMENT = re.compile(r"(?P<next>next_)?(?P<field>observations?|obs|actions?|act)(?P<mark>[_./]|\[)(?P<element>.+?)\]?")


def read_frame(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read a table with one row per step: a pandas DataFrame, or a parquet file.

    The columns have the names of any dialect. Observations and actions are columns of arrays, or one column per element, in
    the order of the table: ``obs_x, obs_y, action_0, action_1``. If a column of observations with such a name has arrays, as
    in ``observations/camera, observations/joints``, the columns are the parts of a dictionary. A column must determine where
    episodes end, such as the number of the episode.

    :param source: A ``pandas.DataFrame``, or a path that ends with ``.parquet``
    :param env_id: Not used
    :return: The dataset, or None if the source is something else
    :raises DatasetError: If the file is missing or damaged, or a column is missing.
    """
    if type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "columns"):
        names = ["/".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in source.columns]
        positions = {name: i for i, name in enumerate(names)}
        arrays = {name for name, i in positions.items() if _holds_arrays(source.iloc[:, i].to_numpy())}
        columns = _gather(names, lambda name: _cells(source.iloc[:, positions[name]], name), arrays)
        return OfflineDataset.from_dict(columns, "DataFrame")
    if not isinstance(source, str | os.PathLike) or not os.fspath(source).endswith(".parquet"):
        return None
    path = user_path(source)
    table = ParquetColumns([path], path)
    return OfflineDataset.from_dict(_gather(table.names, table.column, table.arrays), str(path))


def _gather(names: Iterable[str], column: Callable[[str], np.ndarray], arrays: Set[str]) -> LazyColumns:
    """
    Columns by name, with the elements of vectors joined.

    :param names: Names of the columns
    :param column: Reads a column
    :param arrays: Names of the columns with an array in each cell
    :raises DatasetError: If two columns have the same meaning.
    """
    data: dict[str, Callable[[], np.ndarray]] = {}
    elements: dict[str, dict[str, str]] = {}
    for name in names:
        match = _ELEMENT.fullmatch(name)
        if match is None:
            _add(data, name, partial(column, name))
        else:
            field = "actions" if match["field"].startswith("act") else "observations"
            field = f"{match['next'] or ''}{field}"
            _add(elements.setdefault(field, {}), match["element"], name, f"{field}[{match['element']}]")
    if "next_observations" in elements and "observations" in elements:
        elements["next_observations"] = _in_order(elements["next_observations"], elements["observations"])
    for field, parts in elements.items():
        if field != "actions" and arrays & set(parts.values()):
            data |= {f"{field}/{element}": partial(column, name) for element, name in parts.items()}
        else:
            _warn_about_order([*parts])
            _add(data, field, partial(_vectors, [*parts.values()], column))
    return LazyColumns(data)


def _in_order(following: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """The elements of the next observations in the order of those of the observations."""
    if other := following.keys() ^ now.keys():
        raise DatasetError(
            f"The observations of the table have the elements {', '.join(now)}, and the next observations "
            f"{', '.join(following)}: {', '.join(sorted(other))} is only in one of them."
        )
    return {element: following[element] for element in now}


def _add(entries: dict[str, Any], name: str, value: Any, meaning: str | None = None) -> None:
    if name in entries:
        raise DatasetError(f"Several columns of the table are read as `{meaning or name}`; rename or remove all but one.")
    entries[name] = value


def _warn_about_order(elements: list[str]) -> None:
    """Warn if numbered columns are sorted as texts, or if one of them is missing."""
    if not all(element.isdecimal() for element in elements):
        return
    numbers = [*map(int, elements)]
    if missing := {*range(min(numbers), max(numbers))} - {*numbers}:
        warn(f"The elements of a vector have the numbers {', '.join(elements[:5])}, ...; {min(missing)} is missing.")
    if numbers != sorted(numbers):
        listed = ", ".join(elements[:5])
        warn(f"The elements of a vector are in the order of the table, {listed}, ..., not in that of their numbers.")


def _vectors(elements: list[str], column: Callable[[str], np.ndarray]) -> np.ndarray:
    """Join columns of numbers to one column of vectors."""
    columns = [column(name) for name in elements]
    for name, values in zip(elements, columns, strict=True):
        if values.dtype.kind not in "fiub" or values.ndim != 1:
            found = "arrays" if values.ndim != 1 else f"{values.dtype} values"
            raise DatasetError(f"`{name}` has {found}; expected numbers.")
    return np.stack(columns, axis=1).astype(np.float32)


def _cells(column: Any, name: str) -> np.ndarray:
    """A column of a DataFrame: numbers, texts, or an array in each cell."""
    values: np.ndarray = column.to_numpy()
    if _holds_arrays(values):
        try:
            return np.stack([np.asarray(cell) for cell in values])
        except ValueError as error:
            raise DatasetError(f"DataFrame: `{name}` has arrays of different shapes ({error}).") from error
    return values


def _holds_arrays(values: np.ndarray) -> bool:
    """Whether the cells of a column are arrays."""
    return values.dtype == object and len(values) > 0 and isinstance(values[0], (np.ndarray, list, tuple))
