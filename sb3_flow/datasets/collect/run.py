"""Parallel collection with a scripted expert, into one reproducible file."""

from __future__ import annotations

import os
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.cores import cores
from sb3_flow.common.lock import locked
from sb3_flow.common.optional import require
from sb3_flow.common.progress import progress_bar
from sb3_flow.datasets.collect import worker
from sb3_flow.datasets.collect.pool import in_processes, require_main_guard
from sb3_flow.datasets.collect.store import PartialCollection, join_episodes
from sb3_flow.datasets.registry import OGBENCH, RECIPES, Recipe

#: Part of a collection's settings. It is increased when the same seed gives different data.
FORMAT = 1


def collect(
    name: str,
    transitions: int | None = None,
    seed: int = 0,
    directory: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
    episodes: int | None = None,
) -> Path:
    """
    Collect a dataset on this machine with a scripted expert. The experts are those of OGBench, and those of this package for
    Push-T, two routes and single tasks of the robot arm.

    The same name, number of transitions, seed and package versions give the same files, byte for byte, for any number of
    workers. Finished episodes are stored in ``NAME.partial`` beside the target: the same call continues a run that was stopped
    or killed. Beside ``NAME.npz``, validation data of a tenth of the episodes (at least one) is
    written to ``NAME-val.npz``.

    Workers are new processes, so that scripts need ``if __name__ == "__main__":`` around the call.

    :param name: One of ``RECIPES``, for instance ``"cube-single-play-v0"``; a task (``-singletask-task2``) is
        ignored, and the prefix ``ogbench:`` is optional.
    :param transitions: Minimum number of transitions; rounded up to whole episodes (1000 transitions each for the robot
        arm). Default: the number of the published dataset. Episodes of Push-T, of two routes and of single tasks
        end with success, so that only their number can be set.
    :param seed: Seed, at least 0
    :param directory: Folder to write to; default: OGBench's folder, and ``registry.own_directory`` for other datasets
    :param workers: Number of processes; default: one per core
    :param progress: Whether to show a progress bar
    :param overwrite: Whether to replace an existing dataset, and to delete an unfinished collection with other settings
    :param episodes: Number of episodes, instead of ``transitions``
    :return: The path of ``NAME.npz``
    :raises ValueError: If the name or a number is wrong, or an unfinished collection has other settings.
    :raises FileExistsError: If the dataset exists already.
    :raises ImportError: If the environment's package is not installed.
    :raises RuntimeError: In a worker, if the script that calls this function has no ``if __name__ == "__main__":``.
    """
    require_main_guard("collect")
    recipe = _find(name)
    count = _count_episodes(recipe, transitions, episodes)
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; expected at least 1.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected at least 0.")
    require(recipe.source.module, recipe.source.extra, f"Collecting {recipe.name}")
    folder = recipe.directory if directory is None else Path(directory).expanduser()
    target = folder / f"{recipe.name}.npz"
    settings = {
        "format": FORMAT,
        "name": recipe.name,
        "episodes": count,
        "seed": seed,
        **{package: _version(package) for package in recipe.source.packages},
    }
    with locked(folder / f".{recipe.name}.lock", target):
        _collect(recipe, settings, target, overwrite, workers or cores(), progress)
    return target


def _collect(recipe: Recipe, settings: dict[str, Any], target: Path, overwrite: bool, workers: int, progress: bool) -> None:
    count, seed = settings["episodes"], settings["seed"]
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists. Use it as it is, or replace it with --overwrite (overwrite=True).")
    store = PartialCollection(target.with_suffix(".partial"), settings, recipe.states, restart=overwrite)
    jobs = [("train", index) for index in range(count)]
    jobs += [("val", index) for index in range(max(1, count // 10))]
    _record(recipe, jobs, store, seed, workers, progress)

    # Validation data first: the collection is complete when the training data exists.
    for split, path in (("val", target.with_name(f"{recipe.name}-val.npz")), ("train", target)):
        files = [store.path(*job) for job in jobs if job[0] == split]
        # OGBench's files have no further fields.
        described = None if recipe.source == OGBENCH else {**settings, "split": split, "dropped": _count_dropped(files)}
        join_episodes(path, files, store.folder, described)
    store.remove()


def _find(name: str) -> Recipe:
    plain = name.removeprefix("ogbench:")
    head, _, tail = plain.partition("-singletask")
    if tail:
        plain = f"{head}-{tail.split('-')[-1]}"
    if plain not in RECIPES:
        near = ", ".join(get_close_matches(plain, RECIPES)) or "see `sb3-flow datasets list`"
        raise ValueError(
            f"No scripted expert can collect {name!r}. Names that are known: {near}. To collect with a trained model, give "
            "the id of an environment and --policy."
        )
    return RECIPES[plain]


def _count_episodes(recipe: Recipe, transitions: int | None, episodes: int | None) -> int:
    for label, number in (("transitions", transitions), ("episodes", episodes)):
        if number is not None and number < 1:
            raise ValueError(f"{label} is {number}; expected at least 1.")
    if transitions is None:
        return recipe.episodes if episodes is None else episodes
    if episodes is not None:
        raise ValueError("Both transitions and episodes are given; expected one of them.")
    if recipe.transitions_per_episode is None:
        raise ValueError(f"The episodes of {recipe.name} end with success, whenever that is: give --episodes (episodes=).")
    return -(-transitions // recipe.transitions_per_episode)


def _count_dropped(files: list[Path]) -> int:
    """Number of failed episodes."""
    dropped = 0
    for file in files:
        with np.load(file, allow_pickle=False) as episode:
            dropped += int(episode["episode_dropped"].sum())
    return dropped


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # OpenCV has several distributions of the same module
        return "unknown"


def _record(
    recipe: Recipe, jobs: list[tuple[str, int]], store: PartialCollection, seed: int, workers: int, progress: bool
) -> None:
    missing = [job for job in jobs if not store.has(*job)]
    per_episode = recipe.transitions_per_episode or 1
    bar = progress_bar(
        len(jobs) * per_episode,
        initial=(len(jobs) - len(missing)) * per_episode,
        desc=recipe.name,
        unit="step" if recipe.transitions_per_episode else "episode",
        disable=not progress,
    )
    if not missing:
        bar.close()
        return
    calls = [(*job, seed, store.path(*job)) for job in missing]
    with bar:
        in_processes(worker.record, calls, workers, bar.update, store.folder, initializer=worker.start, initargs=(recipe,))
