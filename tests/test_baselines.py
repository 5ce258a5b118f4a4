"""SB3's TD3 and SAC on a dataset: the algorithms are SB3's, the batches those of the data."""

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conformance.environments import collect, pendulum
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_flow.baselines import OfflineSAC, OfflineTD3
from sb3_flow.common.data.columns import DatasetError

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [16, 16]}, "batch_size": 32, "seed": 0, "device": "cpu"}
PAIRS = [pytest.param(OfflineTD3, TD3, id="td3"), pytest.param(OfflineSAC, SAC, id="sac")]


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    """Random actions on a pendulum; some transitions end the task, some only the recording."""
    columns = collect(pendulum, rows=200)
    columns["terminations"] = columns["terminations"] | (np.arange(200) % 7 == 3)
    return columns


def replay_buffer_of(model: OffPolicyAlgorithm, data: dict[str, np.ndarray]) -> None:
    """Put the data into a model's own replay buffer, as if it had been collected by it."""
    scale = model.policy.scale_action
    for row in range(len(data["actions"])):
        done = bool(data["terminations"][row] or data["truncations"][row])
        model.replay_buffer.add(
            data["observations"][row][None],
            data["next_observations"][row][None],
            scale(data["actions"][row][None]),
            data["rewards"][row][None],
            np.array([done]),
            [{"TimeLimit.truncated": done and not data["terminations"][row]}],
        )


@pytest.mark.parametrize(("offline", "online"), PAIRS)
def test_an_update_is_that_of_stable_baselines3(offline: type, online: type, data: dict[str, np.ndarray]) -> None:
    reference = online("MlpPolicy", pendulum(), buffer_size=200, **copy.deepcopy(SMALL))  # SB3 writes into its arguments
    reference._setup_learn(1)
    replay_buffer_of(reference, data)
    before = {name: value.clone() for name, value in reference.policy.state_dict().items()}
    np.random.seed(3)  # draws the rows
    th.manual_seed(3)  # draws the actions
    reference.train(1, 32)

    model = offline("MlpPolicy", pendulum(), dataset=data, **SMALL)
    assert all(th.equal(value, before[name]) for name, value in model.policy.state_dict().items())

    class Seeded(EvalCallback):  # seeds after `learn` has reset the environment, before the first batch
        def __init__(self) -> None:
            super().__init__(pendulum(), eval_freq=10**9)

        def _on_training_start(self) -> None:
            np.random.seed(3)
            th.manual_seed(3)

    model.learn(1, callback=Seeded())
    after = reference.policy.state_dict()
    assert any(not th.equal(value, before[name]) for name, value in after.items())
    for name, value in model.policy.state_dict().items():
        th.testing.assert_close(value, after[name], rtol=0, atol=1e-6, msg=name)


