"""
Positions to go to, for robots that are commanded by displacements.

The actions of OGBench's manipulation tasks (cube, scene, puzzle) say how far to move from where the arm *is*. A policy that
draws a curve through actions, as a streaming flow policy does, wants actions that say where to *go*. Here the one is turned
into the other: in an environment by ``AbsoluteActionWrapper``, in data by ``absolute_dataset``.

A target is ``(x, y, z, cos yaw, sin yaw, opening)``: metres, an angle that does not jump, and how far the gripper is closed,
from 0 to 1.
"""

import dataclasses
import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.sources import read_dataset, register_reader

#: Behind the name of a data set, or its path: turn its displacements into targets.
ABSOLUTE = "#absolute"
#: How far one action reaches: metres, radians, share of the gripper's way.
REACH = np.array([0.05, 0.05, 0.05, 0.3, 1.0])
#: Where the arm may go, in metres.
WORKSPACE = np.array([[0.25, -0.35, 0.02], [0.6, 0.35, 0.35]])
#: Where the observations of states have the gripper's position (shifted, in decimetres), cosine and sine of its yaw, and its
#: opening (times three).
POSITION, COSINE, SINE, OPENING = slice(12, 15), 15, 16, 17
CENTRE = np.array([0.425, 0.0, 0.0])

TARGETS = spaces.Box(
    np.array([*WORKSPACE[0], -1, -1, 0], np.float32), np.array([*WORKSPACE[1], 1, 1, 1], np.float32), dtype=np.float32
)


def pose(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Where the gripper is.

    :param observations: Of states, ``(..., n)``
    :return: Position in metres ``(..., 3)``, yaw in radians ``(...)``, opening ``(...)``
    """
    observations = observations.astype(np.float64)
    yaw = np.arctan2(observations[..., SINE], observations[..., COSINE])
    return observations[..., POSITION] / 10 + CENTRE, yaw, observations[..., OPENING] / 3


def absolute_actions(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """
    Where actions lead to.

    :param observations: Of states, ``(..., n)``
    :param actions: Displacements in [-1, 1], ``(..., 5)``
    :return: Targets, inside the workspace, ``(..., 6)``
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
    What leads to targets, or as far towards them as one action reaches.

    :param observations: Of states, ``(..., n)``
    :param targets: ``(..., 6)``
    :return: Displacements in [-1, 1], ``(..., 5)``
    """
    position, yaw, opening = pose(observations)
    turn = np.arctan2(targets[..., 4], targets[..., 3]) - yaw
    turn = (turn + np.pi) % (2 * np.pi) - np.pi  # the short way round
    moved = [targets[..., :3] - position, turn[..., None], (targets[..., 5] - opening)[..., None]]
    displacements: np.ndarray = np.clip(np.concatenate(moved, axis=-1) / REACH, -1, 1)
    return displacements


def absolute_dataset(dataset: Any, env_id: str | None = None) -> OfflineDataset:
    """
    Data for ``AbsoluteActionWrapper``.

    :param dataset: Of an environment without it, as the argument of the algorithms
    :param env_id: The environment that it is for, which gives rewards to OGBench's data; imitation needs none.
    :return: The same with targets as its actions
    :raises ValueError: If it has no observations of states, or no such actions.
    """
    data = read_dataset(dataset, env_id)
    if isinstance(data.observations, dict) or data.observations.ndim != 2 or data.actions.shape[1:] != REACH.shape:
        raise ValueError(
            f"{data.name}: expected observations of states and actions of {len(REACH)} displacements, as OGBench's cube, "
            "scene and puzzle tasks have them."
        )
    return dataclasses.replace(data, actions=absolute_actions(data.observations, data.actions).astype(np.float32))


@register_reader
def read_absolute(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read ``NAME#absolute``, such as ``cube-single-play-v0#absolute``: what ``absolute_dataset`` makes of ``NAME``.

    :param source: A name, or a path
    :param env_id: As for ``absolute_dataset``
    :return: The data set, or None if the source does not end so
    """
    if not isinstance(source, str | os.PathLike) or not os.fspath(source).endswith(ABSOLUTE):
        return None
    return absolute_dataset(os.fspath(source).removesuffix(ABSOLUTE), env_id)


class AbsoluteActionWrapper(gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """
    Takes targets ``(x, y, z, cos yaw, sin yaw, opening)`` in the place of displacements.

    :param env: A manipulation task of OGBench, with observations of states
    :raises ValueError: If it is none, or its arm is set up in another way.
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
                f"{env} is not commanded as OGBench's arms are (cube, scene, puzzle), or does not observe states, of which "
                "the gripper's position is read."
            )
        self.action_space = TARGETS
        self.observation = np.zeros(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.observation, info = self.env.reset(seed=seed, options=options)
        return self.observation, info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """
        :param action: The target, ``(6,)``
        :return: As the environment's
        """
        displacement = relative_actions(self.observation, action).astype(np.float32)
        self.observation, reward, terminated, truncated, info = self.env.step(displacement)
        return self.observation, reward, terminated, truncated, info
