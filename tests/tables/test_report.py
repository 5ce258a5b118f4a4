"""The page of results: what it says of evaluations whose numbers are known."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from written_runs import write_run

from sb3_flow.cli import main
from sb3_flow.tables.evaluations import by_time, join_records, matrix, read_records, read_runs, scores_of
from sb3_flow.tables.report import FEWEST, FORMER_MARK, MARK, RESAMPLES, SEED, interval, make_page
from sb3_flow.tables.table import write_table


def test_runs_are_read_with_their_conditions(results: Path) -> None:
    runs = read_runs(results)
    assert [(run.task, run.algorithm, run.run_id) for run in runs[:4]] == [
        *(("Runner-v5", "fql", run_id) for run_id in (1, 2, 3)),
        ("maze-a-v0", "fql", 1),
    ]
    first = runs[0]
    assert (first.metric, first.final, first.system["seconds"]) == ("return", 1000.0, 60)
    np.testing.assert_array_equal(first.curve, [0.0, 1000.0])
    maze = next(run for run in runs if run.task == "maze-a-v0" and run.algorithm == "fql")
    assert (maze.metric, maze.final) == ("success rate", 0.75)


def test_the_final_score_may_be_a_mean_of_evaluations(results: Path) -> None:
    assert [run.final for run in read_runs(results, last=2)][:3] == [500.0, 1000.0, 1500.0]
    with pytest.raises(ValueError, match="`last` is 0; it must be at least 1"):
        read_runs(results, last=0)


def test_more_evaluations_than_there_are_are_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mean over fewer would stand under the name of the mean over three."""
    assert main(["report", str(results), "--last", "3"]) == 2
    assert "fql Runner-v5 1 has 2 evaluations, and the score is the mean over the last 3" in capsys.readouterr().err


def test_seeds_and_tasks_have_an_axis_each(results: Path) -> None:
    scores = matrix(read_runs(results), "fql", ["maze-a-v0", "maze-b-v0"])
    np.testing.assert_array_equal(scores, [[0.75, 0.25]] * 3)


def test_other_measures_have_rows_of_their_own(results: Path) -> None:
    """Of the tasks that have them, and of the last evaluation."""
    for run_id in (1, 2, 3):
        file = results / "fql" / f"maze-a-v0_{run_id}" / "evaluations.npz"
        with np.load(file) as arrays:
            np.savez(file, **arrays, measure_coverage=[[0.0] * 4, [0.25, 0.5, 0.5, 0.75]])
    page = make_page(read_runs(results))
    assert "| `maze-a-v0` | coverage | 0.50 (0.50 to 0.50) |  |" in page
    assert page.count("coverage") == 1 and "| `maze-a-v0` | success rate | 0.75" in page
    assert "| `Runner-v5` | return | 2,000 (1,000 to 3,000) |" in page


def test_a_setting_is_part_of_the_task(results: Path) -> None:
    """The same environment in two settings makes two rows, never one average; an algorithm keeps its name."""
    write_run(results / "chunks", "fql", "maze-a-v0", 1, [0, 0, 0, 1], [-5.0] * 4)
    runs = read_runs(results)
    assert {run.task for run in runs if run.task.startswith("maze-a-v0")} == {"maze-a-v0", "maze-a-v0 (chunks)"}
    page = make_page(runs)
    assert "| `maze-a-v0 (chunks)` | success rate | 0.25 (1 run: too few for an interval) |  |" in page
    assert "| `maze-a-v0` | success rate | 0.75 (0.75 to 0.75) | 0.00 (0.00 to 0.00) |" in page
    assert {run.task for run in read_runs(results / "fql")} == {"maze-a-v0", "maze-b-v0", "Runner-v5"}


def test_the_interquartile_mean_drops_a_quarter_at_either_end() -> None:
    point, low, high = interval(np.array([[0.0], [1.0], [2.0], [99.0]]))
    assert point == 1.5
    assert low < point < high


@pytest.mark.slow
def test_the_interval_is_that_of_rliable() -> None:
    """Its resamples are drawn from NumPy's global generator, whatever generator it is given."""
    library, metrics = pytest.importorskip("rliable.library"), pytest.importorskip("rliable.metrics")
    scores = np.random.default_rng(0).uniform(size=(8, 5))
    state = np.random.get_state()
    np.random.seed(SEED)
    points, bounds = library.get_interval_estimates(
        {"": scores}, lambda values: np.array([metrics.aggregate_iqm(values)]), reps=RESAMPLES
    )
    np.random.set_state(state)
    np.testing.assert_allclose(interval(scores), [points[""][0], *bounds[""].flatten()], rtol=1e-12)


