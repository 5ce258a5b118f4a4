"""
Absolute actions for OGBench's arms.

The actions of OGBench's manipulation tasks (cube, scene, puzzle) are displacements from the current pose of the arm. A
streaming flow policy needs target poses instead, because its flow follows a continuous sequence of actions.
``AbsoluteActionWrapper`` converts environments, ``absolute_dataset`` converts datasets.

A target is ``(x, y, z, cos yaw, sin yaw, opening)``: position in meters, yaw as a continuous representation, and opening of
the gripper from 0 (open) to 1 (closed).
"""

import dataclasses
import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.sources import read_dataset, register_reader

#: Suffix of a dataset's name or path that converts its displacements to targets.
ABSOLUTE = "#absolute"
#: Largest displacement of one action: meters, radians, fraction of the gripper's range.
REACH = np.array([0.05, 0.05, 0.05, 0.3, 1.0])
#: Bounds of the arm's position, in meters.
WORKSPACE = np.array([[0.25, -0.35, 0.02], [0.6, 0.35, 0.35]])
#: Indices in state observations: position of the gripper (shifted, in decimeters), cosine and sine of its yaw, and its opening
#: (times three).
POSITION, COSINE, SINE, OPENING = slice(12, 15), 15, 16, 17
CENTER = np.array([0.425, 0.0, 0.0])

TARGETS = spaces.Box(
    np.array([*WORKSPACE[0], -1, -1, 0], np.float32), np.array([*WORKSPACE[1], 1, 1, 1], np.float32), dtype=np.float32
)


def pose(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Pose of the gripper.

    :param observations: State observations, ``(..., n)``
    :return: Position in meters ``(..., 3)``, yaw in radians ``(...)``, opening ``(...)``
    """
    observations = observations.astype(np.float64)
    yaw = np.arctan2(observations[..., SINE], observations[..., COSINE])
    return observations[..., POSITION] / 10 + CENTER, yaw, observations[..., OPENING] / 3


def absolute_actions(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """
    Convert displacements to targets.

    :param observations: State observations, ``(..., n)``
    :param actions: Displacements in [-1, 1], ``(..., 5)``
    :return: Targets, clipped to the workspace, ``(..., 6)``
    """
    position, yaw, opening = pose(observations)
    moved = REACH * actions
    yaw = yaw + moved[..., 3]
    targets = [
        np.clip(position + moved[..., :3], *WORKSPACE),
        np.stack([np.cos(yaw), np.sin(yaw), np.clip(opening + moved[..., 4], 0, 1)], axis=-1),
    ]
    return np.concatenate(targets, axis=-1)


def relative_actions(observations: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """
    Convert targets to displacements. Displacements are clipped to the largest one of an action.

    :param observations: State observations, ``(..., n)``
    :param targets: ``(..., 6)``
    :return: Displacements in [-1, 1], ``(..., 5)``
    """
    position, yaw, opening = pose(observations)
    turn = np.arctan2(targets[..., 4], targets[..., 3]) - yaw
    turn = (turn + np.pi) % (2 * np.pi) - np.pi  # the shorter rotation
    moved = [targets[..., :3] - position, turn[..., None], (targets[..., 5] - opening)[..., None]]
    displacements: np.ndarray = np.clip(np.concatenate(moved, axis=-1) / REACH, -1, 1)
    return displacements


def absolute_dataset(dataset: Any, env_id: str | None = None) -> OfflineDataset:
    """
    Convert a dataset for ``AbsoluteActionWrapper``.

    :param dataset: A dataset with displacements, as the argument of the algorithms
    :param env_id: Id of the environment, whose rewards OGBench's data gets; not needed for imitation
    :return: The dataset with targets as actions
    :raises ValueError: If it has no state observations, or its actions are not such displacements.
    """
    data = read_dataset(dataset, env_id)
    if isinstance(data.observations, dict) or data.observations.ndim != 2 or data.actions.shape[1:] != REACH.shape:
        raise ValueError(
            f"{data.name}: expected state observations and actions of {len(REACH)} displacements, as in OGBench's cube, scene "
            "and puzzle tasks."
        )
    return dataclasses.replace(data, actions=absolute_actions(data.observations, data.actions).astype(np.float32))


@register_reader
def read_absolute(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read ``NAME#absolute``, such as ``cube-single-play-v0#absolute``: the dataset ``NAME``, converted by ``absolute_dataset``.

    :param source: A name or path
    :param env_id: As for ``absolute_dataset``
    :return: The dataset, or None if the source does not end with ``#absolute``
    """
    if not isinstance(source, str | os.PathLike) or not os.fspath(source).endswith(ABSOLUTE):
        return None
    return absolute_dataset(os.fspath(source).removesuffix(ABSOLUTE), env_id)


class AbsoluteActionWrapper(gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """
    Wrapper whose actions are targets ``(x, y, z, cos yaw, sin yaw, opening)`` instead of displacements.

    :param env: A manipulation task of OGBench with state observations
    :raises ValueError: If the environment is not such a task, or its arm has other limits.
    """

    def __init__(self, env: gym.Env[np.ndarray, np.ndarray]) -> None:
        super().__init__(env)
        arm: Any = env.unwrapped
        alike = all(
            np.array_equal(getattr(arm, name, np.zeros(0)), value)
            for name, value in (("action_high", REACH), ("_workspace_bounds", WORKSPACE))
        )
        if not alike or len(env.observation_space.shape or ()) != 1:
            raise ValueError(
                f"{env} is not an environment of OGBench's arm (cube, scene, puzzle) with state observations, from which "
                "the wrapper reads the gripper's pose."
            )
        self.action_space = TARGETS
        self.observation = np.zeros(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.observation, info = self.env.reset(seed=seed, options=options)
        return self.observation, info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """
        Step the environment.

        :param action: The target, ``(6,)``
        :return: As for the wrapped environment
        """
        displacement = relative_actions(self.observation, action).astype(np.float32)
        self.observation, reward, terminated, truncated, info = self.env.step(displacement)
        return self.observation, reward, terminated, truncated, info
