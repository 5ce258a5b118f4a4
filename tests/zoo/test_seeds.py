"""``sb3-flow train --seeds``: runs, files and numbers are those of one process for each seed."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch as th
from conformance.environments import transitions
from python_process import PythonProcess

from sb3_flow import FQL
from sb3_flow.cli import main

ENV = "Pendulum-v1"
SEEDS = (0, 3)
OPTIONS = [
    *("--algo", "fql", "--env", ENV, "-n", "150", "--device", "cpu", "--num-threads", "1"),
    *("--eval-freq", "50", "--eval-episodes", "2", "--eval-samplers", "bc_flow", "--checkpoint-freq", "40"),
]


def params(folder: Path) -> list[str]:
    """RL Zoo's list option, which must stay the last."""
    data = folder.parent / "data.npz"
    if not data.exists():
        np.savez(data, **transitions())
    return ["-params", f"dataset:{data}", "batch_size:16", "policy_kwargs:{'net_arch':[16]}", "offline_log_interval:30"]


def train(folder: Path, *options: str) -> int:
    return main(["train", "-f", str(folder), *options, *OPTIONS, *params(folder)])


def run_folder(folder: Path, seed: int) -> Path:
    return folder / "fql" / f"{ENV}_{seed + 1}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Seeds in processes of their own, together, and together in a process that was killed and resumed."""
    folders = {name: tmp_path_factory.mktemp("seeds") / name for name in ("alone", "together", "killed")}
    for seed in SEEDS:
        assert train(folders["alone"], "--seed", str(seed), "--run-id", str(seed + 1)) == 0
    both = ["--seeds", *map(str, SEEDS)]
    assert train(folders["together"], *both) == 0
    killed = folders["killed"]
    process = PythonProcess("-m", "sb3_flow.zoo", "train", "-f", killed, *both, "--resume", *OPTIONS, *params(killed))
    while not (run_folder(killed, SEEDS[0]) / "checkpoint_80").exists():
        assert process.poll() is None, process.output("stderr")
        time.sleep(0.001)
    process.kill()
    assert not (run_folder(killed, SEEDS[0]) / f"{ENV}.zip").exists()
    assert train(killed, *both, "--resume") == 0
    return folders


@pytest.mark.nightly
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["together", "killed"])
def test_the_numbers_are_those_of_a_process_for_each_seed(folders: dict[str, Path], name: str, seed: int) -> None:
    models = [FQL.load(run_folder(folders[which], seed) / f"{ENV}.zip", device="cpu") for which in ("alone", name)]
    expected, parameters = (model.policy.state_dict() for model in models)
    for key, value in parameters.items():
        th.testing.assert_close(value, expected[key], rtol=1e-2, atol=1e-4)
    assert models[0].num_timesteps == models[1].num_timesteps == 150
    assert th.equal(models[0].random_state(), models[1].random_state())
    for algorithm in ("fql", "fql-bc_flow"):  # sampled actions: the random numbers of evaluations are the same, too
        files = [folders[which] / algorithm / f"{ENV}_{seed + 1}" / "evaluations.npz" for which in ("alone", name)]
        alone, together = map(np.load, files)
        assert set(alone) == set(together)
        for key in set(alone) - {"seconds"}:
            np.testing.assert_allclose(together[key], alone[key], rtol=1e-2)


@pytest.mark.nightly
def test_seeds_differ(folders: dict[str, Path]) -> None:
    results = [np.load(run_folder(folders["together"], seed) / "evaluations.npz")["results"] for seed in SEEDS]
    assert np.abs(results[0] - results[1]).min() > 1


@pytest.mark.slow
def test_the_files_are_those_of_a_process_for_each_seed(folders: dict[str, Path]) -> None:
    def files(folder: Path) -> set[Path]:
        return {path.relative_to(folder) for path in folder.rglob("*")}

    logs = {run_folder(Path(), seed) / "log.txt" for seed in SEEDS}
    assert files(folders["together"]) == files(folders["alone"]) | logs
    for seed in SEEDS:
        log = (run_folder(folders["together"], seed) / "log.txt").read_text("utf-8")
        # Its own evaluations, and no other's: the usual ones and those of the other sampler.
        assert log.count("Eval num_timesteps=150,") == 2
        log = (run_folder(folders["killed"], seed) / "log.txt").read_text("utf-8")
        assert f"Resuming from {run_folder(folders['killed'], seed)}" in log


@pytest.mark.slow
def test_finished_seeds_are_left_alone(folders: dict[str, Path]) -> None:
    models = [run_folder(folders["together"], seed) / f"{ENV}.zip" for seed in SEEDS]
    before = [model.stat().st_mtime_ns for model in models]
    assert train(folders["together"], "--seeds", *map(str, SEEDS), "--resume") == 0
    assert [model.stat().st_mtime_ns for model in models] == before


@pytest.mark.slow
def test_a_seed_that_fails_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs"
    blocked = run_folder(folder, 3) / ENV
    blocked.mkdir(parents=True)  # there is a run already, and no --resume
    assert train(folder, "--seeds", "0", "3") == 2
    assert "1 of 2 seeds failed. Seed 3: " in (message := capsys.readouterr().err) and "already has a run" in message
    assert (run_folder(folder, 0) / f"{ENV}.zip").exists()


def test_an_algorithm_that_cannot_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seeds", "0", "1", "--algo", "sac", "--env", ENV, "-n", "10", "-f", str(tmp_path)]
    assert main(["train", *arguments]) == 2
    assert "2 of 2 seeds failed. Seed 0: Seeds of SAC cannot train together in one process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0", "0"], "--seeds is 0 0; it must be different numbers from 0."),
        (["--seeds", "-1"], "--seeds is -1; it must be different numbers from 0."),
        (["--seeds", "0", "1", "--seed", "2"], "--seeds does not go with --seed."),
        (["--seeds", "0", "1", "--run-id", "2"], "--seeds does not go with --run-id."),
        (["--seeds", "0", "1", "-optimize"], "--seeds does not go with -optimize."),
    ],
)
def test_options_that_contradict(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--algo", "fql", "--env", ENV, *options]) == 2
    assert message in capsys.readouterr().err
