"""Reader of HDF5 files: D4RL's, robomimic's, d3rlpy's, and logs of robots."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.join import join
from sb3_flow.common.warn import warn
from sb3_flow.datasets.hdf5_columns import Hdf5Columns, MappedArrays, open_hdf5
from sb3_flow.datasets.parts import chosen_columns, split_parts, user_path, with_parts

#: Names of groups with one episode each: robomimic's, ManiSkill's, Minari's.
_EPISODE = re.compile(r"(demo|traj|trajectory|episode|ep)_?(\d+)")
#: d3rlpy's columns, numbered by episode.
_D3RLPY = re.compile(r"(observations|actions|rewards|terminated)_(\d+)")


def read_hdf5(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read an HDF5 file.

    - Arrays at the top level, as in D4RL's files (``observations, actions, rewards, terminals, timeouts``) and those of robots
      (``action, observations/qpos, observations/images/top``). Groups with names of observations are dictionaries.
    - One group per episode, at the top level or in ``data``: ``demo_0`` (robomimic: ``obs, next_obs, actions, rewards,
      dones``, where ``dones`` marks the end of the task), ``traj_0`` (ManiSkill), ``episode_0`` (Minari).
    - ``observations_0, actions_0, rewards_0, terminated_0`` and so on, as in d3rlpy's files.

    :param source: A path that ends with ``.hdf5``, ``.h5`` or ``.hdf``. ``PATH#KEY,KEY`` reads these parts of the observations
        only; with robomimic a key may be one of its filters, such as ``train``.
    :param env_id: Not used
    :return: The dataset, or None if the source is something else
    :raises DatasetError: If the file is missing, damaged, or lacks a field.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    name, keys = split_parts(os.fspath(source))
    path = user_path(name)
    if path.suffix not in (".hdf5", ".h5", ".hdf"):
        return None
    with open_hdf5(path) as file:
        top = "data" if "data" in file and hasattr(file["data"], "keys") else "/"
        found = ((match, group) for group in file[top] if (match := _EPISODE.fullmatch(group)))
        groups = [group for match, group in sorted(found, key=lambda pair: int(pair[0][2]))]
        filters = {key: _names(file[f"mask/{key}"][()]) for key in keys if f"mask/{key}" in file}
    if groups:
        chosen = [group for group in groups if all(group in members for members in filters.values())]
        if not chosen:
            raise DatasetError(f"{path}: no episode is in {' and '.join(filters)}.")
        keys = [key for key in keys if key not in filters]
        mapped = MappedArrays(path)
        columns_of = [Hdf5Columns(path, f"{top}/{group}".lstrip("/"), mapped) for group in chosen]
        _warn_about_texts(path, columns_of)
        return _episodes(path, columns_of, keys, robomimic=top == "data")
    columns = Hdf5Columns(path)
    if any(_D3RLPY.fullmatch(field) for field in columns):
        if keys:
            raise DatasetError(f"{path}#{','.join(keys)}: a file of d3rlpy has no parts of observations; pass the path only.")
        return _of_d3rlpy(path, columns)
    _warn_about_texts(path, [columns])
    return OfflineDataset.from_dict(with_parts(columns, keys, str(path)), str(path))


def _episodes(path: Path, groups: list[Hdf5Columns], keys: list[str], robomimic: bool) -> OfflineDataset:
    """Read one episode per group."""
    episodes = []
    for columns in groups:
        name = f"{path}, {columns.group}"
        fields = [field for field in columns if not field.startswith(("states", "env_states", "infos"))]
        if "success" in fields:
            fields.remove("success")
        # At robomimic's `dones` its algorithms do not bootstrap.
        names = {"dones": "terminations"} if robomimic else {}
        chosen = with_parts(chosen_columns(columns, fields, names), keys, name)
        episodes.append(OfflineDataset.from_dict(chosen, name, single=True))
    return join(episodes, name=str(path))


def _of_d3rlpy(path: Path, columns: Hdf5Columns) -> OfflineDataset:
    numbers = sorted({int(match[2]) for field in columns if (match := _D3RLPY.fullmatch(field))})
    episodes = []
    for number in numbers:
        episode = {kind: columns[f"{kind}_{number}"] for kind in ("observations", "actions", "rewards")}
        with open_hdf5(path) as file:
            terminated = bool(np.asarray(file[f"terminated_{number}"][()]))
        length = len(episode["actions"])
        last = np.arange(length) == length - 1
        flags = {"terminations": last & terminated, "truncations": last & (not terminated)}
        episodes.append(OfflineDataset.from_dict({**episode, **flags}, f"{path}, episode {number}"))
    return join(episodes, name=str(path))


def _warn_about_texts(path: Path, groups: list[Hdf5Columns]) -> None:
    if names := sorted({name for columns in groups for name in columns.left_out}):
        warn(f"{path}: not used, because they are not numbers: {', '.join(f'`{name}`' for name in names)}.")


def _names(texts: Any) -> set[str]:
    return {text.decode() if isinstance(text, bytes) else str(text) for text in np.asarray(texts).reshape(-1)}
