"""What readers have to know about the runs of an algorithm on a task: they are not only seeds, or ended early."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from sb3_flow.tables.evaluations import RunScores

#: Settings on which results do not depend, and the seed, which is to differ.
IGNORED = {"seed", "stats_window_size", "tensorboard_log", "verbose"}


def remarks(runs: Iterable[RunScores]) -> list[str]:
    """
    Compare the runs of each algorithm and task, as far as their settings were recorded.

    :param runs: The runs of a page
    :return: Markdown, a line for each remark
    """
    cells: dict[tuple[str, str], list[RunScores]] = {}
    for run in runs:
        cells.setdefault((run.algorithm, run.task), []).append(run)
    found = []
    for (algorithm, task), cell in cells.items():
        for remark in (*_settings(cell), *_seeds(cell), *_ends(cell)):
            found.append(f"{algorithm} on `{task}`: {remark}")
    return found


def _settings(cell: list[RunScores]) -> Iterator[str]:
    """Settings that differ between the runs."""
    recorded = [run for run in cell if run.config.keys() - IGNORED]  # not of another sampler, nor in every table
    differing = []
    for key in dict.fromkeys(key for run in recorded for key in run.config if key not in IGNORED):
        groups: dict[str, list[RunScores]] = {}
        for run in recorded:
            groups.setdefault(_comparable(run.config[key]) if key in run.config else "", []).append(run)
        if len(groups) > 1:
            values = (f"{_text(group[0], key)} ({_numbers(group)})" for group in groups.values())
            differing.append(f"`{key}` is {', '.join(values)}")
    if differing:
        yield f"the settings of its runs differ, not only the seeds: {'; '.join(differing)}."


def _seeds(cell: list[RunScores]) -> Iterator[str]:
    """Seeds of more than one run."""
    groups: dict[str, list[RunScores]] = {}
    for run in cell:
        if "seed" in run.config:
            groups.setdefault(str(run.config["seed"]), []).append(run)
    for seed, group in groups.items():
        if len(group) > 1:
            yield f"{_numbers(group)} have the same seed, {seed}."


def _ends(cell: list[RunScores]) -> Iterator[str]:
    """Runs whose end was not recorded, and that would have had further evaluations until it."""
    for run in cell:
        planned, (before, last) = run.config.get("n_timesteps"), [0, *run.timesteps.tolist()][-2:]
        if not run.system and isinstance(planned, int | float) and planned >= 2 * last - before:
            yield f"run {run.run_id} has not reached its end: evaluated until {last:,} of {planned:,} timesteps."


def _comparable(value: Any) -> str:
    """The same text for values that are equal, in the folder of a run and in a table: 1 and 1.0, tuples and lists."""
    return json.dumps(json.loads(json.dumps(value, default=str), parse_int=float), sort_keys=True)


def _text(run: RunScores, key: str) -> str:
    return f"`{json.dumps(run.config[key], default=str, ensure_ascii=False)}`" if key in run.config else "not set"


def _numbers(runs: list[RunScores]) -> str:
    return f"run{'s' * (len(runs) > 1)} {', '.join(str(run.run_id) for run in runs)}"
