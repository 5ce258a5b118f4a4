"""Chunks of actions: planned at once, executed one by one through `predict`'s state, valued as one action."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_flow import FQL

HORIZON = 4


class Clock(gym.Env[np.ndarray, np.ndarray]):
    """Tells the time and records the actions it is given; an episode is `length` steps."""

    observation_space = spaces.Box(0, 100, (1,), np.float32)
    action_space = spaces.Box(np.array([0.0, -5.0], np.float32), np.array([512.0, 5.0], np.float32))

    def __init__(self, length: int = 6) -> None:
        self.length, self.actions = length, []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return np.array([self.time], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self.time += 1
        return np.array([self.time], np.float32), -1.0, False, self.time >= self.length, {}


def make_model(env: Any = None, **kwargs: Any) -> FQL:
    policy_kwargs = {"net_arch": [16]}
    return FQL("FlowPolicy", env or Clock(), horizon_length=HORIZON, policy_kwargs=policy_kwargs, seed=0, **kwargs)


def plan(model: FQL, time: float) -> np.ndarray:
    """The deterministic chunk for an observation, in the units of the environment, `(HORIZON, 2)`."""
    with th.no_grad():
        chunk = model.policy.act(th.tensor([[time]]), th.zeros(1, HORIZON * 2))
    return model.policy.unscale_action(chunk.numpy().reshape(HORIZON, 2))


def test_a_chunk_is_executed_in_order_then_planned_anew() -> None:
    """Calls that pass the state back get the chunk's actions one by one, whatever they observe in between."""
    model, state = make_model(), None
    given = []
    for time in range(2 * HORIZON):
        action, state = model.predict(np.array([time], np.float32), state, deterministic=True)
        given.append(action)
    expected = np.concatenate([plan(model, 0), plan(model, HORIZON)])
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-4)


def test_without_state_each_call_plans_anew() -> None:
    model = make_model()
    for time in range(3):
        action, _ = model.predict(np.array([time], np.float32), deterministic=True)
        np.testing.assert_allclose(action, plan(model, time)[0], rtol=1e-5, atol=1e-4)


def test_one_environment_starts_over_alone() -> None:
    """`episode_start` drops the chunk of its own environment only; the state passed in is not changed."""
    model = make_model()
    observations = np.array([[1.0], [2.0]], np.float32)
    _, state = model.predict(observations, None, np.array([True, True]), deterministic=True)
    before = [part.copy() for part in state]
    actions, state_after = model.predict(observations + 10, state, np.array([False, True]), deterministic=True)
    np.testing.assert_allclose(actions[0], plan(model, 1)[1], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(actions[1], plan(model, 12)[0], rtol=1e-5, atol=1e-4)
    assert state_after[1].tolist() == [2, 1]
    for part, copy in zip(state, before, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_evaluate_policy_plans_once_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes of 6 steps with chunks of 4: two plans each, in either environment."""
    envs = make_vec_env(Clock, n_envs=2)
    model = make_model()
    planned = []
    original = model.policy._predict
    monkeypatch.setattr(model.policy, "_predict", lambda obs, det: (planned.append(len(obs)), original(obs, det))[1])
    evaluate_policy(model, envs, n_eval_episodes=2, warn=False)
    assert planned == [2, 2]


def test_what_is_collected_are_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Online, the environment gets whole chunks, and a new one at the start of each episode."""
    env = Clock(length=6)
    model = make_model(env, learning_starts=0, batch_size=4)
    monkeypatch.setattr(model, "train", lambda *args, **kwargs: None)  # so that the policy stays as it is
    monkeypatch.setattr(model.policy, "_predict", lambda obs, det: model.policy.act(obs, th.zeros(len(obs), HORIZON * 2)))
    model._n_updates = 1  # past the random warm-up
    model.learn(12)
    episode = np.concatenate([plan(model, 0), plan(model, 4)[:2]])
    np.testing.assert_allclose(env.actions, np.concatenate([episode, episode]), rtol=1e-5, atol=1e-3)
    batch = model.replay_buffer.draw(th.tensor([0, 1, 2, 3]), chunk_length=HORIZON)
    stored = model.policy.unscale_action(batch.actions[0].numpy().reshape(HORIZON, 2))
    np.testing.assert_allclose(stored, episode[:HORIZON], rtol=1e-5, atol=1e-3)
    assert batch.valids.tolist() == [1, 1, 1, 0]  # the fourth reaches past the sixth and last step


def test_chunks_past_the_end_count_nothing() -> None:
    """With `valids` 0 everywhere, neither the critics nor the flow get a gradient; the actor does."""
    model = make_model(dataset=trajectories())
    batch, noise = model.sample_batch(32), model.draw_noise(32)
    loss, _ = model.loss(batch._replace(valids=th.zeros(32)), noise)
    model.policy.optimizer.zero_grad()
    loss.backward()
    for name in ("critic", "bc_flow"):
        assert all(parameter.grad.abs().max() == 0 for parameter in getattr(model.policy, name).parameters())
    assert any(parameter.grad.abs().max() > 0 for parameter in model.policy.actor.parameters())


def test_training_offline_then_online_and_reloading(tmp_path: Any) -> None:
    model = make_model(dataset=trajectories(), offline_steps=20, batch_size=16, learning_starts=0)
    model.learn(40)
    assert (model.n_offline_updates, model.n_env_steps) == (20, 20)
    model.save(tmp_path / "model")
    loaded = FQL.load(tmp_path / "model")
    assert loaded.policy.horizon_length == HORIZON
    np.testing.assert_array_equal(plan(loaded, 3.0), plan(model, 3.0))


@pytest.mark.parametrize("kwargs, message", [({"n_steps": 3}, "use `n_steps=1`"), ({"horizon_length": 0}, "at least 1")])
def test_lengths_that_make_no_sense(kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FQL("FlowPolicy", Clock(), **{"horizon_length": HORIZON, **kwargs})


def trajectories(n: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.uniform(0, 6, size=(n, 1)),
        "actions": rng.uniform([0, -5], [512, 5], size=(n, 2)),
        "rewards": rng.normal(size=n),
        "terminations": np.zeros(n),
        "truncations": np.arange(n) % 6 == 5,
    }
