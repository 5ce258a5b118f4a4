"""Offline, then online: that the offline budget is spent once, and where batches come from."""

from pathlib import Path

import numpy as np
import pytest

from conformance.case import AlgorithmCase
from conformance.environments import collect, pendulum

pytestmark = pytest.mark.one_variant


def test_without_offline_steps_the_environment_is_never_stepped(offline_algorithm: AlgorithmCase) -> None:
    """A model with data and no ``offline_steps`` trains offline for all of ``learn``, however often it is called."""
    env = pendulum()
    model = offline_algorithm.make(env, dataset=collect(pendulum)).learn(4)
    model.learn(3, reset_num_timesteps=False)
    model.learn(2)
    assert env.n_steps == 0
    assert (model.n_offline_updates, model.num_timesteps) == (9, 2)


@pytest.mark.parametrize("reset_num_timesteps", [True, False])
def test_offline_budget_is_spent_once(two_phase_algorithm: AlgorithmCase, reset_num_timesteps: bool) -> None:
    """A second ``learn`` goes on where the first one stopped, whether or not the clock starts again."""
    env = pendulum()
    model = two_phase_algorithm.make(env, dataset=collect(pendulum), offline_steps=5)
    model.learn(4)
    assert (model.n_offline_updates, env.n_steps) == (4, 0)
    model.learn(4, reset_num_timesteps=reset_num_timesteps)
    assert (model.n_offline_updates, env.n_steps) == (5, 3)
    model.learn(4, reset_num_timesteps=reset_num_timesteps)
    assert (model.n_offline_updates, env.n_steps) == (5, 7)
    assert model.num_timesteps == (4 if reset_num_timesteps else 12)


def test_offline_budget_is_spent_once_over_save_and_load(two_phase_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A loaded model remembers how much of its offline budget is spent."""
    data = collect(pendulum)
    model = two_phase_algorithm.make(pendulum(), dataset=data, offline_steps=5).learn(4)
    model.save(tmp_path / "model")
    env = pendulum()
    model = two_phase_algorithm.load(tmp_path / "model", env=env, dataset=data).learn(4)
    assert (model.n_offline_updates, model.n_env_steps, env.n_steps) == (5, 3, 3)
    model.save(tmp_path / "model")
    env = pendulum()
    model = two_phase_algorithm.load(tmp_path / "model", env=env, dataset=data).learn(4)
    assert (model.n_offline_updates, model.n_env_steps, env.n_steps) == (5, 7, 4)


def test_no_offline_steps_at_all(two_phase_algorithm: AlgorithmCase) -> None:
    """With ``offline_steps=0`` the data is only mixed into the batches of the online phase."""
    env = pendulum()
    model = two_phase_algorithm.make(env, dataset=collect(pendulum), offline_steps=0, learning_starts=3).learn(6)
    assert (model.n_offline_updates, env.n_steps) == (0, 6)
    assert len(model.sample_batch(16).actions) == 16


def _data_with_reward(value: float) -> dict[str, np.ndarray]:
    data = collect(pendulum, rows=100)
    return {**data, "rewards": np.full(100, value)}


def test_balanced_sampling(two_phase_algorithm: AlgorithmCase) -> None:
    """Exactly half of each batch comes from the dataset, which is told by its reward."""
    model = two_phase_algorithm.make(
        pendulum(), dataset=_data_with_reward(5.0), offline_steps=2, balanced_sampling=True, learning_starts=4, batch_size=32
    ).learn(8)
    for _ in range(20):
        assert (model.sample_batch(32).rewards == 5.0).sum() == 16


def test_sampling_in_proportion(two_phase_algorithm: AlgorithmCase) -> None:
    """Without it all transitions are equally likely: 100 of the dataset beside 25 collected ones."""
    options = {"dataset": _data_with_reward(5.0), "offline_steps": 1, "balanced_sampling": False, "learning_starts": 23}
    model = two_phase_algorithm.make(pendulum(), **options).learn(26)
    shares = [(model.sample_batch(50).rewards == 5.0).float().mean().item() for _ in range(200)]
    assert abs(np.mean(shares) - 0.8) < 0.02, "a standard error is 0.004"
    assert len(set(shares)) > 1


def test_offline_batches_hold_data_only(offline_algorithm: AlgorithmCase) -> None:
    """Before the first step of the environment a batch is the dataset's, as it is."""
    data = collect(pendulum)
    model = offline_algorithm.make(pendulum(), dataset=data)
    batch = model.sample_batch(64)
    rows = {row.tobytes() for row in data["observations"]}
    assert all(observation.numpy().tobytes() in rows for observation in batch.observations)
