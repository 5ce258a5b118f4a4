"""Two processes do not write into one folder: the second one says which process has it, and a kill releases it."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.environments import collect as transitions
from conformance.environments import pendulum
from python_process import PythonProcess

from sb3_flow import FQL
from sb3_flow.cli import main
from sb3_flow.common.checkpoints import TrainingCheckpoint, latest_checkpoint
from sb3_flow.common.lock import LOCK, BusyError, Lock, locked

HOLDER = """
import sys, time
from sb3_flow.common.lock import Lock
lock = Lock(sys.argv[1], "the run")
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[PythonProcess]:
    """A process that holds the lock of ``tmp_path``."""
    script = tmp_path_factory.mktemp("holder") / "holder.py"
    script.write_text(HOLDER, "utf-8")
    process = PythonProcess(script, tmp_path / LOCK)
    while process.output() != "held\n":
        assert process.poll() is None, process.output("stderr")
        time.sleep(0.01)
    yield process
    process.kill()


def small(**kwargs: object) -> FQL:
    return FQL(
        "FlowPolicy",
        pendulum(),
        dataset=transitions(pendulum),
        policy_kwargs={"net_arch": [8]},
        batch_size=8,
        device="cpu",
        seed=0,
        **kwargs,
    )


@pytest.mark.slow
def test_another_process_has_the_folder(holder: PythonProcess, tmp_path: Path) -> None:
    model = small()
    named = rf"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()}, since .*delete .*{LOCK}"
    with pytest.raises(BusyError, match=named):
        model.learn(4, callback=TrainingCheckpoint(tmp_path, 2))
    assert latest_checkpoint(tmp_path) is None
    model.learn(4, callback=TrainingCheckpoint(tmp_path, 2, lock=False))  # at one's own risk
    assert latest_checkpoint(tmp_path) is not None
    holder.kill()
    FQL.resume(tmp_path, pendulum(), dataset=transitions(pendulum)).learn(8, callback=TrainingCheckpoint(tmp_path, 2))
    assert not list(tmp_path.glob(f"{LOCK}*"))


@pytest.mark.slow
def test_a_deleted_lock_is_no_lock(holder: PythonProcess, tmp_path: Path) -> None:
    """As the message says."""
    (tmp_path / LOCK).unlink()
    with locked(tmp_path / LOCK, tmp_path):
        pass


def test_the_lock_is_released_when_training_fails(tmp_path: Path) -> None:
    model = small(learning_rate=1e30)
    with pytest.raises(ValueError, match="not finite"):
        model.learn(20, callback=TrainingCheckpoint(tmp_path, 100))
    with locked(tmp_path / LOCK, tmp_path):
        assert str(os.getpid()) in Path(f"{tmp_path / LOCK}.json").read_text("utf-8")
    assert not list(tmp_path.iterdir())


def test_a_holder_that_cannot_be_read(tmp_path: Path) -> None:
    one, other = Lock(tmp_path / "lock", "the folder"), Lock(tmp_path / "lock", "the folder")
    one.acquire()
    one.owner.write_text("x", "utf-8")
    with pytest.raises(BusyError, match="the folder is in use by another process"):
        other.acquire()
    one.release()
    other.acquire()
    other.release()


def test_two_collections_into_one_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("ogbench")
    monkeypatch.setenv("SB3_FLOW_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    name = "pointmaze-medium-navigate-v0"
    into = ["--directory", str(tmp_path), "--no-progress"]
    commands = {
        f".{name}.lock": [name, "--episodes", "1", *into],
        ".multirobot2d-2-v0.lock": ["multirobot2d", "--robots", "2", "--scenes", "1", *into],
        ".minari-mine-arm-v0.lock": [
            *("Pendulum-v1", "--policy", "x.zip", "--algo", "sac", "--transitions", "5", "--name", "mine/arm-v0")
        ],
    }
    for file, arguments in commands.items():
        with locked(tmp_path / file, "the target"):
            assert main(["datasets", "collect", *arguments]) == 2
        assert f"is in use by process {os.getpid()}" in capsys.readouterr().err, file


def test_two_trainings_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("rl_zoo3")
    monkeypatch.chdir(tmp_path)
    run = Path("logs/fql/Pendulum-v1_1")
    arguments = ["train", "--algo", "fql", "--env", "Pendulum-v1", "--conf-file", "fql_small", "-n", "5", "--run-id", "1"]
    with locked(run / LOCK, run):
        assert main(arguments) == 2
    assert f"{run} is in use by process {os.getpid()}" in capsys.readouterr().err


def test_the_lock_is_released_when_resuming_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of a checkpoint is restored after callbacks have started, and the lock is theirs."""
    small().learn(4, callback=TrainingCheckpoint(tmp_path, 2))
    model = FQL.resume(tmp_path, pendulum(), dataset=transitions(pendulum), device="cpu")

    def fail(*_: object) -> None:
        raise OSError("the log cannot be read")

    monkeypatch.setattr("sb3_flow.common.offline_algorithm.hide_later_steps", fail)
    with pytest.raises(OSError, match="the log cannot be read"):
        model.learn(8, callback=TrainingCheckpoint(tmp_path, 2))
    with locked(tmp_path / LOCK, tmp_path):
        pass
