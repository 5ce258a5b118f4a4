"""Killed trials of a study, interrupted trainings, and modules that register environments."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from sb3_flow.cli import main
from sb3_flow.zoo import trials
from sb3_flow.zoo.trials import ALIVE, WORKER, alive, fail_dead_trials, is_dead

pytest.importorskip("rl_zoo3")
optuna = pytest.importorskip("optuna")

SMALL = {"policy": "FlowPolicy", "n_timesteps": 40, "learning_starts": 10, "policy_kwargs": {"net_arch": [8]}, "batch_size": 8}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a small configuration."""
    (tmp_path / "small.yml").write_text(yaml.safe_dump({"default": SMALL}), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dead_process() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def open_study(folder: Path) -> Any:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "study.log")))
    return optuna.create_study(storage=storage, study_name="mine", direction="maximize", load_if_exists=True)


def running(folder: Path, pid: int) -> int:
    """A trial that a process began, and never ended."""
    trial = open_study(folder).ask()
    trial.set_user_attr(WORKER, {"host": trials.socket.gethostname(), "pid": pid})
    trial.set_user_attr(ALIVE, time.time())
    return trial.number


@pytest.mark.slow
def test_killed_trials_do_not_block_a_study(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """They are marked as failed, so that they do not count for ``--max-total-trials``."""
    numbers = [running(folder, dead_process()), running(folder, dead_process())]
    command = ["optimize", "--algo", "fql", "--env", "Pendulum-v1", "--conf-file", "small.yml", "--storage", "study.log"]
    command += ["--study-name", "mine", "--max-total-trials", "1", "--n-evaluations", "1", "--eval-episodes", "1"]
    assert main([*command, "--no-optim-plots"]) == 0
    assert "marked as failed: 0, 1" in capsys.readouterr().out
    found = open_study(folder).trials
    assert [trial.state.name for trial in found] == ["FAIL", "FAIL", "COMPLETE"] and numbers == [0, 1]
    assert found[2].user_attrs[WORKER]["pid"] == os.getpid() and found[2].user_attrs[ALIVE] > time.time() - 60


def test_trials_that_are_alive_are_left_alone(folder: Path) -> None:
    running(folder, os.getppid())
    open_study(folder).ask()  # of another program
    assert fail_dead_trials(open_study(folder)) == []


def test_who_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    here, now = trials.socket.gethostname(), time.time()

    def attributes(host: str, pid: int, age: float) -> dict[str, Any]:
        return {WORKER: {"host": host, "pid": pid}, ALIVE: now - age}

    assert not is_dead({})
    assert not is_dead({WORKER: {"host": here, "pid": os.getppid()}})  # it has just begun
    assert not is_dead(attributes(here, os.getppid(), 0))
    assert is_dead(attributes(here, os.getppid(), 3600))
    assert is_dead(attributes(here, dead_process(), 0))
    assert is_dead(attributes(here, os.getpid(), 0))  # of a container that was started again
    assert not is_dead(attributes("elsewhere", dead_process(), 0))
    assert is_dead(attributes("elsewhere", 1, 3600))


def test_the_time_is_recorded_while_a_trial_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "INTERVAL", 0.02)
    trial = open_study(folder).ask()
    before = threading.active_count()
    with alive(trial):
        first = open_study(folder).trials[0].user_attrs[ALIVE]
        time.sleep(0.3)
        assert open_study(folder).trials[0].user_attrs[ALIVE] > first
    assert threading.active_count() == before


