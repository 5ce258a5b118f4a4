"""Plots of learning curves."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.axes
import matplotlib.colors
import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest
from written_runs import write_run

from sb3_flow.tables.curves import COLORS, plot_curves
from sb3_flow.tables.evaluations import RunScores, read_runs


@pytest.fixture(autouse=True)
def default_settings() -> Iterator[None]:
    """RL Zoo's plots, which other tests run in the same process, change the settings of Matplotlib."""
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        yield


def test_the_picture_over_time_has_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for run_id in (1, 2):
        write_run(tmp_path, "fast", "Runner-v5", run_id, None, [100.0 * run_id] * 4, [8.0 * run_id, 30.0])
    drawn = []
    original = matplotlib.axes.Axes.plot
    monkeypatch.setattr(
        matplotlib.axes.Axes, "plot", lambda axes, *args, **kwargs: drawn.append(args) or original(axes, *args, **kwargs)
    )
    runs = read_runs(tmp_path)
    plot_curves(runs, tmp_path / "steps.png")
    plot_curves(runs, tmp_path / "seconds.png", over_time=True)
    np.testing.assert_array_equal(drawn, [([500, 1000], [0, 150]), ([12, 30], [0, 150])])


def test_runs_with_different_timesteps(tmp_path: Path) -> None:
    timesteps, scores = np.array([0, 1000]), np.array([[0.5], [0.5]])
    runs = [RunScores("fql", "task", run_id, run_id * timesteps, scores, "success rate", {}) for run_id in (1, 2)]
    with pytest.warns(UserWarning, match="task, fql: the runs were evaluated at different timesteps; .* those of run 1"):
        plot_curves(runs, tmp_path / "curves.png")


def test_a_task_that_was_evaluated_once_has_no_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, "fast", "Runner-v5", 1, None, [100.0] * 4)
    (run,) = read_runs(tmp_path)
    once = dataclasses.replace(run, task="Once-v5", timesteps=run.timesteps[:1], scores=run.scores[:1])
    drawn = []
    original = matplotlib.axes.Axes.set
    monkeypatch.setattr(
        matplotlib.axes.Axes, "set", lambda axes, **kwargs: drawn.append(kwargs["title"]) or original(axes, **kwargs)
    )
    plot_curves([run, once], tmp_path / "both.png")
    plot_curves([once], tmp_path / "once.png")
    assert drawn == ["Runner-v5", "Once-v5"]


def test_an_algorithm_that_was_evaluated_once_is_a_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the curves of others: the only evaluation of a run is not left out."""
    write_run(tmp_path, "often", "Runner-v5", 1, None, [100.0] * 4)
    (run,) = read_runs(tmp_path)
    once = dataclasses.replace(run, algorithm="once", timesteps=run.timesteps[-1:], scores=run.scores[-1:])
    drawn = []
    original = matplotlib.axes.Axes.plot
    monkeypatch.setattr(
        matplotlib.axes.Axes,
        "plot",
        lambda axes, x, y, **kwargs: drawn.append((kwargs["label"], [*x], [*y])) or original(axes, x, y, **kwargs),
    )
    plot_curves([run, once], tmp_path / "both.png")
    assert drawn == [("often", [500, 1000], [0, 100]), ("once", [1000], [100])]


@pytest.mark.parametrize("count", [2, 3, len(COLORS)])
def test_equal_curves_are_all_seen(tmp_path: Path, count: int) -> None:
    """Each color is on the line itself, away from its markers."""
    timesteps, scores = np.array([0, 1000]), np.array([[0.5], [0.5]])
    runs = [RunScores(f"{number}", "task", 1, timesteps, scores, "success rate", {}) for number in range(count)]
    plot_curves(runs, tmp_path / "curves.png")
    picture = matplotlib.image.imread(tmp_path / "curves.png")[..., :3]
    height, width = picture.shape[:2]
    line = picture[: int(0.6 * height), int(0.3 * width) : int(0.8 * width)]  # the legend is below
    for color in COLORS[:count]:
        seen = np.abs(line - matplotlib.colors.to_rgb(color)).max(axis=-1) < 0.05
        assert seen.sum() >= 10, color


@pytest.mark.parametrize("name", ["short", "a_very_long_name_of_an_algorithm"])
def test_the_legend_fits_into_the_picture(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    legends = []
    original = matplotlib.figure.Figure.legend
    monkeypatch.setattr(
        matplotlib.figure.Figure, "legend", lambda *args, **kwargs: legends.append(original(*args, **kwargs)) or legends[-1]
    )
    scores = {"timesteps": np.array([0, 1]), "scores": np.zeros((2, 1)), "metric": "return", "system": {}}
    runs = [RunScores(algorithm=f"{name}_{number}", task=task, run_id=1, **scores) for number in range(7) for task in "ab"]
    plot_curves(runs, tmp_path / "curves.png")
    (legend,) = legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= legend.figure.bbox.x1


def test_a_long_legend_does_not_take_the_place_of_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    original = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda figure, *args, **kwargs: figures.append(figure) or original(figure, *args, **kwargs),
    )
    scores = {"timesteps": np.array([0, 1]), "scores": np.zeros((2, 1)), "metric": "return", "system": {}}
    runs = [RunScores(algorithm=f"a_rather_long_name_{number}", task="task", run_id=1, **scores) for number in range(7)]
    plot_curves(runs, tmp_path / "curves.png")
    (panel,) = figures[0].axes
    assert panel.get_position().height * figures[0].get_figheight() > 2


def test_long_titles_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an environment with a setting: the text lies inside of the picture."""
    title = "pointmaze-medium-singletask-task1-v0 (expectile_90)"
    write_run(tmp_path, "fql", "Runner-v5", 1, None, [100.0] * 4)
    (run,) = read_runs(tmp_path)
    found = []
    original = matplotlib.figure.Figure.savefig

    def savefig(figure: matplotlib.figure.Figure, *args: Any, **kwargs: Any) -> None:
        original(figure, *args, **kwargs)
        figure.draw_without_rendering()  # at the resolution of its size
        text = figure.axes[0].title
        found.append((text.get_text(), text.get_window_extent(), figure.bbox))

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    plot_curves([dataclasses.replace(run, task=title)], tmp_path / "curves.png")
    ((text, extent, page),) = found
    assert text.replace("\n", " ") == title
    assert page.x0 <= extent.x0 < extent.x1 <= page.x1 and extent.y1 <= page.y1
