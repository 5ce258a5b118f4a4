"""The ``Monitor`` files in the folder of a run."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from stable_baselines3.common.monitor import get_monitor_files
from stable_baselines3.common.vec_env import VecEnv

from sb3_flow.common.vec_envs import all_monitored, attributes, env_id_of


def get_monitor_state(env: VecEnv, folder: pathlib.Path) -> dict[str, Any]:
    """
    Get the state of the monitors.

    :param env: The environments of training
    :param folder: Folder of the run
    :return: Sizes of the files, and start times of the monitors
    """
    sizes = {os.path.basename(file): os.path.getsize(file) for file in get_monitor_files(str(folder))}
    return {"sizes": sizes, "t_start": (attributes(env, "t_start") or []) if all_monitored(env) else []}


def write_missing_headers(env: VecEnv, folder: pathlib.Path) -> None:
    """
    Write the header of empty files: ``Monitor(override_existing=False)`` writes none, and then its files cannot be read.

    :param env: The environments of training
    :param folder: Folder of the run
    """
    empty = [file for file in get_monitor_files(str(folder)) if os.path.getsize(file) == 0]
    if not empty or not all_monitored(env):
        return
    extra = [*(attributes(env, "reset_keywords") or [()])[0], *(attributes(env, "info_keywords") or [()])[0]]
    header = {"t_start": (attributes(env, "t_start") or [0.0])[0], "env_id": str(env_id_of(env))}
    for file in empty:
        with open(file, "a", encoding="utf-8", newline="\n") as stream:
            stream.write(f"#{json.dumps(header)}\n{','.join(['r', 'l', 't', *extra])}\n")


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
