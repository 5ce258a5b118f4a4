"""Reader of Minari's datasets."""

from __future__ import annotations

import functools
import operator
import re
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_flow.common.data.columns import ColumnBuilder, DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.files import reason
from sb3_flow.common.optional import require
from sb3_flow.common.warn import warn
from sb3_flow.datasets.registry import local_datasets, minari_directory

_IDENTIFIER = re.compile(r"[\w.-]+(/[\w.-]+)*-v\d+")


def read_minari(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read a Minari dataset: an object, ``minari:NAMESPACE/name-v0``, or the plain id of a dataset on this machine.

    Nothing is downloaded. Observations are stored once: each episode has one row more than transitions. Numeric parts of
    dictionaries and tuples are read (``Box``, ``Discrete``, ``MultiBinary``, ``MultiDiscrete``). Other parts, such as texts,
    are left out with a warning.

    :param source: A ``minari.MinariDataset``, or a name
    :param env_id: Not used
    :return: The dataset, or None if the source is something else
    :raises DatasetError: If the dataset is not on this machine, is damaged, or its actions are not in a box.
    """
    named = isinstance(source, str)
    if named:
        identifier = source.removeprefix("minari:")
        if identifier == source:
            known = _IDENTIFIER.fullmatch(source) and (minari_directory() / source / "data" / "metadata.json").is_file()
            if not known:
                return None
        source = _load(identifier)
    elif not (type(source).__module__.split(".")[0] == "minari" and hasattr(source, "iterate_episodes")):
        return None
    try:
        return _flatten(source)
    except (DatasetError, ImportError):
        raise
    except Exception as error:
        where = f"minari:{identifier}" if named else "The Minari dataset"
        raise DatasetError(f"{where} is damaged ({reason(error)}).") from error


def recover_environment(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """
    Create the environment of a Minari dataset.

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
    except Exception as error:  # Minari raises many classes for damaged files
        raise DatasetError(f"minari:{identifier} cannot be read: {reason(error)}") from error


def _flatten(source: Any) -> OfflineDataset:
    name = f"minari:{source.spec.dataset_id}"
    spaces, left_out = _parts(source.observation_space)
    if not spaces:
        raise DatasetError(f"{name}: no part of `observations` can be encoded; it is in {source.observation_space}.")
    if left_out:
        warn(f"{name}: not used, because it cannot be encoded: {', '.join(left_out)}.")
    if not isinstance(source.action_space, gym.spaces.Box):
        raise DatasetError(f"{name}: `actions` is in a {type(source.action_space).__name__} space; expected a Box.")
    observations = {key: ColumnBuilder() for key in spaces}
    actions, rewards, terminations = ColumnBuilder(), ColumnBuilder(), ColumnBuilder()
    lengths = []
    try:
        for episode in source.iterate_episodes():
            label, length = f"{name}, episode {episode.id}", len(episode.rewards)
            for key, (path, space) in spaces.items():
                part = functools.reduce(operator.getitem, path, episode.observations)
                observations[key].append(_rows(part, space, length + 1, 0, label))
            # The last observation has a separate row, without an action.
            actions.append(_rows(episode.actions, source.action_space, length, 1, label))
            rewards.append(np.append(np.asarray(episode.rewards, dtype=np.float32), np.float32(0)))
            terminations.append(np.append(np.asarray(episode.terminations, dtype=bool), False))
            lengths.append(length)
    except (OSError, KeyError, RuntimeError) as error:
        raise DatasetError(f"{name}: an episode cannot be read; the files are damaged ({reason(error)}).") from error
    if not sum(lengths):
        raise DatasetError(f"{name}: it has no transition.")
    rows = sum(lengths) + len(lengths)
    final = np.zeros(rows, dtype=bool)
    final[np.cumsum(np.array(lengths) + 1) - 1] = True
    ends = np.append(final[1:], False) & ~final
    columns = {key: builder.finish() for key, builder in observations.items()}
    return OfflineDataset(
        columns[""] if set(columns) == {""} else columns,
        actions.finish(),
        rewards.finish(),
        terminations.finish(),
        ends,
        ~final,
        name=name,
        final_states=final,
        evidence="Minari's episodes",
    )


#: Spaces with numeric values. Discrete values are encoded later, by the observation space of the model.
_ENCODED = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiBinary, gym.spaces.MultiDiscrete)


def _parts(space: gym.Space[Any]) -> tuple[dict[str, tuple[tuple[Any, ...], gym.Space[Any]]], list[str]]:
    """
    The numeric parts of an observation space, by key: path and space of each. And the names of all other parts.

    Nested parts have keys such as ``camera/front``; parts of a tuple are numbered.
    """
    found: dict[str, tuple[tuple[Any, ...], gym.Space[Any]]] = {}
    left_out: list[str] = []

    def visit(space: gym.Space[Any], path: tuple[Any, ...]) -> None:
        if isinstance(space, gym.spaces.Dict):
            for key, part in space.spaces.items():
                visit(part, (*path, key))
        elif isinstance(space, gym.spaces.Tuple):
            for i, part in enumerate(space.spaces):
                visit(part, (*path, i))
        elif isinstance(space, _ENCODED):
            found["/".join(map(str, path))] = (path, space)
        else:
            left_out.append(f"`observations[{'/'.join(map(str, path))}]` ({type(space).__name__})")

    visit(space, ())
    return found, left_out


def _rows(values: Any, space: gym.Space[Any], length: int, empty: int, label: str) -> np.ndarray:
    """The values of an episode, followed by rows of zeros."""
    array = np.asarray(values)
    shape = () if space.shape is None else space.shape
    if array.shape != (length, *shape):
        raise DatasetError(f"{label}: an array has shape {array.shape}; expected {(length, *shape)}.")
    dtype = np.dtype(np.float32) if space.dtype is not None and space.dtype.kind == "f" else space.dtype
    return np.concatenate([array.astype(dtype, copy=False), np.zeros((empty, *shape), dtype=dtype)])
