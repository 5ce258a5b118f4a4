"""Runs that are killed and resumed end as runs that were not."""

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from conformance.callbacks import Raising, Recorder
from conformance.case import AlgorithmCase, parameters, same_parameters
from conformance.environments import collect, pendulum, pendulums
from resumable import SCENARIOS, train
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.checkpoints import TrainingCheckpoint, checkpoints, latest_checkpoint
from sb3_flow.common.checkpoints.callback_state import get_callback_state, set_callback_state
from sb3_flow.common.flow_algorithm import FlowAlgorithm

SCRIPT = Path(__file__).with_name("resumable.py")


def start(scenario: str, folder: Path, *arguments: str) -> subprocess.Popen:
    """The script, as a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), scenario, str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def kill_at(process: subprocess.Popen, timestep: int) -> None:
    """Kill a process as soon as it says that it has come so far."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step ") and int(line.split()[1]) >= timestep:
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait(timeout=60) == -signal.SIGKILL
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # forked workers keep each other's pipes open, and would wait for ever


def finish(process: subprocess.Popen, code: int = 0) -> None:
    """Wait until a process ends by itself."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output


def assert_equal(one: Any, other: Any, where: str = "result") -> None:
    """Bit for bit, at any depth."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, th.Tensor):
        assert th.equal(one, other), where
    else:
        assert one == other, where


def episodes(folder: Path) -> list[str]:
    """What was logged of the episodes, without the time of day."""
    files = sorted(folder.glob("*monitor.csv"))
    return [",".join(line.split(",")[:2]) for file in files for line in file.read_text().splitlines()[1:]]


def assert_same_run(one: Path, other: Path) -> None:
    """The results of two runs, and what they have logged; their clocks run on."""
    for file in other.glob("*monitor.csv"):
        times = [float(line.split(",")[2]) for line in file.read_text().splitlines()[2:]]
        assert times == sorted(times)
    assert_equal(*(th.load(folder / "result.pt", weights_only=True) for folder in (one, other)))
    assert episodes(one) == episodes(other)
    evaluations, others = (np.load(folder / "evaluations.npz") for folder in (one, other))
    for name in evaluations.files:
        np.testing.assert_array_equal(evaluations[name], others[name])


WHILE_SAVING = 0


@pytest.mark.parametrize(
    ("scenario", "kills"),
    [
        ("offline", [33]),
        ("online", [27, WHILE_SAVING]),  # 27: actions are random still
        ("online-2", [101]),
        ("offline-to-online", [22, 50]),  # once in each phase
    ],
)
def test_killed_runs_end_like_others(tmp_path: Path, scenario: str, kills: list[int]) -> None:
    """SIGKILL, a new process, and in the end the same parameters, optimiser, counters, random states and logs."""
    folder = tmp_path / "killed"
    for timestep in kills:
        before = latest_checkpoint(folder)
        if timestep == WHILE_SAVING:
            finish(start(scenario, folder, "1"), -signal.SIGKILL)
            assert before is not None and latest_checkpoint(folder) == before
            assert [path.name for path in folder.glob(".checkpoint_*/*")] == ["model.zip"]
        else:
            kill_at(start(scenario, folder), timestep)
            assert latest_checkpoint(folder) != before
        assert len(checkpoints(folder)) == 1
        assert not (folder / "result.pt").exists()
    finish(start(scenario, folder))
    assert not list(folder.glob(".checkpoint_*"))
    train(SCENARIOS[scenario], tmp_path / "whole")
    assert_same_run(tmp_path / "whole", folder)


