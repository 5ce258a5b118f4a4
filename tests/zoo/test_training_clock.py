"""The seconds of training in evaluation files, across evaluations and processes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from conformance.environments import transitions
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor

from sb3_flow import FPMD, FQL
from sb3_flow.cli import main
from sb3_flow.common.checkpoints import TrainingCheckpoint
from sb3_flow.common.checkpoints.callback_state import get_callback_state, set_callback_state
from sb3_flow.zoo import callbacks
from sb3_flow.zoo.callbacks import SamplerEvalCallback, TrainingClock

ENV = "sb3_flow/TwoGoals-v0"


class Time:
    """The time that the clock reads, in seconds; tests set it."""

    now = 1000.0


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> type[Time]:
    monkeypatch.setattr(Time, "now", 1000.0)
    monkeypatch.setattr("sb3_flow.zoo.callbacks.time", SimpleNamespace(monotonic=lambda: Time.now))
    return Time


class Slow(BaseCallback):
    """Each step of training lasts two seconds."""

    def _on_step(self) -> bool:
        Time.now += 2
        return True


class SlowEvaluation(EvalCallback):
    """Each step of an evaluation lasts 100."""

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        Time.now += 100
        super()._log_success_callback(locals_, globals_)


def evaluation(folder: Path, cls: type[EvalCallback] = EvalCallback, *args: Any) -> EvalCallback:
    env = make_vec_env(ENV, env_kwargs={"attempts": 2})
    return cls(*args, env, n_eval_episodes=4, eval_freq=10, log_path=str(folder), verbose=0)


def seconds(folder: Path) -> np.ndarray:
    with np.load(folder / "evaluations.npz") as arrays:
        assert set(arrays) == {"timesteps", "results", "ep_lengths", "successes", "seconds"}
        assert len(arrays["timesteps"]) == len(arrays["seconds"]) == len(arrays["results"])
        return arrays["seconds"]


def make_sac() -> SAC:
    return SAC("MlpPolicy", ENV, learning_starts=100, policy_kwargs={"net_arch": [8]}, seed=0)


def test_evaluations_do_not_count(tmp_path: Path, time: type[Time]) -> None:
    clock = TrainingClock([evaluation(tmp_path, SlowEvaluation)])
    time.now += 500  # nor does what happens before training starts
    make_sac().learn(30, callback=[Slow(), clock])
    assert clock.evaluations[0].evaluations_timesteps == [10, 20, 30]
    np.testing.assert_array_equal(seconds(tmp_path), [20, 40, 60])


def test_all_ways_to_act_have_the_time_of_the_same_training(tmp_path: Path) -> None:
    model = FPMD("FlowPolicy", ENV, learning_starts=100, policy_kwargs={"net_arch": [8]}, seed=0)
    evaluations = [
        evaluation(tmp_path / "one", SlowEvaluation),
        evaluation(tmp_path / "other", SamplerEvalCallback, "particles"),
    ]
    model.learn(20, callback=[Slow(), TrainingClock(evaluations)])
    for name in ("one", "other"):
        np.testing.assert_array_equal(seconds(tmp_path / name), [20, 40])


def test_another_process_goes_on_from_the_checkpoint(tmp_path: Path, time: type[Time]) -> None:
    run, checkpoints = tmp_path / "run", tmp_path / "checkpoints"

    def callbacks() -> list[BaseCallback]:
        return [Slow(), TrainingClock([evaluation(run)]), TrainingCheckpoint(checkpoints, save_freq=20)]

    model = FPMD("FlowPolicy", ENV, learning_starts=100, policy_kwargs={"net_arch": [8]}, seed=0)
    model.learn(20, callback=callbacks())
    time.now = 3.0  # another machine, whose clock began at another time
    FPMD.resume(checkpoints, ENV).learn(40, callback=callbacks())
    np.testing.assert_array_equal(seconds(run), [20, 40, 60, 80])


def test_a_run_that_began_without_a_clock(tmp_path: Path) -> None:
    """Its checkpoint is that of the callbacks as they were then: the evaluations are found, and only times are missing."""
    old, model = evaluation(tmp_path), make_sac()
    model.learn(20, callback=[old])
    new = evaluation(tmp_path)
    clock = TrainingClock([new])
    set_callback_state(CallbackList([clock]), get_callback_state(CallbackList([old])))
    model.learn(10, callback=[clock], reset_num_timesteps=False)
    assert new.evaluations_timesteps == [10, 20, 30]
    assert np.isnan(seconds(tmp_path)).all(), "the seconds since then are not those of the run"
    assert np.isnan(clock.stop())


def test_the_end_of_training(tmp_path: Path, time: type[Time]) -> None:
    """What follows the last step belongs to it, what follows the training does not."""
    clock = TrainingClock([])
    assert clock.stop() == 0
    make_sac().learn(30, callback=[Slow(), clock])
    time.now += 7  # the last updates
    assert clock.stop() == 67
    time.now += 500
    assert clock.stop() == 67


@pytest.mark.parametrize("eval_freq", [20, -1])
def test_the_seconds_of_a_resumed_run_are_those_of_all_its_processes(
    tmp_path: Path, time: type[Time], monkeypatch: pytest.MonkeyPatch, eval_freq: int
) -> None:
    """The first process ends by an error at timestep 25, after its checkpoint at 20. Updates take two seconds."""
    pytest.importorskip("rl_zoo3")
    np.savez(tmp_path / "data.npz", **transitions())
    train, evaluate = FQL.train, callbacks.EvalCallback._on_step

    def slow(self: FQL, *args: Any, **kwargs: Any) -> None:
        Time.now += 2
        if self.num_timesteps == 25 and Time.now < 5000:
            raise ValueError("The machine has failed.")
        train(self, *args, **kwargs)

    def slow_evaluation(self: callbacks.EvalCallback) -> bool:
        Time.now += 100
        return evaluate(self)

    monkeypatch.setattr(FQL, "train", slow)
    monkeypatch.setattr(callbacks.EvalCallback, "_on_step", slow_evaluation)
    options = ["--algo", "fql", "--env", "Pendulum-v1", "-n", "40", "--eval-freq", str(eval_freq), "--checkpoint-freq", "20"]
    options += ["--eval-episodes", "1", "--device", "cpu", "--run-id", "1", "--seed", "0", "-f", str(tmp_path / "logs")]
    command = ["train", *options, "--resume", "-params", f"dataset:{tmp_path / 'data.npz'}", "policy_kwargs:{'net_arch':[8]}"]
    assert main(command) == 2
    time.now = 5000.0
    assert main(command) == 0
    folder = tmp_path / "logs" / "fql" / "Pendulum-v1_1"
    (system,) = folder.glob("*/system.yml")
    assert yaml.safe_load(system.read_text("utf-8"))["seconds"] == 80
    if eval_freq > 0:
        with np.load(folder / "evaluations.npz") as arrays:
            np.testing.assert_array_equal(arrays["seconds"], [40, 80])


def test_an_evaluation_without_a_file_is_left_alone() -> None:
    quiet = EvalCallback(make_vec_env(ENV), n_eval_episodes=1, eval_freq=5, verbose=0)
    make_sac().learn(10, callback=TrainingClock([quiet]))
    assert quiet.last_mean_reward > -np.inf


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sac", "fpmd_m"])
def test_the_command_has_a_clock(tmp_path: Path, name: str) -> None:
    """For Stable-Baselines3's own algorithms as for ours, and for every way to act."""
    pytest.importorskip("rl_zoo3")
    samplers = [] if name == "sac" else ["--eval-samplers", "particles"]
    options = ["--algo", name, "--env", "Pendulum-v1", "--n-timesteps", "40", "--eval-freq", "20", "--eval-episodes", "1"]
    options += ["--n-eval-envs", "1", "-f", str(tmp_path), "--verbose", "0", "--seed", "0", *samplers]
    assert main(["train", *options, "-params", "learning_starts:1000"]) == 0
    for folder in [name, *(f"{name}-{sampler}" for sampler in samplers[1:])]:
        with np.load(tmp_path / folder / "Pendulum-v1_1" / "evaluations.npz") as arrays:
            assert arrays["timesteps"].tolist() == [20, 40] and np.isfinite(arrays["seconds"]).all()


def test_an_evaluation_that_is_not_finite() -> None:
    """It is warned of, because no later comparison with the best model says so."""

    class Unknown(gym.Wrapper):
        def step(self, action: Any) -> Any:
            observation, _, *rest = self.env.step(action)
            return observation, float("nan"), *rest

    callback = callbacks.EvalCallback(
        Monitor(Unknown(gym.make("Pendulum-v1", max_episode_steps=4))), eval_freq=6, n_eval_episodes=1, verbose=0, warn=False
    )
    model = FQL("FlowPolicy", "Pendulum-v1", learning_starts=50, policy_kwargs={"net_arch": [4]}, device="cpu")
    with pytest.warns(UserWarning, match="The mean return of the evaluation after 6 timesteps is nan: a reward of"):
        model.learn(8, callback=callback)
