"""One registry of names: what can be collected here, and what is stored on this machine."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recipe:
    """
    How a dataset is collected with a scripted expert. The numbers are OGBench's own.

    :param name: Name of the dataset, for instance ``"cube-single-play-v0"``
    :param env_id: Environment that it is collected in, for instance ``"cube-single-v0"``
    :param dataset_type: ``"play"`` (follows plans with smooth noise), ``"noisy"`` (closed loop, with a noise level drawn
        for each episode), ``"navigate"`` (walks from goal to goal) or ``"stitch"`` (short walks of four cells)
    :param episodes: Number of training episodes of the published dataset
    :param states: States per episode, one more than transitions
    :param noise: Noise of the expert, as a share of the action range
    :param random_actions: Probability of a uniformly random action, at each step
    """

    name: str
    env_id: str
    dataset_type: str
    episodes: int
    states: int
    noise: float
    random_actions: float = 0.0

    @property
    def transitions_per_episode(self) -> int:
        """Transitions in one episode; the last state has a row of its own, which starts none."""
        return self.states - 1


def _manipulation_recipes() -> list[Recipe]:
    episodes = {
        "cube-single": 1000,
        "cube-double": 1000,
        "cube-triple": 3000,
        "cube-quadruple": 5000,
        "scene": 1000,
        "puzzle-3x3": 1000,
        "puzzle-4x4": 1000,
        "puzzle-4x5": 3000,
        "puzzle-4x6": 5000,
    }
    recipes = []
    for task, count in episodes.items():
        random_actions = 0.2 if task.startswith("puzzle") else 0.1
        recipes.append(Recipe(f"{task}-play-v0", f"{task}-v0", "play", count, 1001, 0.1))
        recipes.append(Recipe(f"{task}-noisy-v0", f"{task}-v0", "noisy", count, 1001, 0.1, random_actions))
    return recipes


def _maze_recipes() -> list[Recipe]:
    recipes = []
    for maze in ("medium", "large", "giant", "teleport"):
        env_id = f"pointmaze-{maze}-v0"
        episodes, states = (500, 2001) if maze == "giant" else (1000, 1001)
        recipes.append(Recipe(f"pointmaze-{maze}-navigate-v0", env_id, "navigate", episodes, states, 0.5))
        recipes.append(Recipe(f"pointmaze-{maze}-stitch-v0", env_id, "stitch", 5000, 201, 0.5))
    return recipes


#: Every dataset that ``sb3-flow datasets collect`` can make with a scripted expert, by name.
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*_manipulation_recipes(), *_maze_recipes())}


def ogbench_directory() -> Path:
    """Where OGBench files lie: ``$OGBENCH_DATA_DIR``, or else OGBench's own default, ``~/.ogbench/data``."""
    return Path(os.environ.get("OGBENCH_DATA_DIR") or "~/.ogbench/data").expanduser()


def minari_directory() -> Path:
    """Where Minari datasets lie: ``$MINARI_DATASETS_PATH``, or else Minari's own default, ``~/.minari/datasets``."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets").expanduser()


def local_datasets() -> dict[str, Path]:
    """
    List what is stored on this machine; nothing is read but folders, and nothing remote is asked.

    :return: The path of each dataset by the name that ``dataset=`` takes: plain names for OGBench files, names that start
        with ``minari:`` for Minari datasets
    """
    found: dict[str, Path] = {}
    for path in sorted(ogbench_directory().glob("*.npz")):
        if not path.stem.endswith("-val"):
            found[path.stem] = path
    root = minari_directory()
    for path in sorted(root.glob("**/data/metadata.json")):
        dataset = path.parent.parent
        found[f"minari:{dataset.relative_to(root).as_posix()}"] = dataset
    return found
