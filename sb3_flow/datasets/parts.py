"""Paths with keys of observations: ``PATH#KEY,KEY``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from sb3_flow.common.data.columns import DatasetError, short


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path with ``~`` replaced by the home directory, if there is one."""
    try:
        return Path(os.path.expanduser(path))  # pathlib's method raises a RuntimeError
    except ValueError as error:
        raise DatasetError(f"{path!r} is not a path ({error}).") from error


def split_parts(source: str) -> tuple[str, list[str]]:
    """
    :param source: A path, with or without ``#`` and keys
    :return: The path, and the keys
    """
    path, _, keys = source.partition("#")
    return path, [key.strip() for key in keys.split(",") if key.strip()]


def with_parts(columns: Mapping[str, np.ndarray], keys: list[str], name: str) -> Mapping[str, np.ndarray]:
    """
    Select parts of the observations.

    :param columns: Arrays by name
    :param keys: Keys of the selected parts; empty: all
    :param name: Name of the data for messages
    :return: The selected arrays, read on access
    :raises DatasetError: If a part does not exist.
    """
    if not keys:
        return columns
    groups = ("obs", "observation", "observations", "next_obs", "next_observation", "next_observations")
    there = [field.partition("/")[2] for field in columns if field.split("/")[0] in groups[:3]]
    missing = [key for key in keys if key not in there]
    if missing:
        raise DatasetError(f"{name}: the observations have no part {', '.join(missing)}; there: {short(sorted(there))}.")
    fields = [field for field in columns if field.split("/")[0] not in groups or field.partition("/")[2] in keys]
    return chosen_columns(columns, fields)


class LazyColumns(Mapping[str, np.ndarray]):
    """
    Arrays that are read on access.

    :param readers: Functions that read the arrays, by name
    """

    def __init__(self, readers: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self.readers = readers

    def __getitem__(self, name: str) -> np.ndarray:
        return self.readers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self.readers

    def __iter__(self) -> Iterator[str]:
        return iter(self.readers)

    def __len__(self) -> int:
        return len(self.readers)


def chosen_columns(
    columns: Mapping[str, np.ndarray], fields: Iterable[str], names: Mapping[str, str] | None = None
) -> LazyColumns:
    """
    Some of the arrays of a mapping.

    :param columns: Arrays by name
    :param fields: Their names
    :param names: New names of some of them
    :return: The chosen arrays, which are read on access
    """
    names = names or {}
    return LazyColumns({names.get(field, field): partial(columns.__getitem__, field) for field in fields})
