"""The same seed gives the same model; watching it changes nothing."""

from typing import Any

import pytest
import torch as th
from stable_baselines3.common.callbacks import EvalCallback

from conformance.case import AlgorithmCase, parameters, same_parameters
from conformance.environments import collect, pendulum, pendulums


def _offline(case: AlgorithmCase, callback: EvalCallback | None = None, **kwargs: Any) -> dict[str, th.Tensor]:
    model = case.make(pendulum(), dataset=collect(pendulum), **kwargs).learn(20, callback=callback)
    return parameters(model)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_same_seed_online(online_algorithm: AlgorithmCase, n_envs: int) -> None:
    """Two runs from one seed agree bit for bit, the environment, warm-up and exploration included."""
    first, second = (parameters(online_algorithm.make(pendulums(n_envs), seed=3).learn(40)) for _ in range(2))
    assert same_parameters(first, second)
    assert not same_parameters(first, parameters(online_algorithm.make(pendulums(n_envs), seed=4).learn(40)))


def test_same_seed_offline(offline_algorithm: AlgorithmCase) -> None:
    """Offline too; another seed differs."""
    assert same_parameters(_offline(offline_algorithm, seed=3), _offline(offline_algorithm, seed=3))
    assert not same_parameters(_offline(offline_algorithm, seed=3), _offline(offline_algorithm, seed=4))


def test_seed_draws_the_networks_and_the_batches(offline_algorithm: AlgorithmCase) -> None:
    """The seed decides on the initial parameters and on what is drawn; neither alone."""
    data = collect(pendulum)
    first, second = (offline_algorithm.make(pendulum(), dataset=data, seed=seed) for seed in (3, 4))
    assert not same_parameters(parameters(first), parameters(second))
    assert not (first.sample_batch(16).actions == second.sample_batch(16).actions).all()


def test_no_seed(offline_algorithm: AlgorithmCase) -> None:
    """Without a seed two runs differ."""
    assert not same_parameters(_offline(offline_algorithm, seed=None), _offline(offline_algorithm, seed=None))


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluations_do_not_change_offline_training(offline_algorithm: AlgorithmCase, deterministic: bool) -> None:
    """Evaluating every fifth update, or never, gives the same parameters."""
    callback = EvalCallback(pendulum(), eval_freq=5, n_eval_episodes=2, deterministic=deterministic, warn=False)
    assert same_parameters(_offline(offline_algorithm), _offline(offline_algorithm, callback=callback))
    assert len(callback._is_success_buffer) == 0 and callback.n_calls == 20


def test_predicting_does_not_change_offline_training(offline_algorithm: AlgorithmCase) -> None:
    """Nor does acting between two calls of ``learn``."""
    results = []
    for predictions in (0, 7):
        model = offline_algorithm.make(pendulum(), dataset=collect(pendulum)).learn(10)
        for _ in range(predictions):
            model.predict(pendulum().reset(seed=0)[0])
        results.append(parameters(model.learn(10, reset_num_timesteps=False)))
    assert same_parameters(*results)
