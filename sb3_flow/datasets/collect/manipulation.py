"""Experts for the robot arm: OGBench's oracles, which move objects to random targets."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from sb3_flow.datasets.collect.expert import Episode, OGBenchExpert, Recorder
from sb3_flow.datasets.registry import Recipe

#: Kinds of objects of an expert, by the first word of the environment's name.
OBJECTS = {"cube": ("cube",), "scene": ("cube", "button", "drawer", "window"), "puzzle": ("button",)}

#: Range of the probability, sampled for each episode, that a cube is placed on another one.
STACKING = {
    "cube-single-v0": (0.0, 0.0),
    "cube-double-v0": (0.0, 0.25),
    "cube-triple-v0": (0.05, 0.35),
    "cube-quadruple-v0": (0.1, 0.5),
}

#: Noise of each of the five actions (x, y, z, yaw, gripper), relative to an episode's noise level.
NOISE_SHAPE = np.array([1.0, 1.0, 1.0, 3.0, 10.0])


class ManipulationExpert(OGBenchExpert):
    """
    An expert for ``cube-*``, ``scene-*`` and ``puzzle-*``.

    ``play`` data follows a plan, with noise that is smooth in time. ``noisy`` data is closed-loop and has
    independent noise, whose level is sampled for each episode.

    :param recipe: The dataset to collect
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe, mode="data_collection")
        self._family = recipe.env_id.split("-")[0]
        self._closed_loop = recipe.dataset_type == "noisy"
        self._oracles = {target: self._make_oracle(target) for target in OBJECTS[self._family]}

    def _make_oracle(self, target: str) -> Any:
        kind = "markov" if self._closed_loop else "plan"
        module = importlib.import_module(f"ogbench.manipspace.oracles.{kind}.{target}_{kind}")
        options: dict[str, Any] = {"env": self.env}
        if self._closed_loop:
            options["min_norm"] = 0.4
            if target == "cube" and self._family == "scene":
                options["max_step"] = 100
        else:
            options.update(noise=self.recipe.noise, noise_smoothing=0.5)
        if self._family == "puzzle":
            options["gripper_always_closed"] = True
        return getattr(module, f"{target.capitalize()}{kind.capitalize()}Oracle")(**options)

    def play(self) -> Episode:
        """Record episodes until one can be used."""
        while True:
            episode = self._play_once()
            if self._family != "scene" or cube_is_visible(episode["qpos"]):
                return episode

    def _play_once(self) -> Episode:
        recorder = Recorder()
        observation, info = self.env.reset()
        p_stack = np.random.uniform(*STACKING.get(self.recipe.env_id, (0.5, 0.5)))
        noise = np.random.uniform(0.0, self.recipe.noise) * NOISE_SHAPE
        oracle = self._oracles[info["privileged/target_task"]]
        oracle.reset(observation, info)
        done = False
        while not done:
            if np.random.uniform() < self.recipe.random_actions:
                # Not action_space.sample(): the environment creates a new, unseeded space on each access.
                action = np.random.uniform(-1.0, 1.0, 5)
            else:
                action = np.array(oracle.select_action(observation, info))
                if self._closed_loop:
                    action = action + np.random.normal(0.0, noise)
            action = np.clip(action, -1.0, 1.0)
            next_observation, _, terminated, truncated, info = self.env.step(action)
            done = terminated or truncated
            recorder.add(observation, action, done, info)
            if oracle.done:
                target_observation, target_info = self.env.unwrapped.set_new_target(p_stack=p_stack)  # type: ignore[attr-defined]
                oracle = self._oracles[target_info["privileged/target_task"]]
                oracle.reset(target_observation, target_info)
            observation = next_observation
        return recorder.episode()


def cube_is_visible(qpos: np.ndarray) -> bool:
    """
    Whether the scene's cube stays visible to the camera, or in the drawer, as OGBench requires for this dataset.

    :param qpos: Positions of the simulator, ``(states, nq)``; those of the cube (meters) are at 14, 15 and 16.
    :return: Whether it does
    """
    y, z = qpos[:, 15], qpos[:, 16]
    beyond_right = y >= 0.29
    in_drawer = (z >= 0.06) & (z <= 0.08)
    beyond_left = (y <= -0.3) & ~in_drawer
    return not bool((beyond_right | beyond_left).any())
