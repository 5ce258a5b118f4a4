"""The command ``sb3-flow report``: a page with a table and learning curves, made of evaluations alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.tables.curves import plot_curves
from sb3_flow.tables.evaluations import (
    RunScores,
    by_time,
    matrix,
    mean_seconds,
    names,
    read_records,
    scores_of,
    split_finished,
)
from sb3_flow.tables.records import RunRecord
from sb3_flow.tables.table import TABLE, is_table, write_table

#: Resamples of the bootstrap, and its seed.
RESAMPLES, SEED = 2_000, 0
#: With fewer seeds, resampling says nothing about others.
FEWEST = 3
CAPTION = "Lines: means over seeds; bands: from the lowest to the highest of them."
TIME_CAPTION = (
    "The same over seconds of training, evaluations not counted: each evaluation at the mean time of its seeds. Fair only if "
    "all runs were made side by side on one machine."
)
PAGE, CURVES, TIME_CURVES = "README.md", "learning_curves.png", "learning_curves_time.png"
#: The line of a page by which the command knows its own.
MARK = "<!-- `sb3-flow report` made what follows, and replaces it when it is run again. What stands above is kept. -->"


def add_commands(subparsers: Any) -> None:
    """
    Add the command to a parser.

    :param subparsers: What ``add_subparsers`` returned
    """
    command = subparsers.add_parser(
        "report",
        help="make a page of results from runs: table, intervals, learning curves",
        description="Read every evaluations.npz below a folder, as RL Zoo and `sb3-flow sweep` write them, or a table, "
        f"and make {PAGE} and {CURVES} there, and {TIME_CURVES} where the evaluations know their time. With --output, write "
        f"{TABLE} and the page to another folder, to be kept and published: the page can be made again from that table.",
    )
    command.add_argument("source", type=Path, help=f"a log folder of RL Zoo, the output of a sweep, or a {TABLE}")
    command.add_argument("--output", type=Path, metavar="FOLDER", help="where to keep the table and the page")
    command.add_argument("--title", help="title of the page (default: that of the page before, or Results)")
    command.add_argument(
        "--introduction", type=Path, metavar="FILE.md", help="text to put before the scores (default: that of the page before)"
    )
    command.add_argument(
        "--last", type=int, default=1, metavar="N", help="score: mean over the last N evaluations (default: 1)"
    )
    command.add_argument("--force", action="store_true", help=f"replace a {PAGE} or {TABLE} that this command did not make")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    folder = options.output or (options.source.parent if options.source.is_file() else options.source)
    text = head(folder / PAGE, options.title, options.introduction, options.force)
    records = read_records(options.source)
    runs, unfinished = split_finished(scores_of(records, options.last))
    for run in unfinished:
        print(
            f"Left out, because it has not finished: {run.algorithm} {run.task} {run.run_id} ({run.timesteps[-1]:,} timesteps)"
        )
    if options.output is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _keep(records, folder, options.force)
    (folder / PAGE).write_text(make_page(runs, text), "utf-8")
    print(f"Wrote {folder / PAGE}")
    pictures = [plot_curves(runs, folder / CURVES)]
    if timed := by_time(runs):
        pictures.append(plot_curves(timed, folder / TIME_CURVES, over_time=True))
    for picture in pictures:
        print(f"Wrote {picture}")


def _keep(records: list[RunRecord], folder: Path, force: bool) -> None:
    """Write the table, but not over another one, nor beside runs: these would be read later, or it."""
    file = folder / TABLE
    if any(folder.glob("**/evaluations.npz")):
        raise ValueError(f"{folder} holds runs; give another --output, where only the table is.")
    if file.exists() and not (force or is_table(file)):
        raise ValueError(f"{file} is no table of evaluations: move it away, give another --output, or replace it by --force.")
    write_table(records, file)
    print(f"Wrote {file}")


def head(page: Path, title: str | None = None, introduction: Path | None = None, force: bool = False) -> str:
    """
    What stands above the scores: what is given, and else what the page before has there.

    :param page: The page, which need not exist
    :param title: Its title
    :param introduction: A file with the text below the title
    :param force: Whether a page may be replaced that this command did not make
    :return: Markdown
    :raises ValueError: If there is a page that this command did not make.
    """
    before = page.read_text("utf-8") if page.is_file() else ""
    kept, mark, _ = before.partition(MARK)
    if before and not (mark or force):
        raise ValueError(
            f"`sb3-flow report` did not make {page}: move it away, give another --output, or replace it by --force. "
            "A page that it made has a line that says so."
        )
    first, _, rest = kept.strip().partition("\n") if mark else ("# Results", "", "")
    if title is not None:
        first = f"# {title}"
    if introduction is not None:
        rest = introduction.read_text("utf-8")
    return f"{first}\n\n{rest.strip()}".strip()


def make_page(runs: list[RunScores], text: str = "# Results") -> str:
    """
    Make the page.

    :param runs: All runs
    :param text: What stands above the scores: title and introduction
    :return: Markdown
    """
    parts = [
        text,
        MARK,
        *_table(runs),
        *_measures(runs),
        *_aggregate(runs),
        f"![Learning curves]({CURVES})",
        CAPTION,
    ]
    parts += [*_equal_time(by_time(runs)), *_each_seed(runs), *_conditions(runs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def interval(scores: np.ndarray) -> tuple[float, ...]:
    """
    The interquartile mean, and its 95 % interval by a bootstrap stratified over tasks (Agarwal et al., 2021).

    The same scores always have the same interval.

    :param scores: ``(n_seeds, n_tasks)``
    :return: Interquartile mean, lower and upper bound; with fewer than three seeds, the interquartile mean alone
    """
    n_seeds, n_tasks = scores.shape
    point = float(_interquartile_mean(scores.reshape(1, -1))[0])
    if n_seeds < FEWEST:
        return (point,)
    # rliable resamples alike, but from NumPy's global generator whatever `random_state` it is given (1.2.0).
    seeds = np.random.RandomState(SEED).choice(n_seeds, (RESAMPLES, n_seeds, n_tasks))
    resampled = np.take_along_axis(scores[None], seeds, axis=1)
    low, high = np.percentile(_interquartile_mean(resampled.reshape(RESAMPLES, -1)), (2.5, 97.5))
    return point, float(low), float(high)


def _interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Of each row, without a quarter of its scores at either end."""
    cut = scores.shape[1] // 4
    means: np.ndarray = np.sort(scores, axis=1)[:, cut : scores.shape[1] - cut].mean(axis=1)
    return means


