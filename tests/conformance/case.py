"""One algorithm as the conformance tests see it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv

from conformance.environments import pendulum, stack, transitions
from sb3_flow.common.flow_algorithm import FlowAlgorithm

#: What makes any algorithm small enough for a test.
SMALL: dict[str, Any] = {
    "batch_size": 16,
    "policy_kwargs": {"net_arch": [16, 16]},
    "device": "cpu",
    "seed": 0,
}
#: What makes those that train on environments small, too.
SMALL_ONLINE: dict[str, Any] = {"buffer_size": 1_000, "learning_starts": 10}


@dataclass(frozen=True)
class AlgorithmCase:
    """
    An algorithm, and how it is made small.

    :param cls: The algorithm
    :param variant: Which of its variants, where it has several
    :param small: Constructor arguments that make it small, beside ``SMALL``
    :param offline: Whether it trains on datasets
    :param online: Whether it trains on environments
    :param stages: Number of updates until every loss has been descended once
    :param samples: Whether it acts at random where it is not told to be deterministic
    :param environment: Makes the environment that it is for; tests over ``case`` take this one.
    :param data: Makes a dataset of that environment
    :param starts: In how many starts of episodes ``act`` acts
    """

    cls: type[FlowAlgorithm]
    variant: str = ""
    small: dict[str, Any] = field(default_factory=dict)
    offline: bool = True
    online: bool = True
    stages: int = 1
    samples: bool = True
    environment: Callable[[], gym.Env] = pendulum
    data: Callable[[], dict[str, Any]] = transitions
    starts: int = 50

    @property
    def name(self) -> str:
        return f"{self.cls.__name__}-{self.variant}" if self.variant else self.cls.__name__

    @property
    def policy_kwargs(self) -> dict[str, Any]:
        """Those that it is made small with."""
        return dict({**SMALL, **self.small}["policy_kwargs"])

    def make(self, env: Any, **kwargs: Any) -> FlowAlgorithm:
        """A small model on an environment; ``kwargs`` replace the arguments that make it small."""
        online = SMALL_ONLINE if self.online else {}
        return self.cls("FlowPolicy", env, **{**SMALL, **online, **self.small, **kwargs})

    def environments(self, n_envs: int) -> DummyVecEnv:
        """Several of its environments."""
        return DummyVecEnv([self.environment] * n_envs)

    def fresh(self, **kwargs: Any) -> FlowAlgorithm:
        """A small model on its environment."""
        return self.make(self.environment(), **kwargs)

    def trained(self, updates: int) -> FlowAlgorithm:
        """A small model that has learned, from data where it can."""
        return self.fresh(dataset=self.data() if self.offline else None).learn(updates)

    def act(self, model: Any) -> np.ndarray:
        """What a model, or a policy, does where episodes begin."""
        env = self.environment()
        rows = [env.reset(seed=seed)[0] for seed in range(self.starts)]
        return model.predict(stack(rows), deterministic=True)[0]

    def load(self, path: Any, **kwargs: Any) -> FlowAlgorithm:
        """Load a model onto the CPU."""
        return self.cls.load(path, device="cpu", **kwargs)


def parameters(model: FlowAlgorithm) -> dict[str, th.Tensor]:
    """A copy of all parameters and buffers of the policy."""
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def same_parameters(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> bool:
    """Whether two copies are equal bit for bit."""
    return first.keys() == second.keys() and all(th.equal(first[name], second[name]) for name in first)
