"""
A complete custom algorithm in one file: advantage-weighted flow matching.

Each action of the dataset has the weight ``exp((Q(s, a) - Q(s, a')) / temperature)``, where ``a'`` is an action of the flow.
``CONTRIBUTING.md`` describes what each method has to do, and how to add an algorithm to the package.
"""

import argparse
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import torch as th
from own_data import record
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_flow.common.flow import euler, flow_matching_loss
from sb3_flow.common.flow_algorithm import total
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.policies import FlowPolicy, aliases
from sb3_flow.common.type_aliases import Batch, Metrics, TensorObs


class WeightedFlowPolicy(FlowPolicy):
    """A flow and critics with their targets."""

    def build(self, flow_steps: int = 10) -> None:
        self.flow_steps = flow_steps
        self.samplers = {"flow": "act_flow"}
        self.flow = self.make_velocity()
        self.critic = self.make_critic()
        self.critic_target = self.make_target(self.critic)

    def act_flow(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The flow, integrated from noise: ``(B, action_dim)`` in [-1, 1]."""
        return euler(self.velocity(self.flow, observations), noise, self.flow_steps).clamp(-1, 1)


class WeightedFlowNoise(NamedTuple):
    """All random numbers of one update: ``(B, action_dim)``; the time ``t`` is ``(B, 1)``."""

    next_noise: th.Tensor
    z: th.Tensor
    x0: th.Tensor
    t: th.Tensor


class WeightedFlow(OfflineToOnlineAlgorithm):
    """
    Advantage-weighted flow matching.

    :param temperature: Above 0. A lower temperature gives more weight to the best actions of the dataset.
    :param kwargs: Arguments of ``OfflineToOnlineAlgorithm``
    """

    policy_aliases: ClassVar[dict[str, Any]] = aliases(WeightedFlowPolicy)
    policy: WeightedFlowPolicy

    def __init__(self, policy: Any, env: Any, learning_rate: Any = 3e-4, *, temperature: float = 0.3, **kwargs: Any) -> None:
        self.temperature = temperature
        super().__init__(policy, env, learning_rate, **kwargs)

    def draw_noise(self, n: int) -> WeightedFlowNoise:
        return WeightedFlowNoise(self.normal(n), self.normal(n), self.normal(n), self.uniform(n))

    def loss(self, batch: Batch, noise: WeightedFlowNoise) -> tuple[th.Tensor, Metrics]:
        return total(self.critic_loss(batch, noise), self.flow_loss(batch, noise))

    def critic_loss(self, batch: Batch, noise: WeightedFlowNoise) -> tuple[th.Tensor, Metrics]:
        """``E[(Q(s, a) - r - gamma m Q'(s', a'))^2]``, with ``a'`` from the flow."""
        policy = self.policy
        with th.no_grad():
            next_actions = policy.act_flow(batch.next_observations, noise.next_noise)
            next_q = policy.q_values(policy.critic_target, batch.next_observations, next_actions).mean(dim=0)
            target = batch.rewards + batch.discounts * batch.masks * next_q
        qs = policy.q_values(policy.critic, batch.observations, batch.actions)
        loss = (batch.valids * (qs - target).square()).mean()
        return loss, {"critic_loss": loss, "q_mean": qs.mean()}

    def flow_loss(self, batch: Batch, noise: WeightedFlowNoise) -> tuple[th.Tensor, Metrics]:
        """``E[w |v(s, x_t, t) - (a - x_0)|^2]``."""
        policy, observations = self.policy, batch.observations
        with th.no_grad():
            of_data = policy.q_values(policy.critic, observations, batch.actions).mean(dim=0)
            of_flow = policy.q_values(policy.critic, observations, policy.act_flow(observations, noise.z)).mean(dim=0)
            advantages = (of_data - of_flow) / of_data.abs().mean()
            weights = (advantages / self.temperature).clamp(max=5).exp()
        errors = flow_matching_loss(policy.velocity(policy.flow, observations), noise.x0, batch.actions, noise.t)
        loss = (batch.valids * weights * errors).mean()
        return loss, {"flow_loss": loss, "weight": weights.mean()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--updates", type=int, default=5_000)
    arguments = parser.parse_args()

    options: dict[str, Any] = {"learning_rate": 1e-3, "tau": 0.02, "policy_kwargs": {"net_arch": [64, 64]}, "seed": 0}
    data, env = record(arguments.episodes), Monitor(gym.make("Pendulum-v1"))
    for name, temperature in {"weighted": 0.05, "behavior cloning": 1e6}.items():
        model = WeightedFlow("FlowPolicy", "Pendulum-v1", dataset=data, temperature=temperature, **options)
        model.learn(arguments.updates, progress_bar=True)
        mean, std = evaluate_policy(model, env, n_eval_episodes=10)
        print(f"{name:<20} return {mean:.0f} +- {std:.0f}")


if __name__ == "__main__":
    main()