def _format(value: float, metric: str) -> str:
    return f"{value:,.0f}" if metric == "return" else f"{value:.2f}"


def _estimate(scores: np.ndarray, metric: str) -> str:
    """The interquartile mean and its interval; nothing where there are no scores."""
    if not scores.size:
        return ""
    point, *bounds = (_format(value, metric) for value in interval(scores))
    if bounds:
        return f"{point} ({' to '.join(bounds)})"
    return f"{point} ({len(scores)} {'run' if len(scores) == 1 else 'runs'}: too few for an interval)"


def _rows(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _table(runs: list[RunScores]) -> list[str]:
    tasks, algorithms = names(runs)
    rows = []
    for task in tasks:
        metric = next(run.metric for run in runs if run.task == task)
        row = [f"`{task}`", metric]
        for algorithm in algorithms:
            row.append(_estimate(matrix(runs, algorithm, [task]), metric))
        rows.append(row)
    evaluations = "last evaluation" if runs[0].last == 1 else f"last {runs[0].last} evaluations"
    note = f"Score of the {evaluations}: interquartile mean over seeds, and in brackets its 95 % bootstrap interval."
    return ["## Scores", note, _rows(["task", "score", *algorithms], rows)]


def _measures(runs: list[RunScores]) -> list[str]:
    """What environments measure beside the score: a row for each task and measure."""
    rows = []
    for task in names(runs)[0]:
        group = [run for run in runs if run.task == task]
        for name in dict.fromkeys(name for run in group for name in run.measures):
            measured = [run.by_measure(name) for run in group if name in run.measures]
            row = [f"`{task}`", name]
            for algorithm in names(runs)[1]:
                row.append(_estimate(matrix(measured, algorithm, [task]), name))
            rows.append(row)
    note = "What else was measured in these episodes, in the same way:"
    return [note, _rows(["task", "measure", *names(runs)[1]], rows)] if rows else []


def _aggregate(runs: list[RunScores]) -> list[str]:
    """Over all tasks with success rates; returns of different tasks have no common scale."""
    tasks, algorithms = names([run for run in runs if run.metric == "success rate"])
    if len(tasks) < 2:
        return []
    rows = []
    for algorithm in algorithms:
        if all(any(run.task == task and run.algorithm == algorithm for run in runs) for task in tasks):
            scores = matrix(runs, algorithm, tasks)
            rows.append([algorithm, _estimate(scores, "success rate"), str(len(scores)), str(len(tasks))])
    return ["Over all tasks with success rates:", _rows(["algorithm", "interquartile mean", "seeds", "tasks"], rows)]


def _equal_time(runs: list[RunScores]) -> list[str]:
    """The picture over time, and what all algorithms had reached when the fastest of them was done."""
    if not runs:
        return []
    tasks, algorithms = names(runs)
    rows = []
    for task in tasks:
        group = [run for run in runs if run.task == task]
        ends = {run.algorithm: mean_seconds(group, run.algorithm)[-1] for run in group}
        row = [f"`{task}`", f"{min(ends.values()):,.0f}"]
        for algorithm in algorithms:
            text = ""
            if algorithm in ends:
                evaluation = np.searchsorted(mean_seconds(group, algorithm), min(ends.values()), side="right") - 1
                text = "none yet"
                if evaluation >= 0:
                    scores = [run.curve[evaluation] for run in group if run.algorithm == algorithm]
                    text = f"{_format(float(np.mean(scores)), group[0].metric)} of {ends[algorithm]:,.0f} s"
            row.append(text)
        rows.append(row)
    note = (
        "When the fastest algorithm of a row was done: the mean over seeds of each algorithm's last evaluation until then, "
        "and how long all of its training took."
    )
    picture = f"![Learning curves over time]({TIME_CURVES})"
    return ["## In equal time", picture, TIME_CAPTION, note, _rows(["task", "seconds", *algorithms], rows)]


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
                _format(run.final, run.metric),
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
