"""What stands in the place of an environment where there is data only: its spaces."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer

from sb3_flow.common.data.columns import Observations
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.sources import read_dataset
from sb3_flow.common.data.statistics import ranges


class NoEnvironment(gym.Env[Any, Any]):
    """
    Has spaces and nothing else: one can train on data with it, and is told so where an environment is stepped.

    :param observation_space: Observation space
    :param action_space: Action space
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Box) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    @classmethod
    def of(cls, dataset: Any, quantile: float = 0.0) -> "NoEnvironment":
        """
        With the spaces of a dataset: vectors without bounds, images of bytes, and actions as far as the data goes (an action
        that never changes: one to either side of it).

        :param dataset: As the argument of the algorithms
        :param quantile: Share of the actions that may lie below the action space, and above it, in [0, 0.5), for data with
            outliers. Pass the data as ``read_dataset(...).clip_actions(low, high)`` then.
        :raises DatasetError: If it cannot be read.
        """
        if isinstance(dataset, BaseBuffer):
            assert isinstance(dataset.action_space, spaces.Box)
            return cls(dataset.observation_space, dataset.action_space)
        data = read_dataset(dataset)
        return cls(_observation_space(data.observations), action_space(data, quantile))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return _zeros(self.observation_space), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        raise RuntimeError(
            "There is no environment to act in: the model was made from data alone. Make the environment that the data is of, "
            "and pass it: evaluate_policy(model, env), EvalCallback(env), or model.set_env(env)."
        )


def _observation_space(column: Observations) -> spaces.Space[Any]:
    if isinstance(column, dict):
        return spaces.Dict({key: _observation_space(part) for key, part in column.items()})
    if column.dtype == np.uint8 and column.ndim == 4:
        return spaces.Box(0, 255, column.shape[1:], np.uint8)
    return spaces.Box(-np.inf, np.inf, column.shape[1:], np.float32)


def action_space(data: OfflineDataset, quantile: float = 0.0) -> spaces.Box:
    """
    The range of the actions of a dataset.

    :param data: The data
    :param quantile: As for ``NoEnvironment.of``
    :return: A box; an action that never changes has a width of two, so that it can be scaled.
    """
    low, high = (bound.astype(np.float32) for bound in ranges(data.actions, data.has_action, quantile))
    constant = low >= high
    return spaces.Box(np.where(constant, low - 1, low), np.where(constant, high + 1, high), dtype=np.float32)


def _zeros(space: spaces.Space[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part) for key, part in space.spaces.items()}
    return np.zeros_like(space.sample())
