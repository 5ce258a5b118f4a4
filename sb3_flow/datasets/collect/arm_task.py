"""The robot arm's demonstrations of one task: OGBench's oracle, sent to the goal of that task from where it begins."""

from __future__ import annotations

import importlib
from collections import defaultdict
from typing import Any

import numpy as np

from sb3_flow.datasets.collect.expert import Episode, OGBenchExpert, until_success
from sb3_flow.datasets.registry import Recipe


class ArmTaskExpert(OGBenchExpert):
    """
    An expert for one of the tasks of ``cube-single``, which keeps the episodes in which it succeeds.

    The arm starts anywhere, the cube within a centimetre of the task's place with any yaw, as when the task is evaluated. A
    plan with smooth noise, that of ``play`` data, brings it to the task's goal, where the episode ends: with the step after
    the one that brought it there, as in the task's own environment.

    :param recipe: What to collect; its ``task`` is the number of the task.
    """

    def __init__(self, recipe: Recipe) -> None:
        # Not the task's own mode: its reset draws actions from generators that nobody can seed. The timing is the task's.
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

        :return: One row per transition under Gymnasium's names; the number of failed attempts before it (``episode_dropped``)
        :raises RuntimeError: If it fails again and again.
        """
        return until_success(self.recipe.name, lambda _: self._attempt())

    def begin(self) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Begin the task: the arm anywhere, the cube near its place, the target at the goal.

        :return: The observation, ``(28,)``, and what the oracle is told
        """
        self.env.reset()
        data, random = self._arm.data, self._arm.np_random
        start, yaw = self.start.copy(), random.uniform(0, 2 * np.pi)
        start[:2] += random.uniform(-0.01, 0.01, size=2)
        data.joint("object_joint_0").qpos[:] = [*start, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        target = self._arm.model.body("object_target_0").mocapid[0]
        data.mocap_pos[target], data.mocap_quat[target] = self.goal, [1, 0, 0, 0]
        self._arm.post_step()  # which looks whether the cube is at its target
        return self._arm.compute_observation(), self._arm.get_reset_info()

    def _attempt(self) -> Episode | None:
        rows: dict[str, list[Any]] = defaultdict(list)
        observation, info = self.begin()
        self._oracle.reset(observation, info)
        terminated = False
        while not (terminated or self._oracle.done):
            # In single precision, as it is recorded.
            action = np.clip(self._oracle.select_action(observation, info), -1.0, 1.0).astype(np.float32)
            next_observation, _, _, _, info = self.env.step(action)
            terminated = bool(info["success"])
            rows["observations"].append(observation.astype(np.float32))
            rows["actions"].append(action)
            rows["rewards"].append(np.float32(terminated) - 1)
            rows["terminations"].append(terminated)
            observation = next_observation
        return {field: np.array(values) for field, values in rows.items()} if terminated else None
