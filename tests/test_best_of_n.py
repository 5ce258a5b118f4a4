"""Acting with the best of several samples."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_flow import FQL

N = 8


def make_model(**policy_kwargs: object) -> FQL:
    return FQL("FlowPolicy", gym.make("Pendulum-v1"), policy_kwargs={"net_arch": [16], **policy_kwargs}, seed=0)


def test_the_critics_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the actions that the noises lead to, each observation gets the one of highest score."""
    policy = make_model(best_of_n=N).policy
    monkeypatch.setattr(policy, "score", lambda observations, actions: -(actions[:, 0] - observations[:, 0]).abs())
    observations, noise = th.linspace(-1, 1, 5)[:, None] * th.ones(3), th.randn(5, N, 1)
    chosen = policy.act_best(observations, noise)
    for observation, candidates, action in zip(observations, noise, chosen, strict=True):
        actions = policy.act(observation.expand(N, -1), candidates)
        nearest = actions[(actions[:, 0] - observation[0]).abs().argmin()]
        th.testing.assert_close(action, nearest)


def test_the_score_is_the_mean_of_the_critics() -> None:
    policy = make_model().policy
    observations, actions = th.randn(4, 3), th.rand(4, 1)
    qs = policy.q_values(policy.critic, observations, actions)
    th.testing.assert_close(policy.score(observations, actions), (qs[0] + qs[1]) / 2)


def test_deterministic_is_the_same_for_the_same_observation() -> None:
    """Alone, in a batch, and whatever was drawn before."""
    model = make_model(best_of_n=N)
    observations = np.random.default_rng(0).uniform(-1, 1, size=(3, 3)).astype(np.float32)
    batch, _ = model.predict(observations, deterministic=True)
    model.predict(observations)
    for observation, action in zip(observations, batch, strict=True):
        np.testing.assert_allclose(model.predict(observation, deterministic=True)[0], action, rtol=1e-5)


def test_another_sampler_is_plain_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The BC policy is not combined with a choice by the critics: that would change its distribution."""
    policy = make_model(best_of_n=N).policy
    bc_policy = policy.with_sampler("bc_flow")
    monkeypatch.setattr(bc_policy, "score", lambda *_: pytest.fail("the critics were asked"))
    bc_policy.predict(np.zeros(3, np.float32))
    assert policy.best_of_n == N
    assert policy.with_sampler("bc_flow", best_of_n=4).best_of_n == 4


def test_it_is_saved(tmp_path: object) -> None:
    model = make_model(best_of_n=N)
    model.save(f"{tmp_path}/model")
    assert FQL.load(f"{tmp_path}/model").policy.best_of_n == N
    model.policy.save(f"{tmp_path}/policy")
    assert type(model.policy).load(f"{tmp_path}/policy").best_of_n == N


def test_none_is_refused() -> None:
    with pytest.raises(ValueError, match="`best_of_n` is 0"):
        make_model(best_of_n=0)


@pytest.mark.parametrize("number", ["4", 4.0])
def test_a_number_in_another_form_is_converted(number: object) -> None:
    """As in constructors: from a command line, or from YAML."""
    policy = make_model().policy.with_sampler("bc_flow", number)  # type: ignore[arg-type]
    assert policy.predict(np.zeros((2, 3), np.float32))[0].shape == (2, 1)
