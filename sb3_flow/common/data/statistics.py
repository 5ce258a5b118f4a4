"""Statistics of a data set, for normalising what the networks see."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
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


#: Number of observations, or rewards, from which on the statistics of a ``VecNormalize`` count as gathered, unless the dataset
#: is smaller.
GATHERED = 1_000


def has_gathered(running: RunningMeanStd, dataset: OfflineDataset) -> bool:
    """Whether statistics of a ``VecNormalize`` were taken from enough numbers to mean something."""
    return bool(running.count >= min(GATHERED, len(dataset)))


def lacks_statistics(env: VecNormalize, dataset: OfflineDataset) -> bool:
    """
    :param env: The wrapper
    :param dataset: The data that it is to normalize
    :return: Whether it normalizes observations, and has not seen enough of them
    """
    statistics = env.obs_rms.values() if isinstance(env.obs_rms, dict) else [env.obs_rms]
    return env.norm_obs and not all(has_gathered(running, dataset) for running in statistics)


def prepare_vec_normalize(env: VecNormalize, dataset: OfflineDataset) -> None:
    """
    Give a fresh ``VecNormalize`` the statistics of a dataset, because no environment step does before the online phase.

    :param env: The wrapper. One that has gathered statistics already, or whose statistics are frozen, is left alone.
    :param dataset: The data
    """
    if not env.training:
        return
    if env.norm_obs:
        parts = dataset.observations if isinstance(dataset.observations, dict) else {"": dataset.observations}
        statistics = env.obs_rms if isinstance(env.obs_rms, dict) else {"": env.obs_rms}
        for key, running in statistics.items():
            if not has_gathered(running, dataset):
                running.update_from_moments(*moments(parts[key]), len(parts[key]))
    if env.norm_reward and not has_gathered(env.ret_rms, dataset) and dataset.rewards is not None:
        env.ret_rms.update(discounted_returns(dataset, env.gamma))
