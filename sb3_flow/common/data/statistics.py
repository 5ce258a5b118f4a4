"""Statistics of a data set, for normalising what the networks see."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.data.dataset import OfflineDataset, blocks
from sb3_flow.common.encoders import ObservationNormalizer


def moments(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Mean and variance over rows, block by block so that memory-mapped data never enters memory as a whole.

    :param column: ``(N, *shape)``
    :return: Both of ``shape``, float64
    """
    mean = sum(block.sum(axis=0, dtype=np.float64) for _, block in blocks(column)) / len(column)
    squares = sum(np.square(block - mean).sum(axis=0) for _, block in blocks(column))
    return np.asarray(mean), np.asarray(squares / len(column))


def observation_statistics(dataset: OfflineDataset, space: spaces.Space[Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """
    Mean and variance of each part of the observations that is a vector.

    :param dataset: The data
    :param space: Observation space
    :return: By the key of the part, which is empty where the space is no dictionary
    """
    parts = dataset.observations if isinstance(dataset.observations, dict) else {"": dataset.observations}
    return {key: moments(parts[key]) for key in ObservationNormalizer(space).keys}


def discounted_returns(dataset: OfflineDataset, gamma: float) -> np.ndarray:
    """
    The running discounted returns whose spread ``VecNormalize`` divides rewards by.

    :param dataset: The data, with rewards
    :param gamma: Discount factor of the wrapper
    :return: ``R_t = gamma R_{t-1} + r_t`` within each trajectory, one value a transition
    """
    assert dataset.rewards is not None
    rows = np.flatnonzero(dataset.valids)
    returns, running = np.empty(len(rows)), 0.0
    for i, row in enumerate(rows):
        running = gamma * running + float(dataset.rewards[row])
        returns[i] = running
        if dataset.ends[row]:
            running = 0.0
    return returns


def prepare_vec_normalize(env: VecNormalize, dataset: OfflineDataset) -> None:
    """
    Give a fresh ``VecNormalize`` the statistics of a data set, since no environment step will until the online phase.

    :param env: The wrapper; one that has seen steps already, or whose statistics are frozen, is left alone.
    :param dataset: The data
    """
    if not env.training:
        return
    if env.norm_obs:
        parts = dataset.observations if isinstance(dataset.observations, dict) else {"": dataset.observations}
        statistics = env.obs_rms if isinstance(env.obs_rms, dict) else {"": env.obs_rms}
        for key, running in statistics.items():
            if running.count < 1:
                running.update_from_moments(*moments(parts[key]), len(parts[key]))
    if env.norm_reward and env.ret_rms.count < 1 and dataset.rewards is not None:
        env.ret_rms.update(discounted_returns(dataset, env.gamma))