def test_the_same_scores_have_the_same_interval() -> None:
    scores = np.random.default_rng(0).uniform(size=(8, 5))
    before = np.random.get_state()[1].copy()
    assert interval(scores) == interval(scores)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # NumPy's global generator is left alone


@pytest.mark.parametrize("n_runs", [1, 2])
def test_few_runs_have_no_interval(results: Path, n_runs: int) -> None:
    assert n_runs < FEWEST
    assert interval(np.arange(3.0 * n_runs).reshape(n_runs, 3)) == (pytest.approx((3 * n_runs - 1) / 2),)
    runs = [dataclasses.replace(run, measures={"speed": run.scores}) for run in read_runs(results) if run.run_id <= n_runs]
    page = make_page(runs)
    few = f"({n_runs} {'run' if n_runs == 1 else 'runs'}: too few for an interval)"
    assert f"| `Runner-v5` | return | {'1,000' if n_runs == 1 else '1,500'} {few} |  |" in page
    assert f"| `maze-a-v0` | speed | 0.75 {few} | 0.00 {few} |" in page
    assert f"| fql | 0.50 {few} | {n_runs} | 2 |" in page


def test_the_interval_of_equal_scores_is_a_point() -> None:
    assert interval(np.full((3, 2), 0.4)) == pytest.approx((0.4, 0.4, 0.4))


