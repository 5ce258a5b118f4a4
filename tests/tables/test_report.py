"""The page of results: what it says of evaluations whose numbers are known."""

import dataclasses
from pathlib import Path

import matplotlib.axes
import numpy as np
import pytest
import yaml

from sb3_flow.cli import main
from sb3_flow.tables.evaluations import by_time, matrix, read_runs
from sb3_flow.tables.report import interval, make_page, plot_curves


def write_run(
    folder: Path,
    algorithm: str,
    env: str,
    run_id: int,
    successes: list[float] | None,
    returns: list[float],
    seconds: list[float] | None = None,
) -> None:
    """
    A run with two evaluations of four episodes: nothing at first, then the given share of successes, or returns; perhaps
    with the time of both.
    """
    run = folder / algorithm / f"{env}_{run_id}"
    (run / env).mkdir(parents=True)
    arrays = {"timesteps": np.array([500, 1000]), "results": np.array([[0.0] * 4, returns]), "ep_lengths": np.ones((2, 4))}
    if successes is not None:
        arrays["successes"] = np.array([[0.0] * 4, successes])
    if seconds is not None:
        arrays["seconds"] = np.array(seconds)
    np.savez(run / "evaluations.npz", **arrays)
    (run / env / "system.yml").write_text(yaml.safe_dump({"torch": "1.2.3", "seconds": 60 * run_id}), "utf-8")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for run_id in (1, 2, 3):
        write_run(tmp_path, "fql", "maze-a-v0", run_id, [1, 1, 1, 0], [-5.0] * 4)
        write_run(tmp_path, "fql", "maze-b-v0", run_id, [1, 0, 0, 0], [-7.0] * 4)
        write_run(tmp_path, "fql", "Runner-v5", run_id, None, [1000.0 * run_id] * 4)
        write_run(tmp_path, "td3", "maze-a-v0", run_id, [0, 0, 0, 0], [-9.0] * 4)
    return tmp_path


def test_runs_are_read_with_their_conditions(results: Path) -> None:
    runs = read_runs(results)
    assert [(run.env, run.algorithm, run.run_id) for run in runs[:4]] == [
        *(("Runner-v5", "fql", run_id) for run_id in (1, 2, 3)),
        ("maze-a-v0", "fql", 1),
    ]
    first = runs[0]
    assert (first.metric, first.final, first.system["seconds"]) == ("return", 1000.0, 60)
    np.testing.assert_array_equal(first.curve, [0.0, 1000.0])
    maze = next(run for run in runs if run.env == "maze-a-v0" and run.algorithm == "fql")
    assert (maze.metric, maze.final) == ("success rate", 0.75)


def test_the_final_score_may_be_a_mean_of_evaluations(results: Path) -> None:
    assert [run.final for run in read_runs(results, last=2)][:3] == [500.0, 1000.0, 1500.0]
    with pytest.raises(ValueError, match="at least 1"):
        read_runs(results, last=0)


def test_seeds_and_tasks_have_an_axis_each(results: Path) -> None:
    scores = matrix(read_runs(results), "fql", ["maze-a-v0", "maze-b-v0"])
    np.testing.assert_array_equal(scores, [[0.75, 0.25]] * 3)


def test_other_measures_have_rows_of_their_own(results: Path) -> None:
    """Of the tasks that have them, and of the last evaluation."""
    for run_id in (1, 2, 3):
        file = results / "fql" / f"maze-a-v0_{run_id}" / "evaluations.npz"
        with np.load(file) as arrays:
            np.savez(file, **arrays, measure_coverage=[[0.0] * 4, [0.25, 0.5, 0.5, 0.75]])
    page = make_page(read_runs(results), "Results")
    assert "| `maze-a-v0` | coverage | 0.50 (0.50 to 0.50) |  |" in page
    assert page.count("coverage") == 1 and "| `maze-a-v0` | success rate | 0.75" in page
    assert "| `Runner-v5` | return | 2,000 (1,000 to 3,000) |" in page


def test_a_setting_is_part_of_the_task(results: Path) -> None:
    """The same environment in two settings makes two rows, never one average; an algorithm keeps its name."""
    write_run(results / "chunks", "fql", "maze-a-v0", 1, [0, 0, 0, 1], [-5.0] * 4)
    runs = read_runs(results)
    assert {run.task for run in runs if run.env == "maze-a-v0"} == {"maze-a-v0", "maze-a-v0 (chunks)"}
    page = make_page(runs, "Results")
    assert "| `maze-a-v0 (chunks)` | success rate | 0.25 (0.25 to 0.25) |  |" in page
    assert "| `maze-a-v0` | success rate | 0.75 (0.75 to 0.75) | 0.00 (0.00 to 0.00) |" in page
    assert {run.task for run in read_runs(results / "fql")} == {"maze-a-v0", "maze-b-v0", "Runner-v5"}


def test_the_interquartile_mean_drops_a_quarter_at_either_end() -> None:
    point, low, high = interval(np.array([[0.0], [1.0], [2.0], [99.0]]))
    assert point == 1.5
    assert low < point < high


def test_the_interval_of_equal_scores_is_a_point() -> None:
    assert interval(np.full((3, 2), 0.4)) == pytest.approx((0.4, 0.4, 0.4))


