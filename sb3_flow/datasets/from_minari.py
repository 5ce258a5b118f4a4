"""Reader of Minari's datasets."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_flow.common.data.columns import DatasetError, Observations
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.optional import require
from sb3_flow.datasets.registry import local_datasets, minari_directory

_IDENTIFIER = re.compile(r"[\w.-]+(/[\w.-]+)*-v\d+")


def read_minari(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read a Minari dataset: an object, ``minari:NAMESPACE/name-v0``, or the plain id of one that is on this machine.

    Nothing is downloaded. Observations are stored once: each episode has one row more than it has transitions.

    :param source: A ``minari.MinariDataset``, or a name
    :param env_id: Not used
    :return: The data set, or None if the source is no such thing
    :raises DatasetError: If the dataset is not on this machine, is damaged, or has spaces other than boxes.
    """
    if isinstance(source, str):
        identifier = source.removeprefix("minari:")
        if identifier == source:
            known = _IDENTIFIER.fullmatch(source) and (minari_directory() / source / "data" / "metadata.json").is_file()
            if not known:
                return None
        source = _load(identifier)
    elif not (type(source).__module__.split(".")[0] == "minari" and hasattr(source, "iterate_episodes")):
        return None
    return _flatten(source)


def recover_environment(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """
    Make the environment that a Minari dataset was collected in.

    :param name: Id of a dataset on this machine, with or without the prefix ``minari:``
    :param kwargs: Arguments of ``minari.MinariDataset.recover_environment``, for instance ``eval_env=True``
    :return: The environment
    :raises DatasetError: If the dataset is not on this machine.
    """
    environment: gym.Env[Any, Any] = _load(name.removeprefix("minari:")).recover_environment(**kwargs)
    return environment


def _load(identifier: str) -> Any:
    minari = require("minari", "datasets", f"The dataset 'minari:{identifier}'")
    try:
        return minari.load_dataset(identifier, download=False)
    except FileNotFoundError as error:
        here = ", ".join(name for name in local_datasets() if name.startswith("minari:")) or "none"
        raise DatasetError(
            f"minari:{identifier} is not in {minari_directory()} (there: {here}). Download it: `minari download {identifier}`."
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"minari:{identifier} cannot be read: {error}") from error


def _flatten(source: Any) -> OfflineDataset:
    name = f"minari:{source.spec.dataset_id}"
    # The totals of a filtered dataset are those of what is left.
    rows = int(source.total_steps) + int(source.total_episodes)
    observations = _allocate(source.observation_space, rows, "observations", name)
    actions = _allocate(source.action_space, rows, "actions", name)
    if isinstance(actions, dict):
        raise DatasetError(f"{name}: `actions` is a dictionary; expected a Box action space.")
    rewards = np.zeros(rows, dtype=np.float32)
    terminations, ends, valids = (np.zeros(rows, dtype=bool) for _ in range(3))
    start = 0
    try:
        for episode in source.iterate_episodes():
            length = len(episode.rewards)
            _copy(episode.observations, observations, start, length + 1, f"{name}, episode {episode.id}")
            _copy(episode.actions, actions, start, length, f"{name}, episode {episode.id}")
            rewards[start : start + length] = episode.rewards
            terminations[start : start + length] = episode.terminations
            valids[start : start + length] = True
            ends[start + length - 1] = length > 0
            start += length + 1
    except (OSError, KeyError, RuntimeError) as error:
        raise DatasetError(f"{name}: an episode cannot be read; the files are damaged ({error}).") from error
    if start != rows:
        raise DatasetError(f"{name}: its episodes have {start} rows in all, but its description says {rows}.")
    return OfflineDataset(observations, actions, rewards, terminations, ends, valids, name=name)


def _allocate(space: gym.Space[Any], rows: int, field: str, name: str) -> Observations:
    if isinstance(space, gym.spaces.Dict):
        columns: dict[str, np.ndarray] = {}
        for key, part in space.spaces.items():
            column = _allocate(part, rows, f"{field}[{key}]", name)
            if isinstance(column, dict):
                raise DatasetError(f"{name}: `{field}[{key}]` is a dictionary within a dictionary; expected one level.")
            columns[key] = column
        return columns
    if not isinstance(space, gym.spaces.Box):
        raise DatasetError(f"{name}: `{field}` is in a {type(space).__name__} space; expected a Box.")
    dtype = np.float32 if space.dtype.kind == "f" else space.dtype
    return np.zeros((rows, *space.shape), dtype=dtype)


def _copy(episode: Any, target: Observations, start: int, length: int, name: str) -> None:
    if isinstance(target, dict):
        for key, column in target.items():
            _copy(episode[key], column, start, length, f"{name}, {key}")
        return
    values = np.asarray(episode)
    if values.shape != (length, *target.shape[1:]):
        raise DatasetError(f"{name}: an array has shape {values.shape}; expected {(length, *target.shape[1:])}.")
    target[start : start + length] = values
