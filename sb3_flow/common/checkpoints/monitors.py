"""The ``Monitor`` files in the folder of a run."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from stable_baselines3.common.monitor import get_monitor_files
from stable_baselines3.common.vec_env import VecEnv

from sb3_flow.common.vec_envs import all_monitored, attributes


def get_monitor_state(env: VecEnv, folder: pathlib.Path) -> dict[str, Any]:
    """
    Get the state of the monitors.

    :param env: The environments of training
    :param folder: Folder of the run
    :return: Sizes of the files, and start times of the monitors
    """
    sizes = {os.path.basename(file): os.path.getsize(file) for file in get_monitor_files(str(folder))}
    return {"sizes": sizes, "t_start": (attributes(env, "t_start") or []) if all_monitored(env) else []}


def set_monitor_state(env: VecEnv, state: dict[str, Any], folder: pathlib.Path) -> None:
    """
    Remove the rows after the checkpoint from the run's ``monitor.csv``, and restore the start times of the monitors.

    :param env: The environments of training
    :param state: As returned by ``get_monitor_state``
    :param folder: Folder of the run
    """
    for name, size in state["sizes"].items():
        if (folder / name).exists() and (folder / name).stat().st_size > size:
            os.truncate(folder / name, size)
    if state["t_start"] and all_monitored(env):
        for i, t_start in enumerate(state["t_start"]):
            env.env_method("set_wrapper_attr", "t_start", t_start, indices=[i])