def interrupted(
    make: Callable[[], FlowAlgorithm], folder: Path, at: int, env: Any, data: Any, n_envs: int = 1
) -> FlowAlgorithm:
    """A run of 40 timesteps that was broken off at a time, and resumed."""
    with pytest.raises(RuntimeError):
        make().learn(40, callback=[TrainingCheckpoint(folder, 10 // n_envs), Raising(at, RuntimeError)])
    model = type(make()).resume(folder, env, dataset=data, device="cpu")
    return model.learn(40, callback=[TrainingCheckpoint(folder, 10 // n_envs), Raising(100, RuntimeError)])


@pytest.mark.parametrize("n_envs", [1, 2])
def test_interrupted_online_training(online_algorithm: AlgorithmCase, tmp_path: Path, n_envs: int) -> None:
    """Every algorithm that trains online goes on bit for bit."""

    def make() -> FlowAlgorithm:
        return online_algorithm.make(pendulums(n_envs))

    whole = make().learn(40, callback=TrainingCheckpoint(tmp_path / "whole", 10 // n_envs))
    resumed = interrupted(make, tmp_path / "run", 36, pendulums(n_envs), None, n_envs)
    assert resumed.num_timesteps == 40
    assert same_parameters(parameters(whole), parameters(resumed))


def test_interrupted_offline_training(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """And offline, where checkpoints change nothing at all."""
    data = collect(pendulum)

    def make() -> FlowAlgorithm:
        return offline_algorithm.make(pendulum(), dataset=data)

    resumed = interrupted(make, tmp_path / "run", 36, pendulum(), data)
    assert same_parameters(parameters(make().learn(40)), parameters(resumed))


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluations_do_not_change_online_training(online_algorithm: AlgorithmCase, deterministic: bool) -> None:
    """Evaluating every fifth step, or never, gives the same parameters."""
    callback = EvalCallback(pendulum(), eval_freq=5, n_eval_episodes=2, deterministic=deterministic, warn=False)
    without, evaluated = (
        parameters(online_algorithm.make(pendulum()).learn(40, callback=either)) for either in (None, callback)
    )
    assert same_parameters(without, evaluated)


def test_predict_draws_from_the_global_generator(online_algorithm: AlgorithmCase) -> None:
    """Outside of training ``torch.manual_seed`` decides on samples, and training's stream is not touched."""
    model = online_algorithm.make(pendulum()).learn(20)
    state, observation = model.random_state(), np.zeros(3, dtype=np.float32)
    th.manual_seed(1)
    first = model.predict(observation)[0]
    assert not np.array_equal(first, model.predict(observation)[0])
    th.manual_seed(1)
    assert np.array_equal(first, model.predict(observation)[0])
    assert th.equal(state, model.random_state())


#: The next loss is lost; or, in an algorithm whose update has several steps, a later one of the same update.
LOST = (
    r"update 11 is (nan|inf), so no checkpoint is written\. Go back to the last one"
    r"|^Update 11 is not finite \(.*\)\. The parameters are lost from there on: go back to the last checkpoint"
)


def test_a_lost_run_leaves_its_last_good_checkpoint(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """From update 11 on the learning rate is absurd: its parameters are finite still, but no loss will be."""
    data = collect(pendulum)
    model = offline_algorithm.make(pendulum(), dataset=data, learning_rate=lambda left: 1e-3 if left > 0.5 else 1e30)
    with pytest.raises(ValueError, match=LOST):
        model.learn(20, callback=TrainingCheckpoint(tmp_path, save_freq=1))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_10"]
    resumed = offline_algorithm.cls.resume(tmp_path, pendulum(), dataset=data, device="cpu", learning_rate=1e-3)
    resumed.learn(20)
    assert all(bool(value.isfinite().all()) for value in parameters(resumed).values())


def test_no_checkpoint_after_a_loss_that_is_not_finite(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A reward beyond float32's range when squared: the update that is due to be saved stops the run."""
    if not offline_algorithm.cls.needs_rewards:
        pytest.skip("rewards are not used")
    data = collect(pendulum)
    data["rewards"] = data["rewards"].copy()
    data["rewards"][::2] = 1e30
    message = r"Update 1 is not finite.*last checkpoint"
    if offline_algorithm.stages > 1:  # that update sees no reward, and the checkpoint itself looks at all losses
        message = r"loss after update 1 is inf, so no checkpoint is written"
    with pytest.raises(ValueError, match=message):
        offline_algorithm.make(pendulum(), dataset=data).learn(20, callback=TrainingCheckpoint(tmp_path / "run", 1))
    assert latest_checkpoint(tmp_path / "run") is None


def test_the_number_given_to_learn_is_the_whole(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """The first ``learn`` after ``resume`` is the rest of the one that was interrupted; the next one is one of its own."""
    data = collect(pendulum)
    model = offline_algorithm.make(pendulum(), dataset=data).learn(10)
    with pytest.raises(RuntimeError):
        callbacks = [TrainingCheckpoint(tmp_path, 10), Raising(27, RuntimeError)]
        model.learn(20, callback=callbacks, reset_num_timesteps=False)  # from 10 to 30
    resumed = offline_algorithm.cls.resume(tmp_path, pendulum(), dataset=data, device="cpu")
    assert resumed.num_timesteps == 20
    recorder = Recorder()
    resumed.learn(20, callback=recorder, reset_num_timesteps=False)
    assert recorder.clock == list(range(21, 31)) and recorder.total_timesteps == 30
    assert resumed.learn(5, reset_num_timesteps=False).num_timesteps == 35
    assert resumed.learn(5).num_timesteps == 5


def test_new_episodes_at_a_checkpoint(online_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Online the environment is reset, the trajectory in the buffer ends, and no chunk of actions goes on."""
    model = online_algorithm.make(pendulum(), learning_starts=5, horizon_length=4)
    starts = Recorder(look=lambda callback: bool(callback.model._last_episode_starts[0]))
    model.learn(30, callback=[TrainingCheckpoint(tmp_path, 13), starts])
    # Steps from 0; episodes of ten steps, and a new one after each thirteen.
    assert np.flatnonzero(starts.seen).tolist() == [0, 10, 13, 23, 26]
    assert np.flatnonzero(model.replay_buffer.transitions.ends[:30]).tolist() == [9, 12, 22, 25, 29]


def test_older_checkpoints_go(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """The latest ones are kept, by their number and not by their name; any of them can be resumed."""
    data = collect(pendulum)
    offline_algorithm.make(pendulum(), dataset=data).learn(110, callback=TrainingCheckpoint(tmp_path, 10, keep=2))
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint_100", "checkpoint_110"]
    for folder, timesteps in ((tmp_path, 110), (tmp_path / "checkpoint_100", 100)):
        resumed = offline_algorithm.cls.resume(folder, pendulum(), dataset=data, device="cpu")
        assert resumed.num_timesteps == timesteps


def test_a_run_is_not_overwritten(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Starting anew in the folder of a run is refused; going on with the same model is not."""
    data = collect(pendulum)
    model = offline_algorithm.make(pendulum(), dataset=data).learn(20, callback=TrainingCheckpoint(tmp_path, 10))
    with pytest.raises(ValueError, match=r"checkpoint_20 belongs to a run that is ahead of this model, which has 0.*resume\("):
        offline_algorithm.make(pendulum(), dataset=data).learn(20, callback=TrainingCheckpoint(tmp_path, 10))
    model.learn(20, callback=TrainingCheckpoint(tmp_path, 10))
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint_40"


class Remembering(BaseCallback):
    """A callback with a setting, and with memory of all plain kinds."""

    def __init__(self, setting: str) -> None:
        super().__init__()
        self.setting = setting
        self.number, self.array, self.words = 0, np.zeros(2), {"a": [1]}
        self.thing: Any = object()

    def _on_step(self) -> bool:
        self.number, self.array = self.n_calls, self.array + 1
        self.words["a"].append(self.n_calls)
        return True


def test_what_callbacks_remember() -> None:
    """Memory is given back to callbacks of the same class and order, wherever they are called; settings are not."""
    first, second = Remembering("old"), Remembering("old")
    for callback, n_calls in ((first, 2), (second, 5)):
        callback.n_calls = n_calls
        callback._on_step()
    evaluation = EvalCallback(pendulum(), callback_on_new_best=second, warn=False)
    state = pickle.loads(pickle.dumps(get_callback_state(CallbackList([first, evaluation]))))
    new_first, new_second = Remembering("new"), Remembering("new")
    thing = new_first.thing
    evaluation = EvalCallback(pendulum(), callback_on_new_best=new_second, warn=False)
    set_callback_state(CallbackList([CallbackList([EveryNTimesteps(3, new_first), evaluation])]), state)
    assert (new_first.number, new_first.words, new_first.array.tolist()) == (2, {"a": [1, 2]}, [1, 1])
    assert (new_second.number, new_second.words) == (5, {"a": [1, 5]})
    assert new_first.setting == "new" and new_first.thing is thing
    with pytest.warns(UserWarning, match="EvalCallback. Their state is lost"):
        set_callback_state(CallbackList([new_first, new_second]), state)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("no folder", FileNotFoundError, "There is no folder"),
        ("empty folder", FileNotFoundError, "has no checkpoint. Start a new run"),
        ("unfinished", FileNotFoundError, "has no checkpoint, only an unfinished one"),
        ("file", ValueError, "is a file. Pass the folder"),
        ("no data", ValueError, r"trains on .*Pass it: `resume\(\.\.\., dataset=\.\.\.\)`"),
        ("other data", ValueError, "The dataset has 50 transitions; .* with 200 transitions"),
        ("two environments", ValueError, "`env` has 2 environments; it must have 1"),
        ("normalized", ValueError, "was written without `VecNormalize`, but `env` is with it"),
        ("other spaces", ValueError, r"model\.zip cannot be loaded\. Observation spaces do not match"),
        ("damaged state", ValueError, r"training\.pkl is damaged"),
        ("damaged model", ValueError, r"model\.zip is damaged"),
        ("damaged buffer", ValueError, r"replay_buffer\.pkl is not a replay buffer, or it is damaged"),
    ],
)
def test_why_it_cannot_be_resumed(
    two_phase_algorithm: AlgorithmCase, tmp_path: Path, change: str, error: type[Exception], message: str
) -> None:
    """Each refusal says what is wrong, with which file, and what to do."""
    folder, data = tmp_path / "run", collect(pendulum)
    model = two_phase_algorithm.make(pendulum(), dataset=data, offline_steps=5)
    model.learn(20, callback=TrainingCheckpoint(folder, 20))
    given: dict[str, Any] = {"env": pendulum(), "dataset": data, "device": "cpu"}
    checkpoint = folder / "checkpoint_20"
    if change == "no folder":
        shutil.rmtree(folder)
    elif change == "empty folder":
        shutil.rmtree(checkpoint)
    elif change == "unfinished":
        checkpoint.rename(folder / ".checkpoint_20.partial")
    elif change == "file":
        shutil.rmtree(folder)
        folder.write_text("a file")
    elif change == "no data":
        del given["dataset"]
    elif change == "other data":
        given["dataset"] = collect(pendulum, 50)
    elif change == "two environments":
        given["env"] = pendulums(2)
    elif change == "normalized":
        given["env"] = VecNormalize(pendulums(1))
    elif change == "other spaces":
        given["env"] = "MountainCarContinuous-v0"
    else:
        name = {"state": "training.pkl", "model": "model.zip", "buffer": "replay_buffer.pkl"}[change.split()[1]]
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(error, match=message) as raised:
        two_phase_algorithm.cls.resume(folder, **given)
    assert str(folder) in str(raised.value)


def test_wrong_use_of_the_callback(tmp_path: Path) -> None:
    """Another algorithm, and numbers that make no sense."""
    with pytest.raises(ValueError, match="algorithms of sb3_flow, not for SAC"):
        SAC("MlpPolicy", "Pendulum-v1").learn(1, callback=TrainingCheckpoint(tmp_path, 1))
    with pytest.raises(ValueError, match="`save_freq` is 0"):
        TrainingCheckpoint(tmp_path, 0)
    with pytest.raises(ValueError, match="`keep` is 0"):
        TrainingCheckpoint(tmp_path, 1, keep=0)
