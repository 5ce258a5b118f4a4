"""Parallel collection of multi-robot plans, by an expert that knows the scenes, into one reproducible file."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_flow.common.cores import cores
from sb3_flow.common.lock import locked
from sb3_flow.common.progress import progress_bar
from sb3_flow.datasets.collect.pool import in_processes, require_main_guard
from sb3_flow.datasets.collect.store import PartialCollection, atomic_write, write_arrays
from sb3_flow.datasets.registry import own_directory
from sb3_flow.planning import observations
from sb3_flow.planning.demonstrations import demonstrate
from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.scenes import Scenes, standard_limits, standard_obstacles

#: Part of a collection's settings. It is increased when the same seed gives different data.
FORMAT = 2
#: Number of scenes that are solved and stored together.
BLOCK = 8
#: Separate random streams for scenes and for the expert's proposals.
SCENES, PROPOSALS = 0, 1

NAME = re.compile(r"multirobot([23])d")
Numbers = int | tuple[int, int]


def collect_multi_robot(
    name: str = "multirobot2d",
    robots: Numbers = 8,
    scenes: int = 1000,
    obstacles: Numbers | None = None,
    layout: str = "mixed",
    proposals: int = 8,
    seed: int = 0,
    directory: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> Path:
    """
    Collect plans for random scenes of ``sb3_flow/MultiRobot2D-v0`` or ``-3D-``, as episodes of one step.

    In each scene the expert computes certified plans from noise, optimizes them, and keeps up to 8 good and different ones.
    Every plan is certified in its stored precision. The same arguments and package versions give the same file, byte for byte,
    for any number of workers. Finished scenes are stored beside the target: the same call continues a run that was stopped or
    killed.

    In addition to the fields of a dataset, the file has for each plan ``scene_id`` (split data by it), ``cost`` (mean square
    acceleration in m^2/s^4) and ``certificate_margin`` (meters); for each scene ``scene_certified``, the number of proposals
    that became certified plans; and ``metadata``, in JSON, see ``read_metadata``. Plans in meters are actions times
    ``sb3_flow.planning.observations.action_scale``.

    Workers are new processes, so that scripts need ``if __name__ == "__main__":`` around the call.

    :param name: ``"multirobot2d"`` or ``"multirobot3d"``
    :param robots: Number of robots, or the smallest and the largest. The largest one determines the size of the
        world and the time, as in the environment.
    :param scenes: Number of scenes; each has a separate seed
    :param obstacles: Number of obstacles, or the smallest and the largest; None: as in the environment
    :param layout: Layout of the scenes, as in the environment
    :param proposals: Number of proposals per scene
    :param seed: Seed, at least 0
    :param directory: Folder to write to; default: the folder in which ``dataset=`` finds it by its name
    :param workers: Number of processes; default: one per core
    :param progress: Whether to show a progress bar
    :param overwrite: Whether to replace an existing dataset, and to delete an unfinished collection with other settings
    :return: The path of the file, ``multirobot2d-8-v0.npz`` or ``multirobot2d-4to8-v0.npz``
    :raises ValueError: If an argument is wrong, or an unfinished collection has other settings.
    :raises FileExistsError: If the dataset exists already.
    :raises RuntimeError: In a worker, if the script that calls this function has no ``if __name__ == "__main__":``.
    """
    require_main_guard("collect_multi_robot")
    for argument, value, least in (
        ("scenes", scenes, 1),
        ("proposals", proposals, 1),
        ("seed", seed, 0),
        ("workers", workers, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"{argument} is {value}; expected at least {least}.")
    distribution = _distribution(name, robots, obstacles, layout)
    folder = own_directory() if directory is None else Path(directory).expanduser()
    target = folder / f"{file_name(name, robots)}.npz"
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists. Use it as it is, or replace it with --overwrite (overwrite=True).")
    settings = {
        "format": FORMAT,
        "name": target.stem,
        "scenes": scenes,
        "proposals": proposals,
        "seed": seed,
        "distribution": json.loads(json.dumps(dataclasses.asdict(distribution))),
        "filter": json.loads(json.dumps(dataclasses.asdict(_filter_settings(distribution.limits)))),
        **{package: metadata.version(package) for package in ("sb3_flow", "torch", "numpy")},
    }
    with locked(folder / f".{target.stem}.lock", target):
        store = PartialCollection(folder / f"{target.stem}.partial", settings, None, restart=overwrite)
        blocks = range(-(-scenes // BLOCK))
        missing = [block for block in blocks if not store.has("train", block)]
        done = scenes - sum(len(_scene_ids(block, scenes)) for block in missing)
        bar = progress_bar(scenes, initial=done, desc=target.stem, unit="scene", disable=not progress)
        with bar:
            if missing:
                calls = [(distribution, block, scenes, proposals, seed, store.path("train", block)) for block in missing]
                in_processes(record, calls, workers or cores(), bar.update, store.folder)
        _join(target, [store.path("train", block) for block in blocks], settings, store.folder)
        store.remove()
    return target


def file_name(name: str, robots: Numbers) -> str:
    """
    Name of the dataset of ``collect_multi_robot``.

    :param name: ``"multirobot2d"`` or ``"multirobot3d"``
    :param robots: Number of robots, or the smallest and the largest
    """
    return f"{name}-{robots if isinstance(robots, int) else f'{robots[0]}to{robots[1]}'}-v0"


def record(distribution: Scenes, block: int, scenes: int, proposals: int, seed: int, path: Path) -> int:
    """
    Solve a block of scenes, and store their plans.

    :param distribution: Distribution of the scenes
    :param block: Number of the block
    :param scenes: Total number of scenes
    :param proposals: Number of proposals per scene
    :param seed: Seed of the collection
    :param path: The file to write
    :return: Number of scenes
    """
    ids, limits = _scene_ids(block, scenes), distribution.limits
    drawn = [distribution.sample(np.random.default_rng((seed, SCENES, scene))) for scene in ids]
    scenes_as_one = Problems(*map(th.cat, zip(*drawn, strict=True)))
    generator = th.Generator().manual_seed(int(np.random.SeedSequence((seed, PROPOSALS, block)).generate_state(1)[0]))
    plans = demonstrate(scenes_as_one, limits, proposals, generator)
    arrays: dict[str, np.ndarray] = {f"observations/{key}": column for key, column in plans.observations.items()}
    arrays |= {
        "actions": plans.actions,
        "rewards": plans.rewards,
        "terminations": np.ones(len(plans.actions), dtype=bool),
        "scene_id": np.array(ids)[plans.problem],
        "cost": plans.cost,
        "certificate_margin": plans.margin,
    }
    arrays["scene_certified"] = plans.certified
    with atomic_write(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return len(ids)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """
    Read the metadata of a collected file: the distribution of scenes with its limits, the filter's settings, seed and
    versions, the numbers of scenes and plans, ``feasibility_rate`` (the share of proposals that became certified plans), and
    ``solved_rate`` (the share of scenes with a certified plan).

    :param path: The file
    :return: The metadata
    """
    with np.load(path, allow_pickle=False) as arrays:
        values: dict[str, Any] = json.loads(arrays["metadata"].item())
    return values


def _distribution(name: str, robots: Numbers, obstacles: Numbers | None, layout: str) -> Scenes:
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no dataset of several robots; expected 'multirobot2d' or 'multirobot3d'.")
    most = robots if isinstance(robots, int) else robots[1]
    if obstacles is None:
        obstacles = standard_obstacles(most)
    rows = max(1, obstacles if isinstance(obstacles, int) else obstacles[1])  # as in the environment
    return Scenes(standard_limits(most, int(match[1])), robots, obstacles, layout, most, rows)


def _filter_settings(limits: Limits) -> FilterSettings:
    return FilterSettings(samples=observations.solver_samples(limits))


def _scene_ids(block: int, scenes: int) -> list[int]:
    return list(range(block * BLOCK, min((block + 1) * BLOCK, scenes)))


def _join(target: Path, paths: list[Path], settings: dict[str, Any], scratch: Path) -> None:
    blocks = []
    for path in paths:
        with np.load(path, allow_pickle=False) as block:
            blocks.append(dict(block))
    arrays = {field: np.concatenate([block[field] for block in blocks]) for field in blocks[0]}
    certified = arrays["scene_certified"]
    plans = len(arrays["actions"])
    if plans == 0:
        raise ValueError(f"No plan was found in {len(certified)} scenes ({settings['distribution']}).")
    rates = {"feasibility_rate": certified.mean() / settings["proposals"], "solved_rate": (certified > 0).mean()}
    about = {**settings, "plans": plans, **{key: float(rate) for key, rate in rates.items()}}
    write_arrays(target, {**arrays, "metadata": np.array(json.dumps(about, sort_keys=True))}, scratch)
