"""Every kind of observation and action space: training in each phase, acting, saving."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv

from conformance.case import AlgorithmCase, parameters, same_parameters
from conformance.environments import AnySpaces, collect, pendulum
from sb3_flow.common.encoders import FlowExtractor, ImpalaEncoder, SmallEncoder

VECTOR = spaces.Box(-np.inf, np.inf, (3,))
CHANNELS_LAST = spaces.Box(0, 255, (12, 12, 3), dtype=np.uint8)
CHANNELS_FIRST = spaces.Box(0, 255, (3, 12, 12), dtype=np.uint8)

OBSERVATIONS = {
    "vector": VECTOR,
    "vector of float64": spaces.Box(-np.inf, np.inf, (3,), dtype=np.float64),
    "matrix": spaces.Box(-1, 1, (2, 3)),
    "image, channels last": CHANNELS_LAST,
    "image, channels first": CHANNELS_FIRST,
    "discrete": spaces.Discrete(5, start=3),
    "multi-discrete": spaces.MultiDiscrete([3, 4], start=[1, -2]),
    "multi-binary": spaces.MultiBinary(4),
    "dictionary": spaces.Dict({"joints": VECTOR, "camera": CHANNELS_LAST, "mode": spaces.Discrete(3)}),
}
TORQUE = spaces.Box(-1, 1, (2,))
ACTIONS = {
    "asymmetric": spaces.Box(0, 512, (2,)),
    "matrix": spaces.Box(-1, 1, (2, 3)),
    "float64": spaces.Box(-2, 2, (2,), dtype=np.float64),
    "every side its own": spaces.Box(np.array([-1, 0, 5]), np.array([1, 2, 6]), dtype=np.float32),
}
SPACES = {
    **{f"observation: {name}": (space, TORQUE) for name, space in OBSERVATIONS.items()},
    **{f"action: {name}": (VECTOR, space) for name, space in ACTIONS.items()},
}
CNN = {"net_arch": [16, 16], "features_extractor_kwargs": {"cnn_output_dim": 16}}


def _batch(space: spaces.Space, n: int) -> np.ndarray | dict[str, np.ndarray]:
    space.seed(0)
    samples = [space.sample() for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
    return np.stack(samples)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.algorithms("FQL", "QAM", "FPMD", "SWFP")
def test_trains_acts_and_is_saved(two_phase_algorithm: AlgorithmCase, tmp_path: Path, name: str) -> None:
    """Offline, then online; the environment refuses an action that is not in its space. Predictions survive the file."""
    observation_space, action_space = SPACES[name]
    make_env = partial(AnySpaces, observation_space, action_space)
    model = two_phase_algorithm.make(
        DummyVecEnv([make_env] * 2), dataset=collect(make_env, 20), offline_steps=2, learning_starts=2, policy_kwargs=CNN
    )
    before = parameters(model)
    model.learn(6)
    assert (model.n_offline_updates, model.n_env_steps) == (2, 4)
    after = parameters(model)
    assert not same_parameters(before, after) and all(th.isfinite(value).all() for value in after.values())
    batch = _batch(observation_space, 4)
    actions, _ = model.predict(batch, deterministic=True)
    assert actions.shape == (4, *action_space.shape)
    assert all(action_space.contains(action) for action in actions)
    single = {key: value[0] for key, value in batch.items()} if isinstance(batch, dict) else batch[0]
    np.testing.assert_allclose(model.predict(single, deterministic=True)[0], actions[0], rtol=1e-4, atol=1e-4)
    model.save(tmp_path / "model")
    loaded = two_phase_algorithm.load(tmp_path / "model", env=DummyVecEnv([make_env]))
    np.testing.assert_array_equal(loaded.predict(batch, deterministic=True)[0], actions)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image, channels last", "dictionary"])
@pytest.mark.algorithms("FQL", "FPMD", "StreamingFlow")
def test_small_encoder(algorithm: AlgorithmCase, tmp_path: Path, name: str) -> None:
    """It is trained, and saved with the model."""
    make_env = partial(AnySpaces, OBSERVATIONS[name], TORQUE)
    extractor = {"features_extractor_class": FlowExtractor, "features_extractor_kwargs": {"encoder": "small"}}
    dataset = collect(make_env, 20) if algorithm.offline else None
    policy_kwargs = {**algorithm.policy_kwargs, **extractor}
    model = algorithm.make(make_env(), dataset=dataset, policy_kwargs=policy_kwargs)
    assert not any(isinstance(part, ImpalaEncoder) for part in model.policy.modules())
    encoders = [part for part in model.policy.modules() if isinstance(part, SmallEncoder)]
    weights = [weight for encoder in encoders for weight in encoder.parameters() if weight.requires_grad]
    before = [weight.clone() for weight in weights]
    model.learn(max(algorithm.stages, 12))
    assert weights and not any(th.equal(*pair) for pair in zip(weights, before, strict=True))
    model.save(tmp_path / "model")
    batch = _batch(OBSERVATIONS[name], 4)
    actions = model.predict(batch, deterministic=True)[0]
    loaded = algorithm.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(batch, deterministic=True)[0], actions)


@pytest.mark.slow
@pytest.mark.parametrize("name", OBSERVATIONS)
@pytest.mark.one_variant
def test_every_part_of_an_observation_is_seen(algorithm: AlgorithmCase, name: str) -> None:
    """Other observations give other actions, whichever part differs."""
    space = OBSERVATIONS[name]
    model = algorithm.make(AnySpaces(space, TORQUE), policy_kwargs=CNN)
    batch = _batch(space, 8)
    if not isinstance(batch, dict):
        assert len(np.unique(model.predict(batch, deterministic=True)[0], axis=0)) > 1
        return
    for part in batch:
        mixed = {key: value if key == part else value[[0] * 8] for key, value in batch.items()}
        assert len(np.unique(model.predict(mixed, deterministic=True)[0], axis=0)) > 1, part


@pytest.mark.one_variant
@pytest.mark.parametrize("space", [CHANNELS_LAST, CHANNELS_FIRST], ids=["last", "first"])
def test_images_of_data_and_environment_agree(two_phase_algorithm: AlgorithmCase, space: spaces.Box) -> None:
    """Channels go first in both: the same transitions give the same batch, read as data or collected."""
    make_env = partial(AnySpaces, space, TORQUE)
    env = make_env()
    model = two_phase_algorithm.make(env, learning_starts=100, policy_kwargs=CNN).learn(9)
    collected = model.replay_buffer.draw(th.arange(9))
    images = collected.observations.numpy()
    rows = images.transpose(0, 2, 3, 1) if space is CHANNELS_LAST else images
    data = {
        "observations": rows,
        "next_observations": np.roll(rows, -1, axis=0),
        "actions": collected.actions.numpy(),
        "rewards": np.zeros(9),
        "terminations": np.zeros(9),
    }
    model.set_dataset(data)
    assert model.offline_buffer is not None
    read = model.offline_buffer.draw(th.arange(9))
    assert read.observations.dtype == collected.observations.dtype == th.uint8
    assert th.equal(read.observations, collected.observations)


def test_scaled_actions_of_data(offline_algorithm: AlgorithmCase) -> None:
    """Data is in the units of the environment; the policy learns in [-1, 1]."""
    make_env = partial(AnySpaces, VECTOR, ACTIONS["asymmetric"])
    data = collect(make_env, 50)
    model = offline_algorithm.make(make_env(), dataset=data)
    assert model.offline_buffer is not None
    np.testing.assert_allclose(model.offline_buffer.draw(th.arange(50)).actions.numpy(), data["actions"] / 256 - 1, atol=1e-6)
    assert data["actions"].max() > 300


def test_discrete_actions_are_refused(algorithm: AlgorithmCase) -> None:
    """With the error of Stable-Baselines3, which names both spaces."""
    with pytest.raises(AssertionError, match=r"Box.*Discrete"):
        algorithm.make("CartPole-v1")


def test_unbounded_actions_are_refused(algorithm: AlgorithmCase) -> None:
    """An infinite space cannot be scaled; the message says how to give it bounds."""
    with pytest.raises(ValueError, match=r"finite.*TransformAction.*Box\(-1, 1, \(2,\), numpy.float32\)"):
        algorithm.make(AnySpaces(VECTOR, spaces.Box(-np.inf, np.inf, (2,))))


def test_action_of_no_width_is_refused(algorithm: AlgorithmCase) -> None:
    """An action with a single possible value cannot be scaled either; the message names the space."""
    space = spaces.Box(np.array([-1, 0.5]), np.array([1, 0.5]), dtype=np.float32)
    with pytest.raises(ValueError, match="upper bounds of actions must be above"):
        algorithm.make(AnySpaces(VECTOR, space))


def test_unknown_policy_is_refused(algorithm: AlgorithmCase) -> None:
    """The error names an unknown policy."""
    with pytest.raises(ValueError, match="FlowPolizy"):
        algorithm.cls("FlowPolizy", pendulum())


def test_dictionary_needs_another_name_in_sb3(algorithm: AlgorithmCase) -> None:
    """``FlowPolicy`` and ``MultiInputPolicy`` take dictionaries; ``MlpPolicy`` is refused as in Stable-Baselines3."""
    env = AnySpaces(OBSERVATIONS["dictionary"], TORQUE)
    for policy in ("FlowPolicy", "MultiInputPolicy"):
        algorithm.cls(policy, env, policy_kwargs=CNN, device="cpu")
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        algorithm.cls("MlpPolicy", env, policy_kwargs=CNN, device="cpu")


@pytest.mark.one_variant
def test_replay_buffers_of_stable_baselines3_are_data(offline_algorithm: AlgorithmCase) -> None:
    """What another algorithm collected trains this one, vectors and dictionaries alike."""
    for observation_space, policy in ((VECTOR, "MlpPolicy"), (spaces.Dict({"a": VECTOR, "b": TORQUE}), "MultiInputPolicy")):
        env: gym.Env = AnySpaces(observation_space, ACTIONS["asymmetric"])
        arguments: dict[str, Any] = {"buffer_size": 100, "policy_kwargs": {"net_arch": [4]}, "device": "cpu"}
        other = SAC(policy, env, learning_starts=40, **arguments).learn(40)
        model = offline_algorithm.make(env, dataset=other.replay_buffer).learn(2)
        assert model.offline_buffer is not None and len(model.offline_buffer) == 40
        np.testing.assert_allclose(
            model.offline_buffer.draw(th.arange(40)).actions, other.replay_buffer.actions[:40, 0], atol=1e-6
        )


@pytest.mark.one_variant
@pytest.mark.parametrize(
    ("observation_space", "policy"),
    [
        (spaces.Discrete(5), "MlpPolicy"),
        (spaces.Dict({"joints": VECTOR, "mode": spaces.Discrete(3)}), "MultiInputPolicy"),
    ],
    ids=["alone", "dictionary"],
)
def test_replay_buffers_with_discrete_observations_are_data(
    offline_algorithm: AlgorithmCase, observation_space: spaces.Space, policy: str
) -> None:
    """So do buffers of discrete observations, alone or in a dictionary."""
    env = AnySpaces(observation_space, TORQUE)
    other = SAC(policy, env, buffer_size=50, learning_starts=50, policy_kwargs={"net_arch": [4]}, device="cpu").learn(20)
    offline_algorithm.make(env, dataset=other.replay_buffer).learn(3)
