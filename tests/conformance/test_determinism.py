"""The same seed gives the same model; evaluations and other calls change nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.callbacks import EvalCallback

from conformance.case import AlgorithmCase, parameters, same_parameters
from conformance.environments import pendulum, pendulums

pytestmark = pytest.mark.one_variant


def _offline(case: AlgorithmCase, callback: EvalCallback | None = None, **kwargs: Any) -> dict[str, th.Tensor]:
    """The parameters after every loss has been descended."""
    return parameters(case.fresh(dataset=case.data(), **kwargs).learn(case.stages + 4, callback=callback))


@pytest.mark.slow
@pytest.mark.parametrize("n_envs", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_same_seed_online(online_algorithm: AlgorithmCase, n_envs: int) -> None:
    """Two runs from one seed agree bit for bit, the environment, warm-up and exploration included."""

    def learned(seed: int) -> dict[str, th.Tensor]:
        model = online_algorithm.make(pendulums(n_envs, episode_length=3), seed=seed, learning_starts=4)
        return parameters(model.learn(4 + n_envs * (online_algorithm.stages + 3)))

    first = learned(3)
    assert same_parameters(first, learned(3))
    assert not same_parameters(first, learned(4))


def test_same_seed_offline(offline_case: AlgorithmCase) -> None:
    """Offline too; another seed differs."""
    first = _offline(offline_case, seed=3)
    assert same_parameters(first, _offline(offline_case, seed=3))
    assert not same_parameters(first, _offline(offline_case, seed=4))


def test_seed_draws_the_networks_and_the_batches(offline_case: AlgorithmCase) -> None:
    """The seed determines both the initial parameters and the batches."""
    data = offline_case.data()
    first, second = (offline_case.fresh(dataset=data, seed=seed) for seed in (3, 4))
    assert not same_parameters(parameters(first), parameters(second))
    assert not (first.sample_batch(16).actions == second.sample_batch(16).actions).all()


def test_no_seed(offline_case: AlgorithmCase) -> None:
    """Without a seed two runs differ."""
    assert not same_parameters(_offline(offline_case, seed=None), _offline(offline_case, seed=None))


@pytest.mark.slow
def test_evaluations_do_not_change_offline_training(offline_case: AlgorithmCase) -> None:
    """Evaluating every second update, or never, gives the same parameters, whether or not evaluations sample."""
    without = _offline(offline_case)
    for deterministic in (True, False):
        callback = EvalCallback(
            offline_case.environment(), eval_freq=2, n_eval_episodes=1, deterministic=deterministic, warn=False
        )
        assert same_parameters(without, _offline(offline_case, callback=callback)), deterministic
        assert len(callback._is_success_buffer) == (0 if offline_case.environment is pendulum else 1), "pendulums have none"
        assert callback.n_calls == offline_case.stages + 4


def test_predicting_does_not_change_offline_training(offline_case: AlgorithmCase) -> None:
    """Calls of ``predict`` between two calls of ``learn`` do not change training."""
    results = []
    observation = offline_case.environment().reset(seed=0)[0]
    for predictions in (0, 7):
        model = offline_case.trained(2)
        for _ in range(predictions):
            model.predict(observation)
        results.append(parameters(model.learn(offline_case.stages + 1, reset_num_timesteps=False)))
    assert same_parameters(*results)


@pytest.mark.slow
def test_seeds_after_loading(offline_case: AlgorithmCase, tmp_path: Path) -> None:
    """Each seed is a run of its own, by ``load(seed=...)`` or ``set_random_seed``, and can be repeated."""
    offline_case.fresh(dataset=offline_case.data()).learn(3).save(tmp_path / "model")

    def tuned(by_load: bool, seed: int) -> dict[str, th.Tensor]:
        options: dict[str, Any] = {"seed": seed} if by_load else {}
        model = offline_case.load(tmp_path / "model", env=offline_case.environment(), dataset=offline_case.data(), **options)
        if not by_load:
            model.set_random_seed(seed)
        return parameters(model.learn(5))

    for by_load in (True, False):
        first = tuned(by_load, 1)
        assert same_parameters(first, tuned(by_load, 1))
        assert not same_parameters(first, tuned(by_load, 2))
