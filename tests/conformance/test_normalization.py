"""``VecNormalize``, and ``normalize_observations``: statistics that come from the data."""

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from conformance.case import AlgorithmCase, parameters, same_parameters
from conformance.environments import AnySpaces, collect, pendulum, pendulums

pytestmark = pytest.mark.one_variant


def _data(rows: int = 300) -> dict[str, np.ndarray]:
    """Pendulum's data, moved and stretched so that no statistic is 0 or 1 by itself."""
    data = collect(pendulum, rows)
    for field in ("observations", "next_observations"):
        data[field] = data[field] * np.float32([3, 1, 1]) + np.float32([10, 0, -4])
    return data


def _returns(data: dict[str, np.ndarray], gamma: float) -> np.ndarray:
    returns, running = [], 0.0
    for reward, end in zip(data["rewards"], data["terminations"] | data["truncations"], strict=True):
        running = reward + gamma * running
        returns.append(running)
        running = 0.0 if end else running
    return np.array(returns)


def test_statistics_are_those_of_the_data(offline_algorithm: AlgorithmCase) -> None:
    """Before the first update, ``VecNormalize`` has the data's mean and variance, and the spread of its returns."""
    data = _data()
    env = VecNormalize(pendulums(1), gamma=0.9)
    offline_algorithm.make(env, dataset=data)
    # The wrapper itself counts one ten-thousandth of an observation with mean 0 and variance 1.
    np.testing.assert_allclose(env.obs_rms.mean, data["observations"].mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(env.obs_rms.var, data["observations"].var(axis=0), rtol=1e-3)
    np.testing.assert_allclose(env.ret_rms.var, _returns(data, 0.9).var(), rtol=1e-3)


def test_batches_are_normalized(offline_algorithm: AlgorithmCase) -> None:
    """What the losses see has mean 0 and standard deviation 1; rewards are divided by the spread of returns."""
    data = _data()
    model = offline_algorithm.make(VecNormalize(pendulums(1), gamma=0.9, clip_obs=100.0), dataset=data)
    batch = model.sample_batch(20_000)
    # Of a history the newest one: at the start of an episode the others are copies of it.
    length = len(batch.observations) // len(batch.actions)
    observations = batch.observations.numpy()[length - 1 :: length]
    assert observations.dtype == np.float32
    np.testing.assert_allclose(observations.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(observations.std(axis=0), 1, atol=0.05)
    scale = _returns(data, 0.9).std()
    np.testing.assert_allclose(np.unique(batch.rewards), np.unique((data["rewards"] / scale).astype(np.float32)), rtol=1e-3)


def test_frozen_wrapper_is_left_alone(offline_algorithm: AlgorithmCase) -> None:
    """With ``training=False`` its statistics are not touched, by the data or by training."""
    env = VecNormalize(pendulums(1), training=False)
    offline_algorithm.make(env, dataset=_data()).learn(2)
    np.testing.assert_array_equal(env.obs_rms.mean, np.zeros(3))
    assert env.obs_rms.count == pytest.approx(1e-4)


def test_used_wrapper_is_left_alone(offline_algorithm: AlgorithmCase) -> None:
    """Statistics that somebody has gathered already are not mixed with the data's."""
    env = VecNormalize(pendulums(1))
    env.reset()
    data = _data()
    for _ in range(len(data["rewards"])):
        env.step(np.zeros((1, 1)))
    before = env.obs_rms.mean.copy()
    offline_algorithm.make(env, dataset=data)
    np.testing.assert_array_equal(env.obs_rms.mean, before)


def test_saved_statistics_when_training_goes_on(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Saved and loaded beside the model, the statistics are as they were; the data is not counted a second time."""
    data = _data()
    env = VecNormalize(pendulums(1))
    model = offline_algorithm.make(env, dataset=data).learn(2)
    model.save(tmp_path / "model")
    env.save(str(tmp_path / "statistics.pkl"))
    loaded_env = VecNormalize.load(str(tmp_path / "statistics.pkl"), pendulums(1))
    before = loaded_env.obs_rms.mean.copy(), loaded_env.obs_rms.count, loaded_env.ret_rms.var.copy()
    loaded = offline_algorithm.load(tmp_path / "model", env=loaded_env, dataset=data)
    loaded.learn(2, reset_num_timesteps=False)
    assert loaded.n_offline_updates == 4
    assert loaded_env.obs_rms.count == before[1] + 1, "the one reset at the start of `learn`"
    np.testing.assert_allclose(loaded_env.obs_rms.mean, before[0], atol=0.1)
    np.testing.assert_array_equal(loaded_env.ret_rms.var, before[2])


def test_model_acts_on_what_the_wrapper_returns(offline_algorithm: AlgorithmCase) -> None:
    """An evaluation environment gets the statistics of the training one, and the replay buffer holds raw observations."""
    env = VecNormalize(pendulums(1))
    model = offline_algorithm.make(env, dataset=_data())
    evaluation_env = VecNormalize(pendulums(1), training=False, norm_reward=False)
    model.learn(2, callback=EvalCallback(evaluation_env, eval_freq=2, n_eval_episodes=1, warn=False))
    np.testing.assert_array_equal(evaluation_env.obs_rms.mean, env.obs_rms.mean)


def test_collected_observations_are_stored_raw(online_algorithm: AlgorithmCase) -> None:
    """Online, the wrapper normalizes when a batch is drawn, with the statistics of that moment."""
    env = VecNormalize(pendulums(2))
    model = online_algorithm.make(env).learn(14)
    raw = model.replay_buffer.draw(th.arange(14))
    radius = raw.observations[:, :2].square().sum(dim=1)
    np.testing.assert_allclose(radius, 1, rtol=1e-5, err_msg="cosine and sine")
    assert np.isin(model.sample_batch(50).observations.numpy(), env.normalize_obs(raw.observations.numpy())).all()


def test_dictionary_observations(offline_algorithm: AlgorithmCase) -> None:
    """Of a dictionary, each part that the wrapper normalizes has statistics of its own."""
    space = spaces.Dict({"a": spaces.Box(0, 10, (2,)), "b": spaces.Box(-3, 5, (3,))})
    make_env = partial(AnySpaces, space, spaces.Box(-1, 1, (1,)))
    data = collect(make_env, 100)
    env = VecNormalize(DummyVecEnv([make_env]), norm_obs_keys=["a"])
    model = offline_algorithm.make(env, dataset=data).learn(2)
    assert set(env.obs_rms) == {"a"}
    np.testing.assert_allclose(env.obs_rms["a"].mean, data["observations"]["a"].mean(axis=0), rtol=0.05)
    b = model.sample_batch(100).observations["b"].numpy()
    assert np.isin(b, data["observations"]["b"]).all(), "not normalized"


def test_normalize_observations(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """The statistics are in the policy: data comes out with mean 0 and deviation 1, and the file holds them."""
    data = _data()
    model = offline_algorithm.make(pendulum(), dataset=data, normalize_observations=True)
    normalized = model.policy.normalizer(th.as_tensor(data["observations"])).numpy()
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std(axis=0), 1, atol=1e-4)
    model.learn(2).save(tmp_path / "model")
    loaded = offline_algorithm.load(tmp_path / "model")
    assert th.equal(loaded.policy.normalizer(th.as_tensor(data["observations"])), th.as_tensor(normalized))
    model.policy.save(str(tmp_path / "policy"))
    policy = type(model.policy).load(str(tmp_path / "policy"), device="cpu")
    observation = data["observations"][:5]
    np.testing.assert_array_equal(
        policy.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )


def test_normalized_policy_acts_on_raw_observations(offline_algorithm: AlgorithmCase) -> None:
    """Stretched data with normalization trains and acts as data that was normalized by hand."""
    data = _data()
    mean, std = data["observations"].mean(axis=0, dtype=np.float64), data["observations"].std(axis=0, dtype=np.float64)

    def by_hand(observations: np.ndarray) -> np.ndarray:
        return ((observations - mean) / std).astype(np.float32)

    model = offline_algorithm.make(pendulum(), dataset=data, normalize_observations=True).learn(5)
    normalized = {**data, **{field: by_hand(data[field]) for field in ("observations", "next_observations")}}
    other = offline_algorithm.make(pendulum(), dataset=normalized).learn(5)
    np.testing.assert_allclose(
        model.predict(data["observations"], deterministic=True)[0],
        other.predict(normalized["observations"], deterministic=True)[0],
        atol=1e-3,
    )


def test_other_data_does_not_change_a_trained_policy(offline_algorithm: AlgorithmCase) -> None:
    """Statistics belong to the parameters that were trained with them."""
    model = offline_algorithm.make(pendulum(), dataset=_data(), normalize_observations=True).learn(2)
    before = parameters(model)
    model.set_dataset(collect(pendulum))
    assert same_parameters(before, parameters(model))


def test_constant_coordinate(offline_algorithm: AlgorithmCase) -> None:
    """A coordinate that never changes is shifted, not divided by zero."""
    data = _data()
    data["observations"][:, 1] = 2.0
    model = offline_algorithm.make(pendulum(), dataset=data, normalize_observations=True).learn(2)
    assert th.all(model.policy.normalizer(th.as_tensor(data["observations"]))[:, 1] == 0)


def test_images_are_not_normalized(offline_algorithm: AlgorithmCase) -> None:
    """Of a dictionary with an image, the vector is normalized and the image is left to the encoder."""
    space = spaces.Dict({"camera": spaces.Box(0, 255, (8, 8, 3), dtype=np.uint8), "joints": spaces.Box(4, 9, (2,))})
    make_env = partial(AnySpaces, space, spaces.Box(-1, 1, (1,)))
    model = offline_algorithm.make(make_env(), dataset=collect(make_env, 100), normalize_observations=True)
    assert model.policy.normalizer.keys == ["joints"]
    assert model.policy.normalizer.mean_0.min() > 5


def test_normalized_twice(offline_algorithm: AlgorithmCase) -> None:
    """Both at once are refused, by name; rewards alone may be the wrapper's."""
    with pytest.raises(ValueError, match=r"twice.*VecNormalize.*normalize_observations"):
        offline_algorithm.make(VecNormalize(pendulums(1)), dataset=_data(), normalize_observations=True)
    offline_algorithm.make(VecNormalize(pendulums(1), norm_obs=False), dataset=_data(), normalize_observations=True)


def test_a_wrapper_that_has_seen_a_handful_of_observations_takes_the_statistics_of_the_data(
    offline_algorithm: AlgorithmCase,
) -> None:
    """One reset does not make statistics: without those of the data every batch would be clipped to a constant."""
    data = _data()
    env = VecNormalize(pendulums(2))
    env.reset()
    model = offline_algorithm.make(env, dataset=data)
    np.testing.assert_allclose(env.obs_rms.mean, data["observations"].mean(axis=0), atol=0.1)
    assert model.sample_batch(64).observations.abs().median() < 2


def test_a_new_wrapper_of_a_trained_model_is_noticed(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    data = _data()
    model = offline_algorithm.make(VecNormalize(pendulums(1)), dataset=data).learn(3)
    model.save(tmp_path / "model")
    model.get_vec_normalize_env().save(str(tmp_path / "statistics.pkl"))
    new = VecNormalize(pendulums(1))
    loaded = offline_algorithm.load(tmp_path / "model", env=new)
    with pytest.warns(UserWarning, match=r"has no statistics.*VecNormalize\.load"):
        loaded.set_dataset(data)
    np.testing.assert_allclose(new.obs_rms.mean, data["observations"].mean(axis=0), atol=0.05)
    kept = VecNormalize.load(str(tmp_path / "statistics.pkl"), pendulums(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        offline_algorithm.load(tmp_path / "model", env=kept).set_dataset(data)


def test_a_batch_that_is_clipped_to_constants_is_refused(offline_algorithm: AlgorithmCase) -> None:
    env = VecNormalize(pendulums(1), training=False)
    env.obs_rms.var[:] = 1e-12
    with pytest.raises(ValueError, match="`VecNormalize` clips nearly all observations"):
        offline_algorithm.make(env, dataset=_data()).sample_batch(16)
