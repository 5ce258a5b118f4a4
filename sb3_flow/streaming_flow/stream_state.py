"""The state of a streaming policy between calls of ``predict``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sb3_flow.imitation.history import Arrays


class StreamState(NamedTuple):
    """
    The plan of each environment. It is never changed in place; the first axis of every array is the environment.

    :param actions: The last action, in [-1, 1], ``(n_envs, action_dim)``; at the start of an episode, the initial point
    :param latents: The latent ``z``, ``(n_envs, action_dim)``; ``(n_envs, 0)`` in the deterministic variant
    :param cursor: Number of executed actions of the plan, ``(n_envs,)``; flow time is this divided by the prediction horizon
    :param context: The encoded history at the start of the plan, ``(n_envs, width)``
    :param frames: The latest observations, oldest first, ``(n_envs, n_obs_steps, *shape)`` or a dictionary of these
    """

    actions: np.ndarray
    latents: np.ndarray
    cursor: np.ndarray
    context: np.ndarray
    frames: Arrays

    @classmethod
    def blank(cls, n_envs: int, action_dim: int, latent_dim: int, width: int, frames: Arrays) -> StreamState:
        """A state without plans."""
        actions, latents, context = (np.zeros((n_envs, dim), np.float32) for dim in (action_dim, latent_dim, width))
        return cls(actions, latents, np.zeros(n_envs, np.int64), context, frames)

    def replaced(self, rows: np.ndarray, **values: Any) -> StreamState:
        """
        Set fields for some environments.

        :param rows: Which environments, ``(n_envs,)`` of bool
        :param values: New values by the names of the fields
        :return: The new state
        """
        fields = {}
        for name, value in values.items():
            fields[name] = getattr(self, name).copy()
            fields[name][rows] = value
        return self._replace(**fields)
