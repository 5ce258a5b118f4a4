"""Target networks follow all state of their networks, and are never in training mode."""

from typing import Any

import pytest
import torch as th
from conformance.case import AlgorithmCase
from conformance.environments import collect, pendulum
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn


class Normalizing(BaseFeaturesExtractor):
    """Batch norm and dropout, as a pretrained extractor may have. It counts its calls in either mode."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, features_dim=3)
        self.norm, self.dropout = nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.calls = {True: 0, False: 0}

    def forward(self, observations: th.Tensor) -> th.Tensor:
        self.calls[self.training] += 1
        return self.dropout(self.norm(observations))


@pytest.fixture
def model(algorithm: AlgorithmCase) -> Any:
    kwargs = {**algorithm.policy_kwargs, "features_extractor_class": Normalizing}
    return algorithm.make(pendulum(), dataset=collect(pendulum) if algorithm.offline else None, policy_kwargs=kwargs)


def test_buffers_are_followed_and_targets_stay_in_evaluation_mode(model: Any, algorithm: AlgorithmCase) -> None:
    """After enough updates for every stage, the statistics of batch norm are those of the network that is followed."""
    model.learn(algorithm.stages + 20)
    policy = model.policy
    assert len(policy.targets) == len(model.targets) > 0
    for target, leader in model.targets.items():
        own, theirs = getattr(policy, target), getattr(policy, leader)
        assert any(own is other for other in policy.targets)
        assert not any(module.training for module in own.modules()), target
        assert own.features_extractor.calls[True] == 0, target
        before = own.features_extractor.norm.running_mean.clone()
        assert not th.equal(before, th.zeros(3)), f"{target} has never followed"
    for target, leader in model.targets.items():
        model.update_targets(target)
        own, theirs = getattr(policy, target).features_extractor, getattr(policy, leader).features_extractor
        assert theirs.norm.num_batches_tracked > 0, leader
        th.testing.assert_close(own.norm.running_mean, theirs.norm.running_mean, rtol=0, atol=0)


def test_predict_leaves_targets_in_evaluation_mode(model: Any) -> None:
    model.policy.set_training_mode(True)
    assert model.policy.training
    model.predict(model.observation_space.sample())
    model.policy.set_training_mode(True)
    assert not any(module.training for target in model.policy.targets for module in target.modules())
