"""Settings of the online phase: update frequency, warm-up, exploration noise, several environments, n-step returns."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise
from stable_baselines3.common.vec_env import SubprocVecEnv

from conformance.case import SMALL, AlgorithmCase
from conformance.environments import collect, pendulum, pendulums
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.fql import FQL

pytestmark = pytest.mark.one_variant


#: Number of environments, `train_freq`, `gradient_steps`, and the number of updates in twelve timesteps.
UPDATES: list[tuple[int, int | tuple[int, str], int, int]] = [
    (1, (2, "episode"), 4, 8),
    (2, 3, 5, 10),
    (2, 1, -1, 12),
    (1, 1, 1, 12),
    (1, 4, 1, 3),
    (1, (4, "step"), 2, 6),
    (1, 4, -1, 12),
    (1, (1, "episode"), -1, 12),
    (1, 1, 0, 0),
    (2, 1, 1, 6),
]


def test_number_of_updates(online_algorithm: AlgorithmCase) -> None:
    """``train_freq`` counts steps of all environments as one, and ``gradient_steps=-1`` means as many as transitions."""
    for n_envs, train_freq, gradient_steps, n_updates in UPDATES if online_algorithm.cls is FQL else UPDATES[:2]:
        env = pendulums(n_envs, episode_length=3)
        model = online_algorithm.make(env, learning_starts=0, train_freq=train_freq, gradient_steps=gradient_steps)
        assert model.learn(12)._n_updates == n_updates, (n_envs, train_freq, gradient_steps)


@pytest.mark.parametrize("train_freq", [1, 3, 4, 8, (1, "episode"), (2, "episode")])
def test_an_online_phase_without_updates_warns(train_freq: int | tuple[int, str], recwarn: pytest.WarningsRecorder) -> None:
    """The last rollout may go on after the last timestep, and then there are updates."""
    model = FQL("FlowPolicy", pendulum(episode_length=5), learning_starts=5, train_freq=train_freq, **SMALL).learn(4)
    warned = any("Nothing is learned in this online phase" in str(each.message) for each in recwarn)
    assert warned == (train_freq in (1, 4))
    assert (model._n_updates == 0) == (model.num_timesteps <= 5)
    assert not warned or model._n_updates == 0


def _count_predictions(model: OfflineToOnlineAlgorithm, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    predict = type(model.policy).predict
    monkeypatch.setattr(type(model.policy), "predict", lambda *args, **kwargs: calls.append(1) or predict(*args, **kwargs))
    return calls


def test_warm_up_acts_at_random(online_algorithm: AlgorithmCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained model acts at random for ``learning_starts`` steps."""
    model = online_algorithm.make(pendulum(), learning_starts=10)
    calls = _count_predictions(model, monkeypatch)
    model.learn(14)
    assert len(calls) == 4


def test_no_random_actions_after_training_offline(two_phase_algorithm: AlgorithmCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that has been trained acts from its first step; its updates begin after ``learning_starts`` steps."""
    model = two_phase_algorithm.make(pendulum(), dataset=collect(pendulum), offline_steps=3, learning_starts=10)
    calls = _count_predictions(model, monkeypatch)
    model.learn(16)
    assert len(calls) == 13
    assert model._n_updates == 3 + 3


def test_action_noise(online_algorithm: AlgorithmCase) -> None:
    """Noise is added to the scaled action, which stays in the action space; the buffer has what was done."""
    env = pendulum()
    noise = NormalActionNoise(mean=np.array([5.0]), sigma=np.array([0.0]))
    model = online_algorithm.make(env, action_noise=noise, learning_starts=2).learn(5)
    assert np.all(np.stack(env.actions) == 2.0), "the upper end of the action space"
    assert th.all(model.replay_buffer.draw(th.arange(5)).actions == 1.0)


def test_action_noise_of_several_environments(online_algorithm: AlgorithmCase) -> None:
    """One noise is made a noise of each environment, as elsewhere in Stable-Baselines3."""
    noise = NormalActionNoise(mean=np.array([0.0]), sigma=np.array([0.1]))
    model = online_algorithm.make(pendulums(2), action_noise=noise, learning_starts=4).learn(8)
    assert isinstance(model.action_noise, VectorizedActionNoise)
    assert model.action_noise.n_envs == 2


def test_collected_actions_are_scaled(online_algorithm: AlgorithmCase) -> None:
    """Pendulum's torque lies in [-2, 2]: the buffer holds it in [-1, 1], the environment gets it whole."""
    env = pendulum()
    model = online_algorithm.make(env, learning_starts=15).learn(18)
    stored = model.replay_buffer.draw(th.arange(18)).actions.numpy()
    np.testing.assert_allclose(2 * stored, np.stack(env.actions), atol=1e-6)
    assert np.abs(np.stack(env.actions)).max() > 1


def test_truncation_is_no_termination(online_algorithm: AlgorithmCase) -> None:
    """A time limit does not cut the bootstrap; the end of the task does."""
    model = online_algorithm.make(pendulum(episode_length=3), learning_starts=10).learn(10)
    assert model.replay_buffer.draw(th.arange(10)).masks.tolist() == [1.0] * 10
    model = online_algorithm.make("InvertedPendulum-v5", learning_starts=300).learn(100)
    masks = model.replay_buffer.draw(th.arange(100)).masks
    assert (masks == 0).sum() == model._episode_num > 0


def test_n_steps_offline(offline_algorithm: AlgorithmCase) -> None:
    """Batches carry n-step returns: three rewards of one and their discount."""
    if not offline_algorithm.cls.needs_rewards:
        pytest.skip("rewards are not used")
    data = collect(lambda: pendulum(episode_length=1_000), rows=200)
    data["rewards"] = np.ones(200)
    model = offline_algorithm.make(pendulum(), dataset=data, n_steps=3, gamma=0.5).learn(1)
    batch = model.sample_batch(500)
    assert th.all((batch.rewards == 1.75) == (batch.discounts == 0.125))
    assert set(batch.rewards.tolist()) == {1.0, 1.5, 1.75}, "fewer steps in the last two rows"


def test_n_steps_online(online_algorithm: AlgorithmCase) -> None:
    """Online too, and no return crosses the end of an episode, here after every fourth step."""
    model = online_algorithm.make(pendulum(episode_length=4), n_steps=3, gamma=0.5, learning_starts=19).learn(20)
    discounts = model.replay_buffer.draw(th.arange(20), model.n_steps, model.gamma).discounts
    assert discounts.tolist() == [0.125, 0.125, 0.25, 0.5] * 5
    assert set(model.sample_batch(200).discounts.tolist()) == {0.125, 0.25, 0.5}


def test_environments_in_processes(online_algorithm: AlgorithmCase) -> None:
    """``SubprocVecEnv`` collects as the others do."""
    # The other start methods import everything again, which takes seconds.
    env = SubprocVecEnv([lambda: gym.make("Pendulum-v1")] * 2, start_method="fork")
    try:
        model = online_algorithm.make(env).learn(20)
        assert (model.num_timesteps, model.n_env_steps, len(model.replay_buffer)) == (20, 20, 20)
        assert model._n_updates == 5
    finally:
        env.close()


def test_second_learn_goes_on_in_the_same_episode(online_algorithm: AlgorithmCase) -> None:
    """``reset_num_timesteps=False`` does not reset the environment."""
    env = pendulum(episode_length=4)
    model = online_algorithm.make(env).learn(10)
    model.learn(2, reset_num_timesteps=False)
    assert (model.num_timesteps, model._episode_num) == (12, 3)
    model.learn(2)
    assert (model.num_timesteps, model._episode_num) == (2, 0)