def test_the_interval_resamples_seeds_within_each_task() -> None:
    # The tasks differ, the seeds do not: nothing to be uncertain about.
    assert interval(np.array([[0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])) == pytest.approx((0.5, 0.5, 0.5))


def test_the_page_has_every_score(results: Path) -> None:
    page = make_page(read_runs(results), "# Title\n\nIntroduction.")
    assert page.startswith(f"# Title\n\nIntroduction.\n\n{MARK}\n\n## Scores\n")
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


@pytest.mark.slow
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


@pytest.mark.parametrize("number", [1, 2, 3])
def test_runs_on_their_way_are_left_out(results: Path, capsys: pytest.CaptureFixture[str], number: int) -> None:
    """Whether it is the first, another, or the last run of its task and algorithm."""
    assert sum(path.name.startswith("maze-a-v0_") for path in (results / "td3").iterdir()) == 3
    expected = make_page([run for run in read_runs(results) if (run.algorithm, run.run_id) != ("td3", number)])
    file = results / "td3" / f"maze-a-v0_{number}" / "evaluations.npz"
    arrays = np.load(file)
    np.savez(file, **{name: arrays[name][:1] for name in arrays})
    assert main(["report", str(results)]) == 0
    omitted = f"shorter than run {2 if number == 1 else 1}: td3 maze-a-v0 {number} (500 of 1,000 timesteps)"
    assert f"Omitted, because it is {omitted}" in capsys.readouterr().out
    assert (results / "README.md").read_text("utf-8") == expected


def test_runs_that_their_sweep_has_not_finished_are_left_out(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also if all runs of their task and algorithm are equally far, and with their evaluations of other samplers."""
    expected = make_page([run for run in read_runs(results) if run.algorithm != "td3"])
    for number in (1, 2, 3):
        write_run(results, "td3-sampled", "maze-a-v0", number, [1, 1, 1, 1], [-1.0] * 4)
        record = {"command": ["train"], "finished": False}
        (results / "td3" / f"maze-a-v0_{number}" / "sweep.json").write_text(json.dumps(record), "utf-8")
    assert main(["report", str(results)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Omitted, because its sweep has not finished it: td3") == 6
    assert (results / "README.md").read_text("utf-8") == expected
    shutil.rmtree(results / "fql")
    assert main(["report", str(results)]) == 2
    assert "has not finished any run yet" in capsys.readouterr().err


def test_interrupted_runs_are_left_out(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Also the only run of its task and algorithm, and its evaluations of other samplers, until it is resumed to its end. An
    interrupted run does not count as the longest one.
    """
    write_run(results, "sac", "maze-a-v0", 1, [1, 1, 1, 1], [-1.0] * 4)
    write_run(results, "sac-sampled", "maze-a-v0", 1, [1, 1, 1, 1], [-1.0] * 4)
    shutil.rmtree(results / "sac-sampled" / "maze-a-v0_1" / "maze-a-v0")  # other samplers have no parameters
    write_run(results, "td3", "maze-a-v0", 4, [1, 1, 1, 1], [-1.0] * 4)
    longer = results / "td3" / "maze-a-v0_4" / "evaluations.npz"
    with np.load(longer) as arrays:
        np.savez(longer, **{**arrays, "timesteps": [500, 9000]})
    complete = make_page(read_runs(results))
    expected = make_page([run for run in read_runs(results) if run.run_id < 4 and not run.algorithm.startswith("sac")])
    files = [results / "sac" / "maze-a-v0_1" / "maze-a-v0" / "system.yml", longer.parent / "maze-a-v0" / "system.yml"]
    before = [file.read_text("utf-8") for file in files]
    for file in files:
        file.write_text("{torch: 1.2.3, seconds: 60, interrupted: true}", "utf-8")
    interrupted = read_records(results)
    assert main(["report", str(results)]) == 0
    printed = capsys.readouterr().out
    assert "Omitted, because it was interrupted: td3 maze-a-v0 4 (9,000 timesteps)\n" in printed
    assert printed.count("Omitted, because it was interrupted") == 3 and "shorter" not in printed
    assert (results / "README.md").read_text("utf-8") == expected
    for file, content in zip(files, before, strict=True):  # as a resumed run writes it at its end
        file.write_text(content, "utf-8")
    assert make_page(scores_of(join_records([interrupted, read_records(results)]))) == complete


def test_a_folder_with_a_hyphen_may_have_runs_of_its_own(results: Path) -> None:
    """It is not always that of another sampler: an interrupted run of `td3` says nothing of `td3-old`, and the reverse."""
    write_run(results, "td3-old", "maze-a-v0", 1, [1] * 4, [-9.0] * 4)
    files = {name: results / name / "maze-a-v0_1" / "maze-a-v0" / "system.yml" for name in ("td3", "td3-old")}
    for name, file in files.items():
        before = file.read_text("utf-8")
        file.write_text("interrupted: true", "utf-8")
        assert [record.algorithm for record in read_records(results) if record.unfinished] == [name]
        file.write_text(before, "utf-8")


@pytest.mark.parametrize("content", ["[1, 2]", "1", "{torch: "])
def test_damaged_parameters_are_named(results: Path, content: str) -> None:
    """An empty file is one without parameters, as a crash may leave it."""
    file = results / "td3" / "maze-a-v0_1" / "maze-a-v0" / "system.yml"
    file.write_text(content, "utf-8")
    with pytest.raises(ValueError, match="maze-a-v0_1"):
        read_records(results)
    file.write_text("", "utf-8")
    assert next(record for record in read_records(results) if not record.system).key == ("", "td3", "maze-a-v0", 1)


def test_interrupted_runs_of_a_table_are_left_out(
    results: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a table that has them. It may be replaced by one without them if they are in the sources."""
    kept = tmp_path_factory.mktemp("kept")
    records = [record for record in read_records(results) if (record.algorithm, record.env) == ("fql", "maze-a-v0")]
    records[0] = dataclasses.replace(records[0], system={**records[0].system, "interrupted": True})
    write_table(records, kept / "evaluations.csv")
    assert main(["report", str(kept), "--output", str(kept)]) == 0
    assert "Omitted, because it was interrupted: fql maze-a-v0 1" in capsys.readouterr().out
    assert [record.run_id for record in read_records(kept)] == [2, 3]
    write_table(records[:1], kept / "evaluations.csv")
    assert main(["report", str(kept)]) == 2
    assert "has not finished any run yet" in capsys.readouterr().err


def test_a_shorter_run_is_not_called_unfinished(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One with fewer timesteps by its settings, of several that are longer."""
    file = results / "fql" / "Runner-v5_3" / "evaluations.npz"
    with np.load(file) as arrays:
        np.savez(file, **{name: arrays[name][:1] for name in arrays})
    assert main(["report", str(results)]) == 0
    printed = capsys.readouterr().out
    assert "Omitted, because it is shorter than run 1: fql Runner-v5 3 (500 of 1,000 timesteps)\n" in printed
    assert "finished" not in printed


@pytest.mark.parametrize("source", ["{}/fql/maze-a-v0_2", ".", "../maze-a-v0_2"])
def test_the_folder_of_a_run_is_reported(results: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """As that of an algorithm, also by the names of relative folders."""
    monkeypatch.chdir(results / "fql" / "maze-a-v0_2")
    (run,) = read_runs(source.format(results))
    assert (run.task, run.algorithm, run.run_id) == ("maze-a-v0", "fql", 2)
    monkeypatch.chdir(results / "fql")
    assert {run.algorithm for run in read_runs(".")} == {"fql"}
    assert {run.algorithm for run in read_runs("..")} == {"fql", "td3"}


def test_a_file_is_no_folder_of_the_table(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "table.csv").touch()
    assert main(["report", str(results), "--output", str(tmp_path / "table.csv")]) == 2
    assert "table.csv is a file; pass a folder" in capsys.readouterr().err


def test_the_number_of_timesteps_is_that_of_the_command(results: Path) -> None:
    """RL Zoo writes the number of the configuration file to ``config.yml``, and that of the option to ``args.yml``."""
    folder = results / "td3" / "maze-a-v0_1" / "maze-a-v0"
    (folder / "config.yml").write_text("{n_timesteps: 5, gamma: 0.9}", "utf-8")
    (folder / "args.yml").write_text("{n_timesteps: 1000}", "utf-8")
    (record,) = [each for each in read_records(results) if (each.algorithm, each.run_id) == ("td3", 1)]
    assert record.config == {"n_timesteps": 1000, "gamma": 0.9}
    (folder / "args.yml").write_text("{n_timesteps: -1, seed: 0, env_kwargs: {}, eval_env_kwargs: null}", "utf-8")
    (record,) = [each for each in read_records(results) if (each.algorithm, each.run_id) == ("td3", 1)]
    assert record.config == {"n_timesteps": 5, "gamma": 0.9, "seed": 0}


@pytest.mark.slow
def test_the_table_is_kept_without_models(results: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Also what has not finished; and the page can be made again from the table alone, by its own name or the folder's."""
    file = results / "td3" / "maze-a-v0_2" / "evaluations.npz"
    with np.load(file) as arrays:
        np.savez(file, **{name: arrays[name][:1] for name in arrays})
    (results / "fql" / "maze-a-v0_1" / "best_model.zip").write_bytes(b"large")
    assert main(["report", str(results)]) == 0
    page = (results / "README.md").read_text("utf-8")
    output = tmp_path_factory.mktemp("kept") / "table"
    assert main(["report", str(results), "--output", str(output)]) == 0
    names = {"README.md", "evaluations.csv", "learning_curves.png"}
    assert {path.name for path in output.iterdir()} == names
    for source in (output, output / "evaluations.csv"):
        (output / "README.md").unlink()
        assert main(["report", str(source)]) == 0
        assert (output / "README.md").read_text("utf-8") == page
    assert len(read_runs(output)) == 12


@pytest.mark.slow
def test_what_stands_above_the_scores_is_kept(results: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    page, other = results / "README.md", tmp_path_factory.mktemp("text") / "other.md"
    other.write_text("Something else.\n", "utf-8")
    assert main(["report", str(results)]) == 0
    assert page.read_text("utf-8").startswith(f"# Results\n\n{MARK}\n")
    page.write_text(
        page.read_text("utf-8").replace("# Results", "# Mine\n\nBy hand.\n\nTwice.").replace("0.75", "0.99"), "utf-8"
    )
    assert main(["report", str(results)]) == 0
    assert page.read_text("utf-8") == make_page(read_runs(results), "# Mine\n\nBy hand.\n\nTwice.")
    assert main(["report", str(results), "--introduction", str(other)]) == 0
    assert page.read_text("utf-8").startswith(f"# Mine\n\nSomething else.\n\n{MARK}\n")
    assert main(["report", str(results), "--title", "New"]) == 0
    assert page.read_text("utf-8").startswith(f"# New\n\nSomething else.\n\n{MARK}\n")


def test_the_introduction_of_a_page_of_version_0_1_is_kept(results: Path) -> None:
    page = results / "README.md"
    page.write_text(f"# Mine\n\nBy hand.\n\n{FORMER_MARK}\n\n## Scores\n", "utf-8")
    assert main(["report", str(results)]) == 0
    assert page.read_text("utf-8") == make_page(read_runs(results), "# Mine\n\nBy hand.")


def test_a_page_of_somebody_else_is_not_replaced(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = results / "README.md"
    page.write_text("# A project\n\n## Scores\n", "utf-8")
    assert main(["report", str(results)]) == 2
    assert f"did not write {page}" in capsys.readouterr().err
    assert page.read_text("utf-8") == "# A project\n\n## Scores\n" and not (results / "learning_curves.png").exists()
    assert main(["report", str(results), "--force"]) == 0
    assert page.read_text("utf-8") == make_page(read_runs(results))


@pytest.mark.slow
def test_another_table_is_not_replaced(
    results: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path_factory.mktemp("kept")
    (output / "evaluations.csv").write_text("student,mark\n", "utf-8")
    assert main(["report", str(results), "--output", str(output)]) == 2
    assert "evaluations.csv is not a table of evaluations" in capsys.readouterr().err
    assert (output / "evaluations.csv").read_text("utf-8") == "student,mark\n"
    for _ in range(2):  # the second time it is the command's own
        assert main(["report", str(results), "--output", str(output), "--force"]) == 0


def test_a_table_is_not_written_beside_runs(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(results), "--output", str(results)]) == 2
    assert "contains runs; pass another --output" in capsys.readouterr().err
    (results / "evaluations.csv").touch()
    with pytest.raises(ValueError, match=r"contains both a table and runs\. Pass the table"):
        read_runs(results)


@pytest.mark.slow
def test_runs_of_a_table_are_not_lost(
    results: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs whose folders are gone: the table keeps them if it is a source as well, and is not replaced otherwise."""
    kept = tmp_path_factory.mktemp("kept")
    table = kept / "evaluations.csv"
    assert main(["report", str(results), "--output", str(kept)]) == 0
    before = table.read_text("utf-8")
    shutil.rmtree(results / "td3")
    write_run(results, "sac", "maze-a-v0", 1, [1.0] * 4, [-5.0] * 4)
    capsys.readouterr()
    assert main(["report", str(results), "--output", str(kept)]) == 2
    assert f"3 runs of {table} are not in the sources: td3 maze-a-v0 run 1," in capsys.readouterr().err
    assert table.read_text("utf-8") == before
    assert main(["report", str(results), str(kept), "--output", str(kept)]) == 0
    names = {(run.algorithm, run.task, run.run_id) for run in read_runs(kept)}
    assert len(names) == 13 and ("sac", "maze-a-v0", 1) in names
    assert set(before.splitlines()) < set(table.read_text("utf-8").splitlines())
    assert main(["report", str(results), "--output", str(kept), "--force"]) == 0
    assert {run.algorithm for run in read_runs(kept)} == {"fql", "sac"}


def test_a_run_of_two_sources(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal evaluations are one run, an unfinished one gives way, and different ones are refused."""
    assert main(["report", str(results), str(results), "--output", str(tmp_path / "kept")]) == 0
    assert len(read_runs(tmp_path / "kept")) == 12
    other = tmp_path / "other"
    write_run(other, "fql", "maze-a-v0", 1, [1.0] * 4, [7.0] * 4)
    (first,) = read_records(other)
    unfinished = dataclasses.replace(first, unfinished="it was interrupted")
    assert join_records([[unfinished], [first]]) == join_records([[first], [unfinished]]) == [first]
    capsys.readouterr()
    command = ["report", str(other), str(results), "--output", str(tmp_path / "both")]
    assert main(command) == 2
    assert "fql maze-a-v0 run 1 is in two sources, with different evaluations" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    (run,) = [run for run in read_records(tmp_path / "both") if run.key == first.key]
    assert run.arrays["results"][-1].tolist() == [7.0] * 4
    assert main(["report", str(other), str(results)]) == 2
    assert "pass --output FOLDER" in capsys.readouterr().err


def test_returns_and_success_rates_of_one_task_are_not_mixed(results: Path) -> None:
    write_run(results, "sac", "maze-a-v0", 1, None, [-5.0] * 4)
    message = r"maze-a-v0: fql 1 has a success rate, and sac 1 has a return\. All runs of a task must have the same score"
    with pytest.raises(ValueError, match=message):
        read_runs(results)


PAGES = sorted((Path(__file__).parents[2] / "results").glob("*/evaluations.csv"))


@pytest.mark.slow
@pytest.mark.parametrize("table", PAGES, ids=lambda table: table.parent.name)
def test_the_pages_of_this_repository_can_be_made_again(table: Path, tmp_path: Path) -> None:
    """Word for word, by the command that their sweep files name."""
    page = table.with_name("README.md")
    for file in (page, table):
        shutil.copy(file, tmp_path)
    last = re.search("sb3-flow report .*(--last [0-9]+)", table.with_name("sweep.yml").read_text("utf-8"))
    assert main(["report", str(tmp_path), *(last.group(1).split() if last else ())]) == 0
    assert (tmp_path / "README.md").read_text("utf-8") == page.read_text("utf-8")
    assert all(table.with_name(picture.name).is_file() for picture in tmp_path.glob("*.png"))


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "no run with evaluations" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_a_damaged_file_is_named(results: Path, content: bytes) -> None:
    file = results / "fql" / "maze-a-v0_2" / "evaluations.npz"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="maze-a-v0_2"):
        read_runs(results)


def test_one_model_of_each_algorithm_and_task_is_archived(results: Path, tmp_path: Path) -> None:
    """The first run that has one, with its parameters and without the command line, whose paths are those of a machine."""
    for algorithm, env, run_id in (("fql", "maze-a-v0", 2), ("fql", "maze-a-v0", 3), ("td3", "maze-a-v0", 1)):
        folder = results / algorithm / f"{env}_{run_id}"
        (folder / f"{env}.zip").write_text(f"model {run_id}")
        (folder / env / "command.txt").write_text("python /home/someone/train.py")
    (results / "td3" / "maze-a-v0_1" / "maze-a-v0" / "args.yml").write_text("gym_packages: [mazes]")
    write_run(results, "fql-bc_flow", "maze-a-v0", 1, [0, 0, 0, 0], [-9.0] * 4)
    file = tmp_path / "release" / "models.zip"
    assert main(["report", str(results), "--models", str(file)]) == 0
    with ZipFile(file) as archive:
        assert sorted(archive.namelist()) == [
            "MODELS.md",
            "fql/maze-a-v0_2/evaluations.npz",
            "fql/maze-a-v0_2/maze-a-v0.zip",
            "fql/maze-a-v0_2/maze-a-v0/system.yml",
            "td3/maze-a-v0_1/evaluations.npz",
            "td3/maze-a-v0_1/maze-a-v0.zip",
            "td3/maze-a-v0_1/maze-a-v0/args.yml",
            "td3/maze-a-v0_1/maze-a-v0/system.yml",
        ]
        assert archive.read("fql/maze-a-v0_2/maze-a-v0.zip") == b"model 2"
        page = archive.read("MODELS.md").decode()
    assert "sb3-flow enjoy --algo fql --env maze-a-v0 --exp-id 2 -f .\n" in page
    assert "sb3-flow enjoy --algo td3 --env maze-a-v0 --exp-id 1 -f . --gym-packages mazes\n" in page


def test_only_models_of_the_page_are_archived(results: Path, tmp_path: Path) -> None:
    """Not of a run that was interrupted, nor of a shorter one. The name gets a suffix, as that of a model."""
    for run_id in (1, 2, 3):
        (results / "td3" / f"maze-a-v0_{run_id}" / "maze-a-v0.zip").write_text(f"model {run_id}")
    (results / "td3" / "maze-a-v0_1" / "maze-a-v0" / "system.yml").write_text("interrupted: true", "utf-8")
    short = results / "td3" / "maze-a-v0_2" / "evaluations.npz"
    with np.load(short) as arrays:
        np.savez(short, **{name: arrays[name][:1] for name in arrays})
    assert main(["report", str(results), "--models", str(tmp_path / "release" / "models")]) == 0
    with ZipFile(tmp_path / "release" / "models.zip") as archive:
        assert [name for name in archive.namelist() if name.endswith(".zip")] == ["td3/maze-a-v0_3/maze-a-v0.zip"]


@pytest.mark.parametrize("name", ["release", "release.zip"])
def test_a_folder_is_no_archive(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / name).mkdir()
    assert main(["report", str(results), "--models", str(tmp_path / "release")]) == 2
    assert f"{tmp_path / name} is a folder; pass a file, such as" in capsys.readouterr().err
    assert not (results / "README.md").exists()


def test_a_table_has_no_models(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(results), "--output", str(tmp_path / "table")]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "table"), "--models", str(tmp_path / "models.zip")]) == 2
    assert "Give the folder of the runs" in capsys.readouterr().err
