"""Functions of worker processes: record and store episodes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from sb3_flow.datasets.collect.arm_task import ArmTaskExpert
from sb3_flow.datasets.collect.expert import Expert
from sb3_flow.datasets.collect.manipulation import ManipulationExpert
from sb3_flow.datasets.collect.maze import MazeExpert
from sb3_flow.datasets.collect.pool import prepare
from sb3_flow.datasets.collect.pusht.expert import PushTExpert
from sb3_flow.datasets.collect.store import write_episode
from sb3_flow.datasets.collect.two_routes import TwoRoutesExpert
from sb3_flow.datasets.registry import PUSHT, Recipe

#: Training and validation episodes have separate random streams, so that their numbers do not affect each other.
STREAMS = {"train": 0, "val": 1}

_recipe: Recipe | None = None
_expert: Expert | None = None


def start(recipe: Recipe) -> None:
    """
    Prepare this process. It is called once in each worker.

    :param recipe: The dataset to collect
    """
    global _recipe
    prepare()
    warnings.simplefilter("ignore")  # Gymnasium warns about the environments' precision, in every worker.
    _recipe = recipe


def make_expert(recipe: Recipe) -> Expert:
    """
    Create the expert of a dataset.

    :param recipe: The dataset to collect
    :return: The expert
    """
    if recipe.source == PUSHT:
        return PushTExpert(recipe)
    if recipe.env_id.startswith("sb3_flow/TwoRoutes-"):
        return TwoRoutesExpert(recipe)
    if recipe.task is not None:
        return ArmTaskExpert(recipe)
    return MazeExpert(recipe) if recipe.env_id.startswith("pointmaze-") else ManipulationExpert(recipe)


def record(split: str, index: int, seed: int, path: Path) -> int:
    """
    Record an episode and store it.

    :param split: ``"train"`` or ``"val"``
    :param index: Number of the episode
    :param seed: Seed of the collection
    :param path: The file to write
    :return: The progress: its transitions, or 1 if episodes differ in length
    """
    global _expert
    if _recipe is None:
        raise RuntimeError("The worker has not been started: call start() first.")
    if _expert is None:  # Not in start(), whose errors do not reach the parent.
        _expert = make_expert(_recipe)
    write_episode(path, _expert.record(np.random.SeedSequence((seed, STREAMS[split], index))))
    return _recipe.transitions_per_episode or 1
