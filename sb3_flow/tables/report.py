"""The command ``sb3-flow report``: a page with a table and learning curves, made of ``evaluations.npz`` alone."""

from __future__ import annotations

import argparse
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.optional import require
from sb3_flow.tables.evaluations import RunScores, by_time, matrix, read_runs, split_finished

#: Resamples of the bootstrap, and its seed.
RESAMPLES, SEED = 2_000, 0
CAPTION = "Lines: means over seeds; bands: from the lowest to the highest of them."
TIME_CAPTION = (
    "The same over seconds of training, evaluations not counted: each evaluation at the mean time of its seeds. Fair only if "
    "all runs were made side by side on one machine."
)
CURVES, TIME_CURVES = "learning_curves.png", "learning_curves_time.png"
#: What is kept of a run.
KEPT = ("evaluations.npz", "config.yml", "system.yml")


def add_commands(subparsers: Any) -> None:
    """
    Add the command to a parser.

    :param subparsers: What ``add_subparsers`` returned
    """
    command = subparsers.add_parser(
        "report",
        help="make a page of results from runs: table, intervals, learning curves",
        description="Read every evaluations.npz below a folder, as RL Zoo and `sb3-flow sweep` write them, and make README.md "
        "and learning_curves.png there, and learning_curves_time.png where the evaluations know their time. With --output, "
        "copy what they are made of to another folder first, without models and logs, to be kept and published.",
    )
    command.add_argument("folder", type=Path, help="a log folder of RL Zoo, or the output of a sweep")
    command.add_argument("--output", type=Path, metavar="FOLDER", help="where to keep evaluations, settings and the page")
    command.add_argument("--title", default="Results")
    command.add_argument("--introduction", type=Path, metavar="FILE.md", help="text to put before the table")
    command.add_argument(
        "--last", type=int, default=1, metavar="N", help="score: mean over the last N evaluations (default: 1)"
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    introduction = options.introduction.read_text("utf-8").strip() if options.introduction else ""
    folder = options.folder
    runs, unfinished = split_finished(read_runs(folder, options.last))
    for run in unfinished:
        print(
            f"Left out, because it has not finished: {run.algorithm} {run.task} {run.run_id} ({run.timesteps[-1]:,} timesteps)"
        )
    if options.output is not None:
        folder = options.output
        copy_evidence(options.folder, folder)
    page = folder / "README.md"
    page.write_text(make_page(runs, options.title, introduction), "utf-8")
    print(f"Wrote {page}")
    pictures = [plot_curves(runs, folder / CURVES)]
    if timed := by_time(runs):
        pictures.append(plot_curves(timed, folder / TIME_CURVES, over_time=True))
    for picture in pictures:
        print(f"Wrote {picture}")


def copy_evidence(source: Path, target: Path) -> None:
    """
    Copy what a page is made of: evaluations, settings and conditions of each run.

    :param source: A log folder
    :param target: Where to
    """
    for pattern in KEPT:
        for file in source.glob(f"**/{pattern}"):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def make_page(runs: list[RunScores], title: str, introduction: str = "") -> str:
    """
    Make the page.

    :param runs: All runs
    :param title: Its title
    :param introduction: Text before the table
    :return: Markdown
    """
    parts = [
        f"# {title}",
        introduction,
        *_table(runs),
        *_measures(runs),
        *_aggregate(runs),
        f"![Learning curves]({CURVES})",
        CAPTION,
    ]
    parts += [*_equal_time(by_time(runs)), *_each_seed(runs), *_conditions(runs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def interval(scores: np.ndarray) -> tuple[float, float, float]:
    """
    The interquartile mean, and its 95 % interval by a bootstrap stratified over tasks (Agarwal et al., 2021).

    :param scores: ``(n_seeds, n_tasks)``
    :return: Interquartile mean, lower and upper bound
    """
    library = require("rliable.library", "zoo", "The report")
    metrics = require("rliable.metrics", "zoo", "The report")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a package that rliable uses
        points, bounds = library.get_interval_estimates(
            {"": scores},
            lambda values: np.array([metrics.aggregate_iqm(values)]),
            reps=RESAMPLES,
            random_state=np.random.RandomState(SEED),
        )
    return float(points[""][0]), float(bounds[""][0][0]), float(bounds[""][1][0])


def _names(runs: list[RunScores]) -> tuple[list[str], list[str]]:
    return list(dict.fromkeys(run.task for run in runs)), sorted({run.algorithm for run in runs})


def _format(values: tuple[float, ...], metric: str) -> str:
    texts = [f"{value:,.0f}" if metric == "return" else f"{value:.2f}" for value in values]
    return texts[0] if len(texts) == 1 else f"{texts[0]} ({texts[1]} to {texts[2]})"


def _rows(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _table(runs: list[RunScores]) -> list[str]:
    tasks, algorithms = _names(runs)
    rows = []
    for task in tasks:
        metric = next(run.metric for run in runs if run.task == task)
        row = [f"`{task}`", metric]
        for algorithm in algorithms:
            scores = matrix(runs, algorithm, [task])
            row.append(_format(interval(scores), metric) if scores.size else "")
        rows.append(row)
    evaluations = "last evaluation" if runs[0].last == 1 else f"last {runs[0].last} evaluations"
    note = f"Score of the {evaluations}: interquartile mean over seeds, and in brackets its 95 % bootstrap interval."
    return ["## Scores", note, _rows(["task", "score", *algorithms], rows)]


def _measures(runs: list[RunScores]) -> list[str]:
    """What environments measure beside the score: a row for each task and measure."""
    rows = []
    for task in _names(runs)[0]:
        group = [run for run in runs if run.task == task]
        for name in dict.fromkeys(name for run in group for name in run.measures):
            measured = [run.by_measure(name) for run in group if name in run.measures]
            row = [f"`{task}`", name]
            for algorithm in _names(runs)[1]:
                scores = matrix(measured, algorithm, [task])
                row.append(_format(interval(scores), name) if scores.size else "")
            rows.append(row)
    note = "What else was measured in these episodes, in the same way:"
    return [note, _rows(["task", "measure", *_names(runs)[1]], rows)] if rows else []


def _aggregate(runs: list[RunScores]) -> list[str]:
    """Over all tasks with success rates; returns of different tasks have no common scale."""
    tasks, algorithms = _names([run for run in runs if run.metric == "success rate"])
    if len(tasks) < 2:
        return []
    rows = []
    for algorithm in algorithms:
        if all(any(run.task == task and run.algorithm == algorithm for run in runs) for task in tasks):
            scores = matrix(runs, algorithm, tasks)
            rows.append([algorithm, _format(interval(scores), "success rate"), str(len(scores)), str(len(tasks))])
    return ["Over all tasks with success rates:", _rows(["algorithm", "interquartile mean", "seeds", "tasks"], rows)]


def _equal_time(runs: list[RunScores]) -> list[str]:
    """The picture over time, and what all algorithms had reached when the fastest of them was done."""
    if not runs:
        return []
    tasks, algorithms = _names(runs)
    rows = []
    for task in tasks:
        group = [run for run in runs if run.task == task]
        ends = {run.algorithm: _mean_seconds(group, run.algorithm)[-1] for run in group}
        row = [f"`{task}`", f"{min(ends.values()):,.0f}"]
        for algorithm in algorithms:
            text = ""
            if algorithm in ends:
                evaluation = np.searchsorted(_mean_seconds(group, algorithm), min(ends.values()), side="right") - 1
                text = "none yet"
                if evaluation >= 0:
                    scores = [run.curve[evaluation] for run in group if run.algorithm == algorithm]
                    text = f"{_format((float(np.mean(scores)),), group[0].metric)} of {ends[algorithm]:,.0f} s"
            row.append(text)
        rows.append(row)
    note = (
        "When the fastest algorithm of a row was done: the mean over seeds of each algorithm's last evaluation until then, "
        "and how long all of its training took."
    )
    picture = f"![Learning curves over time]({TIME_CURVES})"
    return ["## In equal time", picture, TIME_CAPTION, note, _rows(["task", "seconds", *algorithms], rows)]


def _mean_seconds(runs: list[RunScores], algorithm: str) -> np.ndarray:
    """The time of each evaluation of an algorithm, a mean over seeds, ``(n_evaluations,)``."""
    found = [run.seconds for run in runs if run.algorithm == algorithm and run.seconds is not None]
    n = min(map(len, found))
    means: np.ndarray = np.mean([seconds[:n] for seconds in found], axis=0)
    return means


def _each_seed(runs: list[RunScores]) -> list[str]:
    rows = []
    for run in runs:
        seconds = run.system.get("seconds")
        rows.append(
            [
                f"`{run.task}`",
                run.algorithm,
                str(run.run_id),
                f"{int(run.timesteps[-1]):,}",
                str(run.scores.shape[1]),
                _format((run.final,), run.metric),
                "" if seconds is None else f"{seconds:,}",
            ]
        )
    return ["## Each run", _rows(["task", "algorithm", "run", "updates or steps", "episodes", "score", "seconds"], rows)]


def _conditions(runs: list[RunScores]) -> list[str]:
    """Versions and hardware; where runs differ, all values are given."""
    values: dict[str, list[str]] = {}
    for run in runs:
        for key, value in run.system.items():
            if key != "seconds" and str(value) not in values.setdefault(key, []):
                values[key].append(str(value))
    if not values:
        return []
    return ["## Made with", _rows(["", ""], [[key, "; ".join(known)] for key, known in values.items()])]


def plot_curves(runs: list[RunScores], path: Path, over_time: bool = False) -> Path:
    """
    Draw the learning curves: the mean over seeds, and a band from the lowest to the highest.

    :param runs: All runs; tasks that were evaluated once are left out, unless all of them were.
    :param path: The picture
    :param over_time: Over seconds of training, instead of timesteps
    :return: The picture
    """
    figure_module = require("matplotlib.figure", "zoo", "The report")
    tasks, algorithms = _names([run for run in runs if len(run.curve) > 1] or runs)
    columns = min(len(tasks), 2)
    n_rows = -(-len(tasks) // columns)
    figure = figure_module.Figure(figsize=(4.5 * columns, 3.2 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, columns, squeeze=False).flatten()
    for axes, task in zip(panels, tasks, strict=False):
        for number, algorithm in enumerate(algorithms):
            group = [run for run in runs if run.task == task and run.algorithm == algorithm]
            if not group:
                continue
            n = min(len(run.curve) for run in group)
            curves = np.array([run.curve[:n] for run in group])
            places = _mean_seconds(group, algorithm)[:n] if over_time else group[0].timesteps[:n]
            axes.plot(places, curves.mean(axis=0), label=algorithm, color=f"C{number}", marker="o", markersize=3)
            axes.fill_between(places, curves.min(axis=0), curves.max(axis=0), color=f"C{number}", alpha=0.15, linewidth=0)
        label = "seconds of training" if over_time else "updates or steps"
        axes.set(title=task, xlabel=label, ylabel=next(run.metric for run in runs if run.task == task))
        if axes.get_ylabel() == "success rate":
            axes.set_ylim(-0.03, 1.03)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(alpha=0.3)
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    handles = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 2 * columns))
    figure.savefig(path, dpi=120)
    return path
