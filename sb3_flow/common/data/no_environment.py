"""Placeholder for an environment when training from data alone."""

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from sb3_flow.common.data.columns import DatasetError, Observations
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.sources import read_dataset
from sb3_flow.common.data.statistics import ranges, too_coarse
from sb3_flow.common.encoders import subspaces

#: Margin on either side of an action that never changes, as a share of its absolute value, or of 1 if that is larger.
NARROW = 1e-3


class NoEnvironment(gym.Env[Any, Any]):
    """
    An environment that has spaces only, for training from data. ``step`` raises an error.

    :param observation_space: Observation space
    :param action_space: Action space
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Box) -> None:
        self.observation_space: spaces.Space[Any] = observation_space
        self.action_space: spaces.Box = action_space

    @classmethod
    def of(cls, dataset: Any) -> "NoEnvironment":
        """
        Create it with the spaces of a dataset: unbounded vectors, uint8 images, and the range of the actions in the data.

        :param dataset: As the argument ``dataset`` of the algorithms
        :raises DatasetError: If it cannot be read.
        """
        if (buffer := next(buffers_in(dataset), None)) is not None:
            if not isinstance(buffer.action_space, spaces.Box):
                raise DatasetError(f"The replay buffer has actions in {buffer.action_space}; flow policies need a Box.")
            return cls(buffer.observation_space, buffer.action_space)
        data = read_dataset(dataset)
        return cls(_observation_space(data.observations), action_space(data))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return _zeros(self.observation_space), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        raise RuntimeError(
            "There is no environment to act in: the model was made from data alone, or loaded without one. Create "
            "it, and pass it: evaluate_policy(model, env), EvalCallback(env), or model.set_env(env). A model is loaded "
            "with its environment by load(path, env=env)."
        )


def buffers_in(source: Any) -> Iterator[BaseBuffer]:
    """
    The buffers in a source of data.

    :param source: As the argument ``dataset`` of the algorithms
    """
    if isinstance(source, BaseBuffer):
        yield source
    elif isinstance(source, Mapping) and "source" in source:
        yield from buffers_in(source["source"])
    elif isinstance(source, list | tuple):
        for part in source:
            yield from buffers_in(part)


def _observation_space(column: Observations) -> spaces.Space[Any]:
    if isinstance(column, dict):
        return spaces.Dict({key: _observation_space(part) for key, part in column.items()})
    if column.dtype == np.uint8 and column.ndim == 4:
        return spaces.Box(0, 255, column.shape[1:], np.uint8)
    return spaces.Box(-np.inf, np.inf, column.shape[1:], np.float32)


def action_space(data: OfflineDataset) -> spaces.Box:
    """
    The range of the actions of a dataset.

    :param data: The data
    :return: A box, with a margin of ``NARROW`` around an action that never changes, so that it can be scaled
    :raises DatasetError: If single precision cannot represent the actions.
    """
    if found := too_coarse(data.actions, data.has_action):
        raise DatasetError(f"{data.name}: {found.format('`actions`')} Pass the environment, or subtract an offset from it.")
    low, high = (bound.astype(np.float32) for bound in ranges(data.actions, data.has_action))
    margin = np.where(low >= high, NARROW * np.maximum(np.abs(low), 1.0), 0.0)
    return spaces.Box((low - margin).astype(np.float32), (high + margin).astype(np.float32), dtype=np.float32)


def _zeros(space: spaces.Space[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part) for key, part in space.spaces.items()}
    return np.zeros_like(space.sample())


class WithinSpaces(VecEnvWrapper):
    """
    Wrapper of environments for a model that was made from data alone. It has the spaces of the model.

    :param venv: The environments
    :param observation_space: Observation space of the model, with the shapes of that of the environments
    :param action_space: Action space of the model (the range of the actions in the data), inside that of the environments
    :raises ValueError: If the spaces do not match.
    """

    def __init__(self, venv: VecEnv, observation_space: spaces.Space[Any], action_space: spaces.Box) -> None:
        ours, theirs = (
            {key: part.shape for key, part in subspaces(space).items()}
            for space in (observation_space, venv.observation_space)
        )
        if ours != theirs:
            raise ValueError(
                f"The model was made from data alone, whose observations are {observation_space}; those of the environment "
                f"are {venv.observation_space}. Observation spaces do not match."
            )
        box = venv.action_space
        if not isinstance(box, spaces.Box) or box.shape != action_space.shape:
            raise ValueError(f"The actions of the data are {action_space}; those of the environment are {box}.")
        # The margin of a constant action may exceed the environment's space.
        low, high = box.low.astype(np.float64), box.high.astype(np.float64)
        slack = 1e-3 * (high - low) + NARROW * np.maximum(np.maximum(np.abs(low), np.abs(high)), 1.0)
        if (action_space.low < box.low - slack).any() or (action_space.high > box.high + slack).any():
            raise ValueError(
                f"The actions of the data go from {action_space.low} to {action_space.high}, outside of the environment's "
                f"space, from {box.low} to {box.high}. Is the environment wrapped as it was when the data was recorded?"
            )
        super().__init__(venv, observation_space, action_space)
        self._low, self._high = box.low, box.high

    def reset(self) -> Any:
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        self.venv.step_async(np.clip(actions, self._low, self._high))

    def step_wait(self) -> Any:
        return self.venv.step_wait()