def test_the_interval_resamples_seeds_within_each_task() -> None:
    # The tasks differ, the seeds do not: nothing to be uncertain about.
    assert interval(np.array([[0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])) == pytest.approx((0.5, 0.5, 0.5))


def test_the_page_has_every_score(results: Path) -> None:
    page = make_page(read_runs(results), "Title", "Introduction.")
    assert page.startswith("# Title\n\nIntroduction.\n")
    assert "| `maze-a-v0` | success rate | 0.75 (0.75 to 0.75) | 0.00 (0.00 to 0.00) |" in page
    assert "| `Runner-v5` | return | 2,000 (1,000 to 3,000) |  |" in page
    # Over the tasks with success rates; td3 was not run on all of them.
    assert "| fql | 0.50 (0.50 to 0.50) | 3 | 2 |" in page
    assert "| td3 | 0." not in page
    assert "| `Runner-v5` | fql | 2 | 1,000 | 4 | 2,000 | 120 |" in page
    assert "| torch | 1.2.3 |" in page


def test_the_command_writes_page_and_picture(results: Path) -> None:
    introduction = results / "introduction.md"
    introduction.write_text("What was run.\n", "utf-8")
    assert main(["report", str(results), "--title", "Small", "--introduction", str(introduction)]) == 0
    assert (results / "README.md").read_text("utf-8").startswith("# Small\n\nWhat was run.\n")
    assert (results / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_without_times_is_as_it_was(results: Path) -> None:
    assert main(["report", str(results)]) == 0
    assert "equal time" not in (results / "README.md").read_text("utf-8")
    assert not (results / "learning_curves_time.png").exists()


def test_scores_in_equal_time(tmp_path: Path) -> None:
    """
    The fast algorithm is done after 20 seconds, a mean of its seeds; until then the slow one has made its first evaluation,
    the slowest none. A task with a run that no clock measured, or half of it, is left out.
    """
    for run_id in (1, 2):
        write_run(tmp_path, "fast", "Runner-v5", run_id, None, [100.0 * run_id] * 4, [8.0, 10.0 + 20.0 * (run_id - 1)])
        write_run(tmp_path, "slow", "Runner-v5", run_id, None, [900.0] * 4, [19.0, 60.0])
        write_run(tmp_path, "slowest", "Runner-v5", run_id, None, [900.0] * 4, [21.0, 61.0])
        for env, unknown in (("Old-v5", None), ("Half-v5", [float("nan"), 9.0])):
            write_run(tmp_path, "fast", env, run_id, None, [1.0] * 4, [8.0, 9.0])
            write_run(tmp_path, "slow", env, run_id, None, [1.0] * 4, unknown)
    assert {run.task for run in by_time(read_runs(tmp_path))} == {"Runner-v5"}
    assert main(["report", str(tmp_path)]) == 0
    section = (tmp_path / "README.md").read_text("utf-8").split("## In equal time")[1].split("## Each run")[0]
    assert "| task | seconds | fast | slow | slowest |" in section
    assert "| `Runner-v5` | 20 | 150 of 20 s | 0 of 60 s | none yet |" in section
    assert "Old-v5" not in section and "learning_curves_time.png" in section


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


def test_a_task_that_was_evaluated_once_has_no_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, "fast", "Runner-v5", 1, None, [100.0] * 4)
    (run,) = read_runs(tmp_path)
    once = dataclasses.replace(run, env="Once-v5", timesteps=run.timesteps[:1], scores=run.scores[:1])
    drawn = []
    original = matplotlib.axes.Axes.set
    monkeypatch.setattr(
        matplotlib.axes.Axes, "set", lambda axes, **kwargs: drawn.append(kwargs["title"]) or original(axes, **kwargs)
    )
    plot_curves([run, once], tmp_path / "both.png")
    plot_curves([once], tmp_path / "once.png")
    assert drawn == ["Runner-v5", "Once-v5"]


def test_runs_on_their_way_are_left_out(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = make_page([run for run in read_runs(results) if (run.algorithm, run.run_id) != ("td3", 2)], "Results")
    file = results / "td3" / "maze-a-v0_2" / "evaluations.npz"
    arrays = np.load(file)
    np.savez(file, **{name: arrays[name][:1] for name in arrays})
    assert main(["report", str(results)]) == 0
    assert "Left out, because it has not finished: td3 maze-a-v0 2 (500 timesteps)" in capsys.readouterr().out
    assert (results / "README.md").read_text("utf-8") == expected


def test_evidence_is_copied_without_models(results: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (results / "fql" / "maze-a-v0_1" / "best_model.zip").write_bytes(b"large")
    output = tmp_path_factory.mktemp("kept") / "table"
    assert main(["report", str(results), "--output", str(output)]) == 0
    expected = make_page(read_runs(results), "Results")
    assert (output / "README.md").read_text("utf-8") == expected == make_page(read_runs(output), "Results")
    assert not (results / "README.md").exists()
    assert not list(output.glob("**/*.zip"))


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "no run with evaluations" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_a_damaged_file_is_named(results: Path, content: bytes) -> None:
    file = results / "fql" / "maze-a-v0_2" / "evaluations.npz"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="maze-a-v0_2"):
        read_runs(results)
