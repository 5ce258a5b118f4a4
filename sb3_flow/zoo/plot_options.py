"""Checks of the options of RL Zoo's plots. Without curves, the scripts would show zeros, an empty picture, or fail."""

import argparse
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from stable_baselines3.common.monitor import LoadMonitorResultsError, load_results

from sb3_flow.common.files import DAMAGE
from sb3_flow.common.warn import warn


class Curve(NamedTuple):
    """
    The evaluations of a run.

    :param evaluations: Their number
    :param episodes: Number of episodes in each
    :param start: Timesteps of the first one
    :param keys: Names of what is recorded of each episode
    """

    evaluations: int
    episodes: int
    start: int
    keys: tuple[str, ...]


def check_plot(name: str, arguments: list[str]) -> None:
    """
    Check the options of ``plot`` and ``plot-train``.

    :param name: The script
    :param arguments: Its command line
    :raises ValueError: If an option is missing, a folder does not exist, or no run has a curve. If some have none, there is a
        warning.
    """
    if name == "plot":
        check_evaluations(arguments)
    if name == "plot-train":
        check_episodes(arguments)


def check_evaluations(arguments: list[str]) -> None:
    """
    Check the options of ``plot``.

    :param arguments: Its command line
    :raises ValueError: As ``check_plot``
    """
    peek = argparse.ArgumentParser(prog="sb3-flow plot", add_help=False)
    for options in (("-a", "--algos"), ("-e", "--env"), ("-f", "--exp-folders"), ("-l", "--labels")):
        peek.add_argument(*options, nargs="+", dest=options[1])
    peek.add_argument("-max", "--max-timesteps", type=int, dest="-max", default=int(2e6))
    peek.add_argument("-k", "--key", dest="-k", default="results")
    given = vars(peek.parse_known_args(arguments)[0])
    for option in ("--algos", "--env", "--exp-folders"):
        if not given[option]:
            raise ValueError(f"plot needs {option}, as in: sb3-flow plot -a fql -e Pendulum-v1 -f logs.")
    folders, labels = given["--exp-folders"], given["--labels"]
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"There is no folder {folder}; -f takes the folders of logs.")
    if labels and len(labels) != len(folders):
        raise ValueError(f"plot: -l has {len(labels)} labels, and -f {len(folders)} folders; pass one label for each folder.")
    curves = {
        f"{algo} on {env} in {folder}": _drawn(Path(folder, algo.lower()), env)
        for env, algo, folder in itertools.product(given["--env"], given["--algos"], folders)
    }
    if single := [curve for curve, runs in curves.items() if {run.episodes for run in runs} == {1}]:
        message = f"plot: RL Zoo computes no standard error of evaluations with one episode: {', '.join(single)}."
        remedy = "Train with `--eval-episodes 5`, or use `sb3-flow report`."
        if any(len(curves[curve]) == 1 for curve in single):
            raise ValueError(f"{message} {remedy}")
        warn(f"{message} The table shows 0 there. {remedy}")
    if missing := [curve for curve, runs in curves.items() if not runs]:
        message = f"plot: a curve needs a run with two evaluations or more. There is none of {', '.join(missing)}."
        if len(missing) == len(curves):
            raise ValueError(message)
        warn(f"{message} The table shows 0 or nothing there.")
    for curve, runs in curves.items():
        for run in runs:
            if run.start > given["-max"]:
                raise ValueError(
                    f"plot: -max is {given['-max']} (default: 2000000), but the first evaluation of {curve} is at "
                    f"{run.start} timesteps. Pass a larger -max."
                )
            if given["-k"] not in run.keys:
                raise ValueError(f"plot: -k is {given['-k']}, but {curve} has {', '.join(run.keys)}.")


def _drawn(runs: Path, env: str) -> list[Curve]:
    """
    The runs in a folder that RL Zoo draws: it matches a part of an environment's id, and skips single points and runs that are
    shorter than others.
    """
    curves = [_read(file) for file in runs.glob("*/evaluations.npz") if env in file.parent.name]
    longest = max((curve.evaluations for curve in curves), default=0)
    return [curve for curve in curves if curve.evaluations == longest > 1]


def _read(file: Path) -> Curve:
    try:
        with np.load(file) as evaluations:
            timesteps, results = evaluations["timesteps"], evaluations["results"]
            if timesteps.ndim != 1 or results.ndim != 2 or len(results) != len(timesteps):
                raise ValueError(f"`timesteps` {timesteps.shape} and `results` {results.shape} do not fit")
            keys = tuple(key for key in evaluations.files if evaluations[key].ndim > 1)
            return Curve(len(results), results.shape[1], int(timesteps[0]) if len(timesteps) else 0, keys)
    except (*DAMAGE, KeyError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: it is damaged, or was not written by `EvalCallback`.") from error


def check_episodes(arguments: list[str]) -> None:
    """
    Check the options of ``plot-train``, which draws nothing of runs with fewer episodes than its window.

    :param arguments: Its command line
    :raises ValueError: As ``check_plot``
    """
    peek = argparse.ArgumentParser(prog="sb3-flow plot-train", add_help=False)
    peek.add_argument("-a", "--algo")
    peek.add_argument("-e", "--env", nargs="+")
    peek.add_argument("-f", "--exp-folder")
    peek.add_argument("-w", "--episode-window", type=int, default=100)
    given = peek.parse_known_args(arguments)[0]
    if not (given.algo and given.env and given.exp_folder):
        return  # the script says so
    if (window := given.episode_window) < 1:
        raise ValueError(f"-w is {window}; it must be at least 1.")
    folder = Path(given.exp_folder, given.algo)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}; -f takes the folder of logs, and -a the name of an algorithm in it.")
    for env in given.env:
        episodes = {run: _episodes(run) for run in sorted(folder.iterdir()) if env in run.name and run.is_dir()}
        longest = max(episodes.values(), default=0)
        if not longest:
            raise ValueError(f"plot-train: {folder} has no episodes of training on {env}. Offline runs have none: use `plot`.")
        if longest < window:
            raise ValueError(
                f"plot-train: a curve needs {window} episodes, its window, and the runs on {env} in {folder} have at most "
                f"{longest}. Pass a smaller window, such as -w {max(1, longest // 10)}."
            )
        if short := [run.name for run, count in episodes.items() if count < window]:
            warn(
                f"plot-train: there is no curve of {', '.join(short)}, with fewer episodes than the window, {window}. Pass a "
                "smaller -w."
            )


def _episodes(run: Path) -> int:
    """The number of episodes of training of a run."""
    try:
        return len(load_results(str(run)))
    except LoadMonitorResultsError:
        return 0
