"""``predict`` as every caller of Stable-Baselines3 uses it, and evaluation."""

from functools import partial
from itertools import product

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from conformance.case import AlgorithmCase
from conformance.environments import AnySpaces, collect, maze, pendulum

BATCH = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)


def test_single_observation_and_batch(algorithm: AlgorithmCase) -> None:
    """One observation gives one action, a batch gives a batch, and rows of a batch do not see each other."""
    model = algorithm.make(pendulum())
    actions, _ = model.predict(BATCH, deterministic=True)
    assert actions.shape == (5, 1) and actions.dtype == np.float32
    for observation, action in zip(BATCH, actions, strict=True):
        single, _ = model.predict(observation, deterministic=True)
        assert single.shape == (1,)
        np.testing.assert_allclose(single, action, atol=1e-5)


def test_signature(algorithm: AlgorithmCase) -> None:
    """``state`` and ``episode_start`` work as in the evaluation loops of Stable-Baselines3."""
    model = algorithm.make(pendulum())
    state, starts = None, np.ones(5, dtype=bool)
    for _ in range(3):
        actions, state = model.predict(BATCH, state, starts, True)
        assert actions.shape == (5, 1)
        starts = np.zeros(5, dtype=bool)


def test_deterministic(algorithm: AlgorithmCase) -> None:
    """``deterministic=True`` gives the same action each time; without it those of one observation vary, if there is noise."""
    model = algorithm.make(pendulum())
    first, second = (model.predict(BATCH, deterministic=True)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    one = np.repeat(BATCH[:1], 50, axis=0)
    assert len(np.unique(model.predict(one, deterministic=True)[0])) == 1
    samples = model.predict(one)[0]
    if not algorithm.samples:
        assert len(np.unique(samples)) == 1
        return
    inside = samples[np.abs(samples) < 2]  # a flow that knows nothing passes its noise on, and a third of that is clipped
    assert len(inside) > 20 and len(np.unique(inside)) == len(inside)


def test_every_sampler(algorithm: AlgorithmCase) -> None:
    """``evaluate_policy`` takes each sampler as a policy; the model's own policy does not change."""
    model = algorithm.make(pendulum(), dataset=collect(pendulum) if algorithm.offline else None)
    model.learn(algorithm.stages + 2)
    before, _ = model.predict(BATCH, deterministic=True)
    for i, sampler in enumerate(model.policy.samplers):
        policy = model.policy.with_sampler(sampler)
        actions, _ = policy.predict(BATCH, deterministic=True)
        assert np.array_equal(actions, before) == (i == 0), "the first sampler is the default one"
        mean, _ = evaluate_policy(policy, DummyVecEnv([pendulum]), n_eval_episodes=2, warn=False)
        assert -16.3 * 10 <= mean <= 0, "the range of ten rewards of Pendulum"
        np.testing.assert_array_equal(model.predict(BATCH, deterministic=True)[0], before)


def test_a_sampler_that_does_not_exist(algorithm: AlgorithmCase) -> None:
    """The error lists the existing samplers."""
    model = algorithm.make(pendulum())
    with pytest.raises(ValueError, match=f"'nose'.*{next(iter(model.policy.samplers))}"):
        model.policy.with_sampler("nose")


def test_a_sampler_sees_later_training(two_phase_algorithm: AlgorithmCase) -> None:
    """It shares its networks with the model, so one made before training acts as one made after."""
    model = two_phase_algorithm.make(pendulum(), dataset=collect(pendulum))
    early = [model.policy.with_sampler(sampler) for sampler in model.policy.samplers]
    before = early[0].predict(BATCH, deterministic=True)[0]
    model.learn(two_phase_algorithm.stages + 2)
    for policy in early:
        np.testing.assert_array_equal(
            policy.predict(BATCH, deterministic=True)[0],
            model.policy.with_sampler(policy.sampler).predict(BATCH, deterministic=True)[0],
        )
    assert not np.array_equal(early[0].predict(BATCH, deterministic=True)[0], before)


@pytest.mark.one_variant
def test_evaluate_policy(algorithm: AlgorithmCase) -> None:
    """Over several environments, with episode lengths as they are."""
    env = DummyVecEnv([partial(maze, 4)] * 3)
    model = algorithm.make(maze())
    for deterministic in (True, False):
        rewards, lengths = evaluate_policy(
            model, env, n_eval_episodes=6, deterministic=deterministic, return_episode_rewards=True, warn=False
        )
        assert (lengths, rewards) == ([4] * 6, [-4.0] * 6), "no success within four steps"


def test_actions_lie_inside_the_space(algorithm: AlgorithmCase) -> None:
    """Also at the bounds, where rounding must not leave the space."""
    observations = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) * 100
    for bounds, dtype in product([(0.0, 512.0), (-0.7, 0.4), (-1.0, -0.2), (-2.2, 0.6)], [np.float32, np.float64]):
        space = spaces.Box(*bounds, (4,), dtype=dtype)
        model = algorithm.make(AnySpaces(spaces.Box(-np.inf, np.inf, (3,)), space))
        actions, _ = model.predict(observations)
        assert np.all(actions >= space.low) and np.all(actions <= space.high), space
        assert np.any(actions == space.low) and np.any(actions == space.high), f"far observations saturate in {space}"
        scaled = model.policy.scale_action(actions)
        assert scaled.min() == -1 and scaled.max() == 1, f"nor does the way back leave [-1, 1] in {space}"
