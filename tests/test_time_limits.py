"""The warning about time limits that an environment reports as the end of the task."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

from sb3_flow import FQL
from sb3_flow.common.time_limits import EPISODES

SMALL: dict[str, Any] = {"learning_starts": 1_000, "buffer_size": 1_000, "policy_kwargs": {"net_arch": [4]}}


class Walk(gym.Env[np.ndarray, np.ndarray]):
    """
    Episodes of given lengths, one after the other, again and again.

    :param lengths: Numbers of steps
    :param terminal: Whether they end in a terminal state, for each episode
    """

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, lengths: list[int], terminal: Callable[[int], bool] = lambda episode: True) -> None:
        self.lengths, self.terminal, self.episode = lengths, terminal, -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.episode, self.steps = self.episode + 1, 0
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        end = self.steps == self.lengths[self.episode % len(self.lengths)]
        terminal = self.terminal(self.episode)
        return np.zeros(2, np.float32), 0.0, end and terminal, end and not terminal, {}


def messages(env: Any, timesteps: int = 100) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FQL("FlowPolicy", env, **SMALL).learn(timesteps)
    return [str(warning.message) for warning in caught if "time limit" in str(warning.message)]


def test_a_limit_that_looks_like_the_end_of_the_task_is_named() -> None:
    expected = (
        f"The first {EPISODES} episodes all ended with the end of the task .*, after 7 steps each.*TimeLimit\\(env, 7\\)"
    )
    with pytest.warns(UserWarning, match=expected):
        FQL("FlowPolicy", Walk([7]), **SMALL).learn(7 * EPISODES)
    assert len(messages(Walk([7]))) == 1
    assert len(messages(make_vec_env(lambda: Walk([7]), 2))) == 1


@pytest.mark.parametrize(
    "env",
    [
        Walk([7], lambda episode: False),
        Walk([7], lambda episode: episode != EPISODES - 1),
        Walk([7] * (EPISODES - 1) + [6]),
        Walk([1]),
        gym.wrappers.TimeLimit(Walk([1_000]), 7),
    ],
    ids=["truncated", "one is truncated", "other lengths", "one step", "a limit of Gymnasium"],
)
def test_other_ends_are_not(env: Any) -> None:
    assert not messages(env)
