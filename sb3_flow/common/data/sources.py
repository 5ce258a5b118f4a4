"""What ``dataset=`` takes: each kind of source has a reader."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from sb3_flow.common.data.columns import DatasetError, short
from sb3_flow.common.data.dataset import OfflineDataset

#: A reader turns a source into a dataset, or returns None where the source is not of its kind.
Reader = Callable[[Any, str | None], OfflineDataset | None]
_readers: list[Reader] = []


def register_reader(reader: Reader) -> Reader:
    """
    Let ``dataset=`` understand one more kind of source.

    :param reader: Called with the source and the id of the environment (or None); it returns the dataset, or None
        where the source is not of its kind.
    :return: The reader, so that this can be used as a decorator
    """
    _readers.append(reader)
    return reader


def read_dataset(source: Any, env_id: str | None = None) -> OfflineDataset:
    """
    Read any source that ``dataset=`` takes, but for replay buffers (these need an action space as well).

    :param source: An ``OfflineDataset``, a dictionary of arrays, a name, a path, or what a registered reader knows
    :param env_id: The environment that the data is for; some data is relabeled with its reward
    :return: The dataset
    :raises DatasetError: If no reader knows the source, or what it holds is damaged.
    """
    if isinstance(source, OfflineDataset):
        return source
    for reader in _readers:
        dataset = reader(source, env_id)
        if dataset is not None:
            return dataset
    if isinstance(source, Mapping):
        return OfflineDataset.from_dict(source)
    raise DatasetError(
        f"Cannot read {short(source)} as a dataset. Expected a name (see `sb3-flow datasets list`), the path of a .npz, "
        ".hdf5, .zarr or .parquet file, a minari.MinariDataset, a dictionary of arrays, a list of these, or a replay buffer."
    )


def names_a_source(source: Any) -> bool:
    """Whether a source is a name or a path, or has one in it: then it may matter which environment the data is for."""
    if isinstance(source, Mapping):
        return "source" in source and names_a_source(source["source"])
    if isinstance(source, list | tuple):
        return any(names_a_source(part) for part in source)
    return isinstance(source, str | os.PathLike)
