"""The callbacks of Stable-Baselines3 in both phases, unchanged."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)

from conformance.callbacks import Raising, Recorder
from conformance.case import AlgorithmCase
from conformance.environments import collect, maze, pendulum, pendulums
from sb3_flow.common.environments import register_environment


@pytest.mark.parametrize("n_envs", [1, 2])
def test_evaluations_in_both_phases(two_phase_algorithm: AlgorithmCase, tmp_path: Path, n_envs: int) -> None:
    """Evaluations come every 20 timesteps of the one clock, and the best model can be loaded."""
    model = two_phase_algorithm.make(pendulums(n_envs), dataset=collect(pendulum), offline_steps=40)
    callback = EvalCallback(
        pendulum(),
        eval_freq=20 // n_envs,
        n_eval_episodes=2,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        warn=False,
    )
    model.learn(80, callback=callback)
    evaluations = np.load(tmp_path / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [20, 40, 60, 80]
    assert evaluations["results"].shape == evaluations["ep_lengths"].shape == (4, 2)
    best = two_phase_algorithm.load(tmp_path / "best_model")
    best_time = evaluations["timesteps"][evaluations["results"].mean(axis=1).argmax()]
    assert best.num_timesteps == best.n_offline_updates + best.n_env_steps == best_time


def test_success_of_ogbench(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """OGBench's success is in the evaluations; it depends on where the episode stands, so it is neither missing nor NaN."""
    model = offline_algorithm.make(maze(), dataset=collect(maze))
    model.learn(20, callback=EvalCallback(maze(), eval_freq=10, n_eval_episodes=2, log_path=str(tmp_path), warn=False))
    successes = np.load(tmp_path / "evaluations.npz")["successes"]
    assert successes.shape == (2, 2)
    assert set(successes.ravel().tolist()) <= {False, True}


def test_success_rate_while_training_online(online_algorithm: AlgorithmCase) -> None:
    """An OGBench environment that is handed over as it was made reports its success as well."""
    register_environment("pointmaze-medium-singletask-task1-v0")
    env = gym.make("pointmaze-medium-singletask-task1-v0", max_episode_steps=10)
    model = online_algorithm.make(env).learn(30)
    assert model.ep_success_buffer is not None and list(model.ep_success_buffer) == [False] * 3


