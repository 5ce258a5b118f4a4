"""Environments for the tests: with short episodes, with recorded actions, and with any spaces."""

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_flow.common.environments import make_env


class Watched(gym.Wrapper):
    """Counts steps and remembers the actions."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.n_steps = 0
        self.actions: list[np.ndarray] = []

    def step(self, action: Any) -> Any:
        self.n_steps += 1
        self.actions.append(np.array(action))
        return self.env.step(action)


class AnySpaces(gym.Env):
    """
    Random observations of any space; rewards are random too. It refuses an action outside its space.

    :param observation_space: Observation space
    :param action_space: Action space
    :param episode_length: Steps until truncation
    """

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, episode_length: int = 10) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.episode_length = episode_length

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} of {action.dtype} is outside {self.action_space}.")
        self.time += 1
        reward = float(self.np_random.normal())
        return self.observation_space.sample(), reward, False, self.time >= self.episode_length, {}


def pendulum(episode_length: int = 10) -> gym.Env:
    """Pendulum with short episodes and recorded actions."""
    return Watched(TimeLimit(gym.make("Pendulum-v1").unwrapped, episode_length))


def pendulums(n_envs: int, episode_length: int = 10) -> DummyVecEnv:
    """Several of them."""
    return DummyVecEnv([lambda: pendulum(episode_length)] * n_envs)


def maze(episode_length: int = 10) -> gym.Env:
    """OGBench's point maze with short episodes, its success under the name that callbacks read."""
    return make_env("pointmaze-medium-singletask-task1-v0", max_episode_steps=episode_length)


def collect(make: Callable[[], gym.Env], rows: int = 200, seed: int = 0) -> dict[str, np.ndarray]:
    """Transitions of random actions, as a dictionary with Gymnasium's names. It may be changed: the next call has its own."""
    return copy.deepcopy(_collected(make, rows, seed))


@lru_cache(maxsize=64)
def _collected(make: Callable[[], gym.Env], rows: int, seed: int) -> dict[str, np.ndarray]:
    env = make()
    env.action_space.seed(seed)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("observations", "actions", "rewards", "terminations", "truncations", "next_observations")
    }
    observation, _ = env.reset(seed=seed)
    for _ in range(rows):
        action = env.action_space.sample()
        following, reward, terminated, truncated, _ = env.step(action)
        row = (observation, action, reward, terminated, truncated, following)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
        observation = env.reset()[0] if terminated or truncated else following
    return {name: stack(column) for name, column in columns.items()}


def stack(column: list[Any]) -> Any:
    """Rows as one array, or as a dictionary of arrays."""
    if isinstance(column[0], dict):
        return {key: np.stack([value[key] for value in column]) for key in column[0]}
    return np.stack(column)


def transitions() -> dict[str, np.ndarray]:
    """Of pendulums."""
    return collect(pendulum)
