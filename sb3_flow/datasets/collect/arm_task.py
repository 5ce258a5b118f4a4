"""Demonstrations of single tasks of the robot arm, by OGBench's oracle."""

from __future__ import annotations

import importlib
from collections import defaultdict
from typing import Any

import numpy as np

from sb3_flow.datasets.collect.expert import Episode, OGBenchExpert, until_success
from sb3_flow.datasets.registry import Recipe


class ArmTaskExpert(OGBenchExpert):
    """
    An expert for one of the tasks of ``cube-single``, which keeps successful episodes only.

    As in evaluation, the arm starts at a random position, and the cube within 1 cm of the task's initial position, with a
    random yaw. A plan with smooth noise, as in ``play`` data, moves the cube to the task's goal. The episode ends one step
    after the cube arrives, as in the task's environment.

    :param recipe: The dataset to collect; its ``task`` is the number of the task.
    """

    def __init__(self, recipe: Recipe) -> None:
        # Not mode="task": its reset samples actions from generators that cannot be seeded. The timing is that of the task.
        super().__init__(recipe, mode="data_collection", success_timing="pre")
        arm: Any = self.env.unwrapped
        arm.set_tasks()
        assert recipe.task is not None
        task = arm.task_infos[recipe.task - 1]
        self.start, self.goal = task["init_xyzs"][0], task["goal_xyzs"][0]
        oracles = importlib.import_module("ogbench.manipspace.oracles.plan.cube_plan")
        self._arm, self._oracle = arm, oracles.CubePlanOracle(env=self.env, noise=recipe.noise, noise_smoothing=0.5)

    def play(self) -> Episode:
        """
        Record episodes until one succeeds.

        :return: One row per transition with Gymnasium's names; the number of failed attempts before it (``episode_dropped``)
        :raises RuntimeError: If too many attempts fail.
        """
        return until_success(self.recipe.name, lambda _: self._attempt())

    def begin(self) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Begin the task: the arm at a random position, the cube near its initial position, the target at the goal.

        :return: The observation, ``(28,)``, and the information for the oracle
        """
        self.env.reset()
        data, random = self._arm.data, self._arm.np_random
        start, yaw = self.start.copy(), random.uniform(0, 2 * np.pi)
        start[:2] += random.uniform(-0.01, 0.01, size=2)
        data.joint("object_joint_0").qpos[:] = [*start, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        target = self._arm.model.body("object_target_0").mocapid[0]
        data.mocap_pos[target], data.mocap_quat[target] = self.goal, [1, 0, 0, 0]
        self._arm.post_step()  # updates whether the cube is at its target
        return self._arm.compute_observation(), self._arm.get_reset_info()

    def _attempt(self) -> Episode | None:
        rows: dict[str, list[Any]] = defaultdict(list)
        observation, info = self.begin()
        self._oracle.reset(observation, info)
        terminated = False
        while not (terminated or self._oracle.done):
            # In single precision, as in the recorded data.
            action = np.clip(self._oracle.select_action(observation, info), -1.0, 1.0).astype(np.float32)
            next_observation, _, _, _, info = self.env.step(action)
            terminated = bool(info["success"])
            rows["observations"].append(observation.astype(np.float32))
            rows["actions"].append(action)
            rows["rewards"].append(np.float32(terminated) - 1)
            rows["terminations"].append(terminated)
            observation = next_observation
        return {field: np.array(values) for field, values in rows.items()} if terminated else None