def test_checkpoints_have_names_of_their_own(two_phase_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """The clock in the names advances, and what a checkpoint has counted adds up to it."""
    model = two_phase_algorithm.make(pendulum(), dataset=collect(pendulum), offline_steps=40)
    model.learn(80, callback=CheckpointCallback(20, str(tmp_path), save_replay_buffer=True))
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == [f"rl_model_{time}_steps.zip" for time in (20, 40, 60, 80)]
    for time in (20, 40, 60, 80):
        checkpoint = two_phase_algorithm.load(tmp_path / f"rl_model_{time}_steps")
        counts = checkpoint.num_timesteps, checkpoint.n_offline_updates, checkpoint.n_env_steps
        assert counts == (time, min(time, 40), max(time - 40, 0))


@pytest.mark.parametrize(("threshold", "clock"), [(-1e9, 20), (1e9, 60)])
def test_stops_on_reward_threshold(two_phase_algorithm: AlgorithmCase, threshold: float, clock: int) -> None:
    """A reached threshold stops the offline phase, and the online one is not begun; another one stops nothing."""
    env = pendulum()
    model = two_phase_algorithm.make(env, dataset=collect(pendulum), offline_steps=40)
    stop = StopTrainingOnRewardThreshold(threshold)
    model.learn(60, callback=EvalCallback(pendulum(), callback_on_new_best=stop, eval_freq=20, n_eval_episodes=1, warn=False))
    assert (model.num_timesteps, env.n_steps) == (clock, max(clock - 40, 0))


@pytest.mark.parametrize("n_envs", [1, 2])
def test_stops_on_max_episodes(two_phase_algorithm: AlgorithmCase, n_envs: int) -> None:
    """Episodes are those of the environment: the offline phase has none."""
    model = two_phase_algorithm.make(pendulums(n_envs), dataset=collect(pendulum), offline_steps=20)
    model.learn(1_000, callback=StopTrainingOnMaxEpisodes(max_episodes=2))
    assert model.num_timesteps == 20 + 2 * 10 * n_envs


def test_every_n_timesteps(two_phase_algorithm: AlgorithmCase) -> None:
    """The event comes by the clock in both phases."""
    recorder = Recorder()
    model = two_phase_algorithm.make(pendulum(), dataset=collect(pendulum), offline_steps=30)
    model.learn(60, callback=EveryNTimesteps(15, recorder))
    assert recorder.clock == [15, 30, 45, 60]


@pytest.mark.parametrize("n_envs", [1, 2])
def test_progress_bar(two_phase_algorithm: AlgorithmCase, n_envs: int) -> None:
    """The bar ends where its total is, and is closed."""
    bar = ProgressBarCallback()
    model = two_phase_algorithm.make(pendulums(n_envs), dataset=collect(pendulum), offline_steps=20)
    model.learn(40, callback=bar)
    assert (bar.pbar.total, bar.pbar.n) == (40, 40)
    assert bar.pbar.disable, "closed"
    model.learn(10, progress_bar=True)


@pytest.mark.parametrize("at", [5, 25])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interrupted_training(two_phase_algorithm: AlgorithmCase, tmp_path: Path, at: int, error: type[BaseException]) -> None:
    """An exception or Ctrl-C in either phase ends the callbacks; the model acts, is saved, and goes on."""
    data = collect(pendulum)
    model = two_phase_algorithm.make(pendulum(), dataset=data, offline_steps=20)
    callback, bar = Raising(at, error), ProgressBarCallback()
    with pytest.raises(error, match="from the callback"):
        model.learn(40, callback=[bar, callback])
    assert (callback.starts, callback.ends, bar.pbar.disable) == (1, 1, True)
    model.predict(np.zeros(3, dtype=np.float32))
    model.save(tmp_path / "model")
    loaded = two_phase_algorithm.load(tmp_path / "model", env=pendulum(), dataset=data)
    assert loaded.num_timesteps == loaded.n_offline_updates + loaded.n_env_steps == at
    loaded.learn(40 - at, reset_num_timesteps=False)
    assert (loaded.num_timesteps, loaded.n_offline_updates, loaded.n_env_steps) == (40, 20, 20)


def test_training_starts_and_ends_once(two_phase_algorithm: AlgorithmCase) -> None:
    """Each ``learn`` has one start and one end, whatever its phases, also when a callback stops it."""
    recorder = Recorder()
    model = two_phase_algorithm.make(pendulum(), dataset=collect(pendulum), offline_steps=10)
    model.learn(20, callback=recorder)
    assert (recorder.starts, recorder.ends) == (1, 1)
    model.learn(20, callback=recorder)
    assert (recorder.starts, recorder.ends) == (2, 2)
    recorder.stop_at = 5
    model.learn(20, callback=recorder)
    assert (recorder.starts, recorder.ends, recorder.clock[-1]) == (3, 3, 5)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_locals_of_a_step(two_phase_algorithm: AlgorithmCase, n_envs: int) -> None:
    """``dones`` and ``infos`` are there in both phases, one for each environment; only real episodes end."""

    def look(callback: BaseCallback) -> tuple[list[bool], list[bool]]:
        return [bool(done) for done in callback.locals["dones"]], ["episode" in info for info in callback.locals["infos"]]

    recorder = Recorder(look=look)
    model = two_phase_algorithm.make(pendulums(n_envs), dataset=collect(pendulum), offline_steps=20)
    model.learn(20 + 20 * n_envs, callback=recorder)
    offline, online = recorder.seen[: 20 // n_envs], recorder.seen[20 // n_envs :]
    assert offline == [([False] * n_envs, [False] * n_envs)] * (20 // n_envs)
    assert [dones for dones, _ in online] == [[step in (9, 19)] * n_envs for step in range(20)]


def test_learning_rate_runs_through_both_phases(two_phase_algorithm: AlgorithmCase) -> None:
    """A schedule sees the whole of ``learn`` once: the rate of an update is that of the clock before it."""
    model = two_phase_algorithm.make(
        pendulum(), dataset=collect(pendulum), offline_steps=20, learning_starts=0, learning_rate=lambda left: 1e-3 * left
    )
    recorder = Recorder(look=lambda callback: callback.model.policy.optimizer.param_groups[0]["lr"])
    model.learn(40, callback=recorder)
    # Offline the callback follows the update; online it comes between the step of the environment and the update.
    offline = [1e-3 * (1 - step / 40) for step in range(20)]
    online = [1e-3 * (1 - max(step, 19) / 40) for step in [19, *range(21, 40)]]
    np.testing.assert_allclose(recorder.seen, offline + online, rtol=1e-6)
