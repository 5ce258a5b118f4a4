"""Plots of learning curves."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.optional import require
from sb3_flow.common.warn import warn
from sb3_flow.tables.evaluations import RunScores, mean_seconds, names

#: Colors for readers with color vision deficiency (Okabe and Ito, 2008), with gray instead of yellow, which is faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
MARKERS = "osD^vP*X"
#: Width and height of a panel, and height of a line of the legend, in inches.
WIDTH, HEIGHT, LINE = 4.5, 3.2, 0.24
#: Maximum number of characters per line of a title.
TITLE_WIDTH = 40
#: Period of a dashed line in units of its width, and the smallest fraction of a period without gap.
PERIOD, SHORTEST = 12.0, 0.3


def style(number: int, count: int) -> dict[str, Any]:
    """
    Style of the curve of an algorithm. Each curve has longer gaps and smaller markers than the curves below it, so that equal
    curves do not hide each other.

    :param number: Number of the algorithm, from 0
    :param count: Number of algorithms
    :return: Arguments of matplotlib's ``plot``
    """
    place = number / max(count - 1, 1)
    gap = PERIOD * (1 - SHORTEST) * place
    color = COLORS[number % len(COLORS)]
    return {
        "color": color,
        "linestyle": (0, (PERIOD - gap, gap)) if number else "-",
        "linewidth": 1.8,
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 8.0 - 4.5 * place,
        "markerfacecolor": "none",
    }


def plot_curves(runs: list[RunScores], path: Path, over_time: bool = False) -> Path:
    """
    Plot learning curves: the mean over seeds, and a band from the smallest to the largest score.

    :param runs: All runs; tasks with a single evaluation are omitted, unless all tasks have one only
    :param path: The image file
    :param over_time: Whether the x axis has seconds of training instead of timesteps
    :return: The image file
    """
    figure_module = require("matplotlib.figure", "zoo", "The report")
    tasks, _ = names([run for run in runs if len(run.curve) > 1] or runs)
    _, algorithms = names([run for run in runs if run.task in tasks])
    columns = min(len(tasks), 2)
    n_rows = -(-len(tasks) // columns)
    figure = figure_module.Figure(figsize=(WIDTH * columns, HEIGHT * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, columns, squeeze=False).flatten()
    for axes, task in zip(panels, tasks, strict=False):
        for number, algorithm in enumerate(algorithms):
            group = [run for run in runs if run.task == task and run.algorithm == algorithm]
            if not group:
                continue
            n = min(len(run.curve) for run in group)
            if not over_time and any((run.timesteps[:n] != group[0].timesteps[:n]).any() for run in group):
                warn(
                    f"{task}, {algorithm}: the runs were evaluated at different timesteps; their curve is drawn at those of "
                    f"run {group[0].run_id}."
                )
            curves = np.array([run.curve[:n] for run in group])
            places = mean_seconds(group, algorithm)[:n] if over_time else group[0].timesteps[:n]
            look = style(number, len(algorithms))
            axes.plot(places, curves.mean(axis=0), label=algorithm, **look)
            axes.fill_between(places, curves.min(axis=0), curves.max(axis=0), color=look["color"], alpha=0.12, linewidth=0)
        label = "seconds of training" if over_time else "updates or steps"
        title = textwrap.fill(task, TITLE_WIDTH)
        axes.set(title=title, xlabel=label, ylabel=next(run.metric for run in runs if run.task == task))
        if axes.get_ylabel() == "success rate":
            axes.set_ylim(-0.03, 1.03)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(alpha=0.3)
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    handles = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    entry = 0.95 + 0.076 * max(map(len, handles))  # width of a line and the longest label in inches
    fitting = min(len(handles), max(1, int(WIDTH * columns / entry)))
    figure.set_figheight(HEIGHT * n_rows + LINE * -(-len(handles) // fitting))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=fitting, handlelength=4)
    figure.savefig(path, dpi=120)
    return path
