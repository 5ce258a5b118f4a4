"""``sb3-flow train --seeds``: runs, files and numbers are those of one process for each seed."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
import yaml
from conformance.environments import transitions
from python_process import PythonProcess
from stable_baselines3.common import save_util
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow import FQL
from sb3_flow.cli import main
from sb3_flow.common.lock import LOCK, locked

pytest.importorskip("rl_zoo3")

from rl_zoo3 import utils

from sb3_flow.zoo.callbacks import EvalCallback
from sb3_flow.zoo.experiment import FlowExperimentManager

ENV = "Pendulum-v1"
SEEDS = (0, 3)
OPTIONS = [
    *("--algo", "fql", "--env", ENV, "-n", "150", "--device", "cpu", "--num-threads", "1"),
    *("--eval-freq", "50", "--eval-episodes", "2", "--eval-samplers", "bc_flow", "--checkpoint-freq", "40"),
]


@pytest.fixture(scope="module", autouse=True)
def guards_are_removed() -> Iterator[None]:
    """Functions that commands replace while they read files, such as a model's pickles, are as before."""
    owners = ((save_util, "json_to_data"), (VecNormalize, "load"), (yaml, "UnsafeLoader"), (utils, "get_wrapper_class"))
    before = [getattr(owner, name) for owner, name in owners]
    yield
    assert [getattr(owner, name) for owner, name in owners] == before


def params(folder: Path) -> list[str]:
    """RL Zoo's list option, which must stay the last."""
    data = folder.parent / "data.npz"
    if not data.exists():
        np.savez(data, **transitions())
    return ["-params", f"dataset:{data}", "batch_size:16", "policy_kwargs:{'net_arch':[16]}", "offline_log_interval:30"]


def train(folder: Path, *options: str) -> int:
    return main(["train", "-f", str(folder), *options, *OPTIONS, *params(folder)])


#: For runs whose results do not matter.
SHORT = ["-n", "20", "--eval-freq", "10", "--eval-episodes", "1"]


def train_shortly(folder: Path, *options: str) -> int:
    return main(["train", "-f", str(folder), *OPTIONS, *SHORT, *options, *params(folder)])


def run_folder(folder: Path, seed: int) -> Path:
    return folder / "fql" / f"{ENV}_{seed + 1}"


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds that trained together."""
    folder = tmp_path_factory.mktemp("seeds") / "together"
    assert train(folder, "--seeds", *map(str, SEEDS)) == 0
    return folder


@pytest.fixture(scope="module")
def folders(together: Path) -> dict[str, Path]:
    """Seeds in processes of their own, together, and together in a process that was killed and resumed."""
    folders = {name: together.parent / name for name in ("alone", "together", "killed")}
    for seed in SEEDS:
        assert train(folders["alone"], "--seed", str(seed), "--run-id", str(seed + 1)) == 0
    both, killed = ["--seeds", *map(str, SEEDS)], folders["killed"]
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
def test_seeds_differ(together: Path) -> None:
    results = [np.load(run_folder(together, seed) / "evaluations.npz")["results"] for seed in SEEDS]
    assert np.abs(results[0] - results[1]).min() > 1


@pytest.mark.nightly
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


def test_all_folders_are_checked_before_the_first_training(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two of three seeds have a run already, and there is no --resume: the third one is not started, and leaves no folder."""
    folder = tmp_path / "runs"
    for seed in (3, 4):
        (run_folder(folder, seed) / ENV).mkdir(parents=True)
        (run_folder(folder, seed) / ENV / "config.yml").touch()
    assert train(folder, "--seeds", "0", "3", "4") == 2
    shown = capfd.readouterr()
    for seed in (3, 4):
        assert f"Seed {seed}: {run_folder(folder, seed)} already has a run: add --resume" in shown.err
    assert "or use another folder (-f)" in shown.err and "--run-id" not in shown.err
    assert "sb3-flow: 2 of 3 seeds failed." in shown.err and "Therefore not trained: 0." in shown.err
    assert "Traceback" not in shown.err
    assert sorted(path.name for path in (folder / "fql").iterdir()) == [f"{ENV}_{seed + 1}" for seed in (3, 4)]
    assert not any((run_folder(folder, seed) / "log.txt").exists() for seed in (3, 4)), "they belong to other runs"


