"""Statistics of a dataset, for normalization. Padding is not counted."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.data.columns import blocks, parts
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.encoders import ObservationNormalizer
from sb3_flow.common.warn import warn


def moments(column: np.ndarray, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute mean and variance over rows, block by block, so that memory-mapped data is never loaded as a whole.

    :param column: ``(N, *shape)``
    :param rows: The rows to count, ``(N,)`` of bool; None: all
    :return: Mean and variance, of ``shape``, float64
    """
    rows = np.ones(len(column), dtype=bool) if rows is None else rows
    count = np.count_nonzero(rows)

    def counted() -> Any:
        return (block[rows[start : start + len(block)]] for start, block in blocks(column))

    mean = sum(block.sum(axis=0, dtype=np.float64) for block in counted()) / count
    squares = sum(np.square(block - mean).sum(axis=0) for block in counted())
    return np.asarray(mean), np.asarray(squares / count)


def ranges(column: np.ndarray, rows: np.ndarray, quantile: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute the range of each element over rows.

    :param column: ``(N, *shape)``
    :param rows: The rows to count, ``(N,)`` of bool
    :param quantile: Share of the rows below the range, and above it, in [0, 0.5); 0: none. Quantiles are computed over all
        rows together, not averaged over episodes.
    :return: Lower and upper bounds, of ``shape``
    :raises ValueError: If the quantile is out of its range.
    """
    if not 0.0 <= quantile < 0.5:
        raise ValueError(f"`quantile` is {quantile}; it must be in [0, 0.5).")
    if quantile > 0.0:
        chosen = column[rows]
        return np.quantile(chosen, quantile, axis=0), np.quantile(chosen, 1.0 - quantile, axis=0)
    bounds = []
    for start, block in blocks(column):  # one block at a time: the column may be larger than the memory
        counted = block[rows[start : start + len(block)]]
        if len(counted):
            bounds.append((counted.min(axis=0), counted.max(axis=0)))
    low, high = zip(*bounds, strict=True)
    return np.min(low, axis=0), np.max(high, axis=0)


#: Smaller steps of single precision are not coarse: numbers below 2^17 are not large.
STEP = 2.0**-6
#: Fewer steps of single precision between the smallest and the largest value of an element are coarse.
FEW_STEPS = 1_000


def too_coarse(column: np.ndarray, rows: np.ndarray) -> str | None:
    """
    Find an element whose values become equal in single precision: large numbers that vary little.

    :param column: ``(N, *shape)``
    :param rows: The rows that are used, ``(N,)`` of bool
    :return: A sentence about the first one, with ``{}`` in place of the name of the column; None: there is none
    """
    if column.dtype.itemsize <= 2 or not rows.any():  # numbers of two bytes are not large
        return None
    low, high = (np.asarray(bound, dtype=np.float64).reshape(-1) for bound in ranges(column, rows))
    steps = np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(np.float32)).astype(np.float64)
    coarse = (steps >= STEP) & (high > low) & (high - low < FEW_STEPS * steps)
    if not coarse.any():
        return None
    i = int(coarse.argmax())
    return (
        f"element {i} of {{}} goes from {low[i]:.9g} to {high[i]:.9g}, where single precision, which training uses, has steps "
        f"of {steps[i]:g}, so that values become equal."
    )


def observation_statistics(dataset: OfflineDataset, space: spaces.Space[Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """
    Compute mean and variance of each part of the observations that is a vector.

    :param dataset: The data
    :param space: Observation space
    :return: Mean and variance by the key of the part, which is empty if the space is not a dictionary
    """
    columns, rows = parts(dataset.observations), dataset.observation_rows()
    return {key: moments(columns[key], rows) for key in ObservationNormalizer(space).keys}


def discounted_returns(dataset: OfflineDataset, gamma: float) -> np.ndarray:
    """
    Compute the running discounted returns; ``VecNormalize`` divides rewards by their spread.

    :param dataset: The data, with rewards
    :param gamma: Discount factor of the wrapper
    :return: ``R_t = gamma R_{t-1} + r_t`` within each trajectory, one value per transition
    """
    assert dataset.rewards is not None
    rows = np.flatnonzero(dataset.valids)
    # A trajectory begins after an end, and after a row that is not a transition.
    starts = np.append(True, (dataset.ends | ~dataset.valids)[:-1])
    returns, running = np.empty(len(rows)), 0.0
    for i, row in enumerate(rows):
        running = float(dataset.rewards[row]) + (0.0 if starts[row] else gamma * running)
        returns[i] = running
    return returns


#: Number of observations, or rewards, after which the statistics of a ``VecNormalize`` are kept. For smaller datasets, their
#: size.
GATHERED = 1_000


def has_gathered(running: RunningMeanStd, dataset: OfflineDataset) -> bool:
    """Whether statistics of a ``VecNormalize`` were computed from enough values."""
    return bool(running.count >= min(GATHERED, len(dataset)))


def normalizes(env: VecNormalize | None) -> bool:
    """Whether ``VecNormalize``, if there is one, normalizes observations."""
    return env is not None and bool(env.norm_obs)


def warn_about_new_statistics(env: VecNormalize | None, n_timesteps: int) -> None:
    """
    Warn if a model that was trained with ``VecNormalize`` goes on with one that has no statistics yet.

    :param env: The wrapper; None: there is none
    :param n_timesteps: Number of timesteps of training
    """
    if env is None or not env.norm_obs:
        return
    statistics = env.obs_rms.values() if isinstance(env.obs_rms, dict) else [env.obs_rms]
    if any(running.count < min(GATHERED, n_timesteps / 2) for running in statistics):
        warn(
            "This model was trained, but the `VecNormalize` of its environment has no statistics, so that the policy sees "
            "other numbers. To use those of training, wrap the environment by `VecNormalize.load(path, venv)`."
        )


def lacks_statistics(env: VecNormalize, dataset: OfflineDataset) -> bool:
    """
    :param env: The wrapper
    :param dataset: The data to normalize
    :return: Whether it normalizes observations and has too few for its statistics
    """
    statistics = env.obs_rms.values() if isinstance(env.obs_rms, dict) else [env.obs_rms]
    return env.norm_obs and not all(has_gathered(running, dataset) for running in statistics)


def prepare_vec_normalize(env: VecNormalize, dataset: OfflineDataset) -> None:
    """
    Set the statistics of a new ``VecNormalize`` to those of a dataset, because the offline phase has no environment steps.

    :param env: The wrapper. It is not changed if it has statistics already, or if they are frozen (``training=False``).
    :param dataset: The data
    """
    if not env.training:
        if lacks_statistics(env, dataset):
            warn(
                "`VecNormalize(training=False)` has no statistics, so observations are not normalized. Pass `training=True` "
                "to take them from the dataset, or load those of training by `VecNormalize.load(path, venv)`."
            )
        return
    if env.norm_obs:
        columns, rows = parts(dataset.observations), dataset.observation_rows()
        statistics = env.obs_rms if isinstance(env.obs_rms, dict) else {"": env.obs_rms}
        for key, running in statistics.items():
            if not has_gathered(running, dataset):
                running.update_from_moments(*moments(columns[key], rows), int(rows.sum()))
    if env.norm_reward and not has_gathered(env.ret_rms, dataset) and dataset.rewards is not None:
        env.ret_rms.update(discounted_returns(dataset, env.gamma))
