"""The statistics of ``VecNormalize`` in checkpoints."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.checkpoints.layout import read_part
from sb3_flow.common.checkpoints.plain_files import write_data
from sb3_flow.common.files import atomic_write

KIND = "file of VecNormalize's statistics"


def save_statistics(env: VecNormalize, path: pathlib.Path) -> None:
    """
    Save the statistics of observations and returns. ``VecNormalize.save`` writes a pickle instead.

    :param env: The environment
    :param path: The file
    """
    statistics = {"ret_rms": _numbers(env.ret_rms)}
    if env.norm_obs:
        statistics["obs_rms"] = _each(env.obs_rms, _numbers)
    with atomic_write(path) as file:
        write_data(file, KIND, statistics)


def load_statistics(env: VecNormalize, path: pathlib.Path, trusted: bool = False) -> None:
    """
    Load the statistics of a checkpoint into an environment.

    :param env: The environment
    :param path: The file ``vecnormalize.npz`` of a checkpoint, or a pickle that ``VecNormalize.save`` wrote
    :param trusted: Whether a pickle is read, which runs any code that it contains
    :raises ValueError: If it is damaged, has other shapes, is a pickle that is not trusted, or if ``norm_obs`` has
        changed.
    """
    saved = read_part(path, KIND, trusted, (dict, VecNormalize))
    had = saved.norm_obs if isinstance(saved, VecNormalize) else "obs_rms" in saved
    if had != env.norm_obs:
        before, now = ("True", "False") if had else ("False", "True")
        raise ValueError(
            f"{path} was written with `VecNormalize(norm_obs={before})`, but that of `env` has norm_obs={now}. Wrap the "
            "environment as before."
        )
    if isinstance(saved, VecNormalize):
        env.ret_rms = saved.ret_rms
        if env.norm_obs:
            env.obs_rms = saved.obs_rms
        return
    try:
        ret_rms, obs_rms = _running(saved["ret_rms"], env.ret_rms), None
        if env.norm_obs:
            own, found = env.obs_rms, saved["obs_rms"]
            obs_rms = {key: _running(found[key], own[key]) for key in own} if isinstance(own, dict) else _running(found, own)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged, or does not fit the environment ({error!r}). Resume from another checkpoint if there is one."
        ) from error
    env.ret_rms = ret_rms
    if obs_rms is not None:
        env.obs_rms = obs_rms


def _each(statistics: Any, convert: Any) -> Any:
    if isinstance(statistics, dict):
        return {key: convert(part) for key, part in statistics.items()}
    return convert(statistics)


def _numbers(statistics: RunningMeanStd) -> dict[str, Any]:
    return {"mean": statistics.mean, "var": statistics.var, "count": statistics.count}


def _running(numbers: dict[str, Any], own: RunningMeanStd) -> RunningMeanStd:
    """The statistics of a file, of the same shape as those of the environment."""
    statistics = RunningMeanStd(shape=own.mean.shape)
    for name in ("mean", "var"):
        if np.shape(numbers[name]) != own.mean.shape or not np.isfinite(numbers[name]).all():
            raise ValueError(f"`{name}` has the shape {np.shape(numbers[name])}; expected finite numbers, {own.mean.shape}")
    if not 0 < numbers["count"] < np.inf:
        raise ValueError(f"`count` is {numbers['count']}")
    statistics.mean, statistics.var, statistics.count = numbers["mean"], numbers["var"], numbers["count"]
    return statistics
