"""Collection with a scripted expert: many processes, one progress bar, one reproducible file."""

from __future__ import annotations

import os
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path

from sb3_flow.common.optional import require
from sb3_flow.datasets.collect import worker
from sb3_flow.datasets.collect.pool import cores, in_processes
from sb3_flow.datasets.collect.store import PartialCollection, join_episodes
from sb3_flow.datasets.registry import RECIPES, Recipe, ogbench_directory

#: Part of a collection's settings: raised whenever the same seed begins to give other data.
FORMAT = 1


def collect(
    name: str,
    transitions: int | None = None,
    seed: int = 0,
    directory: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> Path:
    """
    Collect an OGBench dataset on this machine, with OGBench's scripted experts.

    The same name, number of transitions, seed and package versions give the same files, byte for byte, whatever the number
    of workers. Finished episodes are kept in ``NAME.partial`` beside the target: a run that was stopped or killed goes on
    from there when it is called again. Beside ``NAME.npz``, validation data of a tenth of the episodes (at least one) is
    written to ``NAME-val.npz``.

    Workers are new processes, so that a script that calls this needs the usual ``if __name__ == "__main__":``.

    :param name: One of ``RECIPES``, for instance ``"cube-single-play-v0"``; a task (``-singletask-task2``) is of no
        importance here, and the prefix ``ogbench:`` may be left out.
    :param transitions: How many transitions, at least; rounded up to whole episodes (1000 transitions each for the robot
        arm). Default: as many as the published dataset has
    :param seed: Seed, at least 0
    :param directory: Where to write; default: OGBench's own directory
    :param workers: Number of processes; default: one per core
    :param progress: Whether to show a progress bar
    :param overwrite: Whether to replace a dataset that exists, and to throw away an unfinished collection with other
        settings
    :return: The path of ``NAME.npz``
    :raises ValueError: If the name or a number is wrong, or an unfinished collection has other settings.
    :raises FileExistsError: If the dataset exists already.
    :raises ImportError: If OGBench is not installed.
    """
    recipe = _find(name)
    if transitions is not None and transitions < 1:
        raise ValueError(f"transitions is {transitions}; expected at least 1.")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; expected at least 1.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected at least 0.")
    require("ogbench", "mujoco", f"Collecting {recipe.name}")
    episodes = recipe.episodes if transitions is None else -(-transitions // recipe.transitions_per_episode)
    folder = ogbench_directory() if directory is None else Path(directory).expanduser()
    target = folder / f"{recipe.name}.npz"
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists. Use it as it is, or replace it with --overwrite (overwrite=True).")
    settings = {
        "format": FORMAT,
        "name": recipe.name,
        "episodes": episodes,
        "seed": seed,
        **{package: metadata.version(package) for package in ("ogbench", "mujoco", "gymnasium", "numpy")},
    }
    store = PartialCollection(folder / f"{recipe.name}.partial", settings, recipe.states, restart=overwrite)
    jobs = [("train", index) for index in range(episodes)]
    jobs += [("val", index) for index in range(max(1, episodes // 10))]
    _record(recipe, jobs, store, seed, workers or cores(), progress)

    # Validation data first: once the training data is there, the collection is complete.
    for split, path in (("val", target.with_name(f"{recipe.name}-val.npz")), ("train", target)):
        join_episodes(path, [store.path(*job) for job in jobs if job[0] == split], scratch=store.folder)
    store.remove()
    return target


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


def _record(
    recipe: Recipe, jobs: list[tuple[str, int]], store: PartialCollection, seed: int, workers: int, progress: bool
) -> None:
    missing = [job for job in jobs if not store.has(*job)]
    per_episode = recipe.transitions_per_episode
    bar = require("tqdm", "datasets", "A progress bar").tqdm(
        total=len(jobs) * per_episode,
        initial=(len(jobs) - len(missing)) * per_episode,
        desc=recipe.name,
        unit="step",
        disable=not progress,
    )
    if not missing:
        bar.close()
        return
    calls = [(*job, seed, store.path(*job)) for job in missing]
    with bar:
        in_processes(worker.record, calls, workers, bar.update, store.folder, initializer=worker.start, initargs=(recipe,))
