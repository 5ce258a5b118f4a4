"""A run of RL Zoo that is killed without warning ends as one that was not."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch as th
import yaml
from python_process import PythonProcess

from sb3_flow import FQL
from sb3_flow.cli import main

pytestmark = pytest.mark.nightly

ENV = "Pendulum-v1"
COMMAND = [
    *("train", "--algo", "fql", "--env", ENV, "-n", "180", "--run-id", "1", "--device", "cpu"),
    *("--eval-freq", "60", "--eval-episodes", "1", "--eval-samplers", "bc_flow", "--checkpoint-freq", "50"),
    *("--num-threads", "1", "-params", "learning_starts:10", "policy_kwargs:{'net_arch':[8,8]}"),
]


def start(folder: Path, *options: str) -> PythonProcess:
    """Start the run in a process of its own; RL Zoo's list option must stay the last."""
    return PythonProcess("-m", "sb3_flow.zoo", COMMAND[0], "-f", folder, *options, *COMMAND[1:])


def finish(process: PythonProcess) -> str:
    ended = process.wait()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def run_folder(folder: Path) -> Path:
    return folder / "fql" / f"{ENV}_1"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of an uninterrupted run, and of a run that was killed once and resumed."""
    whole, killed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("killed")
    finish(start(whole, "--seed", "0"))
    process = start(killed, "--seed", "0", "--resume")
    while not (run_folder(killed) / "checkpoint_50").exists():
        assert process.poll() is None, process.output("stderr")
        time.sleep(0.001)
    process.kill()
    assert not (run_folder(killed) / f"{ENV}.zip").exists()
    assert f"Resuming from {run_folder(killed)}" in finish(start(killed, "--resume"))
    return whole, killed


def test_the_parameters_are_the_same(folders: tuple[Path, Path]) -> None:
    whole, killed = (FQL.load(run_folder(folder) / f"{ENV}.zip", device="cpu") for folder in folders)
    expected = whole.policy.state_dict()
    assert all(th.equal(value, expected[name]) for name, value in killed.policy.state_dict().items())
    assert (killed.n_env_steps, killed.num_timesteps, killed._n_updates) == (180, 180, whole._n_updates)


@pytest.mark.parametrize("log", ["fql", "fql-bc_flow"])
def test_the_evaluations_are_the_same(folders: tuple[Path, Path], log: str) -> None:
    whole, killed = (np.load(folder / log / f"{ENV}_1" / "evaluations.npz") for folder in folders)
    np.testing.assert_array_equal(whole["timesteps"], [60, 120, 180])
    for name in set(whole) - {"seconds"}:
        np.testing.assert_array_equal(killed[name], whole[name])
    for seconds in (whole["seconds"], killed["seconds"]):  # these depend on the machine
        assert seconds.shape == (3,) and seconds[0] > 0 and np.all(np.diff(seconds) > 0)


def test_what_the_run_began_with_is_kept(folders: tuple[Path, Path]) -> None:
    """It was resumed without a seed, so that RL Zoo drew one."""
    arguments = [yaml.unsafe_load((run_folder(folder) / ENV / "args.yml").read_text("utf-8")) for folder in folders]
    assert [given["seed"] for given in arguments] == [0, 0]


def test_the_episodes_are_logged_once(folders: tuple[Path, Path]) -> None:
    whole, killed = ((run_folder(folder) / "0.monitor.csv").read_text("utf-8").splitlines() for folder in folders)
    # Without the last column, which is the time.
    assert [line.split(",")[:2] for line in killed[1:]] == [line.split(",")[:2] for line in whole[1:]]


def test_a_finished_run_is_left_alone(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model = run_folder(folders[0]) / f"{ENV}.zip"
    before = model.stat().st_mtime_ns
    assert main([COMMAND[0], "-f", str(folders[0]), "--resume", *COMMAND[1:]]) == 0
    assert "has finished: nothing to do" in capsys.readouterr().out
    assert model.stat().st_mtime_ns == before


def test_a_run_is_not_written_over(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([COMMAND[0], "-f", str(folders[0]), *COMMAND[1:]]) == 2
    assert "already has a run: add --resume" in capsys.readouterr().err


def test_other_settings_are_refused(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model = run_folder(folders[1]) / f"{ENV}.zip"
    hidden = model.rename(model.with_suffix(".hidden"))  # as if it had not finished
    try:
        assert main([COMMAND[0], "-f", str(folders[1]), "--resume", *COMMAND[1:], "alpha:3.0"]) == 2
    finally:
        hidden.rename(model)
    message = capsys.readouterr().err
    assert "`alpha` is 3.0, but " in message and "was started with 0.1. Pass the same settings" in message
