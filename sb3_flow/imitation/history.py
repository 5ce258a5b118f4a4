"""Histories of observations: the latest ``n_obs_steps`` of each environment."""

from __future__ import annotations

import numpy as np

from sb3_flow.common.type_aliases import TensorObs

#: Observations as arrays, ``(n_envs, *shape)``, or a dictionary of these.
Arrays = np.ndarray | dict[str, np.ndarray]


def update_history(frames: Arrays | None, observations: Arrays, new: np.ndarray, length: int) -> Arrays:
    """
    Append an observation to each history and drop the oldest one.

    :param frames: The histories so far, ``(n_envs, length, *shape)`` or a dictionary of these; None: none yet
    :param observations: One observation for each environment
    :param new: Whether an episode starts, ``(n_envs,)`` of bool: its history consists of copies of the observation
    :param length: Number of observations in a history
    :return: The new histories
    """
    if isinstance(observations, dict):
        before = frames if isinstance(frames, dict) else dict.fromkeys(observations)
        return {key: _updated(before[key], part, new, length) for key, part in observations.items()}
    assert not isinstance(frames, dict)
    return _updated(frames, observations, new, length)


def _updated(frames: np.ndarray | None, observations: np.ndarray, new: np.ndarray, length: int) -> np.ndarray:
    copies = np.repeat(observations[:, None], length, axis=1)
    if frames is None:
        return copies
    pushed = np.concatenate([frames[:, 1:], observations[:, None]], axis=1)
    pushed[new] = copies[new]
    return pushed


def as_arrays(observations: TensorObs) -> Arrays:
    """Convert observations to arrays."""
    if isinstance(observations, dict):
        return {key: part.cpu().numpy() for key, part in observations.items()}
    return observations.cpu().numpy()


def length(arrays: Arrays) -> int:
    """Number of environments."""
    return len(next(iter(arrays.values())) if isinstance(arrays, dict) else arrays)
