"""A run that is killed and resumed ends like an uninterrupted run."""

import contextlib
import multiprocessing
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from conformance.callbacks import Raising, Recorder
from conformance.case import AlgorithmCase, parameters, same_parameters
from conformance.environments import collect, pendulum, pendulums
from resumable import SCENARIOS, run, train
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.checkpoints import TrainingCheckpoint, checkpoints, latest_checkpoint
from sb3_flow.common.checkpoints.callback_state import get_callback_state, set_callback_state
from sb3_flow.common.checkpoints.random_state import seed_from
from sb3_flow.common.flow_algorithm import FlowAlgorithm


def start(method: str, scenario: str, folder: Path, dies_in_checkpoint: int | None = None) -> tuple[BaseProcess, Connection]:
    """A training process, and the connection on which it reports timesteps. ``"spawn"`` starts a new interpreter."""
    context: Any = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(scenario, folder, sender, dies_in_checkpoint))
    process.start()
    sender.close()
    return process, receiver


def kill_at(process: BaseProcess, receiver: Connection, timestep: int) -> None:
    """Kill a process when it reports a timestep."""
    while receiver.recv() < timestep:
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # forked environments hold each other's pipes open and would wait forever
    end(process, -signal.SIGKILL)


def end(process: BaseProcess, code: int) -> None:
    """Wait until a process ends."""
    process.join(timeout=300)
    assert process.exitcode == code


