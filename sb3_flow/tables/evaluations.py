"""Scores of runs, from their folders or from a table of evaluations."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.tables.records import MEASURE, RunRecord, read_tree
from sb3_flow.tables.table import TABLE, read_table


@dataclass(frozen=True)
class RunScores:
    """
    The scores of one run.

    :param algorithm: Its name, such as ``"fql"``
    :param task: The task: environment and setting
    :param run_id: Number of the run
    :param timesteps: Timesteps of the evaluations, ``(n_evaluations,)``
    :param scores: Score of each episode, ``(n_evaluations, n_episodes)``
    :param metric: ``"success rate"`` or ``"return"``, or the name of a measure
    :param system: Versions, hardware and seconds, if they were recorded
    :param last: Number of evaluations at the end that make the final score
    :param seconds: Seconds of training before each evaluation, ``(n_evaluations,)``; None if they were not recorded
    :param measures: Further measures of the environment by name, each as ``scores``
    :param config: The settings, see ``RunRecord``
    """

    algorithm: str
    task: str
    run_id: int
    timesteps: np.ndarray
    scores: np.ndarray
    metric: str
    system: dict[str, Any]
    last: int = 1
    seconds: np.ndarray | None = None
    measures: dict[str, np.ndarray] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def by_measure(self, name: str) -> "RunScores":
        """The run with a measure as score."""
        return replace(self, scores=self.measures[name], metric=name)

    @property
    def curve(self) -> np.ndarray:
        """Mean score of each evaluation, ``(n_evaluations,)``."""
        means: np.ndarray = self.scores.mean(axis=1)
        return means

    @property
    def final(self) -> float:
        """Mean score of the last evaluations, see ``last``."""
        return float(self.curve[-self.last :].mean())


def read_records(source: str | Path) -> list[RunRecord]:
    """
    Read the records of runs, from a table or from their folders.

    :param source: A table, a folder with one, or a folder of runs
    :return: The runs, sorted by task, algorithm and number
    :raises FileNotFoundError: If there are no runs.
    :raises ValueError: If a file is damaged, or the folder contains both a table and runs.
    """
    path = Path(source)
    table = path if path.is_file() else path / TABLE
    if not table.is_file():
        records = read_tree(path)
    elif table != path and any(path.glob("**/evaluations.npz")):
        raise ValueError(f"{path} contains both a table and runs. Pass the table, {table}, or move one of them.")
    else:
        records = read_table(table)
    return _sorted(records)


def join_records(sources: Iterable[list[RunRecord]], first_wins: bool = False) -> list[RunRecord]:
    """
    Join the runs of several sources, such as new runs and a table of earlier ones.

    :param sources: The runs of each source
    :param first_wins: Whether of runs with the same name and other evaluations the first one is used
    :return: All runs, sorted as by ``read_records``; finished ones instead of unfinished ones of the same name
    :raises ValueError: If a run has other evaluations in another source, unless ``first_wins``.
    """
    joined: dict[tuple[str, str, str, int], RunRecord] = {}
    for record in (record for records in sources for record in records):
        first = joined.setdefault(record.key, record)
        if first.unfinished and not record.unfinished:
            joined[record.key] = record
        elif not record.unfinished and not first_wins and not _same_evaluations(first, record):
            raise ValueError(
                f"{record} is in two sources, with different evaluations. Remove it from one of them, or pass --force to use "
                "that of the first source."
            )
    return _sorted(joined.values())


def _sorted(records: Iterable[RunRecord]) -> list[RunRecord]:
    return sorted(records, key=lambda record: (task_of(record), record.algorithm, record.run_id))


def _same_evaluations(run: RunRecord, other: RunRecord) -> bool:
    return run.arrays.keys() == other.arrays.keys() and all(
        np.array_equal(values * 1.0, other.arrays[name] * 1.0, equal_nan=True) for name, values in run.arrays.items()
    )


def read_runs(source: str | Path, last: int = 1) -> list[RunScores]:
    """
    Read the scores of runs.

    :param source: A table, a folder with one, or a log folder of RL Zoo or of a sweep
    :param last: Number of evaluations at the end that make the final score, at least 1; the paper of FQL uses 3
    :return: The runs, sorted by task, algorithm and number
    :raises FileNotFoundError: If there are no runs.
    :raises ValueError: If a file is damaged, or only some runs of a task have success rates.
    """
    return scores_of(read_records(source), last)


def scores_of(records: Iterable[RunRecord], last: int = 1) -> list[RunScores]:
    """
    Get the scores of runs: success rates if there are any, otherwise returns.

    :param records: The runs
    :param last: Number of evaluations at the end that make the final score, at least 1
    :return: Their scores, in the same order
    :raises ValueError: If only some runs of a task have success rates, which cannot be compared with returns.
    """
    if last < 1:
        raise ValueError(f"`last` is {last}; it must be at least 1.")
    runs = [_scores(record, last) for record in records]
    first: dict[str, RunScores] = {}
    for run in runs:
        other = first.setdefault(run.task, run)
        if other.metric != run.metric:
            one, two = (f"{each.algorithm} {each.run_id} has a {each.metric}" for each in (other, run))
            raise ValueError(f"{run.task}: {one}, and {two}. All runs of a task must have the same score; remove some runs.")
    return runs


def task_of(record: RunRecord) -> str:
    """The task of a run: environment and setting."""
    return f"{record.env} ({record.setting})" if record.setting else record.env


def _scores(record: RunRecord, last: int) -> RunScores:
    arrays = record.arrays
    seconds = arrays.get("seconds")
    return RunScores(
        algorithm=record.algorithm,
        task=task_of(record),
        run_id=record.run_id,
        timesteps=arrays["timesteps"],
        scores=arrays["successes" if "successes" in arrays else "results"].astype(float),
        metric="success rate" if "successes" in arrays else "return",
        system=record.system,
        last=last,
        seconds=seconds if seconds is not None and np.isfinite(seconds).all() else None,  # NaN: not recorded
        measures={name.removeprefix(MEASURE): arrays[name].astype(float) for name in arrays if name.startswith(MEASURE)},
        config=record.config,
    )


def split_short(records: Iterable[RunRecord]) -> tuple[list[RunRecord], list[tuple[RunRecord, RunRecord]]]:
    """
    Separate runs that end before other runs of the same task and algorithm: their scores are not comparable.

    :param records: Runs
    :return: The others, and these runs, each with the first of the longest runs
    """
    records = list(records)
    longest: dict[tuple[str, ...], RunRecord] = {}
    for record in records:
        other = longest.setdefault(record.key[:3], record)
        if record.last_timestep > other.last_timestep:
            longest[record.key[:3]] = record
    pairs = [(record, longest[record.key[:3]]) for record in records]
    full = [record for record, other in pairs if record.last_timestep == other.last_timestep]
    return full, [(record, other) for record, other in pairs if record.last_timestep < other.last_timestep]


def check_last(runs: Iterable[RunScores]) -> None:
    """
    Check that runs have the evaluations of the final score.

    :param runs: Runs
    :raises ValueError: If one has fewer than ``last``.
    """
    for run in runs:
        if len(run.timesteps) < run.last:
            raise ValueError(
                f"{run.algorithm} {run.task} {run.run_id} has {len(run.timesteps)} evaluations, and the score is the mean "
                f"over the last {run.last}. Choose a smaller `last`."
            )


def by_time(runs: list[RunScores]) -> list[RunScores]:
    """
    The runs of tasks that can be compared over time: all their runs have recorded times.

    :param runs: All runs
    :return: These runs; an empty list if there is only one algorithm
    """
    without = {run.task for run in runs if run.seconds is None}
    timed = [run for run in runs if run.task not in without]
    return timed if len({run.algorithm for run in timed}) > 1 else []


def matrix(runs: Iterable[RunScores], algorithm: str, tasks: list[str]) -> np.ndarray:
    """
    The final scores of an algorithm.

    :param runs: All runs
    :param algorithm: Its name
    :param tasks: Tasks
    :return: Score of each seed and task, ``(n_seeds, n_tasks)``, truncated to the smallest number of seeds of a task
    """
    columns = [[run.final for run in runs if run.algorithm == algorithm and run.task == task] for task in tasks]
    n_seeds = min(len(column) for column in columns)
    return np.array([column[:n_seeds] for column in columns]).T


def names(runs: list[RunScores]) -> tuple[list[str], list[str]]:
    """
    Tasks and algorithms of runs.

    :param runs: The runs
    :return: Their tasks in the order of the runs, and their algorithms sorted
    """
    return list(dict.fromkeys(run.task for run in runs)), sorted({run.algorithm for run in runs})


def mean_seconds(runs: list[RunScores], algorithm: str) -> np.ndarray:
    """
    Mean time of each evaluation of an algorithm over seeds.

    :param runs: Runs of one task
    :param algorithm: Its name
    :return: ``(n_evaluations,)``
    """
    found = [run.seconds for run in runs if run.algorithm == algorithm and run.seconds is not None]
    n = min(map(len, found))
    means: np.ndarray = np.mean([seconds[:n] for seconds in found], axis=0)
    return means
