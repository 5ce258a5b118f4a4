"""Registry of datasets that can be collected, and of datasets on this machine."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """
    Package of an environment.

    :param module: Module to import
    :param extra: Extra of this package that installs it
    :param packages: Packages whose versions the data depends on
    """

    module: str
    extra: str
    packages: tuple[str, ...]


OGBENCH = Source("ogbench", "mujoco", ("ogbench", "mujoco", "gymnasium", "numpy"))
#: Datasets of this package in OGBench's simulators, which OGBench does not publish.
OGBENCH_OWN = Source("ogbench", "mujoco", (*OGBENCH.packages, "sb3_flow"))
PUSHT = Source("gym_pusht", "pusht", ("gym-pusht", "pymunk", "shapely", "opencv-python", "pygame", "gymnasium", "numpy"))


@dataclass(frozen=True)
class Recipe:
    """
    Recipe for the collection of a dataset with a scripted expert. The numbers for OGBench's datasets are those of OGBench.

    :param name: Name of the dataset, for instance ``"cube-single-play-v0"``
    :param env_id: Id of the environment, for instance ``"cube-single-v0"``
    :param dataset_type: ``"play"`` (follows plans with smooth noise), ``"noisy"`` (closed loop, with a noise level drawn
        for each episode), ``"navigate"`` (walks from goal to goal), ``"stitch"`` (short walks of four cells),
        ``"expert"`` (solves ``task``, and ends at success); in Push-T the environment's ``obs_type``
    :param episodes: Number of training episodes of the published dataset; 200 (about the number of human demonstrations) for
        Push-T, two routes and single tasks
    :param states: States per episode, one more than transitions; None if episodes end with success
    :param noise: Noise of the expert, as a share of the action range
    :param random_actions: Probability of a uniformly random action at each step
    :param source: Package of environment and expert
    :param task: Number of the demonstrated task, from 1; None if there is no task, or goals are sampled
    """

    name: str
    env_id: str
    dataset_type: str
    episodes: int
    states: int | None
    noise: float = 0.0
    random_actions: float = 0.0
    source: Source = OGBENCH
    task: int | None = None

    @property
    def transitions_per_episode(self) -> int | None:
        """Transitions per episode, None if these differ; the last state has a separate row, which is not a transition."""
        return None if self.states is None else self.states - 1

    @property
    def directory(self) -> Path:
        """Default folder of the dataset."""
        return ogbench_directory() if self.source == OGBENCH else own_directory()


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


def _pusht_recipes() -> list[Recipe]:
    return [
        Recipe(name, "gym_pusht/PushT-v0", obs_type, 200, None, source=PUSHT)
        for name, obs_type in (("pusht", "state"), ("pusht-pixels", "pixels_agent_pos"))
    ]


def _own_recipes() -> list[Recipe]:
    tasks = [
        Recipe(f"cube-single-expert-task{task}", "cube-single-v0", "expert", 200, None, 0.1, source=OGBENCH_OWN, task=task)
        for task in range(1, 6)
    ]
    return [Recipe("two-routes", "sb3_flow/TwoRoutes-v0", "navigate", 200, None, 0.5, source=OGBENCH_OWN), *tasks]


#: All datasets that ``sb3-flow datasets collect`` can collect with a scripted expert, by name.
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (*_manipulation_recipes(), *_maze_recipes(), *_own_recipes(), *_pusht_recipes())
}


def ogbench_directory() -> Path:
    """Folder of OGBench's datasets: ``$OGBENCH_DATA_DIR``, or OGBench's default, ``~/.ogbench/data``."""
    return Path(os.environ.get("OGBENCH_DATA_DIR") or "~/.ogbench/data").expanduser()


def own_directory() -> Path:
    """Folder of the other datasets of this package: ``$SB3_FLOW_DATA_DIR``, or ``~/.sb3_flow/data``."""
    return Path(os.environ.get("SB3_FLOW_DATA_DIR") or "~/.sb3_flow/data").expanduser()


def minari_directory() -> Path:
    """Folder of Minari's datasets: ``$MINARI_DATASETS_PATH``, or Minari's default, ``~/.minari/datasets``."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets").expanduser()


def local_datasets() -> dict[str, Path]:
    """
    List the datasets on this machine. It reads folders only, and does not access the network.

    :return: The path of each dataset by its name for ``dataset=``: plain names for OGBench's files and our own, names
        that start with ``minari:`` for Minari datasets
    """
    found: dict[str, Path] = {}
    for directory in (ogbench_directory(), own_directory()):
        for path in sorted(directory.glob("*.npz")):
            if not path.stem.endswith("-val"):
                found[path.stem] = path
    root = minari_directory()
    for path in sorted(root.glob("**/data/metadata.json")):
        dataset = path.parent.parent
        found[f"minari:{dataset.relative_to(root).as_posix()}"] = dataset
    return found
