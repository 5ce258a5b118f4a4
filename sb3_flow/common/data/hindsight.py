"""Hindsight experience replay (HER; Andrychowicz et al., 2017): transitions with goals that were reached later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_flow.common.data.transitions import Transitions
from sb3_flow.common.type_aliases import Batch, TensorObs

#: The parts of observations that an environment with goals has.
KEYS = (OBSERVATION, ACHIEVED, DESIRED) = ("observation", "achieved_goal", "desired_goal")
#: Rewards for ``(achieved_goals, desired_goals)``, each ``(n, *shape)``, as ``compute_reward`` of an environment.
RewardFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Rows(Protocol):
    """Interface of a buffer."""

    transitions: Transitions

    def remaining(self, rows: th.Tensor) -> th.Tensor:
        """Number of later steps of the same trajectory for each row, ``(B,)``."""

    def following(self, key: str, rows: th.Tensor) -> th.Tensor:
        """A part of the next observations of rows, ``(B, *shape)``."""


@dataclass
class Hindsight:
    """
    The strategy ``future``: the goal is the achieved goal of this step or of a later one of the same trajectory, with equal
    probability. All steps of an n-step return, or of a chunk, have the same goal, and rewards for this goal. Terminations are
    not changed, as in Stable-Baselines3's ``HerReplayBuffer``.

    :param n_goals: Number of relabeled transitions per transition with its original goal, at least 1
    :param compute_reward: The reward function of the environment
    :param generator: Source of randomness
    """

    n_goals: int
    compute_reward: RewardFunction
    generator: th.Generator

    def relabel(self, buffer: Rows, rows: th.Tensor) -> Relabeled:
        """
        Draw goals for the first ``n_goals / (n_goals + 1)`` of a batch.

        :param buffer: The buffer of the rows
        :param rows: The transitions of the batch, ``(B,)``
        :return: The goals
        """
        rows = rows[: len(rows) * self.n_goals // (self.n_goals + 1)]
        remaining = buffer.remaining(rows)
        ahead = (th.rand(len(rows), generator=self.generator) * (remaining + 1)).long().minimum(remaining)
        transitions = buffer.transitions
        later = (rows + ahead * transitions.stride) % len(transitions.rewards)
        return Relabeled(buffer, self.compute_reward, buffer.following(ACHIEVED, later))


@dataclass
class Relabeled:
    """
    New goals of a batch.

    :param buffer: The buffer of the batch
    :param compute_reward: The reward function of the environment
    :param goals: New goals of the first transitions of the batch, ``(n, *shape)``
    """

    buffer: Rows
    compute_reward: RewardFunction
    goals: th.Tensor

    def rewards(self, rows: th.Tensor, rewards: th.Tensor) -> th.Tensor:
        """
        Compute the rewards of one step of each transition.

        :param rows: The rows of the steps, ``(B,)``
        :param rewards: The rewards for the original goals, ``(B,)``
        :return: The rewards for the new goals, ``(B,)``
        :raises ValueError: If the environment does not return one reward for each goal.
        """
        n = len(self.goals)
        achieved = self.buffer.following(ACHIEVED, rows[:n])
        computed = np.array(self.compute_reward(achieved.numpy(), self.goals.numpy()), dtype=np.float32)
        if computed.size != n:
            raise ValueError(
                f"`compute_reward` of the environment returned an array of shape {computed.shape} for {n} goals; it must take "
                "many goals at once, and return one reward for each."
            )
        return th.cat([th.from_numpy(computed.reshape(-1)), rewards[n:]])

    def with_goals(self, batch: Batch) -> Batch:
        """Replace the goals in the observations of a batch."""

        def changed(observations: TensorObs) -> TensorObs:
            assert isinstance(observations, dict)
            return {**observations, DESIRED: th.cat([self.goals, observations[DESIRED][len(self.goals) :]])}

        return batch._replace(observations=changed(batch.observations), next_observations=changed(batch.next_observations))


def check_goals(space: spaces.Space[Any]) -> None:
    """
    :param space: Observation space
    :raises ValueError: If it has no goals.
    """
    if not isinstance(space, spaces.Dict) or not {ACHIEVED, DESIRED} <= set(space.spaces):
        raise ValueError(
            f"`hindsight` needs observations with the parts {', '.join(map(repr, KEYS))}, as the environments of "
            f"Gymnasium-Robotics have; the observation space is {space}."
        )
