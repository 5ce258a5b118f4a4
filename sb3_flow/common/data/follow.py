"""Apply the observation wrappers of an environment to a dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import DtypeObservation, FilterObservation, FlattenObservation, ReshapeObservation
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_flow.common.data.columns import ColumnBuilder, DatasetError, Observations, listed, parts
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.encoders import subspaces
from sb3_flow.common.warn import warn

#: Wrappers of observations that do not change their values.
KEEP_VALUES = (DtypeObservation, FilterObservation, FlattenObservation, ReshapeObservation)


def follow_environment(data: OfflineDataset, space: spaces.Space[Any], env: VecEnv | None) -> OfflineDataset:
    """
    Convert the observations of a dataset to the observation space of a model.

    Parts that are not in the space are left out, and a single part needs no dictionary. If the environment is wrapped
    (``FlattenObservation``, ``FilterObservation`` and others) and the data was recorded without the wrappers, these are
    applied to the data. The shape of the observations tells which wrappers these are; of those that keep the shape, a warning
    is given.

    :param data: The data
    :param space: Observation space of the model
    :param env: Its environment
    :return: The data with converted observations
    :raises DatasetError: If they cannot be converted.
    """
    there, wanted = parts(data.observations), subspaces(space)
    alike = set(there) == set(wanted)
    if alike and _fits(data, space):
        _warn_about_wrappers(data, env)
        return data
    if set(wanted) < set(there):
        return _changed(data, lambda observations: {key: observations[key] for key in wanted})
    if len(there) == len(wanted) == 1 and not alike:
        (key,), (found,) = wanted, there
        if key and found:
            warn(f"{data.name}: the observations {found!r} are used as {key!r}, which the environment has instead.")
        return _changed(data, lambda observations: _renamed(observations, key))
    wrappers = _wrappers_outside_of(data, env)
    if wrappers is None and not alike:
        raise DatasetError(_mismatch(data, space))
    for wrapper in wrappers or ():
        data = _changed(data, partial(_apply, wrapper, data.name))
    return data  # images with channels last and single frames are converted when they are sampled


def _warn_about_wrappers(data: OfflineDataset, env: VecEnv | None) -> None:
    """Warn of wrappers that change values but no shapes: nothing tells whether the data was recorded with them."""
    layer: Any = env.unwrapped.envs[0] if env is not None and isinstance(env.unwrapped, DummyVecEnv) else None
    while isinstance(layer, gym.Wrapper):
        remedy = ""
        changes = isinstance(layer, gym.ObservationWrapper) and not isinstance(layer, KEEP_VALUES)
        if changes and _fits(data, layer.env.observation_space):
            remedy = "change its observations in the same way"
            if isinstance(layer, gym.wrappers.NormalizeObservation):
                remedy = "use `VecNormalize` of Stable-Baselines3 instead, whose statistics are those of the data"
        elif isinstance(layer, gym.RewardWrapper | gym.wrappers.NormalizeReward) and data.rewards is not None:
            remedy = "change its rewards in the same way: `dataset={'source': DATASET, 'rewards': {'scale': 0.1}}`"
        if remedy:
            warn(
                f"{data.name}: the data is used as it is, as if it was recorded with the wrapper {type(layer).__name__} of "
                f"the environment. If it was recorded without this wrapper, {remedy}."
            )
        layer = layer.env


def _renamed(observations: dict[str, np.ndarray], key: str) -> Observations:
    """Rename a single part."""
    part = next(iter(observations.values()))
    return {key: part} if key else part


def _changed(data: OfflineDataset, change: Callable[[dict[str, np.ndarray]], Observations]) -> OfflineDataset:
    following = data.next_observations
    return replace(
        data,
        observations=change(parts(data.observations)),
        next_observations=None if following is None else change(parts(following)),
    )


def _wrappers_outside_of(data: OfflineDataset, env: VecEnv | None) -> list[Any] | None:
    """The observation wrappers around the one in which the data was recorded, innermost first; None: not found."""
    base = None if env is None else env.unwrapped
    if not isinstance(base, DummyVecEnv):
        return None  # the environments are in other processes
    layer: Any = base.envs[0]
    found: list[Any] = []
    while True:
        if _fits(data, layer.observation_space):
            return found
        if not isinstance(layer, gym.Wrapper):
            return None
        if isinstance(layer, gym.ObservationWrapper):
            found.insert(0, layer)
        elif layer.observation_space != layer.env.observation_space:
            return None
        layer = layer.env


def _fits(data: OfflineDataset, space: spaces.Space[Any]) -> bool:
    there, wanted = parts(data.observations), subspaces(space)
    return set(there) == set(wanted) and all(there[key].shape[1:] in ((wanted[key].shape), (1,)) for key in there)


def _apply(wrapper: Any, name: str, observations: dict[str, np.ndarray]) -> Observations:
    """Apply a wrapper to all rows."""
    inner = wrapper.env.observation_space
    if isinstance(wrapper, FlattenObservation):
        return flatten_rows(inner, observations)
    if isinstance(wrapper, FilterObservation):
        return {key: observations[key] for key in subspaces(wrapper.observation_space)}
    transforms = isinstance(wrapper, gym.wrappers.TransformObservation)
    if not transforms or isinstance(wrapper, gym.wrappers.AddRenderObservation):  # the latter ignores the observation
        raise DatasetError(
            f"{name}: the data was recorded without the wrapper {type(wrapper).__name__}, which cannot be applied to it row "
            "by row. Record it with the wrapper, or leave the wrapper out."
        )
    length = len(next(iter(observations.values())))
    columns = {key: ColumnBuilder() for key in subspaces(wrapper.observation_space)}
    for row in range(length):
        whole = {key: column[row] for key, column in observations.items()}
        made = wrapper.observation(whole if isinstance(inner, spaces.Dict) else whole[""])
        for key, part in (made if isinstance(made, dict) else {"": made}).items():
            columns[key].append(np.asarray(part)[None])
    result = {key: builder.finish() for key, builder in columns.items()}
    return result[""] if set(result) == {""} else result


def flatten_rows(space: spaces.Space[Any], observations: dict[str, np.ndarray]) -> np.ndarray:
    """
    ``gymnasium.spaces.flatten`` for many observations at once.

    :param space: Space of the observations: ``Box``, ``Discrete``, ``MultiBinary``, or a dictionary of these
    :param observations: By key, ``(N, *shape)``
    :return: ``(N, flatdim(space))``, float32, or uint8 if all parts are uint8
    :raises DatasetError: If a part has another space.
    """
    columns = []
    for key, part in subspaces(space).items():
        rows = observations[key]
        if isinstance(part, spaces.Discrete):
            columns.append(np.eye(int(part.n), dtype=np.float32)[rows.reshape(-1).astype(np.int64) - int(part.start)])
        elif isinstance(part, (spaces.Box, spaces.MultiBinary)):
            columns.append(rows.reshape(len(rows), -1))
        else:
            raise DatasetError(f"`observations[{key}]` is in a {type(part).__name__} space, which is not flattened here.")
    dtype = np.uint8 if all(column.dtype == np.uint8 for column in columns) else np.float32
    return np.concatenate(columns, axis=1, dtype=dtype, casting="unsafe")


def _mismatch(data: OfflineDataset, space: spaces.Space[Any]) -> str:
    there, wanted = parts(data.observations), subspaces(space)
    remedy = "Name the parts of the data as the environment does."
    if set(wanted) == {""}:
        order = ", ".join(map(repr, sorted(there)))
        remedy = f"Put them into one vector, in the order of the environment: {{'source': ..., 'flatten': [{order}]}}."
    return (
        f"{data.name}: `observations` has {listed(there)}, but the observation space has {listed(wanted)}: {space}. {remedy}"
    )
