"""Callbacks of Stable-Baselines3 that stop training, errors in callbacks, and the success of OGBench's environments."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import (
    EvalCallback,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)

from conformance.callbacks import Raising, Recorder
from conformance.case import AlgorithmCase
from conformance.environments import collect, maze, pendulum, pendulums
from sb3_flow.common.environments import register_environment

pytestmark = pytest.mark.one_variant


def test_success_of_ogbench(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """OGBench's success is in the evaluations; it depends on where the episode stands, so it is neither missing nor NaN."""
    model = offline_algorithm.make(maze(), dataset=collect(maze))
    model.learn(4, callback=EvalCallback(maze(), eval_freq=2, n_eval_episodes=2, log_path=str(tmp_path), warn=False))
    successes = np.load(tmp_path / "evaluations.npz")["successes"]
    assert successes.shape == (2, 2)
    assert set(successes.ravel().tolist()) <= {False, True}


def test_success_rate_while_training_online(online_algorithm: AlgorithmCase) -> None:
    """An OGBench environment that is handed over as it was made reports its success as well."""
    register_environment("pointmaze-medium-singletask-task1-v0")
    env = gym.make("pointmaze-medium-singletask-task1-v0", max_episode_steps=5)
    model = online_algorithm.make(env).learn(15)
    assert model.ep_success_buffer is not None and list(model.ep_success_buffer) == [False] * 3


@pytest.mark.parametrize(("threshold", "clock"), [(-1e9, 5), (1e9, 15)])
def test_stops_on_reward_threshold(two_phase_algorithm: AlgorithmCase, threshold: float, clock: int) -> None:
    """A reached threshold stops the offline phase, and the online one is not begun; another one stops nothing."""
    env = pendulum()
    model = two_phase_algorithm.make(env, dataset=collect(pendulum), offline_steps=10)
    stop = StopTrainingOnRewardThreshold(threshold)
    model.learn(15, callback=EvalCallback(pendulum(), callback_on_new_best=stop, eval_freq=5, n_eval_episodes=1, warn=False))
    assert (model.num_timesteps, env.n_steps) == (clock, max(clock - 10, 0))


@pytest.mark.parametrize("n_envs", [1, 2])
def test_stops_on_max_episodes(two_phase_algorithm: AlgorithmCase, n_envs: int) -> None:
    """Episodes are those of the environment: the offline phase has none."""
    env = pendulums(n_envs, episode_length=3)
    model = two_phase_algorithm.make(env, dataset=collect(pendulum), offline_steps=4, learning_starts=0)
    model.learn(1_000, callback=StopTrainingOnMaxEpisodes(max_episodes=2))
    assert model.num_timesteps == 4 + 2 * 3 * n_envs


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 9])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interrupted_training(two_phase_algorithm: AlgorithmCase, tmp_path: Path, at: int, error: type[BaseException]) -> None:
    """An exception or Ctrl-C in either phase ends the callbacks; the model acts, is saved, and goes on."""
    data = collect(pendulum)
    model = two_phase_algorithm.make(pendulum(), dataset=data, offline_steps=6, learning_starts=1)
    callback, bar = Raising(at, error), ProgressBarCallback()
    with pytest.raises(error, match="from the callback"):
        model.learn(12, callback=[bar, callback])
    assert (callback.starts, callback.ends, bar.pbar.disable) == (1, 1, True)
    model.predict(np.zeros(3, dtype=np.float32))
    model.save(tmp_path / "model")
    loaded = two_phase_algorithm.load(tmp_path / "model", env=pendulum(), dataset=data)
    assert loaded.num_timesteps == loaded.n_offline_updates + loaded.n_env_steps == at
    loaded.learn(12 - at, reset_num_timesteps=False)
    assert (loaded.num_timesteps, loaded.n_offline_updates, loaded.n_env_steps) == (12, 6, 6)


def test_training_starts_and_ends_once(two_phase_algorithm: AlgorithmCase) -> None:
    """Each ``learn`` has one start and one end, whatever its phases, also when a callback stops it."""
    recorder = Recorder()
    model = two_phase_algorithm.make(pendulum(), dataset=collect(pendulum), offline_steps=4)
    model.learn(8, callback=recorder)
    assert (recorder.starts, recorder.ends) == (1, 1)
    model.learn(8, callback=recorder)
    assert (recorder.starts, recorder.ends) == (2, 2)
    recorder.stop_at = 5
    model.learn(8, callback=recorder)
    assert (recorder.starts, recorder.ends, recorder.clock[-1]) == (3, 3, 5)
