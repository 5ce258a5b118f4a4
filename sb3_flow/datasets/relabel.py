"""Rewards of OGBench's single-task environments, computed from the simulator states in the data."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.environments import register_environment
from sb3_flow.common.optional import require

_SINGLE_TASK = re.compile(
    r"(visual-)?(cube|scene|puzzle|pointmaze|antmaze|humanoidmaze|antsoccer)(-.+)?-singletask(-task\d+)?-v\d+"
)


def is_single_task(env_id: str) -> bool:
    """
    Whether an environment is one of OGBench's single-task environments, with whose rewards data can be relabeled.

    :param env_id: Id, for instance ``"cube-single-singletask-task2-v0"``
    :return: Whether it is
    """
    return _SINGLE_TASK.fullmatch(env_id) is not None


def relabel(fields: Mapping[str, np.ndarray], env_id: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute rewards and masks for a single-task environment, with OGBench's function.

    :param fields: ``qpos`` of shape ``(N, nq)`` and, if the environment has buttons, ``button_states``
    :param env_id: Id of a single-task environment
    :param name: Name of the data for messages
    :return: Rewards, ``(N,)``, from minus the number of sub-goals to 0; masks, ``(N,)``, 0 where the task is solved
    :raises DatasetError: If the data belongs to another environment.
    """
    with _environment(env_id) as env:
        relabel_dataset = require("ogbench.relabel_utils", "mujoco", f"Rewards of {env_id!r}").relabel_dataset
        task: Any = env.unwrapped
        dataset = {field: fields[field] for field in ("qpos", "button_states") if field in fields}
        expected, found = task.model.nq, dataset["qpos"].shape[1:]
        if found != (expected,):
            raise DatasetError(
                f"{name}: `qpos` has shape {found} per row, but {env_id} has {expected} positions; "
                "this is the data of another environment."
            )
        shape, observed = env.observation_space.shape, fields["observations"].shape[1:]
        if observed != shape and not env_id.startswith("visual-"):
            raise DatasetError(f"{name}: `observations` has shape {observed} per row, but {env_id} gives {shape}.")
        if hasattr(task, "_cur_button_states") and "button_states" not in dataset:
            raise DatasetError(f"{name}: `button_states` is missing, which the reward of {env_id} needs.")
        relabel_dataset(env_id, env, dataset)
    return dataset["rewards"], dataset["masks"]


def same_task(first: str, second: str) -> bool:
    """
    Whether two ids have the same task (an id without a task number has the default task).

    :param first: Id of a single-task environment
    :param second: Another id
    :return: Whether both have the same rewards
    """
    if first == second:
        return True
    pattern = r"-singletask(-task\d+)?"
    if re.sub(pattern, "", first) != re.sub(pattern, "", second):
        return False
    tasks = []
    for env_id in (first, second):
        with _environment(env_id) as env:
            task: Any = env.unwrapped
            tasks.append(task._reward_task_id)
    return bool(tasks[0] == tasks[1])


@contextmanager
def _environment(env_id: str) -> Iterator[gym.Env[Any, Any]]:
    # Environments with images have the same tasks as those without, which need no display.
    env_id = env_id.removeprefix("visual-")
    state = np.random.get_state()  # OGBench's resets use it; reading data must not change later random numbers.
    # OGBench and Gymnasium warn about displays and precision, which are irrelevant for reading data.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        register_environment(env_id)
        try:
            env = gym.make(env_id, disable_env_checker=True)
        except gym.error.Error as error:
            raise DatasetError(f"{env_id!r} is no environment of OGBench: {error}") from error
        try:
            env.reset()  # sets the task, and the number of the default task
            yield env
        finally:
            env.close()
            np.random.set_state(state)
