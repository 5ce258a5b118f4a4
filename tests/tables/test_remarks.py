"""What a report says of runs that are not only other seeds of each other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sb3_flow.cli import main
from sb3_flow.tables.evaluations import read_records, read_runs
from sb3_flow.tables.remarks import remarks


def describe(results: Path, run_id: int, config: dict[str, Any], **arguments: Any) -> None:
    """Write settings of a run of TD3, as RL Zoo does."""
    folder = results / "td3" / f"maze-a-v0_{run_id}" / "maze-a-v0"
    (folder / "config.yml").write_text(yaml.dump(config), "utf-8")
    (folder / "args.yml").write_text(yaml.dump(arguments), "utf-8")


@pytest.mark.slow
def test_settings_that_differ_are_named(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command, on the page, and on the page that is made from the table. Those of one run are not."""
    for run_id, alpha in ((1, 1.0), (2, 10.0), (3, 1)):
        describe(results, run_id, {"alpha": alpha, "net_arch": (8, 8), **({"tau": 0.1} if run_id == 3 else {})}, seed=run_id)
    expected = (
        "td3 on `maze-a-v0`: the settings of its runs differ, not only the seeds: `alpha` is `1.0` (runs 1, 3), `10.0` "
        "(run 2); `tau` is not set (runs 1, 2), `0.1` (run 3)."
    )
    table = tmp_path / "table"
    for command in ([str(results), "--output", str(table)], [str(table)]):
        capsys.readouterr()
        assert main(["report", *command]) == 0
        assert capsys.readouterr().err == f"Warning: {expected}\n"
        scores, _, _ = (table / "README.md").read_text("utf-8").partition("![Learning curves]")
        assert scores.count(f"\n- {expected}\n") == 1
    assert [run.config.get("seed") for run in read_records(table) if run.algorithm == "td3"] == [1, 2, 3]
    first = [run for run in [*read_runs(results), *read_runs(table)] if (run.algorithm, run.run_id) == ("td3", 1)]
    assert remarks(first) == ["td3 on `maze-a-v0`: runs 1, 1 have the same seed, 1."]  # though tuples became lists


def test_settings_of_the_command_are_compared(results: Path) -> None:
    for run_id in (1, 2, 3):
        describe(results, run_id, {"alpha": 1.0}, seed=run_id, env_kwargs={"g": 9.81} if run_id == 1 else {})
    (remark,) = remarks(read_runs(results))
    assert '`env_kwargs` is `{"g": 9.81}` (run 1), not set (runs 2, 3).' in remark


def test_what_results_do_not_depend_on_may_differ(results: Path) -> None:
    """Nor is a run without recorded settings compared."""
    for run_id in (1, 2):
        describe(results, run_id, {"alpha": 1.0, "tensorboard_log": f"logs/{run_id}", "verbose": run_id}, seed=run_id)
    assert remarks(read_runs(results)) == []


def test_equal_seeds_are_named(results: Path) -> None:
    for run_id, seed in ((1, 0), (2, 7), (3, 0)):
        describe(results, run_id, {"alpha": 1.0}, seed=seed)
    assert remarks(read_runs(results)) == ["td3 on `maze-a-v0`: runs 1, 3 have the same seed, 0."]


@pytest.mark.parametrize(("planned", "recorded", "found"), [(1500, False, True), (1499, False, False), (1500, True, False)])
def test_a_run_that_crashed_is_named(results: Path, planned: int, recorded: bool, found: bool) -> None:
    """
    Such as the only one of its task and algorithm: the next evaluation is missing, and so is the record that is written at the
    end. A run with this record was stopped early as planned.
    """
    for run_id in (1, 2, 3):
        describe(results, run_id, {"alpha": 1.0}, seed=run_id, n_timesteps=planned)
        if run_id == 2 and not recorded:
            (results / "td3" / f"maze-a-v0_{run_id}" / "maze-a-v0" / "system.yml").unlink()
    expected = "run 2 has not reached its end: evaluated until 1,000 of 1,500 timesteps."
    assert remarks(read_runs(results)) == ([f"td3 on `maze-a-v0`: {expected}"] if found else [])


def test_a_run_with_one_evaluation_may_have_crashed(results: Path) -> None:
    folder = results / "td3" / "maze-a-v0_1"
    with np.load(folder / "evaluations.npz") as arrays:
        np.savez(folder / "evaluations.npz", **{name: arrays[name][:1] for name in arrays})
    (folder / "maze-a-v0" / "system.yml").unlink()
    describe(results, 1, {}, n_timesteps=1000)
    assert "evaluated until 500 of 1,000 timesteps" in "".join(remarks(read_runs(folder)))
