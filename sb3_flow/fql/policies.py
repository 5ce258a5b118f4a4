"""The networks of FQL, and its samplers."""

from typing import ClassVar

import torch as th

from sb3_flow.common.flow import euler
from sb3_flow.common.policies import FlowPolicy
from sb3_flow.common.type_aliases import TensorObs


class FQLPolicy(FlowPolicy):
    """
    A behavior-cloned flow, a one-step actor distilled from it, and critics with their targets.

    Samplers: ``"one_step"`` (the default) and ``"bc_flow"`` (behavior cloning, without reward).

    :param flow_steps: Euler steps of the flow
    :param encode_time_dim: Size of the embedding of the flow's time; 0: the time itself
    """

    guided_samplers: ClassVar[tuple[str, ...]] = ("bc_flow",)

    def build(self, flow_steps: int = 10, encode_time_dim: int = 0) -> None:
        if flow_steps < 1:
            raise ValueError(f"`flow_steps` is {flow_steps}; it must be at least 1.")
        self.flow_steps = flow_steps
        self.samplers = {"one_step": "act_one_step", "bc_flow": "act_bc_flow"}
        self.bc_flow = self.make_velocity(encode_time_dim)
        self.actor = self.make_one_step_actor()
        self.critic = self.make_critic()
        self.critic_target = self.make_target(self.critic)

    def act_one_step(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """``clip(mu_w(s, z))`` in one forward pass: ``(B, action_dim)`` in [-1, 1]."""
        return self.one_step(self.actor, observations, noise).clamp(-1, 1)

    def act_bc_flow(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """``mu_theta(s, z)``: the flow, integrated from ``z`` by Euler's method and clipped to [-1, 1]."""
        return euler(self.velocity(self.bc_flow, observations), noise, self.flow_steps).clamp(-1, 1)
