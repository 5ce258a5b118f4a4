"""Expert for two routes: OGBench's shortest path through the maze, with a wall on the other route."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_flow.common.environments import register_environment
from sb3_flow.datasets.collect.expert import Episode, Expert
from sb3_flow.datasets.registry import Recipe


class TwoRoutesExpert(Expert):
    """
    An expert for ``sb3_flow/TwoRoutes-v0``. Episodes with even numbers take the western route, others the
    eastern one.

    It moves as the point maze's expert, with noise on each step. The recorded actions are target positions, which are the
    environment's actions.

    :param recipe: The dataset to collect
    """

    def __init__(self, recipe: Recipe) -> None:
        register_environment(recipe.env_id)
        self.recipe = recipe
        self.env: gym.Env[Any, Any] = gym.make(recipe.env_id, disable_env_checker=True)
        self._map = self._maze.maze_map.copy()

    @property
    def _maze(self) -> Any:
        return self.env.unwrapped.maze  # type: ignore[attr-defined]

    def record(self, seed: np.random.SeedSequence) -> Episode:
        """
        Record one episode.

        :param seed: The only source of randomness; its last word is the number of the episode.
        :return: One row per transition with Gymnasium's names; the route (``episode_route``: 0 west, 1 east)
        :raises RuntimeError: If it does not reach the goal in time, which should not happen.
        """
        route = int(np.atleast_1d(np.asarray(seed.entropy, dtype=object))[-1]) % 2
        episode = self.walk(route, np.random.default_rng(seed))
        return {**episode, "episode_route": np.array([route]), "episode_dropped": np.array([0])}

    def walk(self, route: int, rng: np.random.Generator) -> Episode:
        """
        Record one episode on a given route.

        :param route: 0: west, 1: east
        :param rng: Source of the noise
        :return: One row per transition
        :raises RuntimeError: If it does not reach the goal in time.
        """
        env: Any = self.env.unwrapped
        closed = list(env.gates.values())[1 - route]
        rows: dict[str, list[Any]] = defaultdict(list)
        observation, _ = self.env.reset()
        done = False
        while not done:
            action = self._choose(env, closed, rng)
            next_observation, reward, terminated, truncated, info = self.env.step(action)
            for field, value in (("observations", observation), ("actions", action), ("rewards", reward)):
                rows[field].append(np.float32(value))
            rows["terminations"].append(terminated)
            observation, done = next_observation, terminated or truncated
        if not info["is_success"]:
            raise RuntimeError(f"The expert of {self.recipe.name} did not come to the goal; this should not happen.")
        return {field: np.array(values) for field, values in rows.items()}

    def _choose(self, env: Any, closed: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        maze = self._maze
        position = maze.get_xy()
        maze.maze_map = self._map.copy()
        maze.maze_map[closed] = 1  # for the search only: the simulator's walls are not changed
        subgoal, _ = maze.get_oracle_subgoal(position, maze.cur_goal_xy)
        direction = (subgoal - position) / (np.linalg.norm(subgoal - position) + 1e-6)
        step = np.clip(direction + rng.normal(0.0, self.recipe.noise, 2), -1.0, 1.0)
        target: np.ndarray = np.clip(position + env.reach * step, env.action_space.low, env.action_space.high)
        return target.astype(np.float32)
