"""The commands ``sb3-flow datasets ...``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_flow.common.environments import import_packages, register_environment
from sb3_flow.datasets import (
    collect,
    collect_multi_robot,
    collect_with_policy,
    convert,
    load_dataset,
    local_datasets,
    unpack,
)
from sb3_flow.datasets.collect.multi_robot import NAME
from sb3_flow.datasets.info import describe, suspicions
from sb3_flow.datasets.registry import RECIPES, minari_directory, ogbench_directory, own_directory

Subparsers = Any  # the class of argparse is private


def add_commands(subparsers: Subparsers) -> None:
    """
    Add the group of commands to a parser.

    :param subparsers: Return value of ``add_subparsers``
    """
    group = subparsers.add_parser("datasets", help="list, inspect, collect and convert datasets")
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    listing = commands.add_parser("list", help="list stored datasets, and datasets that can be collected")
    listing.set_defaults(run=_list)

    info = commands.add_parser("info", help="show the content of a dataset, the meanings of its fields, and possible mistakes")
    info.add_argument("name", metavar="NAME", help="name or path of a dataset")
    info.add_argument("--env", metavar="ENV_ID", help="environment of the data, for its rewards and its limit of steps")
    info.set_defaults(run=_info)

    collecting = commands.add_parser(
        "collect",
        help="collect a dataset with a scripted expert, or with a trained model",
        description="Collect a dataset of OGBench, of one of its tasks, of two routes or of Push-T with a scripted expert, "
        "plans of several robots with a planner, or, with --policy, let a trained model of Stable-Baselines3 act in an "
        "environment and store a Minari dataset. A collection that was stopped continues when the same command is "
        "run again.",
    )
    collecting.add_argument("source", metavar="NAME", help="name of a dataset; with --policy: id of an environment")
    collecting.add_argument("--transitions", type=int, help="number of transitions (default: as the published dataset)")
    collecting.add_argument("--seed", type=int, default=0)
    collecting.add_argument("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    expert = collecting.add_argument_group("with a scripted expert")
    expert.add_argument("--episodes", type=int, help="number of episodes, instead of --transitions")
    expert.add_argument(
        "--directory",
        type=Path,
        help=f"folder to write to (default: OGBench's datasets {ogbench_directory()}, others {own_directory()})",
    )
    expert.add_argument("--workers", type=int, help="number of processes (default: one per core)")
    expert.add_argument("--overwrite", action="store_true", help="replace a dataset that exists")
    robots = collecting.add_argument_group("plans of several robots: multirobot2d, multirobot3d")
    robots.add_argument("--robots", type=_numbers, metavar="N|LOW-HIGH", help="number of robots (default: 8)")
    robots.add_argument("--scenes", type=int, help="number of scenes (default: 1000)")
    robots.add_argument("--obstacles", type=_numbers, metavar="M|LOW-HIGH", help="number of obstacles (default: by robots)")
    robots.add_argument("--layout", help="crossing, circle, permutation, random or mixed (default: mixed)")
    model = collecting.add_argument_group("with a trained model")
    model.add_argument("--policy", type=Path, metavar="MODEL.zip", help="a saved model")
    model.add_argument("--algo", help="its algorithm, such as sac or fql")
    model.add_argument("--name", dest="dataset", metavar="NAMESPACE/NAME-v0", help="id of the new Minari dataset")
    model.add_argument("--deterministic", action="store_true", help="act deterministically")
    model.add_argument("--vec-normalize", type=Path, metavar="STATISTICS.pkl", help="saved VecNormalize of the model")
    model.add_argument("--gym-packages", nargs="+", default=[], help="modules to import, which register environments")
    model.add_argument("--trusted", action="store_true", help="run the code that these files contain: they have pickles")
    collecting.set_defaults(run=_collect)

    converting = commands.add_parser(
        "convert",
        help="convert a dataset of any format to a folder that is memory-mapped",
        description="Convert a dataset of any format to a folder of .npy files, which gives the same data, takes no memory "
        "(it is memory-mapped), and opens without the packages of the source. Memory does not grow with the data.",
    )
    converting.add_argument("source", metavar="SOURCE", help="name or path of a dataset, or a pattern such as 'logs/*.hdf5'")
    converting.add_argument("target", metavar="TARGET", type=Path, help="the folder")
    converting.add_argument("--env", metavar="ENV_ID", help="environment of the data, for the rewards of OGBench's data")
    converting.add_argument("--force", action="store_true", help="replace a folder that was converted before")
    converting.add_argument("--no-progress", dest="progress", action="store_false", help="show no progress")
    converting.set_defaults(run=_convert)

    unpacking = commands.add_parser("unpack", help="copy all fields of an .npz or HDF5 file to a folder of .npy files")
    unpacking.add_argument("file", type=Path)
    unpacking.add_argument("folder", type=Path)
    unpacking.set_defaults(run=_unpack)


def _list(options: argparse.Namespace) -> None:
    stored = local_datasets()
    print(f"Stored here ({ogbench_directory()}, {own_directory()}, {minari_directory()}):")
    print("\n".join(f"  {name}" for name in stored) or "  nothing")
    print("Can be collected here (sb3-flow datasets collect NAME):")
    print("  multirobot2d, multirobot3d      with --robots and --scenes")
    for recipe in RECIPES.values():
        length = recipe.transitions_per_episode
        count, unit = (recipe.episodes, "episodes") if length is None else (recipe.episodes * length, "transitions")
        print(f"  {recipe.name:32}{count:>10,} {unit}{'  (stored)' if recipe.name in stored else ''}")


def _info(options: argparse.Namespace) -> None:
    if options.env is not None:
        register_environment(options.env)
        gym.spec(options.env)  # raises an error with the nearest name
    dataset = load_dataset(options.name, options.env)
    for label, value in describe(dataset).items():
        print(f"{label + ':':16}{value}")
    for title, lines in (
        ("Fields:", [f"{field}: {meaning}" for field, meaning in dataset.understood.items()]),
        ("Remarks:", list(dataset.remarks)),
        ("Suspicious:", suspicions(dataset, options.env)),
    ):
        if lines:
            print("\n  ".join([title, *lines]))


def _numbers(text: str) -> int | tuple[int, int]:
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high)) if dash else int(low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number, such as 8, nor a range, such as 4-8.") from None


def _collect(options: argparse.Namespace) -> None:
    import_packages(options.gym_packages)
    of_robots = {key: getattr(options, key) for key in ("robots", "scenes", "obstacles", "layout")}
    of_robots = {key: value for key, value in of_robots.items() if value is not None}
    several = NAME.fullmatch(options.source) is not None
    if of_robots and (options.policy or not several):
        raise ValueError(f"--{next(iter(of_robots))} goes with multirobot2d and multirobot3d.")
    if options.policy is None:
        for option in ("algo", "dataset", "deterministic", "vec_normalize", "trusted"):
            if getattr(options, option):
                raise ValueError(f"--{option.replace('dataset', 'name').replace('_', '-')} goes with --policy.")
        shared = {key: getattr(options, key) for key in ("seed", "directory", "workers", "progress", "overwrite")}
        if several:
            for option in ("transitions", "episodes"):
                if getattr(options, option) is not None:
                    raise ValueError(f"--{option} does not go with plans of several robots; say how many --scenes.")
            path = collect_multi_robot(options.source, **of_robots, **shared)
        else:
            path = collect(options.source, transitions=options.transitions, episodes=options.episodes, **shared)
        print(f"Wrote {path}")
        return
    for option in ("episodes", "directory", "workers", "overwrite"):
        if getattr(options, option) is not None and getattr(options, option) is not False:  # also 0
            raise ValueError(f"--{option} does not go with --policy.")
    if options.transitions is None or options.dataset is None:
        raise ValueError("--policy needs --transitions and --name NAMESPACE/NAME-v0.")
    name = collect_with_policy(
        options.source,
        options.policy,
        options.transitions,
        options.dataset,
        algo=options.algo,
        seed=options.seed,
        deterministic=options.deterministic,
        trusted=options.trusted,
        vec_normalize=options.vec_normalize,
        progress=options.progress,
    )
    print(f"Wrote {name}")


def _convert(options: argparse.Namespace) -> None:
    path = convert(options.source, options.target, options.env, progress=options.progress, overwrite=options.force)
    print(f"Wrote {path}")


def _unpack(options: argparse.Namespace) -> None:
    print(f"Wrote {unpack(options.file, options.folder)}")
