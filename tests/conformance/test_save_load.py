"""Saved models: contents of the file, loaded values, and messages about missing data."""

import io
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv

import sb3_flow.datasets  # noqa: F401  (registers the readers of files)
from conformance.case import AlgorithmCase, parameters, same_parameters
from conformance.environments import collect, pendulum, pendulums
from sb3_flow.common.flow_algorithm import FlowAlgorithm

#: Files of this package are loaded without unpickling.
pytestmark = pytest.mark.usefixtures("no_pickles")

OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)


def _actions(model: Any) -> np.ndarray:
    return model.predict(OBSERVATIONS, deterministic=True)[0]


@pytest.fixture(scope="module")
def trained(case: AlgorithmCase) -> FlowAlgorithm:
    """A model after updates of all its losses. Tests do not change it."""
    return case.trained(case.stages + 2)


@pytest.fixture(scope="module")
def saved(trained: FlowAlgorithm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file, without the suffix."""
    path = tmp_path_factory.mktemp("saved") / "model"
    trained.save(path)
    return path


@pytest.mark.slow
def test_same_predictions(case: AlgorithmCase, trained: FlowAlgorithm, saved: Path) -> None:
    """A loaded model acts as the saved one, also without an environment, from a path or from memory."""
    buffer = io.BytesIO()
    trained.save(buffer)
    buffer.seek(0)
    for loaded in (case.load(saved), case.load(buffer), case.load(saved.with_suffix(".zip"))):
        assert loaded.env is None
        np.testing.assert_array_equal(case.act(loaded), case.act(trained))
        assert same_parameters(parameters(loaded), parameters(trained))


@pytest.mark.slow
@pytest.mark.parametrize("n_envs", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_offline_training_goes_on_bit_for_bit(offline_case: AlgorithmCase, tmp_path: Path, n_envs: int) -> None:
    """Optimizer, counters and the random state of training are restored: a resumed run equals an uninterrupted run."""
    data, half = offline_case.data(), n_envs * (offline_case.stages // 2 + 3)
    arguments = {"dataset": data, "learning_rate": LinearSchedule(1e-2, 0.0, 1.0)}
    model = offline_case.make(offline_case.environments(n_envs), **arguments).learn(half)
    model.save(tmp_path / "model")
    loaded = offline_case.load(tmp_path / "model", env=offline_case.environments(n_envs), dataset=data)
    for name in ("num_timesteps", "n_offline_updates", "n_env_steps", "_n_updates", "_episode_num"):
        assert getattr(loaded, name) == getattr(model, name), name
    for either in (model, loaded):
        either.learn(half, reset_num_timesteps=False)
    assert loaded.num_timesteps == 2 * half
    assert same_parameters(parameters(loaded), parameters(model))


def test_optimizer_is_restored(case: AlgorithmCase, trained: FlowAlgorithm, saved: Path) -> None:
    """The file holds the optimizer's state, not only the parameters."""
    saved_state = trained.policy.optimizer.state_dict()["state"]
    restored = case.load(saved).policy.optimizer.state_dict()["state"]
    assert saved_state.keys() == restored.keys() and len(saved_state) > 0
    for key in saved_state:
        assert saved_state[key]["step"] == restored[key]["step"] > 0
        assert th.equal(saved_state[key]["exp_avg"], restored[key]["exp_avg"])


@pytest.mark.one_variant
def test_file_does_not_hold_the_data(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Twenty times the data makes the same file, whether it comes as a dictionary or a replay buffer was filled."""
    sizes = []
    for rows in (100, 2_000):
        model = offline_algorithm.make(pendulum(), dataset=collect(pendulum, rows)).learn(1)
        model.save(tmp_path / "model")
        sizes.append((tmp_path / "model.zip").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 200


@pytest.mark.one_variant
def test_file_does_not_hold_the_replay_buffer(online_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Collected transitions are not in the file, as in Stable-Baselines3."""
    sizes = []
    for buffer_size in (100, 50_000):
        online_algorithm.make(pendulum(), buffer_size=buffer_size).learn(12).save(tmp_path / "model")
        sizes.append((tmp_path / "model.zip").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 200


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.one_variant
def test_data_by_its_path_is_read_again(offline_algorithm: AlgorithmCase, tmp_path: Path, kind: type) -> None:
    """Data that was given by a path or a name is found again when the model is loaded."""
    np.savez(tmp_path / "log.npz", **collect(pendulum))
    model = offline_algorithm.make(pendulum(), dataset=kind(tmp_path / "log.npz")).learn(4)
    model.save(tmp_path / "model")
    loaded = offline_algorithm.load(tmp_path / "model", env=pendulum())
    assert loaded.dataset_name == model.dataset_name
    for either in (model, loaded):
        either.learn(3, reset_num_timesteps=False)
    assert loaded.n_offline_updates == 7
    assert same_parameters(parameters(loaded), parameters(model))


@pytest.mark.one_variant
def test_loading_reads_no_data(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A model predicts without its data; only ``learn`` needs it."""
    np.savez(tmp_path / "log.npz", **collect(pendulum))
    model = offline_algorithm.make(pendulum(), dataset=str(tmp_path / "log.npz")).learn(2)
    model.save(tmp_path / "model")
    (tmp_path / "log.npz").unlink()
    loaded = offline_algorithm.load(tmp_path / "model", env=pendulum())
    np.testing.assert_array_equal(_actions(loaded), _actions(model))
    with pytest.raises(ValueError, match=r"log\.npz"):
        loaded.learn(5)


@pytest.mark.one_variant
def test_arrays_are_missing_after_load(offline_case: AlgorithmCase, tmp_path: Path) -> None:
    """Arrays are not in the file: the error of ``learn`` names ways to pass them, and each way works."""
    data, env = offline_case.data(), offline_case.environment()
    offline_case.fresh(dataset=data).learn(2).save(tmp_path / "model")
    loaded = offline_case.load(tmp_path / "model", env=env)
    with pytest.raises(ValueError, match=r"not part of the saved file.*set_dataset.*load\(\.\.\., dataset=\.\.\.\)"):
        loaded.learn(5)
    assert env.n_steps == 0, "nothing silently went on without the data"
    loaded.set_dataset(data)
    assert loaded.learn(2).n_offline_updates == 4
    loaded = offline_case.load(tmp_path / "model", env=offline_case.environment(), dataset=data)
    assert loaded.learn(2).n_offline_updates == 4


@pytest.mark.one_variant
def test_going_on_online_without_the_data(two_phase_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """After the offline phase, data may be missing; a warning says that batches do not contain it."""
    two_phase_algorithm.make(pendulum(), dataset=collect(pendulum), offline_steps=3).learn(3).save(tmp_path / "model")
    loaded = two_phase_algorithm.load(tmp_path / "model", env=pendulum())
    with pytest.warns(UserWarning, match="Going on without"):
        loaded.learn(12)
    assert (loaded.n_offline_updates, loaded.n_env_steps) == (3, 12)


@pytest.mark.one_variant
def test_set_dataset_replaces_the_data(offline_algorithm: AlgorithmCase) -> None:
    """The next batch comes from the new data."""
    data = collect(pendulum)
    model = offline_algorithm.make(pendulum(), dataset=data).learn(5)
    model.set_dataset({**data, "rewards": np.full(200, 7.0)})
    assert th.all(model.sample_batch(50).rewards == 7.0)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.one_variant
def test_load_with_other_environments(two_phase_algorithm: AlgorithmCase, tmp_path: Path, n_envs: int) -> None:
    """The number of environments may change between saving and loading."""
    data = collect(pendulum)
    two_phase_algorithm.make(pendulums(2), dataset=data, offline_steps=6).learn(12).save(tmp_path / "model")
    env = pendulums(n_envs)
    loaded = two_phase_algorithm.load(tmp_path / "model", env=env, dataset=data).learn(12, reset_num_timesteps=False)
    assert (loaded.num_timesteps, loaded.n_offline_updates, loaded.n_env_steps) == (24, 6, 18)
    assert sum(env.get_attr("n_steps")) == 12


@pytest.mark.one_variant
def test_set_env(online_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Another environment can be set, for a loaded model or an existing one; other spaces are refused."""
    first, second, third = pendulum(), pendulum(), pendulum()
    model = online_algorithm.make(first).learn(12)
    model.set_env(second)
    model.learn(3, reset_num_timesteps=False)
    assert (first.n_steps, second.n_steps, model.n_env_steps) == (12, 3, 15)
    model.save(tmp_path / "model")
    loaded = online_algorithm.load(tmp_path / "model")
    loaded.set_env(third)
    loaded.learn(3, reset_num_timesteps=False)
    assert (third.n_steps, loaded.num_timesteps) == (3, 18)
    with pytest.raises(ValueError, match="spaces do not match"):
        loaded.set_env(gym.make("InvertedPendulum-v5"))
    with pytest.raises(AssertionError, match="number of environments"):
        loaded.set_env(DummyVecEnv([pendulum] * 2))


def test_get_and_set_parameters(case: AlgorithmCase, trained: FlowAlgorithm) -> None:
    """Parameters and optimizer move from one model to another; a wrong name is refused."""
    other = case.fresh(seed=1)
    assert not same_parameters(parameters(trained), parameters(other))
    other.set_parameters(trained.get_parameters())
    assert same_parameters(parameters(trained), parameters(other))
    assert len(other.policy.optimizer.state) > 0
    with pytest.raises(ValueError):
        other.set_parameters({"no_such_network": {}})
    with pytest.raises(ValueError):
        other.set_parameters({"policy": trained.policy.state_dict()}, exact_match=True)


@pytest.mark.one_variant
def test_replay_buffer(online_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Collected transitions are saved in a separate file and loaded unchanged."""
    model = online_algorithm.make(pendulum(), n_steps=2, learning_starts=23).learn(25)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = online_algorithm.load(tmp_path / "model", env=pendulum())
    assert loaded.replay_buffer.size() == 0
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer.size() == 25
    rows = th.arange(25)
    for mine, theirs in zip(model.replay_buffer.draw(rows, 2), loaded.replay_buffer.draw(rows, 2), strict=True):
        assert th.equal(mine, theirs)
    loaded.learn(2, reset_num_timesteps=False)
    assert loaded.replay_buffer.size() == 27
    # The episode that loading interrupted ends there: no return continues into the next episode.
    assert loaded.replay_buffer.draw(th.tensor([24]), 2, 0.5).discounts.item() == 0.5


def test_policy_alone(case: AlgorithmCase, trained: FlowAlgorithm, tmp_path: Path) -> None:
    """A policy is saved and loaded without its algorithm."""
    trained.policy.save(str(tmp_path / "policy"))
    policy = type(trained.policy).load(str(tmp_path / "policy"), device="cpu")
    np.testing.assert_array_equal(case.act(policy), case.act(trained))
    assert policy._get_constructor_parameters().keys() == trained.policy._get_constructor_parameters().keys()


def test_custom_objects(algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Custom objects replace what is in the file."""
    model = algorithm.make(pendulum(), learning_rate=lambda left: 1e-3)
    with pytest.warns(UserWarning, match=r"pickled objects.*learning_rate \(the function .*<lambda>\)"):
        model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", custom_objects={"learning_rate": 5e-4, "lr_schedule": None})
    assert loaded.learning_rate == 5e-4 and loaded.lr_schedule(0.3) == 5e-4


def test_exclude(case: AlgorithmCase, tmp_path: Path) -> None:
    """Excluded attributes are created by the constructor."""
    model = case.fresh(tensorboard_log="somewhere")
    model.save(tmp_path / "model")
    assert case.load(tmp_path / "model").tensorboard_log == "somewhere"
    model.save(tmp_path / "model", exclude=["tensorboard_log"])
    assert case.load(tmp_path / "model").tensorboard_log is None


def test_load_with_other_arguments(algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Arguments of ``load`` replace saved ones, as RL Zoo uses it to fine-tune."""
    model = algorithm.make(pendulum())
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", learning_rate="1e-5", batch_size=7)
    assert (loaded.batch_size, loaded.lr_schedule(1)) == (7, 1e-5)
    with pytest.raises(TypeError, match=r"load has no argument `batch_sise`; did you mean `batch_size`"):
        algorithm.load(tmp_path / "model", batch_sise=7)
    with pytest.raises(ValueError, match="`batch_size` is 0"):
        algorithm.load(tmp_path / "model", batch_size=0)
    if algorithm.online:
        assert algorithm.load(tmp_path / "model", gamma=0.5).gamma == 0.5
    else:
        with pytest.raises(TypeError, match="no argument `gamma`: it learns from data only"):
            algorithm.load(tmp_path / "model", gamma=0.5)


def test_load_with_policy_kwargs(case: AlgorithmCase, trained: FlowAlgorithm, saved: Path) -> None:
    """The ``policy_kwargs`` of the model may be repeated; other values do not fit the networks in the file."""
    same = case.load(saved, policy_kwargs=case.policy_kwargs)
    assert same_parameters(parameters(same), parameters(trained))
    with pytest.raises(ValueError, match="policy kwargs"):
        case.load(saved, policy_kwargs={"net_arch": [8]})