@pytest.mark.slow
def test_a_study_without_a_completed_trial(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """A loss that is not finite prunes the trial."""
    command = ["optimize", "--algo", "fql", "--env", "Pendulum-v1", "--conf-file", "small.yml", "--n-trials", "1"]
    command += ["--no-optim-plots", "-params", "callback:callbacks.Failing"]
    (folder / "callbacks.py").write_text(
        "from stable_baselines3.common.callbacks import BaseCallback\n"
        "class Failing(BaseCallback):\n    def _on_step(self): raise ValueError('as with a loss that is not finite')\n",
        "utf-8",
    )
    sys.path.insert(0, str(folder))
    try:
        assert main(command) == 2
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("callbacks")
    assert "No trial was completed: all of them were pruned or failed" in capsys.readouterr().err


@pytest.mark.slow
def test_trials_of_different_kinds_are_not_mixed(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """A study is of one algorithm, one environment and one configuration; RL Zoo mixes them without a word."""
    common = ["--conf-file", "small.yml", "--storage", "study.log", "--study-name", "mine", "-n", "12"]
    tune = [*common, "--n-trials", "1", "--n-evaluations", "1", "--eval-episodes", "1", "--no-optim-plots"]
    fql, normalized = ["--algo", "fql", "--env", "Pendulum-v1"], ["-params", "normalize_q_loss:True"]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Other settings")
        assert main(["optimize", *fql, *tune, *normalized]) == 0
        assert main(["optimize", *fql, *tune, *normalized]) == 0  # it goes on
        assert main(["train", *fql, *common, *normalized, "--trial-id", "0", "--eval-freq", "-1"]) == 0
    for command in (["optimize", *fql, *tune], ["train", *fql, *common, "--trial-id", "0", "--eval-freq", "-1"]):
        with pytest.warns(UserWarning, match="in the study 'mine': `normalize_q_loss` was True and is not given"):
            assert main(command) == 0
    capsys.readouterr()
    gfp, cart = ["--algo", "gfp", "--env", "Pendulum-v1"], ["--algo", "fql", "--env", "MountainCarContinuous-v0"]
    for command, now in (
        (["optimize", *gfp, *tune], "--algo gfp"),
        (["train", *gfp, *common, "--trial-id", "0"], "--algo gfp"),
        (["optimize", *cart, *tune], "--env MountainCarContinuous-v0"),
    ):
        assert main(command) == 2
        assert f"and this command has {now}. Pass another --study-name" in capsys.readouterr().err
    # Parameters that were found in one environment can be trained in another.
    assert main(["train", *cart, *common, *normalized, "--trial-id", "0", "--eval-freq", "-1"]) == 0


@pytest.mark.parametrize("given", ["alpha:3", "gamma:0.9", "batch_size:16"])
def test_values_that_are_searched_are_not_given(folder: Path, capsys: pytest.CaptureFixture, given: str) -> None:
    command = ["optimize", "--algo", "fql", "--env", "Pendulum-v1", "--conf-file", "small.yml", "--n-trials", "1"]
    assert main([*command, "-params", given]) == 2
    assert f"-params: `{given.partition(':')[0]}` is searched" in capsys.readouterr().err


def test_a_file_that_is_no_journal(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "study.log").write_text("text\n", "utf-8")
    command = ["optimize", "--algo", "fql", "--env", "Pendulum-v1", "--conf-file", "small.yml", "--storage", "study.log"]
    assert main([*command, "--study-name", "mine", "--n-trials", "1"]) == 2
    assert "--storage study.log is not a journal of Optuna" in capsys.readouterr().err


def test_an_interrupted_training_can_be_resumed(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """RL Zoo saves the model and ends with exit code 0; so would ``--resume`` have nothing to do."""
    (folder / "callbacks.py").write_text(
        "import os, signal\nfrom stable_baselines3.common.callbacks import BaseCallback\n"
        "class Interrupting(BaseCallback):\n"
        "    def _on_step(self):\n"
        "        if self.num_timesteps == 25 and not os.path.exists('once'):\n"
        "            open('once', 'w').close()\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        return True\n",
        "utf-8",
    )
    sys.path.insert(0, str(folder))
    command = [
        "train",
        "--algo",
        "fql",
        "--env",
        "Pendulum-v1",
        "--conf-file",
        "small.yml",
        "--eval-freq",
        "-1",
        "--seed",
        "1",
    ]
    command += ["--checkpoint-freq", "20", "--run-id", "1", "-params", "callback:callbacks.Interrupting"]
    handler = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        assert main(command) == 130
        output = capsys.readouterr()
        assert "interrupted" in output.err and "--resume" in output.out
        run = folder / "logs/fql/Pendulum-v1_1"
        assert (run / "Pendulum-v1.zip").is_file() and not list(run.glob(".sb3_flow.lock*"))
        assert main([*command, "--resume"]) == 0
        assert "Resuming from" in capsys.readouterr().out
        assert main([*command, "--resume"]) == 0
        assert "has finished: nothing to do" in capsys.readouterr().out
    finally:
        signal.signal(signal.SIGINT, handler)
        sys.path.remove(str(folder))
        sys.modules.pop("callbacks")


def test_modules_that_register_environments(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """``--gym-packages`` works for all commands, those of RL Zoo without this option included."""
    (folder / "my_robots.py").write_text(
        "import gymnasium\ngymnasium.register('MyArm-v0', entry_point='gymnasium.envs.classic_control:PendulumEnv')\n", "utf-8"
    )
    sys.path.insert(0, str(folder))
    command = ["--algo", "fql", "--env", "MyArm-v0", "--gym-packages", "my_robots"]
    try:
        for name in ("enjoy", "record-video", "push-to-hub", "export"):
            assert main([name, *command, *(["-orga", "me"] if name == "push-to-hub" else [])]) == 2
            assert "The logs/fql folder was not found" in capsys.readouterr().err, name
        assert main(["train", *command, "--conf-file", "small.yml", "-n", "15", "--eval-freq", "-1"]) == 0
        assert main(["train", "--algo", "fql", "--env", "MyArn-v0"]) == 2
        assert "no environment 'MyArn-v0'; did you mean 'MyArm-v0'? " in capsys.readouterr().err
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("my_robots", None)
