"""What runs left behind: RL Zoo's tree of folders, read into scores."""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

#: How the names of arrays begin that hold measures.
MEASURE = "measure_"


@dataclass(frozen=True)
class RunScores:
    """
    The evaluations of one run.

    :param algorithm: The folder's name, such as ``"fql"``
    :param env: Environment id
    :param setting: Name of the sweep's setting, which is a folder as well; empty where there is none
    :param run_id: Number of the run
    :param timesteps: When it was evaluated, ``(n_evaluations,)``
    :param scores: A score for each episode, ``(n_evaluations, n_episodes)``
    :param metric: ``"success rate"`` or ``"return"``, or the name of a measure
    :param config: The hyperparameters, if they were kept
    :param system: Versions, hardware and seconds, if they were kept
    :param last: How many evaluations at the end make the final score
    :param seconds: Seconds of training before each evaluation, ``(n_evaluations,)``; None where no clock ran
    :param measures: What else the environment measured, by name, each as ``scores``
    """

    algorithm: str
    env: str
    setting: str
    run_id: int
    timesteps: np.ndarray
    scores: np.ndarray
    metric: str
    config: dict[str, Any]
    system: dict[str, Any]
    last: int = 1
    seconds: np.ndarray | None = None
    measures: dict[str, np.ndarray] = field(default_factory=dict)

    def by_measure(self, name: str) -> "RunScores":
        """The run with a measure for its score."""
        return replace(self, scores=self.measures[name], metric=name)

    @property
    def task(self) -> str:
        """What runs of several algorithms have in common: the environment, and the setting."""
        return f"{self.env} ({self.setting})" if self.setting else self.env

    @property
    def curve(self) -> np.ndarray:
        """Mean score of each evaluation, ``(n_evaluations,)``."""
        means: np.ndarray = self.scores.mean(axis=1)
        return means

    @property
    def final(self) -> float:
        """Mean score of the last evaluations."""
        return float(self.curve[-self.last :].mean())


def read_runs(folder: str | Path, last: int = 1) -> list[RunScores]:
    """
    Read every run below a folder.

    :param folder: A log folder of RL Zoo, or of a sweep
    :param last: How many evaluations at the end make the final score, at least 1; the paper of FQL takes 3
    :return: The runs, sorted by task, algorithm and number
    :raises FileNotFoundError: If there is none.
    :raises ValueError: If a file is damaged; it names the file.
    """
    if last < 1:
        raise ValueError(f"The final score is the mean over the last {last} evaluations; it must be at least 1.")
    root = Path(folder)
    runs = [_read_run(root, file, last) for file in sorted(root.glob("**/evaluations.npz"))]
    if not runs:
        raise FileNotFoundError(
            f"{root} has no run with evaluations: expected {root}/ALGORITHM/ENVIRONMENT_NUMBER/evaluations.npz."
        )
    return sorted(runs, key=lambda run: (run.task, run.algorithm, run.run_id))


def _read_run(root: Path, file: Path, last: int) -> RunScores:
    import yaml

    env, _, number = file.parent.name.rpartition("_")
    if not number.isdigit():
        raise ValueError(f"{file}: its folder should be named ENVIRONMENT_NUMBER, as RL Zoo does.")
    try:
        with np.load(file) as arrays:
            metric = "success rate" if "successes" in arrays else "return"
            scores = arrays["successes" if "successes" in arrays else "results"].astype(float)
            timesteps = arrays["timesteps"]
            seconds = arrays["seconds"] if "seconds" in arrays else None
            found = [name for name in arrays.files if name.startswith(MEASURE)]
            measures = {name.removeprefix(MEASURE): arrays[name].astype(float) for name in found}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged, or was not written by an evaluation: {error}") from error

    def read(name: str) -> dict[str, Any]:
        path = file.parent / env / name
        # RL Zoo writes an OrderedDict, which only the loader for trusted files reads; these are the user's own.
        return dict(yaml.load(path.read_text("utf-8"), yaml.UnsafeLoader)) if path.is_file() else {}

    *setting, algorithm = file.parent.parent.relative_to(root).parts or (root.name,)
    return RunScores(
        algorithm=algorithm,
        env=env,
        setting="/".join(setting),
        run_id=int(number),
        timesteps=timesteps,
        scores=scores,
        metric=metric,
        config=read("config.yml"),
        system=read("system.yml"),
        last=last,
        seconds=seconds if seconds is not None and np.isfinite(seconds).all() else None,  # nan: a part without a clock
        measures=measures,
    )


def split_finished(runs: list[RunScores]) -> tuple[list[RunScores], list[RunScores]]:
    """
    Tell runs that have finished from those that are on their way: these end before others of the same task and algorithm.

    :param runs: All runs
    :return: Those that have finished, and the others
    """
    ends: dict[tuple[str, str], int] = {}
    for run in runs:
        key = run.task, run.algorithm
        ends[key] = max(ends.get(key, 0), int(run.timesteps[-1]))
    finished = [run for run in runs if run.timesteps[-1] == ends[run.task, run.algorithm]]
    return finished, [run for run in runs if run.timesteps[-1] < ends[run.task, run.algorithm]]


def by_time(runs: list[RunScores]) -> list[RunScores]:
    """
    Those of the runs whose tasks can be compared in time: where a clock ran in every run of every algorithm.

    :param runs: All runs
    :return: Some of them; none where there is one algorithm, and so nothing to compare
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
    :return: Of each seed and task, ``(n_seeds, n_tasks)``, cut to the seeds that every task has
    """
    columns = [[run.final for run in runs if run.algorithm == algorithm and run.task == task] for task in tasks]
    n_seeds = min(len(column) for column in columns)
    return np.array([column[:n_seeds] for column in columns]).T