def assert_equal(one: Any, other: Any, where: str = "result") -> None:
    """Compare nested values exactly."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, th.Tensor):
        assert th.equal(one, other), where
    else:
        assert one == other, where


def episodes(folder: Path) -> list[str]:
    """The logged episodes, without wall-clock times."""
    files = sorted(folder.glob("*monitor.csv"))
    return [",".join(line.split(",")[:2]) for file in files for line in file.read_text().splitlines()[1:]]


def assert_same_run(one: Path, other: Path) -> None:
    """Compare the results and logs of two runs, without wall-clock times."""
    for file in other.glob("*monitor.csv"):
        times = [float(line.split(",")[2]) for line in file.read_text().splitlines()[2:]]
        assert times == sorted(times)
    assert_equal(*(th.load(folder / "result.pt", weights_only=True) for folder in (one, other)))
    assert episodes(one) == episodes(other)
    evaluations, others = (np.load(folder / "evaluations.npz") for folder in (one, other))
    for name in evaluations.files:
        np.testing.assert_array_equal(evaluations[name], others[name])


WHILE_SAVING = 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "kills", "method"),
    [
        pytest.param("offline", [33], "fork", marks=pytest.mark.nightly),
        pytest.param("offline", [33], "spawn", marks=pytest.mark.nightly),
        pytest.param("online", [27, WHILE_SAVING], "fork", marks=pytest.mark.nightly),  # 27: actions are still random
        pytest.param("online-2", [101], "fork", marks=pytest.mark.nightly),
        ("offline-to-online", [22, 50], "fork"),  # once in each phase
    ],
)
def test_killed_runs_end_like_others(tmp_path: Path, scenario: str, kills: list[int], method: str) -> None:
    """After SIGKILL and a new process: equal parameters, optimizers, counters, random states and logs."""
    folder = tmp_path / "killed"
    for timestep in kills:
        before = latest_checkpoint(folder)
        if timestep == WHILE_SAVING:
            process, _ = start(method, scenario, folder, dies_in_checkpoint=1)
            end(process, -signal.SIGKILL)
            assert before is not None and latest_checkpoint(folder) == before
            assert [path.name for path in folder.glob(".checkpoint_*/*")] == ["model.zip"]
        else:
            kill_at(*start(method, scenario, folder), timestep)
            assert latest_checkpoint(folder) != before
        assert len(checkpoints(folder)) == 1
        assert not (folder / "result.pt").exists()
    process, _ = start(method, scenario, folder)
    end(process, 0)
    assert not list(folder.glob(".checkpoint_*"))
    train(SCENARIOS[scenario], tmp_path / "whole")
    assert_same_run(tmp_path / "whole", folder)


def interrupted(
    make: Callable[[], FlowAlgorithm], folder: Path, total: int, env: Any, data: Any, n_envs: int = 1
) -> FlowAlgorithm:
    """A run with three checkpoints that was interrupted after the second one and resumed."""
    every, at = total // n_envs // 3, total // 3 * 2 + n_envs
    with pytest.raises(RuntimeError):
        make().learn(total, callback=[TrainingCheckpoint(folder, every), Raising(at, RuntimeError)])
    model = type(make()).resume(folder, env, dataset=data, device="cpu")
    return model.learn(total, callback=[TrainingCheckpoint(folder, every), Raising(2 * total, RuntimeError)])


@pytest.mark.slow
@pytest.mark.usefixtures("no_pickles")
@pytest.mark.parametrize("n_envs", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_interrupted_online_training(online_algorithm: AlgorithmCase, tmp_path: Path, n_envs: int) -> None:
    """Every algorithm that trains online continues exactly."""

    def make() -> FlowAlgorithm:
        return online_algorithm.make(pendulums(n_envs, episode_length=3), learning_starts=2)

    total = 3 * n_envs * (online_algorithm.stages // 3 + 2)
    whole = make().learn(total, callback=TrainingCheckpoint(tmp_path / "whole", total // n_envs // 3))
    resumed = interrupted(make, tmp_path / "run", total, pendulums(n_envs, episode_length=3), None, n_envs)
    assert resumed.num_timesteps == total
    assert same_parameters(parameters(whole), parameters(resumed))


@pytest.mark.usefixtures("no_pickles")
def test_interrupted_offline_training(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Offline training continues exactly, and checkpoints do not change it."""
    data = collect(pendulum)

    def make() -> FlowAlgorithm:
        return offline_algorithm.make(pendulum(), dataset=data)

    total = 3 * (offline_algorithm.stages // 3 + 2)
    resumed = interrupted(make, tmp_path / "run", total, pendulum(), data)
    assert same_parameters(parameters(make().learn(total)), parameters(resumed))


def test_evaluations_do_not_change_online_training(online_algorithm: AlgorithmCase) -> None:
    """Evaluations, deterministic or sampled, do not change the parameters."""

    def learned(callback: BaseCallback | None) -> dict[str, th.Tensor]:
        return parameters(online_algorithm.make(pendulum(), learning_starts=4).learn(12, callback=callback))

    without = learned(None)
    for deterministic in (True, False):
        evaluation = EvalCallback(pendulum(), eval_freq=3, n_eval_episodes=1, deterministic=deterministic, warn=False)
        assert same_parameters(without, learned(evaluation)), deterministic


def test_predict_draws_from_the_global_generator(online_algorithm: AlgorithmCase) -> None:
    """Outside of training, ``torch.manual_seed`` determines samples, and the random stream of training does not change."""
    model = online_algorithm.make(pendulum()).learn(12)
    state, observation = model.random_state(), np.zeros(3, dtype=np.float32)
    th.manual_seed(1)
    first = model.predict(observation)[0]
    assert not np.array_equal(first, model.predict(observation)[0])
    th.manual_seed(1)
    assert np.array_equal(first, model.predict(observation)[0])
    assert th.equal(state, model.random_state())


#: Messages: the next loss is not finite; or a later loss of the same update, for updates of several steps.
LOST = (
    r"update 11 is (nan|inf), so no checkpoint is written\. Go back to the last one"
    r"|^Update 11 is not finite \(.*\)\. The parameters are invalid from there on. Go back to the last checkpoint"
)


@pytest.mark.slow
@pytest.mark.one_variant
def test_a_lost_run_leaves_its_last_good_checkpoint(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """From update 11 the learning rate is huge: the parameters stay finite, but no later loss does."""
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
    if offline_algorithm.stages > 1:  # that update uses no reward; the checkpoint checks all losses
        message = r"loss after update 1 is inf, so no checkpoint is written"
    with pytest.raises(ValueError, match=message):
        offline_algorithm.make(pendulum(), dataset=data).learn(20, callback=TrainingCheckpoint(tmp_path / "run", 1))
    assert latest_checkpoint(tmp_path / "run") is None


@pytest.mark.one_variant
def test_the_number_given_to_learn_is_the_whole(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """The first ``learn`` after ``resume`` completes the interrupted call; the next one is a new call."""
    data = collect(pendulum)
    model = offline_algorithm.make(pendulum(), dataset=data).learn(2)
    with pytest.raises(RuntimeError):
        callbacks = [TrainingCheckpoint(tmp_path, 4), Raising(11, RuntimeError)]
        model.learn(10, callback=callbacks, reset_num_timesteps=False)  # from 2 to 12
    resumed = offline_algorithm.cls.resume(tmp_path, pendulum(), dataset=data, device="cpu")
    assert resumed.num_timesteps == 10
    recorder = Recorder()
    resumed.learn(10, callback=recorder, reset_num_timesteps=False)
    assert recorder.clock == [11, 12] and recorder.total_timesteps == 12
    assert resumed.learn(3, reset_num_timesteps=False).num_timesteps == 15
    assert resumed.learn(3).num_timesteps == 3


@pytest.mark.one_variant
def test_new_episodes_at_a_checkpoint(online_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Online, the environment is reset, the trajectory in the buffer ends, and the current chunk is dropped."""
    model = online_algorithm.make(pendulum(), learning_starts=25, horizon_length=4)
    starts = Recorder(look=lambda callback: bool(callback.model._last_episode_starts[0]))
    model.learn(30, callback=[TrainingCheckpoint(tmp_path, 13), starts])
    # Steps from 0; episodes of ten steps; a reset after thirteen steps.
    assert np.flatnonzero(starts.seen).tolist() == [0, 10, 13, 23, 26]
    assert np.flatnonzero(model.replay_buffer.transitions.ends[:30]).tolist() == [9, 12, 22, 25, 29]


@pytest.mark.slow
@pytest.mark.one_variant
def test_older_checkpoints_go(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """The latest checkpoints are kept, sorted by number and not by name; each of them can be resumed."""
    data = collect(pendulum)
    offline_algorithm.make(pendulum(), dataset=data).learn(11, callback=TrainingCheckpoint(tmp_path, 1, keep=2))
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint_10", "checkpoint_11"]
    for folder, timesteps in ((tmp_path, 11), (tmp_path / "checkpoint_10", 10)):
        resumed = offline_algorithm.cls.resume(folder, pendulum(), dataset=data, device="cpu")
        assert resumed.num_timesteps == timesteps


@pytest.mark.one_variant
def test_a_run_is_not_overwritten(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A new run in the folder of a run is refused; continuing with the same model is not."""
    data = collect(pendulum)
    model = offline_algorithm.make(pendulum(), dataset=data).learn(4, callback=TrainingCheckpoint(tmp_path, 2))
    with pytest.raises(ValueError, match=r"checkpoint_4 belongs to a run that is ahead of this model, which has 0.*resume\("):
        offline_algorithm.make(pendulum(), dataset=data).learn(4, callback=TrainingCheckpoint(tmp_path, 2))
    model.learn(4, callback=TrainingCheckpoint(tmp_path, 2))
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint_8"


class Remembering(BaseCallback):
    """A callback with a setting, and with state of all plain types."""

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
    """The state of callbacks is restored by class and order, also in nested lists; settings are not."""
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


#: A change of a run or of the arguments of ``resume``; the error, and a pattern of its message.
REFUSALS: list[tuple[str, type[Exception], str]] = [
    ("no folder", FileNotFoundError, "There is no folder"),
    ("empty folder", FileNotFoundError, "has no checkpoint. Start a new run"),
    ("unfinished", FileNotFoundError, "has no checkpoint, only an unfinished one"),
    ("file", ValueError, "is a file. Pass the folder"),
    ("no data", ValueError, r"trains on .*Pass it: `resume\(\.\.\., dataset=\.\.\.\)`"),
    ("other data", ValueError, "The dataset has 50 transitions; .* with 200 transitions"),
    ("two environments", ValueError, "`env` has 2 environments; it must have 1"),
    ("normalized", ValueError, "was written without `VecNormalize`, but `env` is with it"),
    ("other spaces", ValueError, r"model\.zip cannot be loaded\. Observation spaces do not match"),
    ("damaged state", ValueError, r"training\.npz is damaged"),
    ("damaged model", ValueError, r"model\.zip is damaged"),
    ("damaged buffer", ValueError, r"replay_buffer\.npz is not a replay buffer, or it is damaged"),
]


@pytest.fixture(scope="module")
def finished(two_phase_algorithm: AlgorithmCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a checkpoint at 6, after 3 updates and 3 steps."""
    folder = tmp_path_factory.mktemp("run")
    model = two_phase_algorithm.make(pendulum(), dataset=collect(pendulum), offline_steps=3)
    model.learn(6, callback=TrainingCheckpoint(folder, 6))
    return folder


@pytest.mark.one_variant
def test_why_a_run_cannot_be_resumed(
    two_phase_algorithm: AlgorithmCase, finished: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Each error names the file and the reason, and says what to do."""
    data = collect(pendulum)
    for change, error, message in REFUSALS:
        folder = tmp_path / change.replace(" ", "_")
        shutil.copytree(finished, folder)
        given: dict[str, Any] = {"env": pendulum(), "dataset": data, "device": "cpu"}
        spoil(folder, given, change)
        with subtests.test(change):
            with pytest.raises(error, match=message) as raised:
                two_phase_algorithm.cls.resume(folder, **given)
            assert str(folder) in str(raised.value)


def spoil(folder: Path, given: dict[str, Any], change: str) -> None:
    """Change the folder of a run, or the arguments of ``resume``."""
    checkpoint = folder / "checkpoint_6"
    if change == "no folder":
        shutil.rmtree(folder)
    elif change == "empty folder":
        shutil.rmtree(checkpoint)
    elif change == "unfinished":
        checkpoint.rename(folder / ".checkpoint_6.partial")
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
        name = {"state": "training.npz", "model": "model.zip", "buffer": "replay_buffer.npz"}[change.split()[1]]
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[: len(content) // 2])


def test_seeds_of_restarts_follow_the_state_of_training() -> None:
    """After a checkpoint, environments get seeds from the state of the generator, which does not change."""
    generator = th.Generator().manual_seed(0)
    state = generator.get_state()
    seed = seed_from(generator)
    assert seed == seed_from(generator) and 0 <= seed < 2**31 - 2**16
    assert th.equal(generator.get_state(), state)
    th.rand(1, generator=generator)
    assert seed_from(generator) != seed
    assert seed_from(generator.manual_seed(1)) != seed == seed_from(generator.manual_seed(0))


def test_wrong_use_of_the_callback(tmp_path: Path) -> None:
    """Another algorithm, and numbers out of range."""
    with pytest.raises(ValueError, match="algorithms of sb3_flow, not for SAC"):
        SAC("MlpPolicy", "Pendulum-v1").learn(1, callback=TrainingCheckpoint(tmp_path, 1))
    with pytest.raises(ValueError, match="`save_freq` is 0"):
        TrainingCheckpoint(tmp_path, 0)
    with pytest.raises(ValueError, match="`keep` is 0"):
        TrainingCheckpoint(tmp_path, 1, keep=0)
