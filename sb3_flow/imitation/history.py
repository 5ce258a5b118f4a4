"""Histories of observations: the newest ``n_obs_steps`` of each environment."""

from __future__ import annotations

import numpy as np

from sb3_flow.common.type_aliases import TensorObs

#: Observations as arrays, ``(n_envs, *shape)``, or a dictionary of these.
Arrays = np.ndarray | dict[str, np.ndarray]


def remember(frames: Arrays | None, observations: Arrays, new: np.ndarray, length: int) -> Arrays:
    """
    Histories with another observation.

    :param frames: The histories so far, ``(n_envs, length, *shape)`` or a dictionary of these; None: there are none.
    :param observations: One observation for each environment
    :param new: Where an episode begins, ``(n_envs,)`` of bool: there the history is as many copies of the observation.
    :param length: How many observations a history has
    :return: As ``frames``
    """
    if isinstance(observations, dict):
        before = frames if isinstance(frames, dict) else dict.fromkeys(observations)
        return {key: _remember(before[key], part, new, length) for key, part in observations.items()}
    assert not isinstance(frames, dict)
    return _remember(frames, observations, new, length)


def _remember(frames: np.ndarray | None, observations: np.ndarray, new: np.ndarray, length: int) -> np.ndarray:
    copies = np.repeat(observations[:, None], length, axis=1)
    if frames is None:
        return copies
    pushed = np.concatenate([frames[:, 1:], observations[:, None]], axis=1)
    pushed[new] = copies[new]
    return pushed


def as_arrays(observations: TensorObs) -> Arrays:
    """Observations as arrays."""
    if isinstance(observations, dict):
        return {key: part.cpu().numpy() for key, part in observations.items()}
    return observations.cpu().numpy()


def length(arrays: Arrays) -> int:
    """The number of environments that observations are of."""
    return len(next(iter(arrays.values())) if isinstance(arrays, dict) else arrays)