class Bandit(gym.Env):
    """One step; the best action is half of what is observed."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.state, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.state, -float((action[0] - 0.5 * self.state[0]) ** 2), True, False, {}


@pytest.mark.slow
@pytest.mark.parametrize("offline", [OfflineTD3, pytest.param(OfflineSAC, marks=pytest.mark.nightly)])
def test_it_learns_where_the_data_has_every_action(offline: type) -> None:
    generator = np.random.default_rng(0)
    observations, actions = generator.uniform(-1, 1, (1_000, 1)), generator.uniform(-2, 2, (1_000, 1))
    rewards = -np.square(actions - 0.5 * observations)[:, 0]
    data = {"observations": observations, "actions": actions, "rewards": rewards, "terminations": np.ones(1_000)}
    data["next_observations"] = observations
    larger = {**SMALL, "policy_kwargs": {"net_arch": [64, 64]}, "batch_size": 64}
    model = offline("MlpPolicy", Bandit(), dataset=data, learning_rate=3e-3, **larger)
    states = np.linspace(-1, 1, 21, dtype=np.float32)[:, None]
    best = 0.5 * states

    def regret() -> float:
        return float(np.square(model.predict(states, deterministic=True)[0] - best).mean())

    model.learn(1)
    untrained = regret()
    model.learn(400)
    assert regret() < 0.02 < 0.05 < untrained  # 0.09: the best action that ignores the state


@pytest.mark.parametrize("offline", [OfflineTD3, OfflineSAC])
def test_one_timestep_is_one_update(offline: type, data: dict[str, np.ndarray]) -> None:
    env = DummyVecEnv([pendulum, pendulum])
    model = offline("MlpPolicy", env, dataset=data, **SMALL).learn(10)
    assert (model.num_timesteps, model._n_updates) == (10, 10)
    assert all(watched.n_steps == 0 for watched in env.envs)


def test_returns_over_several_steps_bootstrap_later(data: dict[str, np.ndarray]) -> None:
    model = OfflineTD3("MlpPolicy", pendulum(), dataset=data, n_steps=3, gamma=0.5, **SMALL).learn(1)
    batch = model.replay_buffer._get_samples(np.array([0]))
    rewards = data["rewards"]
    assert batch.rewards.item() == pytest.approx(rewards[0] + 0.5 * rewards[1] + 0.25 * rewards[2], rel=1e-5)
    assert batch.discounts is not None and batch.discounts.item() == pytest.approx(0.125)


@pytest.mark.parametrize("offline", [OfflineTD3, OfflineSAC])
def test_it_is_saved_without_its_data(offline: type, data: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **data)
    model = offline("MlpPolicy", pendulum(), dataset=str(tmp_path / "data.npz"), **SMALL).learn(5)
    model.save(tmp_path / "model.zip")
    assert (tmp_path / "model.zip").stat().st_size < (tmp_path / "data.npz").stat().st_size + 200_000
    loaded = offline.load(tmp_path / "model.zip", env=pendulum(), device="cpu")
    observation = data["observations"][:8]
    np.testing.assert_array_equal(
        model.predict(observation, deterministic=True)[0], loaded.predict(observation, deterministic=True)[0]
    )
    loaded.learn(5, reset_num_timesteps=False)  # the file is read again by its name
    assert loaded._n_updates == 10

    arrays = offline("MlpPolicy", pendulum(), dataset=data, **SMALL).learn(5)
    arrays.save(tmp_path / "arrays.zip")
    with pytest.raises(ValueError, match="Pass it again"):
        offline.load(tmp_path / "arrays.zip", env=pendulum(), device="cpu").learn(5)


def test_callbacks_see_it_as_any_training(data: dict[str, np.ndarray], tmp_path: Path) -> None:
    evaluation = EvalCallback(pendulum(), eval_freq=4, n_eval_episodes=1, log_path=str(tmp_path), verbose=0)
    OfflineTD3("MlpPolicy", pendulum(), dataset=data, **SMALL).learn(10, callback=evaluation)
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [4, 8]


def test_vec_normalize_has_the_statistics_of_the_data(data: dict[str, np.ndarray]) -> None:
    env = VecNormalize(DummyVecEnv([pendulum]), norm_reward=False)
    model = OfflineTD3("MlpPolicy", env, dataset=data, **SMALL).learn(3)
    np.testing.assert_allclose(env.obs_rms.mean, data["observations"].mean(axis=0), atol=0.02)
    rows = np.arange(200)
    batch = model.replay_buffer._get_samples(rows, env)
    np.testing.assert_allclose(batch.observations.numpy(), env.normalize_obs(data["observations"]), atol=1e-5)
    np.testing.assert_allclose(batch.observations.mean(dim=0).numpy(), 0, atol=0.05)


def test_the_arguments_are_left_alone(data: dict[str, np.ndarray]) -> None:
    arguments = copy.deepcopy(SMALL)
    OfflineSAC("MlpPolicy", pendulum(), dataset=data, **arguments).learn(1)
    assert arguments == SMALL


@pytest.mark.parametrize("offline", [OfflineTD3, OfflineSAC])
def test_what_is_missing_is_said(offline: type, data: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=f"{offline.__name__} trains on a dataset, but there is none: pass `dataset`"):
        offline("MlpPolicy", pendulum(), **SMALL).learn(1)
    with pytest.raises(DatasetError, match=r"nothing\.npz"):
        offline("MlpPolicy", pendulum(), dataset="nothing.npz", **SMALL).learn(1)
    without = {name: column for name, column in data.items() if name != "rewards"}
    with pytest.raises(ValueError, match="it has no rewards"):
        offline("MlpPolicy", pendulum(), dataset=without, **SMALL).learn(1)
