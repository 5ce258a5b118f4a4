"""Reader of ``.npz`` files and of folders of ``.npy`` files, with the names of any dialect."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.episodes import as_flags
from sb3_flow.common.data.fields import is_ogbench
from sb3_flow.datasets.arrays import ArrayFile
from sb3_flow.datasets.converted import DESCRIPTION, read_converted
from sb3_flow.datasets.parts import user_path
from sb3_flow.datasets.relabel import is_single_task, relabel


def read_array_file(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read an ``.npz`` file, or a folder of ``.npy`` files (memory-mapped), with the names of any dialect.

    A folder that ``convert`` wrote is read as it was converted. A file in OGBench's layout with ``qpos`` is relabeled with the
    rewards of ``env_id`` if it is a single-task environment.

    :param source: A path
    :param env_id: Id of the environment of the data
    :return: The dataset, or None if the source is something else
    :raises DatasetError: If the file is missing, damaged, or lacks a field.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    path = user_path(source)
    if path.suffix != ".npz" and not path.is_dir():
        return None
    if (path / DESCRIPTION).is_file():
        return read_converted(path, env_id)
    return read_fields(ArrayFile(path), str(path), env_id)


def read_fields(fields: ArrayFile, name: str, env_id: str | None, ogbench: bool = False) -> OfflineDataset:
    """
    Create a dataset from named arrays.

    :param fields: The arrays
    :param name: Name of the dataset for messages
    :param env_id: Id of the environment of the data
    :param ogbench: Whether the arrays are known to be in OGBench's layout, one row per state
    :return: The dataset
    :raises DatasetError: If a field is missing, or its values cannot be used.
    """
    if not (ogbench or is_ogbench(fields)) or "terminals" not in fields:
        return OfflineDataset.from_dict(fields, name)
    # `terminals` marks the rows of last states, which are not transitions.
    terminals = as_flags(fields["terminals"], "terminals", len(fields["terminals"]), name)
    data: dict[str, Any] = {"terminals": terminals, "masks": np.ones(len(terminals)), "valids": ~terminals}
    for field in ("observations", "actions"):
        if field in fields:
            data[field] = _compact(fields[field])
    if env_id is not None and is_single_task(env_id) and "qpos" in fields:
        data["rewards"], data["masks"] = relabel(fields, env_id, name)
    return OfflineDataset.from_dict(data, name)


def _compact(column: np.ndarray) -> np.ndarray:
    # Images and discrete actions are not changed; single precision is sufficient for positions and velocities.
    return column.astype(np.float32, copy=False) if column.dtype.kind == "f" else column
