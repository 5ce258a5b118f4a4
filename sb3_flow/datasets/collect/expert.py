"""Base classes of scripted experts."""

from __future__ import annotations

import abc
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_flow.common.environments import register_environment
from sb3_flow.common.optional import require
from sb3_flow.datasets.registry import Recipe

Episode = dict[str, np.ndarray]

#: Consecutive failed episodes after which an error is raised. Experts fail so rarely that this is a bug.
ATTEMPTS = 20


class Expert(abc.ABC):
    """
    An environment and a scripted expert that records episodes in it.

    An episode depends only on its seed, not on previous episodes.
    """

    @abc.abstractmethod
    def record(self, seed: np.random.SeedSequence) -> Episode:
        """
        Record one episode.

        :param seed: The only source of randomness
        :return: Its fields, one row per state or transition
        """


def until_success(name: str, attempt: Callable[[int], Episode | None]) -> Episode:
    """
    Record episodes until one succeeds.

    :param name: Name of the dataset, for the error
    :param attempt: Records an episode, given the number of previous attempts; returns None if it fails
    :return: The episode, and the number of failed attempts before it (``episode_dropped``)
    :raises RuntimeError: If ``ATTEMPTS`` attempts fail.
    """
    for number in range(ATTEMPTS):
        episode = attempt(number)
        if episode is not None:
            return {**episode, "episode_dropped": np.array([number])}
    raise RuntimeError(f"The expert of {name} failed {ATTEMPTS} times in a row; this should not happen.")


class OGBenchExpert(Expert):
    """
    An expert in an environment of OGBench.

    :param recipe: The dataset to collect
    :param env_options: Further arguments of the environment
    """

    def __init__(self, recipe: Recipe, **env_options: Any) -> None:
        require("ogbench", "mujoco", f"Collecting {recipe.name}")
        register_environment(recipe.env_id)
        self.recipe = recipe
        self.env: gym.Env[Any, Any] = gym.make(
            recipe.env_id,
            terminate_at_goal=False,
            max_episode_steps=recipe.states,
            disable_env_checker=True,
            **env_options,
        )

    def record(self, seed: np.random.SeedSequence) -> Episode:
        """
        Record one episode.

        :param seed: The only source of randomness
        :return: OGBench's fields, one row per state
        """
        env_seed, *words = seed.generate_state(9).tolist()
        # OGBench's experts and mazes use numpy's global generator.
        np.random.seed(words)
        self.env.reset(seed=env_seed)  # seeds the environment's generator, which later resets use
        return self.play()

    @abc.abstractmethod
    def play(self) -> Episode:
        """Reset the environment and record one episode, without seeding the generators."""


class Recorder:
    """The rows of one episode, with OGBench's names and types."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Any]] = defaultdict(list)

    def add(self, observation: np.ndarray, action: np.ndarray, last: bool, info: dict[str, Any]) -> None:
        """
        Add a state and the action in it.

        :param observation: The observation before the action
        :param action: The action, in [-1, 1]
        :param last: Whether this is the last row of the episode
        :param info: Information from the environment's step; it has the simulator's state before the action.
        """
        self._rows["observations"].append(observation)
        self._rows["actions"].append(action)
        self._rows["terminals"].append(last)
        for field in ("qpos", "qvel", "button_states"):
            if f"prev_{field}" in info:
                self._rows[field].append(info[f"prev_{field}"])

    def episode(self) -> Episode:
        """All rows as arrays."""
        types: dict[str, type] = {"terminals": np.bool_, "button_states": np.int64}
        return {field: np.array(rows, dtype=types.get(field, np.float32)) for field, rows in self._rows.items()}
