"""Reader of OGBench's datasets by name."""

from __future__ import annotations

import re
from typing import Any

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.datasets.arrays import ArrayFile
from sb3_flow.datasets.from_arrays import read_fields
from sb3_flow.datasets.names import OGBENCH_NAMES, no_such_name
from sb3_flow.datasets.registry import RECIPES, ogbench_directory
from sb3_flow.datasets.relabel import is_single_task, same_task

_NAME = re.compile(
    r"(?P<task>(visual-)?(cube|scene|puzzle|pointmaze|antmaze|humanoidmaze|antsoccer|powderworld)(-[a-z0-9]+)?)"
    r"-(?P<type>play|noisy|navigate|stitch|explore)(?P<single>-singletask(-task\d+)?)?-(?P<version>v\d+)"
)


def read_ogbench(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read an OGBench dataset by its name, with or without the prefix ``ogbench:``.

    ``cube-single-play-singletask-task2-v0`` has the rewards of that task. ``cube-single-play-v0`` has none, and is
    relabeled with those of ``env_id`` if it is a single-task environment.

    :param source: A name
    :param env_id: Id of the environment of the data
    :return: The dataset, or None if the source is something else
    :raises DatasetError: If the name is unknown, the file is not on this machine, or it belongs to another environment.
    """
    if not isinstance(source, str):
        return None
    name = source.removeprefix("ogbench:")
    match = _NAME.fullmatch(name)
    if match is None:
        if name == source:
            return None
        raise DatasetError(
            f"{source!r} is no dataset of OGBench. Expected ENVIRONMENT-TYPE-v0, such as cube-single-play-v0, or "
            "ENVIRONMENT-TYPE-singletask-task2-v0; see `sb3-flow datasets list`."
        )
    task, version = match["task"], match["version"]
    file_name = f"{task}-{match['type']}-{version}"
    reward_env = f"{task}{match['single']}-{version}" if match["single"] else None
    if env_id is not None and is_single_task(env_id):
        if not env_id.startswith(f"{task}-singletask"):
            raise DatasetError(f"{name} is data of {task}-{version}, not of the environment {env_id}.")
        if reward_env is not None and not same_task(reward_env, env_id):
            raise DatasetError(
                f"{name} has the rewards of {reward_env}, but the environment is {env_id}. Use {file_name}, which takes "
                "the rewards of the environment."
            )
        reward_env = reward_env or env_id
    path = ogbench_directory() / f"{file_name}.npz"
    if not path.exists():
        if file_name not in OGBENCH_NAMES:
            raise no_such_name(source)
        raise DatasetError(f"{name}: there is no {path}. {how_to_get(file_name)}")
    return read_fields(ArrayFile(path), name, reward_env, ogbench=True)


def how_to_get(file_name: str) -> str:
    """
    Explain how to get a dataset that is not on this machine.

    :param file_name: Name of the dataset, without a task
    :return: A sentence with the commands
    """
    download = f"python -c \"import ogbench; ogbench.download_datasets(['{file_name}'])\""
    if file_name in RECIPES:
        return f"Collect it with a scripted expert: `sb3-flow datasets collect {file_name}`. Or download it: `{download}`."
    return f"No scripted expert can collect it; download it: `{download}`."
