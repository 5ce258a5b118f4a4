"""The state of policies that act in chunks of actions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class ChunkState(NamedTuple):
    """
    The state of ``predict`` between calls. It is never changed in place.

    :param actions: The chunk of each environment, in [-1, 1], ``(n_envs, horizon_length, *action_shape)``
    :param cursor: Number of executed actions of each chunk, ``(n_envs,)``
    """

    actions: np.ndarray
    cursor: np.ndarray

    @classmethod
    def start(cls, n_envs: int, horizon_length: int, action_shape: tuple[int, ...]) -> ChunkState:
        """A state in which every environment needs a new chunk."""
        return cls(np.zeros((n_envs, horizon_length, *action_shape), np.float32), np.full(n_envs, horizon_length))

    def used_up(self, episode_start: np.ndarray | None) -> np.ndarray:
        """Which environments need a new chunk: ``(n_envs,)`` of bool."""
        used_up: np.ndarray = self.cursor >= self.actions.shape[1]
        if episode_start is not None:
            used_up = used_up | np.asarray(episode_start, dtype=bool)
        return used_up

    def planned(self, rows: np.ndarray, plans: np.ndarray) -> ChunkState:
        """
        Set new chunks.

        :param rows: Which environments get new chunks, ``(n_envs,)`` of bool
        :param plans: The chunks, time first, ``(number of these environments, horizon_length * action_dim)``
        """
        actions, cursor = self.actions.copy(), self.cursor.copy()
        actions[rows] = plans.reshape(-1, *actions.shape[1:])
        cursor[rows] = 0
        return ChunkState(actions, cursor)

    def take(self) -> tuple[np.ndarray, ChunkState]:
        """The next action of each environment, and the state without it."""
        return self.actions[np.arange(len(self.cursor)), self.cursor], ChunkState(self.actions, self.cursor + 1)


def read_state(cls: Any, state: Any, shape: tuple[int, ...]) -> Any:
    """
    The state that a user passes to ``predict``.

    :param cls: Class of the states of a policy, whose first field has actions
    :param state: The state
    :param shape: Shape of the actions of one environment in it
    :return: The state as such an object
    :raises ValueError: If it is that of another policy.
    """
    if len(state) != len(cls._fields) or np.shape(state[0])[1:] != shape:
        raise ValueError("`state` is that of another policy; pass what `predict` of this policy returned before, or None.")
    return cls(*state)
