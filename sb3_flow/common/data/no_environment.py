"""What stands in the place of an environment where there is data only: its spaces."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from sb3_flow.common.data.columns import Observations
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.sources import read_dataset
from sb3_flow.common.data.statistics import ranges
from sb3_flow.common.encoders import subspaces

#: How far the range of an action that never changes reaches to either side of it, as a share of it, or of 1 if that is more.
NARROW = 1e-3


class NoEnvironment(gym.Env[Any, Any]):
    """
    Has spaces and nothing else: one can train on data with it, and is told so where an environment is stepped.

    :param observation_space: Observation space
    :param action_space: Action space
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Box) -> None:
        self.observation_space: spaces.Space[Any] = observation_space
        self.action_space: spaces.Box = action_space

    @classmethod
    def of(cls, dataset: Any) -> "NoEnvironment":
        """
        With the spaces of a dataset: vectors without bounds, images of bytes, and actions as far as the data goes.

        :param dataset: As the argument of the algorithms
        :raises DatasetError: If it cannot be read.
        """
        if isinstance(dataset, BaseBuffer):
            assert isinstance(dataset.action_space, spaces.Box)
            return cls(dataset.observation_space, dataset.action_space)
        data = read_dataset(dataset)
        return cls(_observation_space(data.observations), action_space(data))

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


def action_space(data: OfflineDataset) -> spaces.Box:
    """
    The range of the actions of a dataset.

    :param data: The data
    :return: A box; so that it can be scaled, an action that never changes has ``NARROW`` to either side of it.
    """
    low, high = (bound.astype(np.float32) for bound in ranges(data.actions, data.has_action))
    margin = np.where(low >= high, NARROW * np.maximum(np.abs(low), 1.0), 0.0)
    return spaces.Box((low - margin).astype(np.float32), (high + margin).astype(np.float32), dtype=np.float32)


def _zeros(space: spaces.Space[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part) for key, part in space.spaces.items()}
    return np.zeros_like(space.sample())


class WithinSpaces(VecEnvWrapper):
    """
    Environments for a model that was made from data alone: they show the spaces of the model.

    :param venv: The environments
    :param observation_space: Of the model: shapes must be those of the environments.
    :param action_space: Of the model, the range of the actions in the data: inside that of the environments
    :raises ValueError: If it is not so.
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
        # The margin of a constant action may reach out of the environment's space.
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
