"""The statistics of ``VecNormalize`` in checkpoints."""

from __future__ import annotations

import pathlib
from typing import Any

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
    :raises ValueError: If it is damaged, or a pickle that is not trusted.
    """
    saved = read_part(path, KIND, trusted, (dict, VecNormalize))
    if isinstance(saved, VecNormalize):
        env.ret_rms = saved.ret_rms
        if env.norm_obs:
            env.obs_rms = saved.obs_rms
        return
    env.ret_rms = _running(saved["ret_rms"])
    if env.norm_obs and "obs_rms" in saved:
        env.obs_rms = _each(saved["obs_rms"], _running) if isinstance(env.obs_rms, dict) else _running(saved["obs_rms"])


def _each(statistics: Any, convert: Any) -> Any:
    if isinstance(statistics, dict):
        return {key: convert(part) for key, part in statistics.items()}
    return convert(statistics)


def _numbers(statistics: RunningMeanStd) -> dict[str, Any]:
    return {"mean": statistics.mean, "var": statistics.var, "count": statistics.count}


def _running(numbers: dict[str, Any]) -> RunningMeanStd:
    statistics = RunningMeanStd(shape=numbers["mean"].shape)
    statistics.mean, statistics.var, statistics.count = numbers["mean"], numbers["var"], numbers["count"]
    return statistics
