"""Expert for Push-T: it plans in a copy of the simulator, and its commands are recorded in the environment."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_flow.common.environments import register_environment
from sb3_flow.common.optional import require
from sb3_flow.datasets.collect.expert import Episode, Expert, until_success
from sb3_flow.datasets.collect.pusht.planner import Habits, Planner
from sb3_flow.datasets.collect.pusht.twin import Twin
from sb3_flow.datasets.registry import Recipe

#: Largest penetration of the block into a wall (pixels); beyond it the episode is dropped.
INTO_WALL = 5.0


class PushTExpert(Expert):
    """
    An expert for Push-T that keeps successful episodes only.

    It plans one push after the other, see ``Planner``; its habits are sampled for each episode. The recorded actions are its
    commands, which are the environment's actions: target positions of the agent.

    :param recipe: The dataset to collect; its ``dataset_type`` is the environment's ``obs_type``.
    """

    def __init__(self, recipe: Recipe) -> None:
        require("gym_pusht", "pusht", f"Collecting {recipe.name}")
        register_environment(recipe.env_id)
        self.recipe = recipe
        self.env: gym.Env[Any, Any] = gym.make(recipe.env_id, obs_type=recipe.dataset_type, disable_env_checker=True)

    def record(self, seed: np.random.SeedSequence) -> Episode:
        """
        Record episodes until one succeeds.

        :param seed: The only source of randomness
        :return: One row per transition with Gymnasium's names; the number of failed attempts before it
            (``episode_dropped``), and the seed of the environment's reset (``episode_seed``)
        :raises RuntimeError: If too many attempts fail.
        """

        def attempt(number: int) -> Episode | None:
            own = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, number))
            env_seed = int(own.generate_state(1)[0])
            episode = self.attempt(env_seed, np.random.default_rng(own))
            return None if episode is None else {**episode, "episode_seed": np.array([env_seed])}

        return until_success(self.recipe.name, attempt)

    def attempt(self, env_seed: int, rng: np.random.Generator) -> Episode | None:
        """
        Record one episode.

        :param env_seed: Seed of the environment's reset
        :param rng: Source of the expert's randomness
        :return: One row per transition; None if the expert did not succeed, or pushed the block through a wall
        """
        env: Any = self.env.unwrapped
        observation, _ = self.env.reset(seed=env_seed)
        twin = Twin(env)
        planner = Planner(twin, Habits.draw(rng), rng)
        rows: dict[str, list[Any]] = defaultdict(list)
        entered = False
        while True:
            # In single precision, as in the recorded data, so that a replay gives the same states.
            commands = planner.plan(twin.state_of(env)).astype(np.float32)
            if not len(commands):
                return None
            for command in commands:
                next_observation, reward, terminated, truncated, _ = self.env.step(command)
                _add(rows, observation)
                rows["actions"].append(command)
                rows["rewards"].append(reward)
                rows["terminations"].append(terminated)
                observation = next_observation
                if terminated:
                    return {field: _column(values) for field, values in rows.items()}
                inside = twin.inside(twin.state_of(env).block, INTO_WALL)
                if truncated or (entered and not inside):
                    return None
                entered = entered or inside


def _add(rows: dict[str, list[Any]], observation: Any) -> None:
    if isinstance(observation, dict):
        for key in sorted(observation):  # small arrays first
            rows[f"observations/{key}"].append(observation[key])
    else:
        rows["observations"].append(observation)


def _column(values: list[Any]) -> np.ndarray:
    column = np.array(values)
    return column.astype(np.float32) if column.dtype.kind == "f" else column