@pytest.mark.parametrize("fault", ["busy", "settings"])
def test_resumed_seeds_are_checked_before_the_first_training(
    tmp_path: Path, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another process trains the second one, or it was started with other settings: the first one stays as it is."""
    folder = tmp_path / "runs"
    if fault == "settings":
        (run_folder(folder, 3) / ENV).mkdir(parents=True)
        (run_folder(folder, 3) / ENV / "config.yml").write_text("{batch_size: 17}", "utf-8")
        (run_folder(folder, 3) / "checkpoint_20").mkdir()
    with locked(run_folder(folder, 3) / LOCK, "run 3") if fault == "busy" else contextlib.nullcontext():
        assert train(folder, "--seeds", "0", "3", "--resume") == 2
    message = {"busy": "is in use by process", "settings": "`batch_size` is 16, but"}[fault]
    assert "1 of 2 seeds failed. Seed 3: " in (shown := capfd.readouterr().err) and message in shown
    assert "Therefore not trained: 0." in shown
    first = run_folder(folder, 0)
    assert not (first / ENV / "config.yml").exists() and not (first / f"{ENV}.zip").exists() and not (first / LOCK).exists()
    if fault == "busy":
        assert "Not trained, because seed 3 failed." in (first / "log.txt").read_text("utf-8")


def test_an_environment_that_only_the_second_seed_cannot_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It fails after the folders were made: the same command works when the cause is gone."""
    make = FlowExperimentManager.create_envs

    def create_envs(self: FlowExperimentManager, *args: Any, **kwargs: Any) -> Any:
        if self.seed == 3 and kwargs.get("eval_env"):
            raise ValueError("The simulator has no license left.")
        return make(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(FlowExperimentManager, "create_envs", create_envs)
        assert train_shortly(tmp_path / "runs", "--seeds", "0", "3") == 2
    message = "1 of 2 seeds failed. Seed 3: The simulator has no license left. Therefore not trained: 0."
    assert message in capfd.readouterr().err
    assert "The simulator has no license left." in (run_folder(tmp_path / "runs", 3) / "log.txt").read_text("utf-8")
    assert train_shortly(tmp_path / "runs", "--seeds", "0", "3") == 0


@pytest.mark.parametrize(
    "options",
    [["--seeds", "0", "3"], pytest.param(["--seed", "0", "--run-id", "9"], marks=pytest.mark.nightly)],
    ids=" ".join,
)
def test_the_same_command_works_when_it_is_corrected(
    tmp_path: Path, options: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """An unknown sampler is found when the model has been made. One seed fails at it, and no run has started."""
    wrong = [option.replace("bc_flow", "bc_flw") for option in OPTIONS]
    assert main(["train", "-f", str(tmp_path / "runs"), *options, *wrong, *SHORT, *params(tmp_path / "runs")]) == 2
    assert "bc_flw" in capfd.readouterr().err
    assert train_shortly(tmp_path / "runs", *options) == 0


def test_an_error_in_the_command_line_is_shown_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--seeds", "0", "3", "--algo", "fql", "--env", ENV, "-f", str(tmp_path), "--vec-env", "none"])
    assert capfd.readouterr().err.count("invalid choice: 'none'") == 1 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_seed_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = EvalCallback._on_step

    def on_step(self: EvalCallback) -> bool:
        if self.model.seed == 3 and self.num_timesteps == 10:
            raise ValueError("The evaluation has failed.")
        return evaluate(self)

    monkeypatch.setattr(EvalCallback, "_on_step", on_step)
    folder = tmp_path / "runs"
    assert train_shortly(folder, "--seeds", "0", "3") == 2
    message = capsys.readouterr().err
    assert "1 of 2 seeds failed. Seed 3: The evaluation has failed." in message and "not trained" not in message
    assert (run_folder(folder, 0) / f"{ENV}.zip").exists()


@pytest.mark.slow
def test_what_a_seed_prints_is_in_its_log(together: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """From the first line on, and nowhere else. Finished seeds are left alone."""
    for seed, other in (SEEDS, SEEDS[::-1]):
        log = (run_folder(together, seed) / "log.txt").read_text("utf-8")
        assert log.startswith(f"========== {ENV} ==========\nSeed: {seed}\n") and f"Seed: {other}" not in log
    models = [run_folder(together, seed) / f"{ENV}.zip" for seed in SEEDS]
    before = [model.stat().st_mtime_ns for model in models]
    assert train(together, "--seeds", *map(str, SEEDS), "--resume") == 0
    assert [model.stat().st_mtime_ns for model in models] == before
    shown = capfd.readouterr()
    first, *others = shown.out.splitlines()
    assert first == "Seeds 0, 3 train together. The output of each is in log.txt in the folder of its run."
    assert others == [f"Seed {seed}: {run_folder(together, seed)} has finished: nothing to do." for seed in SEEDS]
    assert not shown.err
    for seed in SEEDS:
        log = (run_folder(together, seed) / "log.txt").read_text("utf-8")
        finished = f"{run_folder(together, seed)} has finished: nothing to do.\n"
        assert log.endswith(f"========== {ENV} ==========\nSeed: {seed}\n{finished}")


def test_an_algorithm_that_cannot_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seeds", "0", "1", "--algo", "sac", "--env", ENV, "-n", "10", "-f", str(tmp_path)]
    assert main(["train", *arguments]) == 2
    assert "2 of 2 seeds failed. Seeds 0, 1: Seeds of SAC cannot train together in one process" in capsys.readouterr().err


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
