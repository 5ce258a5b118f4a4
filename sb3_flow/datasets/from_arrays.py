"""Reader of ``.npz`` files and of folders of ``.npy`` files, whatever names their fields have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.datasets.arrays import ArrayFile
from sb3_flow.datasets.relabel import is_single_task, relabel

#: What OGBench's generators write: one row per state, ``terminals`` at the last state of a trajectory, no reward.
OGBENCH_FIELDS = {"observations", "actions", "terminals", "qpos", "qvel", "button_states"}


def read_array_file(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read an ``.npz`` file, or a folder of ``.npy`` files (memory-mapped), under any names that a dictionary may have.

    A file in OGBench's layout that has ``qpos`` gets its rewards from ``env_id``, where this is a single-task environment.

    :param source: A path
    :param env_id: The environment that the data is for
    :return: The data set, or None if the source is no such path
    :raises DatasetError: If the file is missing, damaged, or lacks a field.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    path = Path(source).expanduser()
    if path.suffix != ".npz" and not path.is_dir():
        return None
    return read_fields(ArrayFile(path), str(path), env_id)


def read_fields(fields: ArrayFile, name: str, env_id: str | None) -> OfflineDataset:
    """
    Make a data set of named arrays.

    :param fields: The arrays
    :param name: What to call the data set in messages
    :param env_id: The environment that the data is for
    :return: The data set
    :raises DatasetError: If a field is missing, or what it holds cannot be used.
    """
    if "terminals" not in fields or not set(fields) <= OGBENCH_FIELDS:
        return OfflineDataset.from_dict(_nested(fields), name)
    data: dict[str, Any] = {"terminals": fields["terminals"], "masks": np.ones(len(fields["terminals"]))}
    for field in ("observations", "actions"):
        if field in fields:
            data[field] = _compact(fields[field])
    if env_id is not None and is_single_task(env_id) and "qpos" in fields:
        data["rewards"], data["masks"] = relabel(fields, env_id, name)
    return OfflineDataset.from_dict(data, name)


def _compact(column: np.ndarray) -> np.ndarray:
    # Images and discrete actions stay as they are; positions and speeds need no more than single precision.
    return column.astype(np.float32, copy=False) if column.dtype.kind == "f" else column


def _nested(fields: ArrayFile) -> Mapping[str, Any]:
    """Gather ``observations/camera`` and its like into one dictionary of observations."""
    data: dict[str, Any] = {}
    for field in fields:
        group, _, key = field.partition("/")
        if not key:
            data[field] = fields[field]
        elif group in ("observations", "next_observations"):
            data.setdefault(group, {})[key] = fields[field]
    return data
